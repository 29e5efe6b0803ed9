"""Every table says which code made it: an edit of that code, and of no other, makes it stale."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from artifact import table_code
from artifact.__main__ import main
from artifact.manifest import made_elsewhere, problems, write_manifest
from artifact.pipeline import merge
from artifact.table_code import MADE_BY, changed_since, code_of, mixed, module_hash
from artifact.tables import ResultError, provenance, read_table, write_table


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A copy of the sources that may be edited; `edit(module, old, new)` replaces text in one."""
    packages = {}
    for name, folder in table_code.PACKAGES.items():
        ignored = shutil.ignore_patterns("__pycache__", "reference", "setup")
        packages[name] = shutil.copytree(folder, tmp_path / "code" / name, ignore=ignored)
    monkeypatch.setattr(table_code, "PACKAGES", packages)
    code_of.cache_clear()

    def edit(path: str, old: str, new: str) -> None:
        file = tmp_path / "code" / path
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new, 1))
        code_of.cache_clear()

    yield edit
    code_of.cache_clear()


def stale_after(edit, *change: str) -> set[str]:
    before = {name: code_of(name) for name in MADE_BY}
    edit(*change)
    return {name for name in MADE_BY if code_of(name) != before[name]}


FUTURE = "from __future__ import annotations\n"
OTHER = FUTURE + "OTHER = 1\n"


@pytest.mark.parametrize(
    ("change", "stale"),
    [
        (("niyama/sim/replica.py", FUTURE, OTHER), set(MADE_BY) - {"predictor-accuracy", "chunk_curve"}),
        (("niyama/latency/model.py", FUTURE, OTHER), set(MADE_BY)),
        (("artifact/overload.py", FUTURE, OTHER), {"overload"}),
        (("artifact/panels/polyserve.py", FUTURE, OTHER), {"polyserve_fleets"}),
        (("niyama/vllm/planner.py", FUTURE, OTHER), {"server-sweep", "engine-sweep", "fidelity", "overhead"}),
        (("artifact/report.py", FUTURE, OTHER), set()),
        (("artifact/metrics.py", '"""', '"""Said otherwise: '), set()),
        (("artifact/metrics.py", FUTURE, FUTURE + "# a comment\n"), set()),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_an_edit_concerns_the_tables_that_depend_on_it_and_no_others(checkout, change, stale):
    assert stale_after(checkout, *change) == stale


def test_metrics_are_part_of_all_that_reports_requests(checkout):
    stale = stale_after(checkout, "artifact/metrics.py", FUTURE, OTHER)
    assert {"capacities", "sweep", "cluster", "grid", "search", "overload", "server-sweep"} <= stale
    assert not {"predictor-accuracy", "chunk_curve"} & stale


def test_what_is_hashed_is_what_is_loaded():
    """No module of ours that a run loads is missing: here all that a load sweep imports."""
    code = "import sys, artifact.sweep; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {name for name in loaded if name.split(".")[0] in table_code.PACKAGES} <= set(code_of("sweep"))


def test_every_command_that_writes_a_table_of_the_pipeline_is_known():
    rules = "".join(path.read_text() for path in Path("workflows/rules").glob("*.smk"))
    assert all(f'code_digest("{name}")' in rules for name in MADE_BY if f"artifact {name} " in rules)
    assert rules.count("code_digest(") >= rules.count("KERNEL,") + 1
    assert "ancient(" not in rules  # then Snakemake would look at no params of the jobs behind the kernel


def test_a_written_table_carries_its_code(tmp_path):
    out = tmp_path / "t.parquet"
    command = ["panel", "chunk_curve", "--config", "workflows/config/smoke.yaml", "--latency", "a100-llama3-8b-linear"]
    assert main([*command, "--out", str(out)]) == 0
    assert provenance(read_table(out))["code"] == code_of("chunk_curve")


OLD, NEW = {"niyama.plan": "1", "artifact.sweep": "a"}, {"niyama.plan": "2", "artifact.capacity": "b"}


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
    merge(parts(tmp_path, OLD, {**OLD, "artifact.capacity": "b"}), tmp_path / "out.parquet")
    assert provenance(read_table(tmp_path / "out.parquet"))["code"] == {**OLD, "artifact.capacity": "b"}
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
    assert mixed([OLD, NEW]) == ["niyama.plan"] and mixed([OLD, None, {"artifact.capacity": "b"}]) == []
    assert changed_since({"niyama.plan": module_hash("niyama.plan"), "niyama.gone": "1"}) == ["niyama.gone"]
