"""`python -m niyama.vllm check niyama.yaml`: what a server would make of a configuration, without starting one."""

from __future__ import annotations

import argparse
import getpass
import hashlib
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from niyama.vllm.config import EngineConfig, load_config
from niyama.vllm.doubtful import doubtful


def main(arguments: Sequence[str] | None = None) -> int:
    """Status 0, or 2 and a line on stderr for each mistake."""
    parser = argparse.ArgumentParser(prog="python -m niyama.vllm", description="Help for whoever runs Niyama in vLLM.")
    verbs = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    check = verbs.add_parser("check", help="check a configuration file, as NIYAMA_CONFIG names it")
    check.add_argument("file", help="YAML or JSON")
    verbs.add_parser("hash-key", help="the hash of the API key on stdin, for the configuration")
    options = parser.parse_args(arguments)
    return _check(options.file) if options.command == "check" else _hash_key()


def _check(file: str) -> int:
    """What the configuration promises, and warnings of values that are allowed and look wrong."""
    try:
        config = load_config({"niyama": file}, {})
        policy, card = config.build_policy(), config.build_card()
    except ValueError as error:
        _complain("error", str(error).splitlines())
        return 2
    _complain(f"warning: {file}", doubtful(config, datetime.now(UTC)))
    print(f"{file}: fine; policy {policy.name}, latency model {card.name}")
    print("\n".join(_classes(config)))
    return 0


def _classes(config: EngineConfig) -> list[str]:
    """A line for each class: what it promises."""
    slos = (("ttft_s", "TTFT"), ("tbt_s", "TBT"), ("ttlt_s", "TTLT"))
    lines = []
    for served in config.classes:
        given = [f"{word} {getattr(served, field):g} s" for field, word in slos if getattr(served, field) is not None]
        default = ", the default class" if served.name == config.default_class else ""
        lines.append(f"  {served.name}: {', '.join(given)}{default}")
    return lines


def _hash_key() -> int:
    """Of stdin, because a key among a command's arguments is in the shell's history and in everybody's `ps`."""
    key = (getpass.getpass("API key: ") if sys.stdin.isatty() else sys.stdin.readline()).strip()
    if not key:
        _complain("error", ["no key on stdin; type it, or pipe it in"])
        return 2
    print(hashlib.sha256(key.encode()).hexdigest())
    return 0


def _complain(kind: str, lines: Iterable[str]) -> None:
    for line in lines:
        print(f"{kind}: {line}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
