"""Making a rule of a function: what a user is likely to get wrong is refused in one line, before numba sees it.

A rule of ours is compiled as it is. A user's is compiled with a guard round it: where it raises, it answers what no
sound rule does (`RuleKind.fault`), so that the kernel can tell and stop (`niyama.faults`).
"""

from __future__ import annotations

import ast
import builtins
import inspect
import re
import textwrap
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType
from typing import Any, NamedTuple

import numpy as np
from numba import config, njit
from numba.core.errors import NumbaError

from niyama.jit import function_pointer, guarded_pointer
from niyama.names import did_you_mean
from niyama.pure_rules import impurities, outside


class RuleError(ValueError):
    """A rule of a policy makes no sense, or has failed; one line: file, line, what is wrong and what to do."""


#: Field of Policy -> the decorator that makes such a rule.
DECORATORS = {
    "rank": "rank_rule",
    "prefill_budget": "budget_rule",
    "doomed": "doomed_rule",
    "due": "due_rule",
    "cost": "route_rule",
}


class RuleKind(NamedTuple):
    """One of the four questions that a policy answers.

    field: of Policy. views: its arguments by name, with the NamedTuple that each is, or None for a number. convert:
    an expression that makes the answer from `value`. fault: what the guard answers when the rule raises.
    """

    field: str
    signature: Any
    views: dict[str, type | None]
    convert: str
    fault: float

    @property
    def decorator(self) -> str:
        """The name of the decorator that makes such a rule."""
        return DECORATORS[self.field]


def rule_decorator(kind: RuleKind) -> Callable[[Callable], Callable]:
    """The decorator that makes a rule of this kind. It raises RuleError."""

    def decorate(function: Callable | None = None) -> Callable:
        """`function` as a rule for the compiled kernel."""
        if function is None:
            raise RuleError(f"@{kind.decorator}() has brackets; write @{kind.decorator} alone, above the def")
        ours = getattr(function, "__module__", "").startswith("niyama.")
        problem = None if ours else next(_problems(function, kind), None)
        if problem is not None:
            raise RuleError(problem)
        rule = function
        if not config.DISABLE_JIT:
            rule = _compiled(function, kind)
        rule.field = kind.field
        return rule

    return decorate


def source_of(rule: Callable) -> FunctionType:
    """The Python function behind a rule, compiled or not."""
    return getattr(rule, "__wrapped__", rule)


def why_no_rule(rule: Any, field: str) -> str | None:
    """What is wrong with `rule` as the `field` of a Policy, and what to do; None for a rule of that kind."""
    made_for = getattr(rule, "field", None)
    if made_for == field:
        return None
    fix = f"write a def with @{DECORATORS[field]} above it (from niyama.rules import {DECORATORS[field]})"
    if made_for is not None:
        return f"{field} is {source_of(rule).__name__!r}, a rule for {made_for}; {fix}"
    if isinstance(rule, FunctionType):
        what = "a lambda" if rule.__name__ == "<lambda>" else f"the plain function {rule.__name__!r}"
        return f"{field} is {what} at {_at(rule)}; {fix}"
    return f"{field} is {rule!r}; {fix}"


def _compiled(function: FunctionType, kind: RuleKind) -> Callable:
    if function.__module__.startswith("niyama."):
        return function_pointer(kind.signature)(function)
    try:
        return guarded_pointer(kind.signature, tuple(kind.views), kind.convert, kind.fault)(function)
    except (NumbaError, ValueError) as error:  # float('x') is a ValueError of numba's
        problem = _wrong_answer(function, kind) or _numba_words(error)
        raise RuleError(f"{_at(function, _numba_line(function, error))}: {problem}") from None


def _wrong_answer(function: FunctionType, kind: RuleKind) -> str | None:
    """What the rule returns instead of what it should, if it can be compiled by itself."""
    rule = njit(function)
    try:
        rule.compile(kind.signature.args)
    except NumbaError:
        return None
    wanted = "True or False" if kind.field in ("doomed", "due") else "a number"
    return f"{function.__name__!r} returns {rule.nopython_signatures[0].return_type}; return {wanted}"


