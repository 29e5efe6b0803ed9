"""Which source files a figure is made of, so that editing one of them draws it again and editing others does not."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import figures

FOLDER = Path(figures.__file__).parent


def figure_code(*names: str) -> list[str]:
    """Files of these modules of figures/ and of all that they import from there, relative to the repository, by name.

    Found by reading the sources, so nothing is imported. FileNotFoundError for a module that is not there.
    """
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += _imported(FOLDER / f"{name}.py")
    return [f"{FOLDER.name}/{name}.py" for name in sorted(found)]


@cache
def _imported(path: Path) -> frozenset[str]:
    """Modules named in `from figures import NAME` and `from figures.NAME import ...`."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        package, _, module = (getattr(node, "module", None) or "").partition(".")
        if isinstance(node, ast.ImportFrom) and package == FOLDER.name:
            names |= {module} if module else {alias.name for alias in node.names}
    return frozenset(name for name in names if (FOLDER / f"{name}.py").exists())
