"""A command imports what it needs: no compiler where compiled code is kept, no pyarrow where no table is written."""

import subprocess
import sys

from tests.helpers.compile_kernel import POINT

REPORT = "import sys\nfrom artifact.__main__ import main\nmain(sys.argv[1:])\nprint('modules', *sys.modules)"


def modules_after(arguments):
    """All modules that a fresh interpreter holds after the command."""
    done = subprocess.run([sys.executable, "-c", REPORT, *arguments], check=True, capture_output=True, text=True)
    return set(done.stdout.splitlines()[-1].split())


def test_a_simulation_imports_no_compiler_and_nothing_of_tables():
    modules_after(POINT)  # keeps what it compiles
    loaded = modules_after(POINT)
    assert "niyama.plan" in loaded
    # numba imports its linalg, and with it scipy's, when it begins to compile
    assert not loaded & {"numba.np.linalg", "scipy.linalg", "pyarrow", "pandas", "matplotlib", "jinja2", "scipy.stats"}
