"""`python -m artifact COMMAND`: one command per verb; `--help` on each says what it takes."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from artifact.commands.table import RENAMED, modules_of, parser
from artifact.errors import CommandError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; a mistake of the user's is one line on stderr and exit status 2."""
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")  # what a command prints is its answer
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given and given[0] in RENAMED:
        print(f"error: {given[0]} is called {RENAMED[given[0]]} now", file=sys.stderr)
        return 2
    options = parser(modules_of(given[0] if given else None)).parse_args(given)
    return _run(given, options)


def _run(given: Sequence[str], options: argparse.Namespace) -> int:
    """Run the command. What that needs of ours is imported here: `--help` is to start at once."""
    from artifact.commands.bounds import check_numbers
    from artifact.commands.places import check_places, told
    from artifact.commands.progress import announce_compilation
    from artifact.results import failures
    from artifact.results.code_hash import MADE_BY, code_of
    from artifact.workflow.run_lock import join

    join()
    announce_compilation()
    try:
        check_numbers(options)
        check_places(options)
        if (made := getattr(options, "table", options.command)) in MADE_BY and options.out is not None:
            code_of(made)  # as it is now: an edit while the command runs is none of its table's
        return options.run(options) or 0
    except (ValueError, CommandError) as error:
        failures.note(given, options, error)
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (MemoryError, OverflowError) as error:
        failures.note(given, options, error)
        print(f"error: a number is too large ({error}); give fewer --requests or smaller values", file=sys.stderr)
        return 2
    except OSError as error:
        line = CommandError(told(error))
        failures.note(given, options, line)
        print(f"error: {line}", file=sys.stderr)
        return 2
    except Exception as error:  # a mistake of ours: the report says it in a line, and here is the traceback
        failures.note(given, options, error)
        raise
    except KeyboardInterrupt:
        # after a counter, which a terminal shows in place
        print("\n" * sys.stderr.isatty() + "interrupted; nothing half-written was left", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
