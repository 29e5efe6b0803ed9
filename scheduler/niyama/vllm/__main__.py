"""`python -m niyama.vllm check niyama.yaml`: what a server would make of a configuration, without starting one."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from niyama.vllm.config import EngineConfig, load_config


def main(arguments: Sequence[str] | None = None) -> int:
    """Check a configuration: status 0 and what it promises, or 2 and a line for each mistake."""
    parser = argparse.ArgumentParser(prog="python -m niyama.vllm", description=__doc__)
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")
    check = verbs.add_parser("check", help="check a configuration file, as NIYAMA_CONFIG names it")
    check.add_argument("file", help="YAML or JSON")
    options = parser.parse_args(arguments)
    try:
        config = load_config({"niyama": options.file}, {})
        policy, card = config.build_policy(), config.build_card()
    except ValueError as error:
        print("\n".join(f"error: {line}" for line in str(error).splitlines()), file=sys.stderr)
        return 2
    print(f"{options.file}: fine; policy {policy.name}, latency model {card.name}")
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


if __name__ == "__main__":
    sys.exit(main())