def _problems(function: Any, kind: RuleKind) -> Iterator[str]:
    """What is wrong with `function` as a rule, worst first."""
    if not isinstance(function, FunctionType):
        yield f"@{kind.decorator} stands above {function!r}; put it above a def"
        return
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        yield f"{_at(function)}: an async def or a generator is no rule; write a def that returns its answer"
    if function.__name__ == "<lambda>":
        yield f"{_at(function)}: a lambda is no rule; write a def with @{kind.decorator} above it"
    wanted, given = ", ".join(kind.views), inspect.signature(function)
    try:
        given.bind(*kind.views)
        fits = len(kind.views) <= len(given.parameters)
    except TypeError:
        fits = False
    if not fits or any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in given.parameters.values()):
        yield f"{_at(function)}: {function.__name__}{given} has other arguments; write {function.__name__}({wanted})"
        return
    for culprit, line, problem in impurities(function):
        yield f"{_at(culprit, line)}: {problem}"
    tree = _tree(function)
    if tree is None:
        return
    names = list(given.parameters)[: len(kind.views)]
    views = dict(zip(names, kind.views.values(), strict=True))
    for node in ast.walk(tree):
        line = function.__code__.co_firstlineno + getattr(node, "lineno", 1) - 1
        problem = _state(function, node, views) or _blank(function, node) or _attribute(node, views)
        problem = problem or _unknown_name(function, node)
        if problem is not None:
            yield f"{_at(function, line)}: {problem}"


def _tree(function: FunctionType) -> ast.AST | None:
    """The function's syntax tree; None where its source cannot be had, as for one that is typed at a prompt."""
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    except (OSError, TypeError, SyntaxError):
        return None


def _attribute(node: ast.AST, views: dict[str, type | None]) -> str | None:
    """An attribute that an argument does not have."""
    if not (isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)):
        return None
    view = views.get(node.value.id)
    known = getattr(view, "_fields", ())
    if view is None or node.attr in known or hasattr(view, node.attr):
        return None
    hint = did_you_mean(node.attr, known, "? It has ") or "it has "
    return f"{view.__name__} has no {node.attr!r}; {hint}{', '.join(known)}"


def _state(function: FunctionType, node: ast.AST, views: dict[str, type | None]) -> str | None:
    """A change of something that outlives the call, or an object that is there to be changed."""
    targets: list[ast.AST] = []
    if isinstance(node, ast.Assign | ast.Delete):
        targets = node.targets
    elif isinstance(node, ast.AugAssign | ast.AnnAssign):
        targets = [node.target]
    name = None
    if isinstance(node, ast.Global | ast.Nonlocal):
        name = node.names[0]
    for target in targets:
        base = target
        while isinstance(base, ast.Subscript | ast.Attribute):
            base = base.value
        if base is not target and isinstance(base, ast.Name):
            name = base.id if base.id in views or base.id not in function.__code__.co_varnames else name
    if name is None and isinstance(node, ast.Name) and isinstance(outside(function).get(node.id), _CONTAINERS):
        name = node.id
    if name is None:
        return None
    if name in views:
        return f"a rule changes nothing, and {name!r} is what it is told; compute the answer from it"
    return (
        f"rules keep no state: {name!r} lives outside {function.__name__!r}; answer by the arguments alone, and by "
        "constants (numbers, tuples, numpy arrays that are only read)"
    )


_CONTAINERS = (list, dict, set, deque)


def _blank(function: FunctionType, node: ast.AST) -> str | None:
    """An array of zeros: somebody means to count in it, and the rule would read zeros for ever."""
    value = outside(function).get(node.id) if isinstance(node, ast.Name) else None
    if not isinstance(value, np.ndarray) or value.size < 2 or value.any():
        return None
    return (
        f"{node.id!r} is an array of zeros, in which nobody counts, for rules keep no state; what each tenant was "
        "served the kernel counts: tenant_tokens and tenant_virtual of the job"
    )


def _unknown_name(function: FunctionType, node: ast.AST) -> str | None:
    """A name that is defined nowhere, or below the rule."""
    if not (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)):
        return None
    known = {*function.__code__.co_names} - {*function.__code__.co_varnames, *function.__code__.co_cellvars}
    if node.id not in known or node.id in outside(function) or hasattr(builtins, node.id):
        return None
    near = did_you_mean(node.id, [*function.__code__.co_varnames, *function.__globals__])
    return f"{node.id!r} is not defined; {near or 'define it above the rule'}"


def _at(function: FunctionType, line: int | None = None) -> str:
    code = function.__code__
    return f"{Path(code.co_filename).name}, line {line or code.co_firstlineno}"


def _numba_line(function: FunctionType, error: Exception) -> int | None:
    """The line of the user's file that numba names last."""
    lines = re.findall(r'File "([^"]+)", line (\d+)', _plain(error))
    name = Path(function.__code__.co_filename).name
    return next((int(line) for file, line in reversed(lines) if Path(file).name == name), None)


def _numba_words(error: Exception) -> str:
    """What numba says, without its frame."""
    frame = ("Failed in", "File ", "During:", "Invalid use of", "Known signatures", "This error", "No implementation")
    lines = [line.strip(" -*>") for line in _plain(error).splitlines()]
    said = next((line for line in lines if line and not line.startswith(frame)), "it cannot be compiled")
    return f"numba cannot compile this: {said}; use numbers, tuples and functions of math and numpy"


def _plain(error: Exception) -> str:
    """Its message without colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", str(error))
