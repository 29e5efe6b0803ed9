"""A `make` that a test runs: as a person types it, whatever `make test ENGINE=...` the test itself runs under."""

from __future__ import annotations

import os


def own_environment() -> dict[str, str]:
    """The environment without what make hands down: its flags, its level and the variables of its command line."""
    return {
        name: value for name, value in os.environ.items() if name not in ("ENGINE", "MFLAGS") and "MAKE" not in name
    }
