"""Names that nobody knows: the one nearest to it, and all that are known."""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(name: object, choices: Iterable[str], end: str = "?") -> str:
    """`did you mean 'NAME'` and `end`, if a known name is near; else nothing."""
    near = get_close_matches(str(name), choices, n=1)
    return f"did you mean {near[0]!r}{end}" if near else ""


def unknown_name(kind: str, name: object, choices: Iterable[str], others: str = "") -> str:
    """The error message for a `kind` called `name` that is none of `choices`; others: what else would do."""
    known = list(choices)
    near = did_you_mean(name, known)
    return f"{kind} {name!r} is unknown{f' ({near})' if near else ''}; use one of {', '.join(known)}{others}"
