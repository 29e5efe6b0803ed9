"""A plan as text: the answer, a table of systems, what would change it, the hours, and where the numbers come from."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

WIDTH = 118


def shown(value: Any) -> str:
    """A number, or text, as the table and the page have it; a dash for what is not there."""
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.10g}"


def gpus_text(gpus: int) -> str:
    return f"{shown(gpus)} GPU" + ("" if gpus == 1 else "s")


def seeds_range(row: dict[str, Any]) -> str:
    """`5`, or `5 [5 to 6]` where seeds alone differ."""
    own = row.get("gpus_by_seed") or [row["gpus"]]
    low, high = min(own), max(own)
    return shown(row["gpus"]) if low == high else f"{shown(row['gpus'])} [{shown(low)} to {shown(high)}]"


def breaks_text(row: dict[str, Any]) -> str:
    """`1.31 times [1.2, 1.4]: 26.2/s, chat`."""
    if row.get("breaks_at_load") is None:
        return "not found"
    low, high = row["breaks_at_load_low"], row["breaks_at_load_high"]
    interval = "" if low is None else f" [{shown(low)}, {shown(high)}]"
    return f"{shown(row['breaks_at_load'])}x{interval} = {shown(row['breaks_at_qps'])}/s: {row['first_class']}"


def plan_text(found: dict[str, Any]) -> str:
    """All of it."""
    lines = [*textwrap.wrap(found["answer"], WIDTH), "", *_systems(found), "", *_attained(found), "", *_what_if(found)]
    lines += ["", *_hours(found), "", *textwrap.wrap(provenance(found), WIDTH)]
    return "\n".join(lines)


def _systems(found: dict[str, Any]) -> Iterator[str]:
    money = found["price"] is not None
    yield f"{'system':23s} {'GPUs':>14s} {'fleet':>12s}  {'first class breaks at':44s}" + (
        f" {'USD/month':>10s} {'per M tokens':>12s}" if money else ""
    )
    for row in found["systems"]:
        if row["gpus"] is None:
            yield f"{row['label']:23s} {'none':>14s}"
            yield from textwrap.wrap(row["reason"], WIDTH, initial_indent="    ", subsequent_indent="    ")
            continue
        cost = f" {shown(row['usd_a_month']):>10s} {shown(row['usd_per_million_tokens']):>12s}" if money else ""
        yield f"{row['label']:23s} {seeds_range(row):>14s} {row['fleet']:>12s}  {breaks_text(row):44s}{cost}"
    if not money:
        yield "no cost: this card's GPU has no price; give --gpu-hour USD, or --prices FILE"


def _attained(found: dict[str, Any]) -> Iterator[str]:
    names = [c["name"] for c in found["classes"]]
    yield f"{'SLOs met, %':23s} " + " ".join(f"{name:>12.12s}" for name in names)
    for row in found["systems"]:
        if row["gpus"] is not None:
            own = row["attained_percent"]
            yield f"{row['label']:23s} " + " ".join(f"{shown(own.get(name)):>12s}" for name in names)


def _what_if(found: dict[str, Any]) -> Iterator[str]:
    if found["what_if"]:
        yield f"what if ({found['best']})"
    for line in found["what_if"]:
        gpus = "no number of GPUs" if line["gpus"] is None else gpus_text(line["gpus"])
        usd = f", USD {shown(line['usd_a_month'])} a month" if "usd_a_month" in line else ""
        text = f"  {line['what']}: {gpus}{usd}" + (f", {line['note']}" if line["note"] else "")
        yield from textwrap.wrap(text, WIDTH, subsequent_indent="    ")


def _hours(found: dict[str, Any]) -> Iterator[str]:
    hours, load = found["hours"], found["load"]
    if hours is None:
        yield "constant load: no hours, and nothing for an autoscaler to save"
        return
    yield f"replicas over {shown(load['trace_hours'])} h, in {load['bins']} bins of {shown(load['bin_minutes'])} min"
    for row in found["systems"]:
        if (own := hours["systems"].get(row["system"])) is None:
            continue
        low, high = min(own["replicas"]), max(own["replicas"])
        usd = f", USD {shown(own['saved_usd_a_month'])} a month" if "saved_usd_a_month" in own else ""
        if low == high:
            yield f"  {row['label']:23s} always {high}"
            continue
        yield (
            f"  {row['label']:23s} {low} to {high}; replicas that follow them cost {shown(own['saved_percent'])} % less"
            f" with a cold start of {shown(hours['cold_start_s'])} s{usd}"
        )


def provenance(found: dict[str, Any]) -> str:
    """Where the numbers come from."""
    load = found["load"]
    what = f"runs of {shown(load['requests_per_run'])} requests"
    if found["hours"] is not None:
        what += f", minutes {shown(load['simulated_from_minute'])} to {shown(load['simulated_to_minute'])} of the trace"
        what += f" ({load['simulated']})"
    source = f"{found['trace']} ({found['trace_source']}, {shown(found['trace_rows'])} rows)"
    return (
        f"backend {found['backend']}, latency {found['latency']}, predictor {found['predictor']}, trace {source}, "
        f"{shown(found['seeds'])} seeds, {what}; a fleet holds when each class misses {found['counted']} in at most "
        f"{shown(found['most_missed_percent'])} % of its requests, in all that is simulated and in its busiest bin"
        f"{_sustained(found)}; code {found['code']}{_priced(found)}"
    )


def _sustained(found: dict[str, Any]) -> str:
    return ", and could go on" if found["sustained"] == "yes" else "; whether it could go on was not asked"


def _priced(found: dict[str, Any]) -> str:
    price = found["price"]
    return "" if price is None else f"; USD {shown(price['gpu_hour_usd'])} for an hour of a GPU ({price['source']})"
