"""Compile the kernel into its cache before tests run side by side: it takes no lock, each would compile for itself."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from llvmlite.binding import get_host_cpu_name

ROOT = Path(__file__).parents[2]
#: numba keeps code by Python and CPU, too.
MARK = f"compiled-for-tests-{sys.implementation.cache_tag}-{get_host_cpu_name()}"
POINT = ["simulate", "--trace", "azure-code-2023-synth", "--system", "niyama", "--load", "1", "--requests", "10"]


def compile_all() -> None:
    """Both parts in a process each. Returns at once where this version of the sources was compiled before.

    What fails is left to the tests to show.
    """
    from numba.core.config import DISABLE_JIT

    from niyama.jit.cache import cache_folder

    folder = cache_folder()
    if DISABLE_JIT or folder is None or (folder / MARK).exists():
        return
    command = [sys.executable, "-m", "tests.helpers.compile_kernel"]
    parts = [subprocess.Popen([*command, part], cwd=ROOT, stdout=subprocess.DEVNULL) for part in PARTS]
    if not any([part.wait() for part in parts]):
        (folder / MARK).touch()


def _simulators() -> None:
    from artifact.__main__ import main

    sys.exit(main(POINT) or main([*POINT, "--overlapped"]))


def _steps() -> None:
    """An engine's step, and what the laws call one by one: plan and commit."""
    from artifact.__main__ import main
    from tests.helpers.fixed_cases import case
    from tests.helpers.stepping import plans

    with tempfile.TemporaryDirectory() as folder:
        status = main([*POINT, "--decision-log", str(Path(folder) / "log.jsonl")])
    for _ in plans(case(0), case(0).policy("niyama")):
        pass
    sys.exit(status)


PARTS = {"simulators": _simulators, "steps": _steps}

if __name__ == "__main__":
    PARTS[sys.argv[1]]()
