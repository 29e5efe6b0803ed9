"""Runs one command so that it never outlives its starter: `python guard.py COMMAND ...`, by path, to start at once.

The starter makes the guard the leader of a new session and holds the other end of its standard input. When that closes
(the starter closed it, or is gone, killed even) or the command ends by itself, everything in the process group is asked
to stop (SIGTERM), and what is left after GRACE_S is killed. The guard's exit status is the command's.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time

GRACE_S = 8.0
POLL_S = 0.1


def main(command: list[str]) -> int:
    """Run `command` until it ends or standard input does; its exit status, as a shell would tell it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_default_signals)
    while child.poll() is None and not _input_closed():
        pass
    os.killpg(0, signal.SIGTERM)
    deadline_s = time.monotonic() + GRACE_S
    while time.monotonic() < deadline_s and (child.poll() is None or _others_in_group()):
        time.sleep(POLL_S)
    status = child.poll()
    if status is None or _others_in_group():
        os.killpg(0, signal.SIGKILL)  # the guard too: nothing is left to wait for
    return status if status >= 0 else 128 - status


def _default_signals() -> None:
    """Ignored signals stay ignored across exec: the command must get them."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _input_closed() -> bool:
    """Whether standard input has ended; waits a moment for it."""
    ready, _, _ = select.select([0], [], [], POLL_S)
    return bool(ready) and os.read(0, 4096) == b""


def _others_in_group() -> bool:
    """Whether a live process other than the guard is in its group; False where /proc cannot tell (then only the
    command itself is waited for)."""
    own, group = os.getpid(), os.getpgid(0)
    if not os.path.isdir("/proc/self"):
        return False
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != own:
            try:
                with open(f"/proc/{name}/stat") as file:
                    state, _, process_group = file.read().rpartition(")")[2].split()[:3]
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended between the listing and the look
            if int(process_group) == group and state not in "ZX":
                return True
    return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
