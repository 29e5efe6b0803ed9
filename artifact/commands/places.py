"""Where commands write: a place that cannot be written is told before a long run starts, and in one line."""

from __future__ import annotations

import argparse
import errno
import os
import tempfile
from pathlib import Path

from artifact.config import ConfigError
from artifact.results.failures import OUTPUTS

#: Options that name what a command writes, in any command; those that are no paths there (`--json`) are passed over.
PLACES = (*OUTPUTS, "json", "results_page", "page", "html", "decision_log", "folder", "cache", "leaderboard")
FOLDERS = {"folder", "cache"}
#: Commands whose --out is a folder.
INTO_FOLDER = {"simulate", "load", "fit", "plan", "score"}


def check_places(options: argparse.Namespace) -> None:
    """ConfigError for the first place that a command could not write to when it is done. Nothing is made for it."""
    for name in PLACES:
        place = getattr(options, name, None)
        if isinstance(place, Path):
            folder = name in FOLDERS or (name == "out" and options.command in INTO_FOLDER)
            try:
                _try_folder(place) if folder else _try_file(place, replaced=name != "decision_log")
            except OSError as error:
                flag = f"--{name.replace('_', '-')}"
                raise ConfigError(f"{flag} {place}: {error.strerror}; name a place that can be written") from None


def _try_file(path: Path, replaced: bool) -> None:
    """replaced: a file that is there is not written to, but another takes its name: so it must be an ordinary one."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a folder, not a file")
    if replaced and path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "is not an ordinary file")
    if replaced or not path.exists():
        _try_folder(path.parent)
    elif not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _try_folder(path: Path) -> None:
    """Make a file in it, or where its first missing folder would stand, and remove it: root may write everywhere, as
    permissions have it, and yet not in /proc."""
    path = path.absolute()
    while not os.path.lexists(path):
        path = path.parent
    if not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, f"{path} is not a folder")
    with tempfile.TemporaryFile(dir=path):
        pass


def told(error: OSError) -> str:
    """What the operating system refused, to whom, and what to do."""
    what = "no space left on the disk" if error.errno == errno.ENOSPC else error.strerror or str(error)
    if error.filename is None:
        return what
    name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else error.filename
    advice = "make room" if error.errno == errno.ENOSPC else "name a place that can be read, or written"
    return f"{name}: {what}; {advice}"
