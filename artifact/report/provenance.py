"""What a report says of where its numbers come from: traces, runs, latency models, code, versions."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version

import pandas as pd
from markupsafe import Markup

from artifact.report.page import paragraph, table
from artifact.results.code_hash import digest
from artifact.results.manifest import other_code
from figures import style
from niyama import load_card

RUN_COLUMNS = ("trace", "latency", "predictor", "system", "requests")  # of a table with a row per run or search
PACKAGES = ("niyama", "numpy", "numba", "scipy", "pandas", "pyarrow", "matplotlib", "seaborn")


def made_from(tables: Mapping[str, pd.DataFrame], served: Mapping[str, pd.DataFrame]) -> Markup:
    """All of it, as HTML. served: tables of vLLM's engine and servers, whose figures say the rest of it."""
    html = Markup("<h3>Traces</h3>\n") + table(_traces(tables))
    html += Markup("<h3>Runs</h3>\n") + table(_runs(tables))
    html += Markup("<h3>Latency models</h3>\n") + table(_cards(tables))
    packages = {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES}
    about = ", ".join(f"{name} {found}" for name, found in packages.items())
    html += Markup("<h3>Code</h3>\n") + table(_code({**tables, **served}))
    schema = sorted({str(frame.attrs.get("schema_version", "not recorded")) for frame in tables.values()})
    return html + Markup("<h3>Versions</h3>\n") + paragraph(f"{about}; tables of schema version {', '.join(schema)}.")


def _code(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The code that each table was made by: one hash of all modules it depends on, and whether they are still so."""
    rows = []
    for name, frame in tables.items():
        code = frame.attrs.get("code")
        differs = other_code(frame.attrs) or "as in this checkout"
        rows.append({"table": name, "code": digest(code) if code else "–", "now": differs})
    return pd.DataFrame(rows)


def _traces(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Every trace in the tables, with what their metadata says of its source."""
    known = {}
    for frame in tables.values():
        known |= frame.attrs.get("traces", {})
        one = frame.attrs.get("trace")
        known |= {one["trace"]: one} if isinstance(one, Mapping) and "trace" in one else {}
    names = {str(name) for frame in tables.values() if "trace" in frame for name in frame["trace"].unique()}
    rows = []
    for name in style.in_order(names, style.TRACES):
        about = known.get(name, {})
        guess = "synthetic" if name.endswith(style.SYNTHETIC) else "not recorded"
        rows.append(
            {
                "trace": name,
                "source": about.get("source", guess),
                "rows": style.number_text(about.get("rows"), 0),
                "sha256": (about.get("sha256") or "–")[:16],
                "licence": about.get("licence", "–"),
                "notes": "; ".join([*about.get("notes", ()), about.get("citation", "")]).strip("; "),
            }
        )
    return pd.DataFrame(rows)


def _runs(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Run lengths and seeds of each experiment."""
    rows = []
    capacities = tables["capacity"].groupby("run_length") if "capacity" in tables else ()
    for length, own in sorted(capacities, reverse=True, key=lambda pair: pair[0]):
        rows.append({"experiment": f"capacity, {length} runs", **_counts(own, own["seeds"])})
    for name, frame in tables.items():
        if name != "capacity" and set(RUN_COLUMNS) <= set(frame.columns):
            seeds = frame["seeds"] if "seeds" in frame else [frame["seed"].nunique()]
            rows.append({"experiment": name, **_counts(frame, seeds)})
    return pd.DataFrame(rows)


def _counts(frame: pd.DataFrame, seeds: Iterable[int]) -> dict[str, str]:
    return {
        "requests per run": style.counted(frame["requests"]),
        "seeds": style.counted(seeds),
        "predictors": ", ".join(sorted(set(frame["predictor"]))),
        "systems": ", ".join(style.look(name).label for name in style.in_order(frame["system"], style.SYSTEMS)),
    }


def _cards(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    own = (frame["latency"].unique() for frame in tables.values() if "latency" in frame)
    names = dict.fromkeys(str(name) for unique in own for name in unique)
    cards = [load_card(name) for name in names]
    fields = ("name", "model", "hardware", "engine", "source", "error")
    return pd.DataFrame([{field: getattr(card, field) for field in fields} for card in cards])


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
