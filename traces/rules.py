"""Which requests a rule such as `prompt > 8000 and tenant == "nightly"` is about.

A rule is read as a tree of comparisons, and never evaluated as code.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from traces.errors import TraceError
from traces.lengths import Labels
from traces.trace import Trace

_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_MOST_LETTERS = 1000
_TEXT_OR_CLASS = r""""[^"]*"|'[^']*'|\bclass\b"""
NUMBERS = ("prompt", "output", "total", "time")
NAMES = ("class", "tenant", "session")
_GRAMMAR = (
    f"compare {', '.join(NUMBERS)} with numbers and {', '.join(NAMES)} with texts by < <= > >= == != or `in [...]`, "
    "and join by and, or, not"
)


def matches(rule: str, trace: Trace) -> np.ndarray:
    """bool[n]: the rows of `trace` that `rule` is true for. TraceError where it is no rule, or on what is unknown."""
    try:
        if len(rule) > _MOST_LETTERS:
            raise SyntaxError
        tree = ast.parse(_without_keyword(rule), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise TraceError(f"when is {rule!r}, which is no rule; {_GRAMMAR}") from None
    return _Rule(rule, _values(trace), len(trace)).mask(tree)


def _without_keyword(rule: str) -> str:
    """`class` is the one name that Python keeps for itself; texts stay as they are."""
    return re.sub(_TEXT_OR_CLASS, lambda found: "qos_class" if found[0] == "class" else found[0], rule).strip()


def _values(trace: Trace) -> Mapping[str, np.ndarray | Labels | None]:
    more = trace.extras
    prompt, output = trace.prompt_tokens.astype(np.int64), trace.output_tokens
    numbers = {"prompt": prompt, "output": output, "total": prompt + output, "time": trace.arrival_s}
    return {**numbers, "qos_class": more.qos_class, "tenant": more.tenant, "session": more.session}


class _Rule:
    """One rule over the rows of one trace."""

    def __init__(self, text: str, values: Mapping[str, np.ndarray | Labels | None], rows: int) -> None:
        self.text, self.values, self.rows = text, values, rows

    def mask(self, node: ast.expr) -> np.ndarray:
        """bool[n] of a condition."""
        if isinstance(node, ast.BoolOp):
            join = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
            return np.asarray(join.reduce([self.mask(part) for part in node.values]))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return ~self.mask(node.operand)
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            pairs = zip(sides[:-1], node.ops, sides[1:], strict=True)
            return np.asarray(np.logical_and.reduce([self._compared(*pair) for pair in pairs]))
        raise self._fault(node)

    def _compared(self, left: ast.expr, how: ast.cmpop, right: ast.expr) -> np.ndarray:
        a, b = self._operand(left), self._operand(right)
        if isinstance(a, Labels):
            return self._named(a, how, b, right)
        if isinstance(b, Labels) and isinstance(how, ast.Eq | ast.NotEq):
            return self._named(b, how, a, left)
        if isinstance(how, ast.In | ast.NotIn) and isinstance(b, list) and all(_is_number(x) for x in b):
            found = np.isin(a, np.array(b, float))
        elif type(how) in _COMPARISONS and all(isinstance(x, np.ndarray) or _is_number(x) for x in (a, b)):
            found = _COMPARISONS[type(how)](a, b)
        else:
            raise self._fault(right)
        return np.broadcast_to(np.asarray(found) != isinstance(how, ast.NotIn), (self.rows,))

    def _named(self, labels: Labels, how: ast.cmpop, value: Any, node: ast.expr) -> np.ndarray:
        wanted = value if isinstance(value, list) else [value]
        lists = isinstance(how, ast.In | ast.NotIn) == isinstance(value, list)
        if not lists or not isinstance(how, ast.Eq | ast.NotEq | ast.In | ast.NotIn):
            raise self._fault(node)
        if not all(isinstance(one, str) for one in wanted):
            raise self._fault(node)
        mask = np.array([name in wanted for name in labels.names], bool)
        return np.asarray(mask != isinstance(how, ast.NotEq | ast.NotIn))[labels.codes]

    def _operand(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Name) and node.id in self.values:
            value = self.values[node.id]
            if value is None:
                name = "class" if node.id == "qos_class" else node.id
                raise TraceError(
                    f"when is {self.text!r}, and the trace has no {name}; say which column: --columns {name}=NAME"
                )
            return value
        if isinstance(node, ast.Constant) and (isinstance(node.value, str) or _is_number(node.value)):
            return node.value
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
            return -self._operand(node.operand) if _is_number(node.operand.value) else self._refuse(node)
        if isinstance(node, ast.List | ast.Tuple) and all(isinstance(one, ast.Constant) for one in node.elts):
            return [self._operand(one) for one in node.elts]
        return self._refuse(node)

    def _refuse(self, node: ast.expr) -> Any:
        raise self._fault(node)

    def _fault(self, node: ast.expr) -> TraceError:
        part = ast.unparse(node).replace("qos_class", "class")
        return TraceError(f"when is {self.text!r}, with {part!r}, which is no part of a rule; {_GRAMMAR}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
