"""What a rule, or a function that it calls, must not reach: clocks, chance and output. Read off their byte code."""

from __future__ import annotations

import builtins
import dis
import sys
from collections.abc import Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

#: Modules whose functions answer differently from call to call.
_IMPURE = ("random", "numpy.random", "secrets", "uuid", "time", "datetime", "os", "posix", "nt")
#: Their functions are not looked into: ours and numpy's are known.
_KNOWN = {"niyama", "numpy", "numba", *sys.stdlib_module_names}


def impurities(rule: FunctionType) -> Iterator[tuple[FunctionType, int, str]]:
    """What the rule must not reach, with the function and the line that do: clocks, chance and `print`."""
    waiting, seen = [rule], {rule.__code__}
    while waiting:
        function = waiting.pop()
        for line, name, value in _reached(function, function.__code__):
            module = _module(value)
            impure = next((known for known in _IMPURE if module == known or module.startswith(f"{known}.")), None)
            if value is print:
                yield function, line, "a rule prints nothing, for its output would get among results; remove the print"
            elif impure is not None:
                what = name if name == impure else f"{name} of {impure}"
                yield (
                    function,
                    line,
                    f"rules keep no state, clock or chance, and this uses {what}; answer by the arguments alone, and "
                    "by constants",
                )
            helper = getattr(value, "py_func", getattr(value, "__wrapped__", value))
            if isinstance(helper, FunctionType) and helper.__code__ not in seen and not _is_known(helper):
                seen.add(helper.__code__)
                waiting.append(helper)


def outside(function: FunctionType) -> dict[str, Any]:
    """What the function can see beside its own variables."""
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    return {**function.__globals__, **{name: cell.cell_contents for name, cell in cells if _is_filled(cell)}}


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:  # assigned below the rule
        return False


def _is_known(function: FunctionType) -> bool:
    return (function.__module__ or "").partition(".")[0] in _KNOWN


def _reached(function: FunctionType, code: CodeType) -> Iterator[tuple[int, str, Any]]:
    """Line, name and value of each global that the code names, of each attribute of a module, and of each import."""
    around, name, value = outside(function), "", None
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF"):
            name = step.argval
            value = around.get(name, getattr(builtins, name, None))
        elif step.opname in ("LOAD_ATTR", "LOAD_METHOD") and isinstance(value, ModuleType):
            name, value = f"{name}.{step.argval}", getattr(value, step.argval, None)
        elif step.opname == "IMPORT_NAME":
            name, value = step.argval, sys.modules.get(step.argval) or ModuleType(step.argval)
        else:
            if step.opname not in ("EXTENDED_ARG", "PUSH_NULL"):
                name, value = "", None
            continue
        yield step.positions.lineno or code.co_firstlineno, name, value
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _reached(function, inner)


def _module(value: Any) -> str:
    """The module that the value is, or that it comes from: a function of `random` is a method of a hidden generator."""
    if isinstance(value, ModuleType):
        return value.__name__
    owner = getattr(value, "__self__", None)
    if owner is not None and not isinstance(owner, ModuleType):
        return type(owner).__module__
    own = getattr(value, "__module__", None)
    return own if isinstance(own, str) else type(value).__module__
