"""The mistakes and mishaps that a command tells in one line, without a traceback."""


class CommandError(RuntimeError):
    """Ends a command; its text names what is wrong and what to do."""
