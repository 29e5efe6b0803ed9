"""`explore`: serve the page with Voila."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from artifact.commands.progress import announce
from artifact.commands.table import Verb
from artifact.config import ConfigError

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "explore.ipynb"
PORT = 8866


def add_commands(verb: Verb) -> None:
    """Add `explore` to the command line."""
    own = verb("explore", explore)
    own.add_argument("--port", type=int, default=PORT, help=f"of the page (default {PORT})")
    own.add_argument("--no-browser", action="store_true", help="open none; the address is printed")


def explore(options: argparse.Namespace) -> None:
    """Serve the page until interrupted, to this machine alone."""
    from importlib.util import find_spec

    if find_spec("voila") is None:
        raise ConfigError("the page needs Voila, which is not installed; run `pip install 'niyama[harness]'`")
    if not NOTEBOOK.is_file():
        raise ConfigError(f"{NOTEBOOK} is not there; run this from a checkout of the repository")
    announce(f"http://localhost:{options.port} (Ctrl-C stops it); the first answer takes some seconds")
    command = [sys.executable, "-m", "voila", str(NOTEBOOK), f"--port={options.port}", "--Voila.ip=127.0.0.1"]
    command += ["--no-browser"] if options.no_browser else []
    os.execve(sys.executable, command, {**os.environ, "NIYAMA_EXPLORE_FROM": os.getcwd()})  # signals reach Voila itself
