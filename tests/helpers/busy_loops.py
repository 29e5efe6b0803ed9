"""Run a command beside busy loops and end with its status: `python -m tests.helpers.busy_loops LOOPS COMMAND ...`."""

from __future__ import annotations

import subprocess
import sys

BUSY_LOOP = [sys.executable, "-c", "import os\nparent = os.getppid()\nwhile os.getppid() == parent: pass"]


def main(loops: int, command: list[str]) -> int:
    """The loops end with the command, and also when this process is killed."""
    busy = [subprocess.Popen(BUSY_LOOP) for _ in range(loops)]
    try:
        return subprocess.run(command, check=False).returncode
    finally:
        for loop in busy:
            loop.kill()


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
