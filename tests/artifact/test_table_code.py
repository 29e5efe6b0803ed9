"""Every table says which code and data made it: an edit of those, and of no other, makes it stale."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from artifact.__main__ import main
from artifact.experiments.merge import merge
from artifact.results import code_hash as table_code
from artifact.results import data_hash as table_data
from artifact.results.code_hash import MADE_BY, changed_since, code_of, mixed, module_hash, modules_of
from artifact.results.data_hash import Code, contents, data_hash
from artifact.results.manifest import made_elsewhere, problems, write_manifest
from artifact.results.tables import ResultError, provenance, read_table, write_table


def read_anew() -> None:
    for known in (modules_of, table_code._imported, contents):
        known.cache_clear()


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """The packages, copied."""
    folder = tmp_path_factory.mktemp("code")
    for name, package in table_code.PACKAGES.items():
        shutil.copytree(package, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture
def checkout(copy, monkeypatch):
    """Has that copy hashed; `edit(path, old, new)` replaces text in one of its files, for the test."""
    for name in table_code.PACKAGES:
        monkeypatch.setitem(table_code.PACKAGES, name, copy / name)
    read_anew()
    before = {}

    def edit(path: str, old: str, new: str) -> None:
        before[path] = content = (copy / path).read_bytes()
        assert old.encode() in content
        (copy / path).write_bytes(content.replace(old.encode(), new.encode(), 1))
        read_anew()

    yield edit
    for path, content in before.items():
        (copy / path).write_bytes(content)
    read_anew()


@cache
def as_copied() -> dict[str, Code]:
    """The code of every table before any edit."""
    return {name: code_of(name) for name in MADE_BY}


def stale_after(edit, *change: str) -> set[str]:
    before = as_copied()
    edit(*change)
    return {name for name in MADE_BY if code_of(name) != before[name]}


#: What imports `artifact.servers`, whose processes are started from modules that no import tells.
STARTS_SERVERS = {
    "plan", "server-sweep", "server-simulated", "engine-sweep", "engine-operators", "fidelity", "overhead",
}  # fmt: skip
PLUGIN_TABLES = {"server-sweep", "engine-sweep", "engine-operators", "fidelity", "overhead"}
FUTURE = "from __future__ import annotations\n"
OTHER = FUTURE + "OTHER = 1\n"


@pytest.mark.parametrize(
    ("change", "stale"),
    [
        (("niyama/sim/replica.py", FUTURE, OTHER), set(MADE_BY) - {"predictor-accuracy", "chunk_curve", "trace"}),
        (("niyama/latency/model.py", FUTURE, OTHER), set(MADE_BY) - {"trace"}),
        (("artifact/experiments/overload.py", FUTURE, OTHER), {"overload"}),
        (("artifact/experiments/polyserve.py", FUTURE, OTHER), {"polyserve_fleets"}),
        (("niyama/vllm/planner.py", FUTURE, OTHER), PLUGIN_TABLES),
        (("artifact/report/report.py", FUTURE, OTHER), set()),
        (("artifact/experiments/config.py", FUTURE, OTHER), {"cluster", "grid", "search", "plan", "engine-operators"}),
        (
            ("figures/estimates.py", FUTURE, OTHER),
            {"grid", "search", "disaggregated", "fidelity", "engine-sweep", "engine-operators", "plan", "score"},
        ),
        (("figures/__init__.py", '"fig2",', '"fig2", "fig3",'), set()),
        (("artifact/router/pools.py", FUTURE, OTHER), STARTS_SERVERS),
        (("artifact/servers/guard.py", FUTURE, OTHER), STARTS_SERVERS),
        (("niyama/vllm/serving/middleware.py", FUTURE, OTHER), PLUGIN_TABLES),
        (
            ("artifact/servers/config.py", FUTURE, OTHER),
            {"server-sweep", "server-simulated", "engine-sweep", "engine-operators", "plan"},
        ),
        (("artifact/reference/latency/kernels/gemm.csv", "0", "1"), {"predictor-accuracy"}),
        (("artifact/reference/latency/a100-llama3-8b-linear-grid.csv", "0", "1"), {"predictor-accuracy"}),
        (("niyama/latency/cards/a100-llama3-8b-linear.json", "1", "2"), {"predictor-accuracy"}),
        (("niyama/latency/cards/a100-llama3-8b-roofline.json", "1", "2"), {"overhead"}),
        (("artifact/reference/tables/capacity.parquet", "0", "1"), {"fidelity", "engine-sweep", "engine-operators"}),
        (("traces/catalog.yaml", "rows: 8819", "rows: 8820"), set()),
        (("artifact/results/metrics.py", '"""', '"""Said otherwise: '), set()),
        (("artifact/results/metrics.py", FUTURE, FUTURE + "# a comment\n"), set()),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_an_edit_concerns_the_tables_that_depend_on_it_and_no_others(checkout, change, stale):
    assert stale_after(checkout, *change) == stale


CODE_TRACE, LINEAR, ROOFLINE = "azure-code-2023", "a100-llama3-8b-linear", "a100-llama3-8b-roofline"


@pytest.mark.parametrize(
    ("path", "old", "new", "stale"),
    [
        (f"niyama/latency/cards/{LINEAR}.json", "420000", "420001", {LINEAR}),
        (f"niyama/latency/cards/{ROOFLINE}.json", "420000", "420001", {ROOFLINE}),
        ("traces/catalog.yaml", "rows: 8819", "rows: 8820", {CODE_TRACE, f"{CODE_TRACE}-synth"}),
        ("traces/catalog.yaml", "datasets:", "# said otherwise\ndatasets:", set()),
        ("traces/sketches.json", '"rows": 8819', '"rows": 8820', {f"{CODE_TRACE}-synth"}),
        (
            "traces/azure_llm_2024_hour_of_week.csv",
            "1",
            "2",
            {LINEAR, ROOFLINE, CODE_TRACE, f"{CODE_TRACE}-synth", "X"},
        ),
    ],
)
def test_an_edit_of_a_card_or_a_trace_concerns_what_was_made_with_it(checkout, path, old, new, stale):
    names = (LINEAR, ROOFLINE, CODE_TRACE, f"{CODE_TRACE}-synth", "X")
    before = {name: code_of("grid", name) for name in names}
    checkout(path, old, new)
    assert {name for name in names if code_of("grid", name) != before[name]} == stale
    assert len(changed_since(before[LINEAR])) == (LINEAR in stale)


def test_predictors_and_files_of_ones_own_are_data_of_an_experiment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("mine = 1\n")
    (tmp_path / "card.json").write_text("{}")
    grid = {
        "systems": ["niyama", "mine.py:mine"],
        "variants": {"a: b": {"predictor": ROOFLINE}, "c": {"predictor": None}},
    }
    code = code_of("grid", "card.json", settings=grid)
    data = {name for name in code if module_hash(name) is None} - set(code_of("grid"))
    assert data == {"mine.py", "card.json", f"niyama/latency/cards/{ROOFLINE}.json"} and not changed_since(code)
    (tmp_path / "mine.py").write_text("mine = 2\n")
    (tmp_path / "card.json").unlink()
    assert changed_since(code) == ["card.json", "mine.py"]


#: Data files that no table is made from: what others are written by, checked against or shown with.
NOT_READ = {
    "artifact/latency/gpu_prices.yaml",
    "artifact/results/tables.yaml",
    "artifact/score/papers.yaml",
    "artifact/score/suite.yaml",
    "artifact/vllm_suite/expected.yaml",
    "figures/paper_values.yaml",
    "artifact/reference/cpu/card-monotone.json",
    "artifact/reference/latency/a100-llama3-8b-roofline.json",
    "artifact/reference/latency/published.json",
    "niyama/vllm/grafana-dashboard.json",
}


def test_every_data_file_is_known():
    """A new one is read by a module of READ_BY, is an entry or a card, or stands in NOT_READ."""
    known = {name.partition(":")[0] for name in contents()}
    for package, folder in table_data.PACKAGES.items():
        for path in (path for suffix in ("csv", "json", "yaml", "npz", "txt") for path in folder.rglob(f"*.{suffix}")):
            name = f"{package}/{path.relative_to(folder).as_posix()}"
            read = name in known | NOT_READ or name.startswith(("artifact/reference/tables/", "artifact/claims/"))
            read = read or name.startswith(("artifact/reference/scores/", "artifact/score/traces/"))  # by their paths
        assert read or ".egg-info/" in name, name  # which an installation leaves
    assert all(data_hash(file) for own in table_data.READ_BY.values() for file in own)
    assert all(module_hash(module) for module in table_data.READ_BY)


def test_metrics_are_part_of_all_that_reports_requests(checkout):
    stale = stale_after(checkout, "artifact/results/metrics.py", FUTURE, OTHER)
    assert {"cluster", "grid", "search", "overload", "server-sweep"} <= stale
    assert not {"predictor-accuracy", "chunk_curve"} & stale


def test_what_is_hashed_is_what_is_loaded():
    """No module of ours that a run loads is missing: here all that a grid imports."""
    code = "import sys, artifact.runs.rows; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    ours = {name for name in loaded if name.split(".")[0] in table_code.PACKAGES}
    assert ours - table_code.NO_CODE <= set(code_of("grid"))


def test_every_command_that_writes_a_table_of_the_pipeline_is_known():
    rules = "".join(path.read_text() for path in Path("workflows/rules").glob("*.smk"))
    rules = re.sub(r"code_digest\(\s+", "code_digest(", rules)
    assert all(f'code_digest("{name}"' in rules for name in MADE_BY if f"artifact {name} " in rules)
    assert rules.count("code_digest(") >= rules.count("KERNEL,") + 1
    assert "ancient(" not in rules  # then Snakemake would look at no params of the jobs behind the kernel


def test_a_written_table_carries_its_code(tmp_path):
    out = tmp_path / "t.parquet"
    command = ["panel", "chunk_curve", "--config", "workflows/config/smoke.yaml", "--latency", LINEAR]
    assert main([*command, "--out", str(out)]) == 0
    code = provenance(read_table(out))["code"]
    assert code == code_of("chunk_curve", LINEAR) and f"niyama/latency/cards/{LINEAR}.json" in code


OLD, NEW = {"niyama.plan": "1", "artifact.runs.rows": "a"}, {"niyama.plan": "2", "artifact.experiments.capacity": "b"}


def parts(folder: Path, *codes: dict | None) -> list[Path]:
    paths = []
    for number, code in enumerate(codes):
        paths.append(folder / f"t{number}.parquet")
        write_table(paths[-1], [{"n": number}], backend="sim", **({"code": code} if code else {}))
    return paths


def test_parts_of_different_code_are_not_joined(tmp_path):
    with pytest.raises(ResultError, match=r"different code \(niyama\.plan; .*t0\.parquet, .*t1\.parquet.* run again"):
        merge(parts(tmp_path, OLD, NEW), tmp_path / "out.parquet")
    with pytest.raises(ResultError, match="not recorded in all"):
        merge(parts(tmp_path, OLD, None), tmp_path / "out.parquet")
    merge(parts(tmp_path, OLD, {**OLD, "artifact.experiments.capacity": "b"}), tmp_path / "out.parquet")
    assert provenance(read_table(tmp_path / "out.parquet"))["code"] == {**OLD, "artifact.experiments.capacity": "b"}
    merge(parts(tmp_path, None, None), tmp_path / "out.parquet")
    assert "code" not in provenance(read_table(tmp_path / "out.parquet"))


def test_a_mixture_in_one_folder_is_broken_and_older_code_is_noted(tmp_path):
    current = {"niyama.plan": module_hash("niyama.plan")}
    for codes, broken, noted in (
        ((current, current), 0, 0),
        ((OLD, {"niyama.plan": "1"}), 0, 2),
        ((current, OLD), 1, 1),
        ((None, None), 0, 2),
        ((current, None), 0, 1),
    ):
        paths = parts(tmp_path / "tables", *codes)
        write_manifest(tmp_path, tmp_path / "tables" / "manifest.json", paths)
        found, notes = problems(tmp_path), made_elsewhere(tmp_path)
        assert (len(found), sum(map(len, notes.values()))) == (broken, noted), codes
        if broken:
            assert "niyama.plan" in found["tables"] and "t1" in found["tables"] and "snakemake" in found["tables"]


def test_hashes_are_compared_module_by_module():
    assert mixed([OLD, NEW]) == ["niyama.plan"] and mixed([OLD, None, {"artifact.experiments.capacity": "b"}]) == []
    assert changed_since({"niyama.plan": module_hash("niyama.plan"), "niyama.gone": "1"}) == ["niyama.gone"]
