"""The measurements as tables for people, targets beside them."""

from __future__ import annotations

import sys
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.decision import DECODES
from benchmarks.pairs import OUTPUT_TOKENS, PROMPT_TOKENS


def print_bench(found: dict[str, Any]) -> None:
    """The measurements as tables, targets beside them."""
    console = Console(width=None if sys.stdout.isatty() else 140)  # a log has no width; 80 would cut the numbers
    about, first = found["machine"], found["start_up"]
    console.print(
        f"{about['cpu']}, {about['cores']} cores, load average {about['load_average']:.1f}; Python {about['python']}, "
        f"numba {about['numba']}, numpy {about['numpy']}"
    )
    console.print(
        f"start-up: numba and numpy {first['import_numba_s']:.2f} s; niyama with its first simulation "
        f"{first['compile_warm_s']:.2f} s, compiled afresh {first['compile_cold_s']:.1f} s"
    )
    _print_simulator(console, found["simulator"])
    _print_decisions(console, found["decision"])
    _print_engine(console, found["engine"])
    _print_servers(console, found["servers"])
    _print_dynosim(console, found["dynosim"])
    for what, text in found["left_out"].items():
        console.print(f"left out, {what}: {text}")


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE)
    for i, name in enumerate(columns):
        table.add_column(name, justify="left" if i < 2 else "right")
    return table


def _against(value: float, target: float | None, sign: str) -> str:
    if target is None:
        return "-"
    meets = value >= target if sign == ">=" else value <= target
    return f"{sign} {target:,.0f} {'yes' if meets else 'no'}"


def _print_simulator(console: Console, rows: list[dict[str, Any]]) -> None:
    columns = ("trace", "system", "latency", "requests/s best", "median", "target", "iterations/s best", "end to end")
    table = _table("Simulator (kernel; end to end from workload to metrics)", *columns)
    for row in rows:
        table.add_row(
            f"{row['trace']} {row['load_qps']:g} QPS",
            row["system"],
            row["latency"].rpartition("-")[2],
            f"{row['requests_per_s']:,.0f}",
            f"{row['requests_per_s_median']:,.0f}",
            _against(row["requests_per_s"], row["target_requests_per_s"], ">="),
            f"{row['iterations_per_s']:,.0f}",
            f"{row['end_to_end_s'] * 1e3:.1f} ms",
        )
    console.print(table)


def _print_decisions(console: Console, rows: list[dict[str, Any]]) -> None:
    columns = ("system", "situation", "queued", "plan", "p99", "target", "plan and commit", "from Python")
    table = _table(f"One decision with {DECODES} decodes (us, median)", *columns)
    for row in rows:
        table.add_row(
            row["system"],
            row["situation"],
            f"{row['queued']:,}",
            f"{row['decision_us_median']:,.2f}",
            f"{row['decision_us_p99']:,.2f}",
            _against(row["decision_us_median"], row["target_us"], "<="),
            f"{row['decision_and_commit_us_median']:,.2f}",
            f"{row['decision_from_python_us_median']:,.1f}",
        )
    console.print(table)


def _print_engine(console: Console, found: dict[str, Any]) -> None:
    if found["skipped"] is not None:
        console.print(f"vLLM: skipped, {found['skipped']}")
        return
    columns = (
        "decodes",
        "waiting",
        "schedule()",
        "Niyama",
        "added",
        "ratio",
        "target",
        "with update",
        "Niyama",
        "ratio",
    )
    table = _table("One step of vLLM's engine core (us, median), its scheduler and Niyama's", *columns)
    for row in found["steps"]:
        step = [row[f"{name}_schedule_us"] + row[f"{name}_update_us"] for name in ("stock", "niyama")]
        table.add_row(
            f"{row['running']}",
            f"{row['waiting']:,}",
            f"{row['stock_schedule_us']:,.0f}",
            f"{row['niyama_schedule_us']:,.0f}",
            f"{row['added_schedule_us']:+,.0f}",
            f"{row['ratio']:.3f}",
            f"<= {found['target_ratio']:.2f} {'yes' if row['ratio'] <= found['target_ratio'] else 'no'}",
            f"{step[0]:,.0f}",
            f"{step[1]:,.0f}",
            f"{row['step_ratio']:.3f}",
        )
    console.print(table)
    for row in found["throughput"]:
        meets = "yes" if row["ratio"] >= row["target"] else "no"
        console.print(
            f"throughput without deadlines, {row['trace']}, {row['requests']} requests in a burst, virtual time: vLLM "
            f"{row['stock_s']:.1f} s, Niyama {row['niyama_s']:.1f} s, "
            f"ratio {row['ratio']:.4f} (>= {row['target']}: {meets})"
        )


def _print_servers(console: Console, found: dict[str, Any]) -> None:
    if found["skipped"] is not None:
        console.print(f"servers over HTTP: skipped, {found['skipped']}")
        return
    columns = ("trace", "burst", "vLLM s", "Niyama s", "ratio", "range", "virtual time", "target")
    table = _table("Bursts over HTTP without deadlines, in real time on an emulated GPU", *columns)
    for row in found["rows"]:
        meets = "yes" if row["ratio"] >= found["target_ratio"] else "no"
        table.add_row(
            row["trace"],
            f"{row['requests']} requests x {row['repeats']}",
            _range(row["stock_s"], 1),
            _range(row["niyama_s"], 1),
            f"{row['ratio']:.4f}",
            _range(row["ratios"], 4),
            f"{row['virtual_ratio']:.4f}",
            f">= {found['target_ratio']} {meets}",
        )
    console.print(table)


def _range(values: list[float], digits: int) -> str:
    return f"{min(values):.{digits}f} to {max(values):.{digits}f}"


def _print_dynosim(console: Console, found: dict[str, Any]) -> None:
    name = f"DynoSim ({found['package']} {found['version']})"
    if found["skipped"] is not None:
        console.print(f"{name}: skipped, {found['skipped']}")
        return
    columns = (
        "system",
        "load",
        "its batch",
        "requests/s",
        "DynoSim",
        "iterations/s",
        "DynoSim",
        "ratio (range)",
        "target",
        "set-up too",
    )
    table = _table(f"{name}: prompt {PROMPT_TOKENS}, output {OUTPUT_TOKENS}, one replica", *columns)
    for row in found["pairs"]:
        table.add_row(
            row["system"],
            "capacity" if row["load_qps"] != row["dynosim_load_qps"] else f"{row['load_qps']:g} QPS, both",
            f"{row['dynosim_engine']['max_num_batched_tokens']} tokens",
            f"{row['requests_per_s']:,.0f}",
            f"{row['dynosim_requests_per_s']:,.0f}",
            f"{row['iterations_per_s']:,.0f}",
            "-" if row["dynosim_iterations_per_s"] is None else f"{row['dynosim_iterations_per_s']:,.0f}",
            f"{row['ratio']:.1f}x ({min(row['ratios']):.1f} to {max(row['ratios']):.1f})",
            _against(row["ratio"], found["target_ratio"], ">="),
            f"{row['ratio_with_set_up']:.1f}x",
        )
    console.print(table)
