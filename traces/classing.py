"""Which QoS class each row of a trace belongs to, where the trace or rules say so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from traces.errors import TraceError
from traces.rules import matches
from traces.trace import Trace

_SHOWN = 5


def classes_of(trace: Trace, names: Sequence[str], rules: Mapping[str, str]) -> np.ndarray | None:
    """int16[n], index into `names`, for every row; None where neither rules nor the trace say, and shares are to draw.

    Rules (class -> rule) win over the trace's own classes. The first class in the order of `names` whose rule is true
    takes a row; one class without a rule takes the rest. TraceError where a row is left over, or its class unknown.
    """
    if rules:
        return _by_rules(trace, names, rules)
    own = trace.extras.qos_class
    if own is None:
        return None
    used = [own.names[code] for code in np.unique(own.codes)]
    if unknown := [name for name in used if name not in names]:
        shown = ", ".join(unknown[:_SHOWN]) + (", ..." if len(unknown) > _SHOWN else "")
        column = "its class column" if trace.understood is None else trace.understood.columns.get("class")
        raise TraceError(
            f"{trace.name} has the classes {shown} ({column}), and the classes of the run are {', '.join(names)}; add "
            "them to --classes, or give all classes there a `when`"
        )
    places = np.array([names.index(name) if name in names else -1 for name in own.names], np.int16)
    return np.asarray(places[own.codes])


def _by_rules(trace: Trace, names: Sequence[str], rules: Mapping[str, str]) -> np.ndarray:
    found = np.full(len(trace), -1, np.int16)
    for index, name in enumerate(names):
        if name in rules:
            found[(found < 0) & matches(rules[name], trace)] = index
    rest = [index for index, name in enumerate(names) if name not in rules]
    if len(rest) > 1:
        without = ", ".join(names[index] for index in rest)
        raise TraceError(
            f"classes {without} have no `when`, and others have; one alone takes the requests that are left"
        )
    if rest:
        found[found < 0] = rest[0]
    elif left := int(np.count_nonzero(found < 0)):
        raise TraceError(
            f"{left} of {len(trace)} requests match no `when`; leave it out of one class, which takes the rest"
        )
    return found
