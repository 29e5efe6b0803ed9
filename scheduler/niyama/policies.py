"""Policies: four rules and their numbers. The built-in ones carry the names used in results."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from numbers import Real
from typing import Any, NamedTuple

from niyama import rules
from niyama.bounds import MOST_RUNNING, MOST_TOKENS, number
from niyama.estimators import CONSTANT, HISTORY, ORACLE, QUANTILE
from niyama.jit import tuple_type
from niyama.names import unknown_name
from niyama.own_rules import why_no_rule

ESTIMATORS = {"history": HISTORY, "constant": CONSTANT, "quantile": QUANTILE, "oracle": ORACLE}
_IN_WORDS = {str: "a string", int: "an integer", float: "a number", bool: "true or false"}


class Rules(NamedTuple):
    """The four function pointers the kernel calls."""

    rank: Callable
    prefill_budget: Callable
    doomed: Callable
    due: Callable


@dataclass(frozen=True)
class Policy:
    """A scheduling policy: four rules (`niyama.rules`) and their numbers. ValueError names a senseless one."""

    name: str
    rank: Callable = rules.hybrid
    prefill_budget: Callable = rules.dynamic_chunk
    doomed: Callable = rules.predicted_miss
    due: Callable = rules.always
    # Bounds of an iteration's prefill; `fixed_chunk` counts decodes within the first, `grid_chunk` has its own sizes.
    max_chunk_tokens: int = number(2500, 1, MOST_TOKENS)
    min_chunk_tokens: int = number(128, 1, MOST_TOKENS)
    # Predicted step times are multiplied by it before they are compared with the slack (the artifact's 1.2).
    margin: float = number(1.2, 1)
    # Slack that is not spent: so many TBTs of every interactive decode. Without it the slack that stays is what
    # `margin` leaves of one step, and a step that takes longer than predicted makes a token late.
    reserve_tokens: float = number(0.0, 0, 1000)
    # How long `tbt_chunk` lets a step be, in TBTs of the tightest decode: while little is queued, when much is, and
    # when much is of interactive requests; and the share of the KV that must be free for steps longer than the first.
    steady_tbts: float = number(0.9, above=True, most=1000)
    longest_tbts: float = number(2.5, above=True, most=1000)
    urgent_tbts: float = number(4.0, above=True, most=1000)
    long_step_kv_free: float = number(0.4, 0, 1)
    # Each output token of a batch request is taken to need this share of the longest step, by `latest_start`: of a
    # full chunk, or of `longest_tbts` if that is less.
    decode_share: float = number(0.0, 0, 100)
    # Share of the prefill for important interactive requests that have missed their first deadline, while some wait;
    # at 0 they wait behind all that can still be on time, as in the paper.
    late_share: float = number(0.0, 0, 1)
    # When all slots are taken, preempt a batch request that has time to spare for an urgent one that has not.
    take_slots: bool = False
    # The length `steady_chunk` holds every step to; no other rule looks at it.
    step_s: float = number(0.05, above=True, seconds=5.0, days=True)
    # Below so much free KV, or a sixth of all if that is less, chunks are no larger than that.
    kv_low_tokens: int = number(32_000)
    kv_low_chunk_tokens: int = number(512, 1, MOST_TOKENS)
    # Share of the estimated output for which KV is reserved on admission, in addition to the prompt's.
    kv_reserve: float = number(0.5)
    # Most requests that hold KV at a time.
    max_running: int = number(256, 1, MOST_RUNNING)
    # Seconds per token of remaining work; equal means fixed. When they differ alpha adapts to load: it goes high when
    # the queued prompts need more than `load_high_s` seconds of prefill, and low again below `load_low_s` (the paper
    # names the idea and the low value, 1 ms/token, but no rule; this one is ours).
    alpha_low: float = number(0.008, seconds=1.0)
    alpha_high: float = number(0.008, seconds=1.0)
    load_low_s: float = number(3.0, seconds=600.0)
    load_high_s: float = number(6.0, seconds=600.0)
    # The waiting requests are ranked anew when the last time is so many seconds ago, for a `rank` that looks at the
    # time, the load or tenants; 0.001: in every step. At 0 a rank is computed on arrival, after a chunk, and when alpha
    # or the time per output token has changed.
    rerank_s: float = number(0.0, seconds=600.0)
    # Selective preemption's rule 2: keep a started prompt that one more iteration's delay dooms.
    protect_started: bool = True
    # Hints: low importance is relegated first (section 3.4).
    make_room: bool = True
    # A relegated request that can still meet its deadline when its turn comes is an ordinary one again.
    un_relegate: bool = True
    # Token deadlines as in the authors' code: one TBT looser, shifted by a late first token, and 0.4 s per token for
    # batch requests, instead of Eq 2.
    artifact_deadlines: bool = False
    # Decode-length estimate (`niyama.estimators`), in tokens.
    estimator: str = "history"
    estimator_value: float = number(2.0)
    estimator_prior: float = number(256.0)
    # Share of the queued prompts' prefill time by which a batch request is forecast to decode more slowly. At 0 it is
    # relegated so late that its token deadlines slow all others down (azure-conv-2023 at 6 QPS: three times the
    # violations, a drain of 1,580 s instead of 1,090 s); at 1 requests are relegated that would make it (sharegpt-8k
    # at 2.1 QPS: nearly twice the batch violations).
    queued_prefill_share: float = number(0.5, 0, 1)

    def __post_init__(self) -> None:
        for f in fields(Policy):
            of: Any = f.type
            if of is not Callable:
                wanted = {str: "a string", bool: "True or False"}.get(of, "a number")
                self._require(f.name, isinstance(getattr(self, f.name), Real if of in (int, float) else of), wanted)
        for rule in Rules._fields:
            problem = why_no_rule(getattr(self, rule), rule)
            if problem is not None:
                raise ValueError(f"policy {self.name!r}: {problem}")
        for f in fields(Policy):
            if "bounds" in f.metadata:
                wanted = f.metadata["bounds"].complaint(f.type, getattr(self, f.name))
                self._require(f.name, wanted is None, wanted)
        self._require("min_chunk_tokens", self.min_chunk_tokens <= self.max_chunk_tokens, "at most max_chunk_tokens")
        self._require("alpha_low", self.alpha_low <= self.alpha_high, "at most alpha_high")
        self._require("load_low_s", self.load_low_s <= self.load_high_s, "at most load_high_s")
        self._require("estimator", self.estimator in ESTIMATORS, f"one of {', '.join(ESTIMATORS)}")
        if self.estimator == "quantile":
            self._require("estimator_value", 0 < self.estimator_value < 1, "between 0 and 1 for a quantile")

    def _require(self, name: str, holds: bool, wanted: str | None) -> None:
        if not holds:
            raise ValueError(f"policy {self.name!r}: {name} is {getattr(self, name)!r}; it must be {wanted}")

    def with_numbers(self, numbers: Mapping[str, Any]) -> "Policy":
        """The same rules with other numbers, as somebody wrote them. Raises ValueError naming number, value and fix."""
        kinds: dict[str, Any] = {f.name: f.type for f in fields(Policy) if f.type is not Callable and f.name != "name"}
        for name, value in numbers.items():
            if name not in kinds:
                raise ValueError(unknown_name("policy number", name, kinds))
            if type(value) is not kinds[name] and not (kinds[name] is float and type(value) is int):
                raise ValueError(f"policy.{name} is {value!r}; make it {_IN_WORDS[kinds[name]]}")
        return replace(self, **numbers)

    @property
    def leaves_out(self) -> bool:
        """Whether a decode may be left out of a step."""
        return self.due is not rules.always

    def rules(self) -> Rules:
        """The four rules as the kernel takes them."""
        return Rules(self.rank, self.prefill_budget, self.doomed, self.due)

    def params(self) -> "Params":
        """The numbers as the kernel takes them, each of its declared type."""
        relegates = self.doomed is not rules.never  # spares the kernel the question
        reads_demand = self.prefill_budget not in rules.WITHOUT_DEMAND  # and what it costs to sum it up
        values = {
            **vars(self),
            "relegates": relegates,
            "reads_demand": reads_demand,
            "leaves_out": self.leaves_out,
            "estimator": ESTIMATORS[self.estimator],
        }
        return Params(**{name: kind(values[name]) for name, kind in Params.__annotations__.items()})


#: What the kernel reads of a Policy: its numbers under the same names, its estimator as a number, what its rules need.
Params = NamedTuple(
    "Params",
    [
        *((f.name, f.type) for f in fields(Policy) if f.type in (int, float, bool)),  # type: ignore[misc]
        ("estimator", int),
        ("relegates", bool),
        ("reads_demand", bool),
        ("leaves_out", bool),
    ],
)
PARAMS_TYPE = tuple_type(Params)


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
NIYAMA_STEADY = replace(
    NIYAMA,
    name="niyama-steady",
    rank=rules.latest_start,
    prefill_budget=rules.tbt_chunk,
    margin=1.5,
    reserve_tokens=4.0,
    decode_share=0.8,
    late_share=0.05,
    take_slots=True,
)
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
        NIYAMA_STEADY,
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
        # The authors' code as it is, but for three things that our kernel does for every policy: KV is reserved on
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


def __getattr__(name: str) -> Any:
    """Where files of users may import these two from: their earlier place."""
    if name in ("load_policy", "load_from_file"):
        from niyama import policy_files

        return getattr(policy_files, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
