"""What `snakemake --config` may set, a mistake being one line, and what every rule finds in its environment."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Collection, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from artifact.config import ConfigError
from niyama.names import did_you_mean

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
            hint = did_you_mean(key, known, "? ")
            raise ConfigError(f"--config {key} is not known; {hint}use one of {', '.join(known)}")


def as_text(config: MutableMapping[str, Any]) -> None:
    """Make text of every value: Snakemake reads `results=2026` as a number. ConfigError for an empty one."""
    for key, value in config.items():
        if value is None:
            raise ConfigError(f"--config {key} has no value; give one, or leave it out")
        config[key] = str(value)


def refuse_place(results: str) -> None:
    """ConfigError where `results` cannot be the folder of results: Snakemake takes braces for wildcards."""
    if set(results) & set("{}"):
        raise ConfigError(f"--config results={results}: has a brace; name a folder without one")
    if first := next((path for path in (Path(results), *Path(results).parents) if path.exists()), None):
        if not first.is_dir():
            raise ConfigError(f"--config results={results}: {first} is a file; name a folder")


def exported(variables: Mapping[str, str], first_on_path: Path) -> str:
    """What stands before every rule's command, for `shell.prefix`, which takes braces for its own."""
    settings = " ".join(f"{name}={shlex.quote(value)}" for name, value in variables.items())
    return f'export {settings} PATH={shlex.quote(str(first_on_path))}:"$PATH"; '.replace("{", "{{").replace("}", "}}")


@contextmanager
def one_line() -> Iterator[None]:
    """Ends Snakemake with one line and status 2, not with a stack of files, when a value makes no sense."""
    try:
        yield
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
