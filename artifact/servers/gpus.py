"""Which GPUs this machine lends to servers."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping

LISTED = re.compile(r"GPU (?P<index>\d+): (?P<name>.+?)(?: \(UUID: (?P<uuid>[^)]+)\))?\s*$")


def gpu_names(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Names of the GPUs that `nvidia-smi -L` lists and CUDA_VISIBLE_DEVICES, where it is set, allows."""
    found = [LISTED.match(line) for line in _listing().splitlines()]
    listed = [match for match in found if match is not None]
    allowed = environment.get("CUDA_VISIBLE_DEVICES")
    if allowed:
        chosen = allowed.split(",")
        listed = [m for m in listed if any(c == m["index"] or (m["uuid"] or "").startswith(c) for c in chosen)]
    return tuple(match["name"] for match in listed)


def _listing() -> str:
    """What `nvidia-smi -L` says; nothing where it is not there or fails."""
    if shutil.which("nvidia-smi") is None:
        return ""
    done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else ""
