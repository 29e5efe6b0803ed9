"""A decision log: what an engine reported and what was decided, step by step, as JSON lines; and its replay.

The first line says with what the scheduler was made, each further line is one step, the last how many there were.
Re-running the steps through the kernel must give the same plans, on any machine: what ran on a GPU is checked on a
laptop.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

from niyama.latency import ModelCard
from niyama.latency.cards import current_fields
from niyama.own_rules import RuleError
from niyama.policies import BUILT_IN, Policy
from niyama.requests import DECODING
from niyama.scheduler import Arrival, Plan, Scheduler, Timing
from niyama.step import ARRIVED, CHUNK, DECODED, ENDED, KINDS, LEFT, LOADED, LOADING, LOST, OF_NO_REQUEST

VERSION = 1
END = "turns"  # key of the last line: how many steps there were
_RULES = ("rank", "prefill_budget", "doomed", "due")
_FLUSH_EVERY = 100  # steps; a crash loses no more than these


class LogError(ValueError):
    """A decision log cannot be replayed; names file, line and what is wrong."""


class DecisionLog:
    """Writes a log as it goes. `write` is a Scheduler's `watch`; sizes: the Scheduler's kv_tokens, apps and so on."""

    def __init__(self, stream: IO[str], policy: Policy, card: ModelCard, **sizes: Any) -> None:
        self._stream, self._steps, self.written_bytes = stream, 0, 0
        numbers = {name: value for name, value in vars(policy).items() if name not in _RULES}
        base = next((name for name, known in BUILT_IN.items() if _rules(known) == _rules(policy)), None)
        header = {"version": VERSION, "rules_of": base, "policy": numbers, "card": asdict(card)}
        self._line({**header, "sizes": sizes})

    @classmethod
    def open(cls, path: str | Path, policy: Policy, card: ModelCard, **sizes: Any) -> DecisionLog:
        """Start a log at `path`; one that is there already is replaced."""
        return cls(Path(path).open("w", encoding="utf-8"), policy, card, **sizes)

    def write(self, timing: Timing, events: list[int], arrivals: list[tuple[int, Arrival]], plan: Plan) -> None:
        """One step."""
        self._line(
            {
                "timing": list(timing),
                "arrivals": [[row, *new] for row, new in arrivals],
                "events": [int(value) for value in events],
                **_decided(plan),
            }
        )
        self._steps += 1
        if self._steps % _FLUSH_EVERY == 0:
            self._stream.flush()

    def close(self) -> None:
        """Say that it is whole, and write out what is buffered; the file is closed even if that fails."""
        with self._stream:
            self._line({END: self._steps})

    def _line(self, values: dict[str, Any]) -> None:
        self.written_bytes += self._stream.write(json.dumps(values, separators=(",", ":")) + "\n")  # ASCII


def _rules(policy: Policy) -> list[Callable]:
    return [getattr(policy, name) for name in _RULES]


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
        **({"left_out": list(plan.left_out)} if plan.left_out else {}),
    }


@dataclass(frozen=True)
class Replay:
    """What a replay found. `divergence`: the first step decided differently, None when all agree.

    cut_short: what is missing at the end, because the engine was killed or still writes; None for a whole log.
    """

    steps: int
    chunks: int
    divergence: str | None
    cut_short: str | None


def replay(path: str | Path, policy: Policy | None = None, progress: Callable[[int], None] | None = None) -> Replay:
    """Run a log through the kernel up to the first divergence. Raises LogError, and RuleError when `policy` fails.

    policy: whose rules decide, for one that is not built in; its numbers are those in the log. progress: called with
    the number of steps replayed so far.
    """
    lines = _lines(Path(path))
    header = next(lines, (1, None))[1]
    if header is None or header.get("version") != VERSION:
        raise LogError(
            f"{path}: line 1 is not the header of a decision log of version {VERSION}; was it written by us?"
        )
    rerun, steps, chunks, whole = _Rerun(path, header, policy), 0, 0, False
    for number, logged in lines:
        if logged is None:
            return Replay(steps, chunks, None, f"line {number} is incomplete")
        if whole:
            raise LogError(f"{path}: line {number} comes after the end; the file is damaged")
        if END in logged:
            whole = logged[END] == steps
            if not whole:
                raise LogError(f"{path}: line {number} ends {logged[END]} steps, not {steps}; lines are missing")
            continue
        decided = rerun.step(number, logged)
        steps, chunks = steps + 1, chunks + len(decided["chunks"])
        logged.setdefault("left_out", [])  # a step that leaves out nobody does not say so
        for name, value in {"left_out": [], **decided}.items():
            if value != logged[name]:
                at_s = logged["timing"][0]
                text = f"line {number}, {at_s:.6f} s: {name} is {logged[name]} in the log, {value} replayed"
                return Replay(steps, chunks, text, None)
        if progress is not None:
            progress(steps)
    return Replay(steps, chunks, None, None if whole else f"there is no end after step {steps}")


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Numbered JSON lines; None for a last line that was cut off. LogError for anything else."""
    try:
        with path.open(encoding="utf-8") as stream:
            for number, line in enumerate(stream, 1):
                yield number, _parsed(line, f"{path}: line {number}")
    except OSError as error:
        raise LogError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except UnicodeDecodeError:
        raise LogError(f"{path}: is not text; name a decision log") from None


