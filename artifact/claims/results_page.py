"""docs/RESULTS.md: a heading, a small table and the reasons for each finding, from claims and results tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from artifact.claims.text import counts_text, expected_text, measured_text
from artifact.claims.verify import Status, Verdict
from artifact.results.frames import load_table, markdown
from artifact.results.manifest import table_path
from artifact.runs.run import OVERLAPPED_BACKEND
from figures import headline, style
from figures.frames import CRITERION_ALL, CRITERION_PAPER, Tables

COMMAND = "python -m artifact verify --results artifact/reference --results-page docs/RESULTS.md"
LATENCY = "a100-llama3-8b-linear"
#: The traces that the paper did not use: no number of the paper belongs beside theirs.
OTHER_TRACES = "2023"
HEAD = f"""# Results

What the reproduction measured beside what the paper prints, finding by finding. [FINDINGS.md](FINDINGS.md) explains the
results and adds what no claim covers. This command writes the page from the claims and the tables in
`artifact/reference`, and a test fails when the page is out of date:

```
{COMMAND}
```

A number is the mean over seeds with its 95 % interval (Student's t). A claim comes out when the mean is within the
range that is expected. Unless a line says otherwise the latency model is `{LATENCY}`, the predictor is the executor's
own model (an oracle), and violations count TTFT and TTLT as the authors' scripts do. The same claims with other latency
models, traces and run lengths: `python -m artifact verify --results artifact/reference`.
"""


@dataclass(frozen=True)
class Section:
    """One heading of the page. claims: how the ids of its claims begin; extra: names of functions in `EXTRA`."""

    title: str
    claims: tuple[str, ...]
    extra: tuple[str, ...] = ()


#: A claim belongs to the section that has the longest beginning of its id.
SECTIONS = (
    Section("Goodput per replica (Fig 7a)", ("fig7-", "text-"), ("goodput",)),
    Section("GPUs for one load (Fig 1, Table 4)", ("fig1-", "table4-"), ("gpus",)),
    Section("Load and overload (Fig 2, 10, 11)", ("fig2-", "fig10-", "fig11-", "overload-", "token-", "long-prompts-")),
    Section("What each mechanism adds (Table 5)", ("table5-",)),
    Section("Relegation and alpha (Fig 5, 14)", ("fig5-", "fig14-")),
    Section("Load that toggles (Fig 12, 13)", ("fig12-", "fig13-")),
    Section("Other mixes and SLOs (Table 6, section 4)", ("table6-", "other-slos-")),
    Section("Qwen-7B and Llama-3-70B (Fig 7b, 7c)", ("fig7-qwen-", "fig7-70b-")),
    Section("Disaggregated prefill (Fig 8)", ("fig8-",)),
    Section("Chunks (Fig 4, 6, 9, section 3.6.1)", ("fig4-", "fig6-", "fig9-", "chunk-")),
    Section("Medha and PolyServe (Fig 15)", ("fig15a-", "fig15b-")),
    Section("Predictor errors (not in the paper)", ("predictor-", "hardware-", "decode-length"), ("predictors",)),
    Section("Niyama-steady (not in the paper)", ("steady-",)),
    Section(
        "Run length, arrivals, other workloads (not in the paper)",
        ("run-length", "long-runs-", "arrivals", "sub-second", "long-context", "gaps-"),
    ),
    Section("Bursts beside batch jobs (not in the paper)", ("operators-",)),
    Section(
        "Inside vLLM (not in the paper)",
        ("one-scheduler", "scheduling-", "engine-", "servers-", "gpu-"),
        ("engines", "planning"),
    ),
)


def page(verdicts: Sequence[Verdict], results: Path) -> str:
    """The page. ValueError for a claim that belongs to no section, ResultError for a missing table."""
    by_section: dict[str, list[Verdict]] = {section.title: [] for section in SECTIONS}
    for verdict in verdicts:
        by_section[section_of(verdict.claim.id).title].append(verdict)
    parts = [HEAD, f"{len(verdicts)} claims: {counts_text(verdicts)}.\n", _overview(by_section)]
    for section in SECTIONS:
        parts += [f"## {section.title}\n", *(EXTRA[name](results) for name in section.extra)]
        parts += [_claims(by_section[section.title]), *_reasons(by_section[section.title])]
    return "\n".join(parts)


def section_of(claim: str) -> Section:
    """Where a claim belongs, by its id."""
    found = {start: section for section in SECTIONS for start in section.claims if claim.startswith(start)}
    if not found:
        raise ValueError(f"claim {claim!r} belongs to no section of docs/RESULTS.md; add its beginning to SECTIONS")
    return found[max(found, key=len)]


def _overview(by_section: dict[str, list[Verdict]]) -> str:
    """How many claims of each section come out."""
    rows = [
        {
            "finding": title,
            "claims": len(own),
            "come out": sum(verdict.status == Status.PASS for verdict in own),
        }
        for title, own in by_section.items()
    ]
    return markdown(pd.DataFrame(rows))


def _claims(verdicts: Iterable[Verdict]) -> str:
    rows = [
        {
            "claim": f"{v.claim.statement} (`{v.claim.id}`)",
            "expected": expected_text(v.claim, v.bounds),
            "measured": measured_text(v.measured, v.claim.unit),
            "verdict": str(v.status),
        }
        for v in verdicts
    ]
    return markdown(pd.DataFrame(rows))


def _reasons(verdicts: Iterable[Verdict]) -> list[str]:
    """Why claims do not come out: one line per reason, with the claims that it is about; what settles the others."""
    by_reason: dict[str, list[str]] = {}
    for verdict in verdicts:
        if verdict.status != Status.PASS:
            reason = verdict.claim.xfail or f"not measured; `{verdict.source.command}` settles it"
            by_reason.setdefault(reason, []).append(f"`{verdict.claim.id}`")
    lines = [f"- {', '.join(claims)}: {reason}." for reason, claims in by_reason.items()]
    return ["Likely reasons for what does not come out:\n", "\n".join(lines) + "\n"] if lines else []


def _tables(results: Path, *names: str) -> Tables:
    return {name: load_table(table_path(results, name)) for name in names}


def _goodput(results: Path) -> str:
    """Goodput of the paper's systems, without the paper's numbers where it did not use the trace."""
    tables = _tables(results, *headline.INPUTS)
    frame = headline.goodputs(tables, LATENCY)
    other = frame["trace"].str.contains(OTHER_TRACES)
    for column in frame.columns.drop("trace"):
        frame.loc[other, column] = frame.loc[other, column].str.rpartition(" / ")[0] + " / –"
    return f"{headline.caption(tables)}\n\n{markdown(frame)}"


def _gpus(results: Path) -> str:
    """GPUs of each planned fleet, without the paper's where it did not use the trace."""
    frame = headline.gpus(_tables(results, *headline.INPUTS))
    frame.loc[frame["trace"].str.contains(OTHER_TRACES), "paper's GPUs"] = "–"
    return markdown(frame)


def _predictors(results: Path) -> str:
    """Capacity of Niyama and EDF by what the predictor gets wrong."""
    frame = _tables(results, "predictor_error")["predictor_error"]
    frame = frame[frame["latency"] == LATENCY]
    wide = frame.pivot_table(
        index=["trace", "variant"], columns=["system", "criterion"], values="capacity_qps", sort=False
    )
    rows = [
        {
            "trace": style.trace_label(trace),
            "predictor": variant,
            "Niyama (QPS)": style.number_text(own["niyama", CRITERION_PAPER]),
            "Niyama, token deadlines too": style.number_text(own["niyama", CRITERION_ALL]),
            "Sarathi-EDF, token deadlines too": style.number_text(own["sarathi-edf", CRITERION_ALL]),
        }
        for (trace, variant), own in wide.iterrows()
    ]
    return markdown(pd.DataFrame(rows))


def _engines(results: Path) -> str:
    """Violations at the highest load: vLLM's engine in virtual time, and real servers, on an emulated GPU."""
    rows = []
    for name, where in (("engine", "engine in virtual time"), ("servers", "servers over HTTP, real time")):
        frame = _tables(results, name)[name]
        load = frame["load_qps"] / frame["replicas"]
        top = frame[(frame["group"] == "all") & (load == load.max())]
        for system in style.in_order(top["system"], style.SYSTEMS):
            own = top[top["system"] == system]
            simulated = own["backend"] == OVERLAPPED_BACKEND
            row = {"vLLM": where, "system": style.look(system).label}
            row["violated, %"] = _over_seeds(own.loc[~simulated, "violation_rate"])
            rows.append({**row, "simulated, %": _over_seeds(own.loc[simulated, "violation_rate"])})
    text = "Requests violated at 5.5 QPS per GPU, token deadlines counted (in brackets: lowest and highest seed):"
    return f"{text}\n\n{markdown(pd.DataFrame(rows))}"


def _over_seeds(rates: pd.Series) -> str:
    """The mean in percent, with the lowest and the highest seed where there are several."""
    percent = 100 * rates
    return f"{percent.mean():.1f}" + (f" [{percent.min():.1f}, {percent.max():.1f}]" if len(rates) > 1 else "")


def _planning(results: Path) -> str:
    """What planning adds to a step of vLLM's scheduler."""
    frame = _tables(results, "overhead")["overhead"]
    rows = [
        {
            "requests waiting": f"{row.waiting:,}",
            "vLLM's schedule(), us": f"{row.stock_schedule_us:.0f}",
            "planning adds, us": f"{row.added_schedule_us:.0f}",
            "ratio": f"{row.ratio:.2f}",
            "the step's end adds, us": f"{row.added_update_us:.0f}",
        }
        for row in frame.itertuples()
    ]
    return f"Cost of planning, with 64 requests decoding:\n\n{markdown(pd.DataFrame(rows))}"


EXTRA = {
    "goodput": _goodput,
    "gpus": _gpus,
    "predictors": _predictors,
    "engines": _engines,
    "planning": _planning,
}
