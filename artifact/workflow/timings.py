"""How long each part of the pipeline took."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

from artifact.config import ConfigError

RULES = Path(__file__).parents[2] / "workflows" / "rules"


def timings(results: Path) -> list[dict[str, Any]]:
    """Seconds per rule, from the files Snakemake's `benchmark:` keeps under results/benchmarks/RULE/.

    A folder that no rule writes to any more was left by an earlier version, and is not counted.
    """
    written = {name for file in RULES.glob("*.smk") for name in re.findall(r"/benchmarks/(\w+)/", file.read_text())}
    rows = []
    for folder in sorted(results / "benchmarks" / name for name in written):
        jobs = [_seconds(path) for path in sorted(folder.glob("*.tsv"))]
        if jobs:  # none: the first one is still running
            row = {"part": folder.name, "jobs": len(jobs), "seconds": round(sum(jobs), 1), "longest_s": max(jobs)}
            rows.append(row)
    return rows


def _seconds(path: Path) -> float:
    with path.open() as file:
        return float(next(csv.DictReader(file, delimiter="\t"))["s"])


def timings_text(results: Path) -> str:
    """The timings as lines; job seconds add up over cores."""
    rows = timings(results)
    if not rows:
        raise ConfigError(f"{results}: has no benchmarks folder; run `make reproduce` first")
    lines = [
        f"{r['part']:12s} {r['jobs']:3d} jobs {r['seconds']:8.1f} s (longest {r['longest_s']:.1f} s)" for r in rows
    ]
    total = sum(r["seconds"] for r in rows)
    return "\n".join([*lines, f"{'total':12s} {sum(r['jobs'] for r in rows):3d} jobs {total:8.1f} s over all cores"])
