"""Policies by name: a built-in one, or one of a user's own by FILE.py:NAME."""

import hashlib
import importlib.util
import sys
import traceback
from contextlib import redirect_stdout
from importlib.machinery import SourceFileLoader
from pathlib import Path

from niyama.names import did_you_mean, unknown_name
from niyama.own_rules import RuleError
from niyama.policies import BUILT_IN, Policy


def load_policy(name: str) -> Policy:
    """The built-in policy called `name`, or one's own by FILE.py:NAME; a ValueError lists the known names."""
    if ":" in name:
        policy = load_from_file(name)
        if not isinstance(policy, Policy):
            what = f"a {type(policy).__name__}" if isinstance(policy, tuple | list | dict) else repr(policy)
            raise ValueError(f"policy {name!r} is {what}; it must be a niyama Policy")
        return policy
    if name not in BUILT_IN:
        raise ValueError(unknown_name("policy", name, BUILT_IN, ", or FILE.py:NAME"))
    return BUILT_IN[name]


def load_from_file(name: str) -> object:
    """The object that FILE.py:NAME names: the file is run. ValueError, in one line, when that fails or NAME is not."""
    path, _, attribute = name.rpartition(":")
    if not Path(path).is_file():
        raise ValueError(f"{name!r}: there is no file {path!r}; write FILE.py:NAME")
    # numba imports the module of a compiled rule that it finds in its cache: one that is registered, by a name that no
    # other file has
    where = hashlib.sha256(str(Path(path).resolve()).encode()).hexdigest()[:12]
    loader = SourceFileLoader(f"{Path(path).stem}_{where}", str(path))  # whatever the file's suffix
    spec = importlib.util.spec_from_file_location(loader.name, path, loader=loader)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    try:
        with redirect_stdout(sys.stderr):  # what it prints is no result
            spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[spec.name]
        if isinstance(error, KeyboardInterrupt | MemoryError):
            raise
        raise ValueError(_failure(path, error)) from error
    if not hasattr(module, attribute):
        hint = did_you_mean(attribute, vars(module), "? ")
        own = [known for known, value in vars(module).items() if isinstance(value, Policy)]
        has = (
            f"its policies are {', '.join(own)}" if own else "it has no policy: add one, such as mine = Policy('mine')"
        )
        raise ValueError(f"{name!r}: {path} defines no {attribute!r}; {hint}{has}")
    return getattr(module, attribute)


def _failure(path: str, error: BaseException) -> str:
    """Why the file could not be run, in a line: where in it, and what happened."""
    if isinstance(error, RuleError):
        return str(error)
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f"{path}, line {error.lineno}: {error.msg}; correct the file"
    frames = traceback.extract_tb(error.__traceback__)
    line = next((frame.lineno for frame in reversed(frames) if frame.filename == str(path)), None)
    where = path if line is None else f"{path}, line {line}"
    said = " ".join(str(error).split()) or "without a word"
    kind = "" if type(error) is ValueError else f"{type(error).__name__}: "
    return f"{where}: {kind}{said[:400]}; correct the file"
