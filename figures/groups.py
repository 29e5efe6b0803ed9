"""Groups of requests that results are reported for beside the classes: no class may have such a name."""

#: Everybody; by the length of the prompt; by importance; and, of a wave of load, those that were ever relegated.
ALL, SHORT, LONG, IMPORTANT, LOW, RELEGATED = NOT_CLASSES = ("all", "short", "long", "important", "low", "relegated")


def is_group(name: str) -> bool:
    """Whether a table may have a group of that name that is no class; `relegated all` and the like are such groups."""
    return name in NOT_CLASSES or name.startswith(f"{RELEGATED} ")
