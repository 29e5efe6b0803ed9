"""Policies: three rules and their numbers. The built-in ones carry the names used in results."""

import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from difflib import get_close_matches
from importlib.machinery import SourceFileLoader
from numbers import Real
from pathlib import Path
from typing import NamedTuple

from niyama import rules
from niyama.estimators import CONSTANT, HISTORY, ORACLE, QUANTILE
from niyama.own_rules import RuleError, why_no_rule
from niyama.qos import DAY_S

#: The most that a policy's numbers may be: beyond them arrays do not fit, or sums are no longer finite.
MOST_RUNNING, MOST_TOKENS, MOST = 1_000_000, 2**31 - 1, 1e9
#: More seconds than each can mean: what is beyond was written in milliseconds. A step may have days, for no limit.
MOST_SECONDS = {"alpha_low": 1.0, "alpha_high": 1.0, "load_low_s": 600.0, "load_high_s": 600.0, "step_s": 5.0}
ESTIMATORS = {"history": HISTORY, "constant": CONSTANT, "quantile": QUANTILE, "oracle": ORACLE}


class Rules(NamedTuple):
    """The three function pointers the kernel calls."""

    rank: Callable
    prefill_budget: Callable
    doomed: Callable


class Params(NamedTuple):
    """The numbers the kernel reads; fields as in `Policy`."""

    max_chunk_tokens: int
    min_chunk_tokens: int
    margin: float
    step_s: float
    kv_low_tokens: int
    kv_low_chunk_tokens: int
    kv_reserve: float
    max_running: int
    alpha_low: float
    alpha_high: float
    load_low_s: float
    load_high_s: float
    protect_started: bool
    make_room: bool
    un_relegate: bool
    relegates: bool
    artifact_deadlines: bool
    estimator: int
    estimator_value: float
    estimator_prior: float


