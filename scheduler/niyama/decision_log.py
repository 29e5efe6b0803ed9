"""A decision log: what a host reported and what was decided, turn by turn, as JSON lines; and its replay.

The first line says with what the scheduler was made, each further line is one turn. Re-running the turns through the
kernel must give the same plans, on any machine: what ran on a GPU is checked on a laptop.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from niyama.host import Arrival, Host, Plan, Timing
from niyama.latency import ModelCard
from niyama.policies import BUILT_IN, Policy, load_policy
from niyama.turn import ARRIVED

VERSION = 1
_RULES = ("rank", "prefill_budget", "doomed")
_FLUSH_EVERY = 100  # turns; a crash loses no more than these


class LogError(ValueError):
    """A decision log cannot be replayed; names file, line and what is wrong."""


class DecisionLog:
    """Writes a log as it goes. `write` is a Host's `watch`; sizes: the Host's kv_tokens, block_tokens, apps."""

    def __init__(self, stream: IO[str], policy: Policy, card: ModelCard, **sizes: int) -> None:
        self._stream, self._turns = stream, 0
        numbers = {name: value for name, value in vars(policy).items() if name not in _RULES}
        base = BUILT_IN.get(policy.name)
        own = base is None or any(getattr(base, name) is not getattr(policy, name) for name in _RULES)
        header = {"version": VERSION, "rules_of": None if own else policy.name, "policy": numbers, "card": asdict(card)}
        self._line({**header, "sizes": sizes})

    @classmethod
    def open(cls, path: str | Path, policy: Policy, card: ModelCard, **sizes: int) -> DecisionLog:
        """Start a log at `path`; one that is there already is replaced."""
        return cls(Path(path).open("w", encoding="utf-8"), policy, card, **sizes)

    def write(self, timing: Timing, events: list[int], arrivals: list[tuple[int, Arrival]], plan: Plan) -> None:
        """One turn."""
        self._line(
            {
                "timing": list(timing),
                "arrivals": [[row, *new] for row, new in arrivals],
                "events": [int(value) for value in events],
                **_decided(plan),
            }
        )
        self._turns += 1
        if self._turns % _FLUSH_EVERY == 0:
            self._stream.flush()

    def close(self) -> None:
        """Write out what is buffered."""
        self._stream.close()

    def _line(self, values: dict[str, Any]) -> None:
        self._stream.write(json.dumps(values, separators=(",", ":")) + "\n")


def _decided(plan: Plan) -> dict[str, Any]:
    """The decision, as it is compared."""
    return {
        "chunks": [list(pair) for pair in zip(plan.rows, plan.tokens, strict=True)],
        "batch": [float(value) for value in plan.batch],
        "predicted_s": plan.predicted_s,
        "relegations": plan.relegations,
        "un_relegations": plan.un_relegations,
        "preemptions": plan.preemptions,
        "kv_free_blocks": plan.kv_free_blocks,
    }


@dataclass(frozen=True)
class Replay:
    """What a replay found. `divergence`: the first turn decided differently, None when all agree."""

    turns: int
    chunks: int
    divergence: str | None
    cut_short: bool  # the last line is incomplete: the host was killed while writing


def replay(path: str | Path, policy: Policy | None = None) -> Replay:
    """Run a log through the kernel up to the first divergence. Raises LogError.

    policy: for one that is not built in.
    """
    lines = _lines(Path(path))
    header = next(lines, None)
    if header is None or header[1].get("version") != VERSION:
        raise LogError(
            f"{path}: line 1 is not the header of a decision log of version {VERSION}; was it written by us?"
        )
    host = _host(path, header[1], policy)
    turns = chunks = 0
    for number, logged in lines:
        if logged is None:
            return Replay(turns, chunks, None, cut_short=True)
        decided = _decided(_take_turn(host, logged, f"{path}: line {number}"))
        turns, chunks = turns + 1, chunks + len(decided["chunks"])
        for name, value in decided.items():
            if value != logged[name]:
                text = (
                    f"line {number}, {logged['timing'][0]:.6f} s: {name} is {logged[name]} in the log, {value} replayed"
                )
                return Replay(turns, chunks, text, cut_short=False)
    return Replay(turns, chunks, None, cut_short=False)


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Numbered JSON lines; None for a last line that was cut off."""
    with path.open(encoding="utf-8") as stream:
        for number, line in enumerate(stream, 1):
            try:
                yield number, json.loads(line)
            except json.JSONDecodeError as error:
                if line.endswith("\n"):
                    raise LogError(f"{path}: line {number} is not JSON ({error.msg}); the file is damaged") from None
                yield number, None


def _host(path: str | Path, header: dict[str, Any], policy: Policy | None) -> Host:
    """A scheduler as the one that wrote the log."""
    if policy is None:
        if header["rules_of"] is None:
            raise LogError(
                f"{path}: policy {header['policy']['name']!r} is not built in; name it with --system FILE.py:NAME"
            )
        base = load_policy(header["rules_of"])
        policy = Policy(**{name: getattr(base, name) for name in _RULES}, **header["policy"])
    card = ModelCard(**{**header["card"], "coefficients": tuple(header["card"]["coefficients"])})
    return Host(policy, card, **header["sizes"])


def _take_turn(host: Host, logged: dict[str, Any], where: str) -> Plan:
    """Report what was reported and plan."""
    arrivals = {row: Arrival(*values) for row, *values in logged["arrivals"]}
    events = logged["events"]
    for kind, row, value in zip(events[::3], events[1::3], events[2::3], strict=True):
        if row in arrivals and kind == ARRIVED:
            if host.arrive(arrivals[row]) != row:
                raise LogError(f"{where}: request rows are out of step; the log is not whole")
        else:
            host.report(kind, row, value)
    return host.turn(Timing(*logged["timing"]))
