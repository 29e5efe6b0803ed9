"""A plan as a page: the answer first, then pictures, tables of every number, and the files that run it."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import pandas as pd
from markupsafe import Markup

from artifact.planning import charts
from artifact.planning.text import breaks_text, provenance, seeds_range, shown
from artifact.report.page import fill, page, table
from figures import style

HOURS_RULE = (
    "A pool needs its planned replicas in the busiest bin, and in another as many as that bin's work is of it, rounded "
    "up, at least one. Bins with the least and the middle number are simulated; one that does not hold gets a replica "
    "more. A replica is paid for from a cold start before it is needed. This knows the load beforehand: an autoscaler "
    "that follows the load saves less."
)


def plan_page(found: Mapping[str, Any], files: Mapping[str, str]) -> str:
    """HTML of what `facts` says; it holds everything that it shows."""
    what_if = [_what_if(line) for line in found["what_if"]]
    body = fill(
        "plan",
        answer=found["answer"],
        load=_load(found),
        gpus=_picture(
            "gpus", charts.gpus_png(found), "GPUs of each system, and the load at which each first breaks an SLO"
        ),
        systems=table(pd.DataFrame([_system(row, found) for row in found["systems"]])),
        reasons=[f"{row['label']}: {row['reason']}" for row in found["systems"] if row["gpus"] is None],
        best=found["best"],
        what_if=table(pd.DataFrame(what_if).fillna("–")) if what_if else None,
        attained=table(_attained(found)),
        hours=_hours(found) if found["hours"] else None,
        classes=table(pd.DataFrame([{k: shown(v) for k, v in c.items()} for c in found["classes"]]).fillna("–")),
        files=list(files.items()),
        provenance=provenance(dict(found)),
        made=table(_made(found)),
    )
    return page(f"How many GPUs for {found['trace']}", body)


def _load(found: Mapping[str, Any]) -> str:
    """The load in words."""
    load = found["load"]
    text = f"Load: {shown(load['mean_qps'])} requests/s on average"
    if load["trace_qps"] is not None:
        text += f" (the trace's own: {shown(load['trace_qps'])})"
    if found["hours"] is not None:
        text += (
            f", {shown(load['peak_qps'])} in the busiest of {load['bins']} bins of {shown(load['bin_minutes'])} "
            "minutes; it rises and falls as the trace's does, minute by minute"
        )
    return f"{text}. Planned with {shown(load['headroom_percent'])} % to spare."


def _picture(name: str, png: bytes, caption: str) -> Markup:
    width = round(int.from_bytes(png[16:20], "big") / style.DPI * 130)
    source = Markup(f"data:image/png;base64,{base64.b64encode(png).decode()}")
    picture = {"id": name, "narrow": False, "width": width, "alt": caption, "source": source, "label": caption}
    return fill("pictures", pictures=[picture], shared=False, caption=caption)


def _system(row: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, str]:
    if row["gpus"] is None:
        return {"system": row["label"], "GPUs": "no number", "policy": row["policy"]}
    shown_row = {
        "system": row["label"],
        "GPUs [by seed]": seeds_range(dict(row)),
        "replicas": row["fleet"],
        "first class breaks at": breaks_text(dict(row)),
    }
    if found["price"] is not None:
        shown_row |= {
            "USD a month": shown(row["usd_a_month"]),
            "USD per million tokens": shown(row["usd_per_million_tokens"]),
            "of output alone": shown(row["usd_per_million_output_tokens"]),
        }
    return {**shown_row, "policy": row["policy"]}


def _what_if(line: Mapping[str, Any]) -> dict[str, str]:
    found = {"what": line["what"], "GPUs": "no number" if line["gpus"] is None else shown(line["gpus"])}
    if "usd_a_month" in line:
        found |= {"USD a month": shown(line["usd_a_month"]), "USD a GPU-hour": shown(line["gpu_hour_usd"])}
    return {**found, "": line["note"]}


def _attained(found: Mapping[str, Any]) -> pd.DataFrame:
    rows = [row for row in found["systems"] if row["gpus"] is not None]
    names = [c["name"] for c in found["classes"]]
    return pd.DataFrame(
        [{"system": row["label"], **{name: shown(row["attained_percent"].get(name)) for name in names}} for row in rows]
    )


def _hours(found: Mapping[str, Any]) -> dict[str, Any]:
    """Picture, savings, and a row for each bin."""
    hours, load = found["hours"], found["load"]
    labels = {row["system"]: row["label"] for row in found["systems"]}
    saved = []
    for name, own in hours["systems"].items():
        row = {"system": labels[name], "paid, replicas": shown(own["mean_replicas_paid"])}
        row |= {"saved, %": shown(own["saved_percent"])}
        if "saved_usd_a_month" in own:
            row["saved, USD a month"] = shown(own["saved_usd_a_month"])
        tried = [f"bin {t['bin']}: {t['replicas']} {'held' if t['held'] else 'did not hold'}" for t in own["tried"]]
        saved.append({**row, "tried": "; ".join(tried) or "none"})
    minutes = [shown(float(f"{b * load['bin_minutes']:.4g}")) for b in range(load["bins"])]
    bins = {"bin": map(str, range(load["bins"])), "from minute": minutes, "requests/s": map(shown, hours["qps"])}
    bins |= {labels[name]: map(shown, own["replicas"]) for name, own in hours["systems"].items()}
    caption = "Load of the trace over time, and the replicas that it needs"
    return {
        "picture": _picture("hours", charts.hours_png(found), caption),
        "table": table(pd.DataFrame(saved)),
        "rule": f"{HOURS_RULE} Cold start: {shown(hours['cold_start_s'])} s.",
        "bins": table(pd.DataFrame({name: list(values) for name, values in bins.items()})),
    }


def _made(found: Mapping[str, Any]) -> pd.DataFrame:
    """All that a plan was made with."""
    plain = {k: v for k, v in found.items() if not isinstance(v, dict | list) and k != "answer"}
    nested = {f"{k}: {name}": v for k in ("load", "price") for name, v in (found[k] or {}).items()}
    rows = [{"": name.replace("_", " "), "value": shown(value)} for name, value in (plain | nested).items()]
    return pd.DataFrame(rows)