@dataclass(frozen=True)
class Policy:
    """A scheduling policy: three rules (`niyama.rules`) and their numbers. Raises ValueError naming a senseless field.

    max_chunk_tokens, min_chunk_tokens: bounds of an iteration's prefill; `fixed_chunk` counts decodes within the
    first, `grid_chunk` has sizes of its own. Below kv_low_tokens of free KV, or a sixth of all if that is less,
    chunks are at most kv_low_chunk_tokens.
    max_running: most requests that hold KV at a time.
    alpha_low, alpha_high: s per token of remaining work; equal means fixed. When they differ alpha adapts to load:
    it goes high when the queued prompts need more than `load_high_s` seconds of prefill, and low again below
    `load_low_s` (the paper names the idea and the low value, 1 ms/token, but no rule; this one is ours).
    margin: predicted step times are multiplied by it before they are held against the slack (the artifact's 1.2).
    step_s: the length `steady_chunk` holds every step to; no other rule looks at it.
    protect_started: selective preemption's rule 2, keep a started prompt that one more iteration's delay dooms.
    make_room: hints, low importance is relegated first (section 3.4). un_relegate: a relegated request that can still
    meet its deadline when its turn comes is an ordinary one again.
    kv_reserve: share of the estimated output for which KV is reserved, beside the prompt, on admission.
    artifact_deadlines: token deadlines as in the authors' code: one TBT looser, shifted by a late first token,
    and a synthetic 0.4 s per token for batch requests, instead of Eq 2.
    estimator, estimator_value, estimator_prior: decode-length estimate (`niyama.estimators`), in tokens.
    """

    name: str
    rank: Callable = rules.hybrid
    prefill_budget: Callable = rules.dynamic_chunk
    doomed: Callable = rules.predicted_miss
    max_chunk_tokens: int = 2500
    min_chunk_tokens: int = 128
    margin: float = 1.2
    step_s: float = 0.05
    kv_low_tokens: int = 32_000
    kv_low_chunk_tokens: int = 512
    kv_reserve: float = 0.5
    max_running: int = 256
    alpha_low: float = 0.008
    alpha_high: float = 0.008
    load_low_s: float = 3.0
    load_high_s: float = 6.0
    protect_started: bool = True
    make_room: bool = True
    un_relegate: bool = True
    artifact_deadlines: bool = False
    estimator: str = "history"
    estimator_value: float = 2.0
    estimator_prior: float = 256.0

    def __post_init__(self) -> None:
        self._refuse_other_types()
        for field in Rules._fields:
            problem = why_no_rule(getattr(self, field), field)
            if problem is not None:
                raise ValueError(f"policy {self.name!r}: {problem}")
        whole = ("max_chunk_tokens", "min_chunk_tokens", "max_running", "kv_low_chunk_tokens")
        for field in whole:
            value, most = getattr(self, field), MOST_RUNNING if field == "max_running" else MOST_TOKENS
            self._require(field, isinstance(value, int) and 1 <= value <= most, f"an integer >= 1, at most {most}")
        numbers = ("alpha_low", "alpha_high", "load_low_s", "load_high_s", "estimator_value", "kv_low_tokens")
        for field in (*numbers, "kv_reserve", "estimator_prior"):
            self._require(field, 0 <= getattr(self, field) <= MOST, f"finite and not negative, at most {MOST:g}")
        self._require("margin", 1 <= self.margin <= MOST, f"at least 1 and at most {MOST:g}")
        self._require("step_s", 0 < self.step_s <= MOST, f"finite and positive, at most {MOST:g}")
        for field, most in MOST_SECONDS.items():
            value = getattr(self, field)
            fix = f"at most {most:g} seconds; for milliseconds write {value / 1000:g}"
            self._require(field, value <= most or (field == "step_s" and value % DAY_S == 0), fix)
        self._require("min_chunk_tokens", self.min_chunk_tokens <= self.max_chunk_tokens, "at most max_chunk_tokens")
        self._require("alpha_low", self.alpha_low <= self.alpha_high, "at most alpha_high")
        self._require("load_low_s", self.load_low_s <= self.load_high_s, "at most load_high_s")
        self._require("estimator", self.estimator in ESTIMATORS, f"one of {', '.join(ESTIMATORS)}")
        if self.estimator == "quantile":
            self._require("estimator_value", 0 < self.estimator_value < 1, "between 0 and 1 for a quantile")

    def _refuse_other_types(self) -> None:
        for field, kind in {"name": str, **Params.__annotations__, "estimator": str}.items():
            if field == "name" or field in vars(self):
                wanted = {str: "a string", bool: "True or False"}.get(kind, "a number")
                fits = isinstance(getattr(self, field), Real if kind in (int, float) else kind)
                self._require(field, fits, wanted)

    def _require(self, field: str, holds: bool, wanted: str) -> None:
        if not holds:
            raise ValueError(f"policy {self.name!r}: {field} is {getattr(self, field)!r}; it must be {wanted}")

    def rules(self) -> Rules:
        """The three rules as the kernel takes them."""
        return Rules(self.rank, self.prefill_budget, self.doomed)

    def params(self) -> Params:
        """The numbers as the kernel takes them, each of its declared type."""
        relegates = self.doomed is not rules.never  # spares the kernel the question
        values = {**vars(self), "relegates": relegates, "estimator": ESTIMATORS[self.estimator]}
        return Params(**{field: kind(values[field]) for field, kind in Params.__annotations__.items()})


def _sarathi(name: str, rank: Callable, chunk_tokens: int = 256) -> Policy:
    """A Sarathi baseline: fixed chunk shared with the decodes, no relegation, no protection of started prompts."""
    return Policy(
        name,
        rank,
        rules.fixed_chunk,
        rules.never,
        max_chunk_tokens=chunk_tokens,
        min_chunk_tokens=min(128, chunk_tokens),
        protect_started=False,
        make_room=False,
    )


NIYAMA = Policy("niyama")
# Dynamic chunking and nothing else: first come, first served, as the paper compares it with Medha (Fig 15a).
NIYAMA_DC_FCFS = replace(
    NIYAMA,
    name="niyama-dc-fcfs",
    rank=rules.first_come,
    doomed=rules.never,
    protect_started=False,
    make_room=False,
)

