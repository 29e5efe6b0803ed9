"""Which code a table was made by: a hash of every module that what makes it imports, directly or not, or starts.

`code_of("grid", ...)` goes into the table's metadata and, as `code_digest("grid", ...)`, into the rule that makes it:
an edit of one of those modules makes the table stale, an edit of another does not. Comments, docstrings, layout are no
edits. The data that they read is hashed too (`artifact.results.data_hash`): cards, traces, measured kernels.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from artifact.results.data_hash import PACKAGES, Code, contents, data_hash, data_of
from artifact.results.tables import ResultError

# What makes the rows, by command (for `panel`: by table). "NAME.*": all modules of a package. vLLM loads the plug-in's
# classes by their names, so no import tells.
PLUG_IN = "niyama.vllm.*"
NO_CODE = {"figures"}  # its __init__ lists the figures: a new one makes no table stale
MADE_BY: dict[str, tuple[str, ...]] = {
    "trace": ("artifact.runs.sources",),
    "simulate": ("artifact.runs.run",),
    "score": ("artifact.score.measure",),
    "cluster": ("artifact.experiments.fleets",),
    "plan": ("artifact.planning.answer",),
    "grid": ("artifact.experiments.grid",),
    "search": ("artifact.experiments.grid",),
    "disaggregated": ("artifact.experiments.disaggregated",),
    "overload": ("artifact.experiments.overload",),
    "chunk_curve": ("artifact.experiments.chunk_curve",),
    "five_requests": ("artifact.experiments.five_requests",),
    "chunk_windows": ("artifact.experiments.chunk_windows",),
    "chunk_throughput": ("artifact.experiments.chunk_windows",),
    "polyserve_fleets": ("artifact.experiments.polyserve",),
    "operators": ("artifact.experiments.operators",),
    "predictor-accuracy": ("artifact.latency.accuracy",),
    "server-sweep": ("artifact.servers.sweep", PLUG_IN),
    "server-simulated": ("artifact.servers.simulated",),
    "engine-sweep": ("artifact.engine.sweep", PLUG_IN),
    "engine-operators": ("artifact.engine.operators", PLUG_IN),
    "fidelity": ("artifact.engine.fidelity", PLUG_IN),
    "overhead": ("benchmarks.vllm_steps", PLUG_IN),
}


def code_of(command: str, *names: str, settings: Any = None) -> Code:
    """The hash of each module and each piece of data that a table of a command depends on, by its name.

    names: the latency models, traces and systems that it is made with; settings: of its experiment, for what they name.
    """
    own = modules_of(command)
    return own | data_of(own, names, settings)


@cache
def modules_of(command: str) -> Code:
    """The modules' part of `code_of`. It is read once, and so is all data: later edits are none of the tables'."""
    contents()
    found: set[str] = set()
    waiting = [module for name in MADE_BY[command] for module in _named(name)]
    while waiting:
        module = waiting.pop()
        if module not in found:
            found.add(module)
            waiting += _imported(module)
    return {module: own for module in sorted(found) if (own := module_hash(module)) is not None}


def code_digest(command: str, *names: str, settings: Any = None) -> str:
    """All of `code_of` in one hash, for a rule's params."""
    return digest(code_of(command, *names, settings=settings))


def digest(code: Mapping[str, str]) -> str:
    """One hash of a table's code, to show."""
    return hashlib.sha256(json.dumps(code, sort_keys=True).encode()).hexdigest()[:16]


def mixed(codes: Iterable[Code | None]) -> list[str]:
    """Modules and data of which tables that belong together were made by different versions."""
    seen: dict[str, set[str]] = {}
    for code in codes:
        for module, own in (code or {}).items():
            seen.setdefault(module, set()).add(own)
    return sorted(module for module, hashes in seen.items() if len(hashes) > 1)


def changed_since(code: Mapping[str, str]) -> list[str]:
    """Modules and data that are not, or no longer, in this checkout as they were when the table was made."""
    return sorted(name for name, own in code.items() if (module_hash(name) or data_hash(name)) != own)


