"""`import niyama` stays light: a server that only schedules needs numpy and numba, and of numba not the compiler."""

import subprocess
import sys

REPORT = "import sys\n{}\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"


def modules_after(statement):
    """Top-level modules that a fresh interpreter holds after the statement."""
    done = subprocess.run([sys.executable, "-c", REPORT.format(statement)], check=True, capture_output=True, text=True)
    return set(done.stdout.split())


def test_importing_niyama_brings_numpy_numba_and_nothing_else():
    """The simulator and the latency models included."""
    numba_alone = "import numba, dataclasses, hashlib, json, difflib"
    own = modules_after("import niyama, niyama.sim") - modules_after(numba_alone)
    assert own - set(sys.stdlib_module_names) == {"niyama"}
    assert not own & {"random", "time", "datetime", "secrets"}


def test_importing_niyama_compiles_nothing():
    """numba imports this when it begins to compile, or is to load what it compiled; half a second with scipy's part."""
    report = "import niyama, sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", report], check=True, capture_output=True, text=True)
    assert "numba.np.linalg" not in done.stdout.split()