BUILT_IN = {
    policy.name: policy
    for policy in (
        NIYAMA,
        replace(NIYAMA, name="niyama-adaptive", alpha_low=0.001),
        replace(NIYAMA, name="niyama-dc", rank=rules.earliest_deadline, doomed=rules.never, make_room=False),
        replace(NIYAMA, name="niyama-dc-er", rank=rules.earliest_deadline),
        _sarathi("sarathi-fcfs", rules.first_come),
        _sarathi("sarathi-edf", rules.earliest_deadline),
        _sarathi("sarathi-sjf", rules.shortest_job),
        _sarathi("sarathi-srpf", rules.shortest_remaining_prompt),
        _sarathi("sarathi-fcfs-192", rules.first_come, 192),
        _sarathi("sarathi-fcfs-512", rules.first_come, 512),
        _sarathi("sarathi-fcfs-2048", rules.first_come, 2048),
        NIYAMA_DC_FCFS,
        replace(NIYAMA_DC_FCFS, name="medha", prefill_budget=rules.steady_chunk),
        # The authors' code as it is, but for three things that our host does for every policy: KV is reserved on
        # admission (theirs crashes when it runs out), a request that lost its KV is prefilled again, and no more than
        # max_running decode at a time (theirs leaves out the most urgent beyond 256).
        replace(
            NIYAMA,
            name="qoserve-artifact",
            rank=rules.hybrid_prefill_only,
            prefill_budget=rules.grid_chunk,
            doomed=rules.rate_miss_before_start,
            max_chunk_tokens=2552,
            protect_started=False,
            make_room=False,
            un_relegate=False,
            artifact_deadlines=True,
            estimator="constant",
            estimator_value=15.0,
        ),
    )
}


def load_policy(name: str) -> Policy:
    """The built-in policy called `name`, or one's own by FILE.py:NAME; a ValueError lists the known names."""
    if ":" in name:
        policy = load_from_file(name)
        if not isinstance(policy, Policy):
            what = f"a {type(policy).__name__}" if isinstance(policy, tuple | list | dict) else repr(policy)
            raise ValueError(f"policy {name!r} is {what}; it must be a niyama Policy")
        return policy
    if name not in BUILT_IN:
        close = get_close_matches(name, BUILT_IN, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise ValueError(f"policy {name!r} is unknown{hint}; use one of {', '.join(BUILT_IN)}, or FILE.py:NAME")
    return BUILT_IN[name]


def load_from_file(name: str) -> object:
    """The object that FILE.py:NAME names: the file is run. ValueError, in one line, when that fails or NAME is not."""
    path, _, attribute = name.rpartition(":")
    if not Path(path).is_file():
        raise ValueError(f"{name!r}: there is no file {path!r}; write FILE.py:NAME")
    # numba imports the module of a compiled rule that it finds in its cache: one that is registered, by a name that no
    # other file has
    where = hashlib.sha256(str(Path(path).resolve()).encode()).hexdigest()[:12]
    loader = SourceFileLoader(f"{Path(path).stem}_{where}", str(path))  # whatever the file's suffix
    spec = importlib.util.spec_from_file_location(loader.name, path, loader=loader)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    try:
        with redirect_stdout(sys.stderr):  # what it prints is no result
            spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[spec.name]
        if isinstance(error, KeyboardInterrupt | MemoryError):
            raise
        raise ValueError(_failure(path, error)) from error
    if not hasattr(module, attribute):
        close = get_close_matches(attribute, vars(module), n=1)
        own = [known for known, value in vars(module).items() if isinstance(value, Policy)]
        hint = f"did you mean {close[0]!r}? " if close else ""
        has = (
            f"its policies are {', '.join(own)}" if own else "it has no policy: add one, such as mine = Policy('mine')"
        )
        raise ValueError(f"{name!r}: {path} defines no {attribute!r}; {hint}{has}")
    return getattr(module, attribute)


def _failure(path: str, error: BaseException) -> str:
    """Why the file could not be run, in a line: where in it, and what happened."""
    if isinstance(error, RuleError):
        return str(error)
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f"{path}, line {error.lineno}: {error.msg}; correct the file"
    frames = traceback.extract_tb(error.__traceback__)
    line = next((frame.lineno for frame in reversed(frames) if frame.filename == str(path)), None)
    where = path if line is None else f"{path}, line {line}"
    said = " ".join(str(error).split()) or "without a word"
    kind = "" if type(error) is ValueError else f"{type(error).__name__}: "
    return f"{where}: {kind}{said[:400]}; correct the file"