def joined_code(codes: Mapping[str, Code | None]) -> dict[str, Code]:
    """The provenance `code` of a table joined from parts, of which each one's is given by path; none when none has it.

    ResultError when parts were made by different code.
    """
    known = {path: code for path, code in codes.items() if code is not None}
    modules = mixed(known.values()) or ["not recorded in all"] * (0 < len(known) < len(codes))
    if modules:
        old = [path for path, code in codes.items() if code is None or changed_since(code)]
        which = f"{', '.join(modules[:5])}; those to make again: {', '.join(old or codes)}"
        raise ResultError(f"the parts were made by different code ({which}); delete them and run again")
    return {"code": {module: own for code in known.values() for module, own in code.items()}} if known else {}


def module_hash(module: str) -> str | None:
    """Hash of a module's code; None when there is no such module."""
    path = _path(module)
    return _read(path.read_text(encoding="utf-8"))[0] if path else None


def _named(name: str) -> list[str]:
    if not name.endswith(".*"):
        if _path(name) is None:
            raise ModuleNotFoundError(f"there is no module {name}")
        return [name]
    package, _, below = name.removesuffix(".*").partition(".")
    folder = PACKAGES[package].joinpath(*below.split("."))
    files = (path.relative_to(PACKAGES[package]).with_suffix("").parts for path in folder.rglob("*.py"))
    return [".".join((package, *(part for part in parts if part != "__init__"))) for parts in files]


def _path(module: str) -> Path | None:
    package, _, below = module.partition(".")
    if package not in PACKAGES:
        return None
    place = PACKAGES[package].joinpath(*below.split(".")) if below else PACKAGES[package]
    return next((path for path in (place / "__init__.py", place.with_suffix(".py")) if path.is_file()), None)


@cache
def _imported(module: str) -> set[str]:
    """Our modules that a module imports anywhere in its text but for types alone, or starts; and their packages."""
    path = _path(module)
    assert path is not None, module
    parts = (name.split(".") for name in _read(path.read_text(encoding="utf-8"))[1])
    every = {".".join(part[:length]) for part in parts for length in range(1, len(part) + 1)}
    return {name for name in every - NO_CODE if _path(name)}


@cache
def _read(text: str) -> tuple[str, frozenset[str]]:
    """A module's hash, and the names that it imports or starts as `python -m NAME`."""
    tree = ast.parse(text)
    names, types = set(), set()
    for node in ast.walk(tree):  # outer nodes come first
        if isinstance(node, ast.If) and getattr(node.test, "id", None) == "TYPE_CHECKING":
            types.update(node.body)
        elif node in types:
            continue
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.List):
            started = (b.value for a, b in pairwise(node.elts) if _is(a, "-m") and isinstance(b, ast.Constant))
            names |= {f"{name}{end}" for name in started if isinstance(name, str) for end in ("", ".__main__")}
    return hashlib.sha256(json.dumps(_shape(tree)).encode()).hexdigest()[:12], frozenset(names)


def _shape(node: Any) -> Any:
    """A tree without places and docstrings, written alike under every Python."""
    if isinstance(node, list):
        return [_shape(item) for item in node]
    if not isinstance(node, ast.AST):
        return repr(node)
    return [type(node).__name__, *_fields(node)]


def _fields(node: ast.AST) -> Iterator[list[Any]]:
    for name, value in ast.iter_fields(node):
        if name == "body" and isinstance(node, _WITH_DOCSTRING) and _is_text(value[:1]):
            value = value[1:]
        if value is not None and value != []:  # newer versions add fields, empty mostly
            yield [name, _shape(value)]


def _is(node: ast.expr, text: str) -> bool:
    return isinstance(node, ast.Constant) and node.value == text


def _is_text(statements: list[ast.stmt]) -> bool:
    return any(
        isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant) and isinstance(s.value.value, str)
        for s in statements
    )


_WITH_DOCSTRING = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
