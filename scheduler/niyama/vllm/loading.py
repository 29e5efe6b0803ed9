"""Reading a configuration file, and saying in a line each what is wrong with it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import yaml
from pydantic import ValidationError

from niyama.names import did_you_mean


class ConfigError(ValueError):
    """The configuration makes no sense; a line for each mistake: field, value and what to do."""


class _UniqueKeys(yaml.SafeLoader):
    """A safe loader that refuses a key given twice, where PyYAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(None, None, f"key {twice!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


def read_file(path: Path, what: str) -> Any:
    """The values of a YAML or JSON file that `what` names; an empty file is {}. Raises ConfigError."""
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeys)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{what} is {str(path)!r}, which cannot be read ({error}); correct the path") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path}: is not valid YAML: {' '.join(str(error).split())}; correct it") from None
    return {} if values is None else values


def refuse_unwritable(field: str, name: str) -> None:
    """ValueError when no file called `name` can be written. Nothing is left behind, and a file that is there is kept.

    Permissions alone do not tell: root has them all, and /proc takes no file.
    """
    problem = _why_unwritable(Path(name))
    if problem is not None:
        raise ValueError(f"{field} is {name!r}{problem}")


def _why_unwritable(path: Path) -> str | None:
    try:
        if path.is_dir():
            return ", which is a folder; name a file in it"
        if not path.parent.is_dir():
            return f" and there is no folder {str(path.parent)!r}; make it, or name another"
        if path.is_file():
            path.open("ab").close()
        elif not path.exists():
            TemporaryFile(dir=path.parent).close()  # not `path` itself: an engine may be about to open it
    except OSError as error:
        fix = "name a file in a folder that exists and may be written"
        return f", which cannot be written ({error.strerror}); {fix}"
    return None


def explain(error: ValidationError, what: str, known_fields: Collection[str]) -> ConfigError:
    """Every mistake in a line of its own: where, value, fix."""
    return ConfigError("\n".join(f"{what}: {_line(problem, known_fields)}" for problem in error.errors()))


def _line(problem: Mapping[str, Any], known_fields: Collection[str]) -> str:
    where = ".".join(part if str(part).isprintable() else ascii(part) for part in map(str, problem["loc"]))
    message = problem["msg"].removeprefix("Value error, ")
    secret = problem["loc"][:1] == ("identities",)
    if problem["type"] == "extra_forbidden":
        if secret and not where.rpartition(".")[2].isidentifier():
            return f"{where.rpartition('.')[0]} has a field whose name is hidden; remove it"
        return f"{where} is not a known field; {did_you_mean(problem['loc'][-1], known_fields) or 'remove it'}"
    if problem["type"] == "missing":
        return f"{where} is missing; set it"
    if problem["type"] == "value_error":
        return f"{where}: {message}" if where and not message.startswith(where) else message
    # Somebody will put the key itself where its hash belongs, or anywhere near: it must not reach a log.
    value = "hidden" if secret else short(problem["input"])
    return f"{where} is {value}; {message.replace('Input should', 'it should').replace('String should', 'it should')}"


def short(value: Any) -> str:
    """`value` for an error message, at most 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
