"""The layouts of trace files that are known: by which columns each is recognised, and what these mean.

Columns are matched whatever their case; those inside JSON objects are joined by dots.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from traces.errors import TraceError

#: What a column may be, as `--columns` names it.
ROLES = ("time", "prompt", "output", "class", "tenant", "importance", "session", "hash_ids")
REQUIRED = ("prompt", "output")


@dataclass(frozen=True)
class Layout:
    """Which columns of a file mean what. unit: of numeric times; None where it is to be seen from them."""

    name: str
    columns: Mapping[str, str]  # role -> column
    unit: str | None = None
    optional: Mapping[str, str] = field(default_factory=dict)  # the same, of columns that may be absent
    also: tuple[str, ...] = ()  # further columns that tell it from other layouts
    one_of: tuple[str, ...] = ()  # the same: one of them is enough
    only: Mapping[str, str] = field(default_factory=dict)  # rows whose column has another value are no requests
    failed: str | None = None  # a request has failed whose column, or one within that, is not empty
    parent: str | None = None  # the session of the request before it in the same conversation
    starts_at_0: bool = True  # times count from the first request; else from wherever the file's do
    what: str = field(default="", compare=False)

    def fits(self, have: Collection[str]) -> bool:
        """Whether a file with these columns, in lower case, has this layout."""
        known = not self.one_of or any(name in have for name in self.one_of)
        return known and all(name.lower() in have for name in (*self.columns.values(), *self.also))

    def within(self, column: str) -> Layout:
        """The same layout where each row stands in one column of another object."""
        return replace(
            self,
            name=f"{self.name}-{column}",
            columns={role: f"{column}.{name}" for role, name in self.columns.items()},
            optional={role: f"{column}.{name}" for role, name in self.optional.items()},
            also=tuple(f"{column}.{name}" for name in self.also),
            only={f"{column}.{name}": value for name, value in self.only.items()},
        )


_AZURE = {"time": "TIMESTAMP", "prompt": "ContextTokens", "output": "GeneratedTokens"}
_MOONCAKE = {"time": "timestamp", "prompt": "input_length", "output": "output_length"}
_OWN = {"prompt": "prompt_tokens", "output": "output_tokens"}
_OWN_MORE = {"class": "qos_class", "tenant": "tenant", "importance": "important", "session": "session"}
_AIPERF = {
    "time": "metadata.request_start_ns",
    "prompt": "metrics.input_sequence_length.value",
    "output": "metrics.output_sequence_length.value",
}
_DYNAMO = {"output": "request.output_tokens"}
_DYNAMO_ALSO, _DYNAMO_ONLY = ("schema", "event_type"), {"event_type": "request_end"}
_DYNAMO_MORE = {"session": "agent_context.session_id", "time": "request.request_received_ms"}

#: The first that fits counts, so a layout with more columns stands before one with some of them.
LAYOUTS: tuple[Layout, ...] = (
    Layout(
        "niyama",
        {"time": "arrival_s", **_OWN},
        "s",
        {**_OWN_MORE, "hash_ids": "hash_ids"},
        starts_at_0=False,
        what="ours, and requests.parquet of a run",
    ),
    Layout("apex", {**_AZURE, "time": "StartTimeOffset"}, "ns", what="APEX"),
    Layout("azure", _AZURE, what="Azure LLM inference traces of 2023 and 2024; inference-perf's input"),
    Layout(
        "burstgpt",
        {"time": "Timestamp", "prompt": "Request tokens", "output": "Response tokens"},
        "s",
        {"session": "Session ID"},
        what="BurstGPT",
    ),
    Layout(
        "vidur",
        {"time": "arrived_at", "prompt": "num_prefill_tokens", "output": "num_decode_tokens"},
        "s",
        what="Vidur, with times",
    ),
    Layout(
        "sharegpt",
        {"prompt": "num_prefill_tokens", "output": "num_decode_tokens"},
        what="lengths of ShareGPT, Sarathi, SLAI",
    ),
    Layout(
        "bailian",
        _MOONCAKE,
        "s",
        {"hash_ids": "hash_ids", "session": "chat_id"},
        parent="parent_chat_id",
        one_of=("chat_id", "parent_chat_id", "turn"),
        what="Qwen-Bailian: as Mooncake's, in seconds",
    ),
    Layout(
        "niyama-ms",
        {**_MOONCAKE, "class": "qos_class", "importance": "important"},
        "ms",
        starts_at_0=False,
        what="Mooncake with our classes, as `traces.write_jsonl` writes",
    ),
    Layout("mooncake", _MOONCAKE, "ms", {"session": "session_id", "hash_ids": "hash_ids"}, what="Mooncake"),
    Layout(
        "mooncake-lengths",
        {"prompt": "input_length", "output": "output_length"},
        optional={"session": "session_id", "hash_ids": "hash_ids"},
        what="Mooncake, without times",
    ),
    Layout(
        "splitwise-sim",
        {"time": "arrival_timestamp", "prompt": "prompt_size", "output": "token_size"},
        "s",
        {"tenant": "application_id"},
        what="splitwise-sim",
    ),
    Layout(
        "inference-perf",
        {"time": "start_time", "prompt": "info.input_tokens", "output": "info.output_tokens"},
        "s",
        failed="error",
        what="inference-perf's per_request_lifecycle_metrics.json",
    ),
    Layout(
        "aiperf",
        _AIPERF,
        "ns",
        {"session": "metadata.conversation_id"},
        failed="error",
        what="AIPerf's profile_export.jsonl",
    ),
    Layout(
        "vllm-bench",
        {"prompt": "input_lens", "output": "output_lens"},
        "s",
        {"time": "start_times"},
        failed="errors",
        what="`vllm bench serve --save-result --save-detailed`",
    ),
    Layout(
        "dynamo",
        {"prompt": "request.replay.input_length", **_DYNAMO},
        "ms",
        {**_DYNAMO_MORE, "hash_ids": "request.replay.input_sequence_hashes"},
        also=_DYNAMO_ALSO,
        only=_DYNAMO_ONLY,
        what="Dynamo's request.trace.v1",
    ),
    Layout(
        "dynamo-metrics",
        {"prompt": "request.input_tokens", **_DYNAMO},
        "ms",
        _DYNAMO_MORE,
        also=_DYNAMO_ALSO,
        only=_DYNAMO_ONLY,
        what="the same without replay data",
    ),
    Layout(
        "otel",
        {"time": "startTimeUnixNano", "prompt": "gen_ai.usage.input_tokens", "output": "gen_ai.usage.output_tokens"},
        "ns",
        {"session": "gen_ai.conversation.id", "tenant": "enduser.id"},
        what="OpenTelemetry GenAI spans, as JSON",
    ),
    Layout(
        "servegen",
        {"time": "timestamp", "prompt": "input_tokens", "output": "output_tokens"},
        "s",
        {"tenant": "client_id"},
        one_of=("request_id", "client_id"),
        what="requests that ServeGen made",
    ),
    Layout(
        "otel-sdk",
        {
            "time": "start_time",
            "prompt": "attributes.gen_ai.usage.input_tokens",
            "output": "attributes.gen_ai.usage.output_tokens",
        },
        optional={"session": "attributes.gen_ai.conversation.id", "tenant": "attributes.enduser.id"},
        what="the same, as the SDK's console exporter writes them",
    ),
    Layout("niyama-lengths", _OWN, optional=_OWN_MORE, what="ours, without times"),
)
LAYOUTS += tuple(layout.within("event") for layout in LAYOUTS if layout.name.startswith("dynamo"))
BY_NAME = {layout.name: layout for layout in LAYOUTS}


def known_layouts() -> str:
    """The layouts, for messages."""
    return ", ".join(BY_NAME)


def recognised(names: Collection[str], columns: Mapping[str, str], where: str) -> Layout:
    """The layout of a file with these columns; columns: what a user has said of them, by role.

    TraceError where the columns are unknown and nothing is said, or what is said is not there.
    """
    have = {name.lower() for name in names}
    for role, column in columns.items():
        if role not in ROLES:
            raise TraceError(f"--columns has {role!r}; use {', '.join(ROLES)}")
        if column.lower() not in have:
            raise TraceError(f"{where} has no column {column!r} (--columns {role}); it has {', '.join(names)}")
    found = next((layout for layout in LAYOUTS if layout.fits(have)), None)
    if all(role in columns for role in REQUIRED):
        return Layout("columns", dict(columns), what="by --columns")
    if found is None:
        raise TraceError(
            f"{where}: its columns ({', '.join(names)}) are those of no known layout ({known_layouts()}); say which "
            "mean what: --columns time=NAME,prompt=NAME,output=NAME"
        )
    if not columns:
        return found
    changed = {**found.columns, **columns}
    unit = found.unit if changed.get("time") == found.columns.get("time") else None
    optional = {role: name for role, name in found.optional.items() if role not in columns}
    return replace(found, columns=changed, unit=unit, optional=optional)


def read_columns(text: str) -> dict[str, str]:
    """Role -> column, of time=NAME,prompt=NAME,... TraceError where it is not written so."""
    pairs = [(role.strip(), column.strip()) for role, _, column in (part.partition("=") for part in text.split(","))]
    if not all(role and column for role, column in pairs) or len(dict(pairs)) < len(pairs):
        raise TraceError(f"--columns is {text!r}; write each role once: time=NAME,prompt=NAME,output=NAME")
    return dict(pairs)