def _parsed(line: str, where: str) -> dict[str, Any] | None:
    try:
        values = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        if line.endswith("\n"):
            raise LogError(f"{where} is not JSON ({error}); the file is damaged") from None
        return None
    if not isinstance(values, dict):
        raise LogError(f"{where} is not a JSON object; was it written by us?")
    return values


class _Rerun:
    """A scheduler as the one that wrote the log, told what that one was told."""

    def __init__(self, path: str | Path, header: dict[str, Any], policy: Policy | None) -> None:
        self._path, self._live = path, set()
        self._planned: set[int] = set()  # and not reported since, for however many steps the engine passes them over
        self._lost: set[int] = set()  # hold no KV since it was lost
        self._loading: set[int] = set()
        try:
            numbers, name, card = header["policy"], header["rules_of"], header["card"]
            if policy is None and name not in BUILT_IN:  # a log is data: it never names code to run
                known = f"policy {numbers['name']!r} has rules that are not built in"
                raise LogError(f"{path}: {known}; name them with --system FILE.py:NAME")
            rules = policy if policy is not None else BUILT_IN[name]
            model = ModelCard(**{**current_fields(card), "coefficients": tuple(card["coefficients"])})
            self._scheduler = Scheduler(replace(rules, **numbers), model, **header["sizes"])
        except LogError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise LogError(f"{path}: line 1 does not say how the scheduler was made ({error})") from None

    def step(self, number: int, logged: dict[str, Any]) -> dict[str, Any]:
        """Take the step of line `number`; returns what is decided.

        Raises LogError for one that no engine can have reported, and RuleError for a rule that fails.
        """
        where = f"{self._path}: line {number}"
        try:
            arrivals = {row: Arrival(*values) for row, *values in logged["arrivals"]}
            events, timing = logged["events"], Timing(*(float(value) for value in logged["timing"]))
            for kind, row, value in zip(events[::3], events[1::3], events[2::3], strict=True):
                self._report(kind, row, value, arrivals, where)
            plan = self._scheduler.step(timing)
            lacks = _decided(plan).keys() - {*logged, "left_out"}
            if lacks:
                raise LogError(f"{where} lacks {sorted(lacks)}; the file is damaged")
        except (LogError, RuleError):
            raise
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise LogError(f"{where} is not a step ({error!r}); the file is damaged") from None
        self._planned |= set(plan.rows)
        return _decided(plan)

    def _report(self, kind: int, row: int, value: int, arrivals: dict[int, Arrival], where: str) -> None:
        """Report one event, if it can have happened: the kernel believes whatever it is told."""
        if {type(kind), type(row), type(value)} != {int} or not (0 <= kind < len(KINDS) and 0 <= value < 2**31):
            raise LogError(f"{where}: there is no event {kind} of {row} with value {value}; the log is damaged")
        if kind == ARRIVED:
            new, state = arrivals.get(row), self._scheduler.state
            known = new is not None and new.app in range(len(state.history))
            if not known or new.tenant not in range(max(1, len(state.tenants))) or self._scheduler.arrive(new) != row:
                raise LogError(f"{where}: request {row} cannot arrive there; the log is damaged")
            self._live.add(row)
            return
        known = row in self._live if kind not in OF_NO_REQUEST else row == 0
        if kind == CHUNK:
            known = row in self._planned
        elif kind == DECODED:
            table = self._scheduler.table
            known = known and (table.state[row] == DECODING or table.emitted_tokens[row] > 0)
        elif kind in (LOADING, LOADED):
            known = row in (self._planned | self._lost if kind == LOADING else self._loading)
        if kind in (ENDED, LEFT):
            self._live.discard(row)
        if kind in (CHUNK, LOST, ENDED, LEFT, LOADING, LOADED):
            for rows in (self._planned, self._lost, self._loading):
                rows.discard(row)
            (self._lost if kind == LOST else self._loading if kind == LOADING else set()).add(row)
        if not known:
            raise LogError(f"{where}: event {KINDS[kind]!r} cannot happen to request {row} there; the log is damaged")
        self._scheduler.report(kind, row, value)
