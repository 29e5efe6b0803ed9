"""What `snakemake --config` may set: a misspelt key is refused, and a mistake is one line."""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path

from artifact.config import ConfigError

_READ = re.compile(r"""config(?:\.get\(|\[)["'](\w+)["']""")


def known_keys(root: Path) -> list[str]:
    """The keys that the Snakefile in `root`, or one of its rules, reads."""
    files = [root / "Snakefile", *sorted((root / "workflows" / "rules").glob("*.smk"))]
    return sorted({key for file in files for key in _READ.findall(file.read_text())})


def refuse_unknown(given: Collection[str], root: Path) -> None:
    """ConfigError for the first key that nothing reads."""
    known = known_keys(root)
    for key in given:
        if key not in known:
            close = get_close_matches(key, known, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise ConfigError(f"--config {key} is not known; {hint}use one of {', '.join(known)}")


@contextmanager
def one_line() -> Iterator[None]:
    """Ends Snakemake with one line and status 2, not with a stack of files, when a value makes no sense."""
    try:
        yield
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
