"""Verdicts on made-up results, what `verify` does about results that are not whole, and the committed claims."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from artifact.__main__ import main
from artifact.claims.model import Claim, Claims, load_claims
from artifact.claims.text import lines
from artifact.claims.verify import Status, bounds, verify
from artifact.results.manifest import write_manifest
from artifact.results.tables import ResultError, write_table
from tests.helpers.claim_tables import LINEAR, SOUND, SOURCES, rows, with_expected, write_claims

REFERENCE = Path(__file__).parents[2] / "artifact" / "reference"


@pytest.fixture
def results(tmp_path) -> Path:
    """A results folder with one table and its manifest."""
    write_table(tmp_path / "tables" / "runs.parquet", rows(), backend="sim")
    write_manifest(tmp_path, tmp_path / "tables" / "manifest.json", [tmp_path / "tables" / "runs.parquet"])
    return tmp_path


def verdicts(results: Path, *claims: Claim):
    sources = SOURCES | {"other": SOURCES["runs"]}
    return verify(results, Claims.model_construct(tables=sources, claims=list(claims)))[0]  # all have the same id


def test_verdicts_and_what_counts_against(results):
    got = verdicts(
        results,
        SOUND,
        with_expected(0.1),
        with_expected(0.1, xfail="too short a run"),
        with_expected(1.0, xfail="too short a run"),
    )
    assert [v.status for v in got] == ["PASS", "FAIL", "XFAIL", "XPASS"]
    assert [v.counts_against for v in got] == [False, True, False, False]
    assert got[2].why == "too short a run" and "take `xfail` off" in got[3].why
    said = lines(got, {})
    assert said[-1] == "4 claims: 1 FAIL, 1 PASS, 1 XFAIL, 1 XPASS"
    assert "XPASS (expected to fail, and passes): one" in said and "XPASS" not in "".join(lines(got[:3], {}))


def test_other_cases_stand_beside_and_decide_nothing(results):
    one = SOUND.model_copy(update={"also": {"at 3": {"load_qps": 3.0}, "roofline": {"trace": "t", "load_qps": 9.0}}})
    (verdict,) = verdicts(results, one)
    three, nine = verdict.also
    assert (
        verdict.status == Status.PASS
        and three.holds
        and three.measured.value == pytest.approx((0.2 + 11 / 51 + 12 / 52) / 3)
    )
    assert nine.measured is None and nine.why == "no rows with load_qps 9.0"  # trace is not among the claim's filters
    assert any("also: at 3 0.22×" in line for line in lines([verdict], {}))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"measure": SOUND.measure.model_copy(update={"table": "other"})}, "has not been made"),
        ({"least_requests": 5000}, "runs of 1,000 requests are too short; it takes 5,000"),
        ({"same_hardware_as": "Qwen-7B"}, f"{LINEAR} is not of the paper's Qwen-7B"),
        ({"form": "full"}, "it takes full"),
        ({"backend": "gpu"}, "no rows with backend gpu"),
    ],
)
def test_what_the_results_do_not_hold_is_skipped_with_the_command(results, changes, why):
    (verdict,) = verdicts(results, SOUND.model_copy(update=changes))
    assert verdict.status == Status.SKIPPED and why in verdict.why and not verdict.counts_against
    text = "\n".join(lines([verdict], {}))
    assert "snakemake --cores all results/tables/runs.parquet" in text and ("needs a GPU" in text) == (
        "backend" in changes
    )


def test_gpu_results_count_only_from_the_papers_gpu(tmp_path):
    path = tmp_path / "tables" / "runs.parquet"
    gpu_rows = [{**row, "backend": "gpu"} for row in rows()]
    one = SOUND.model_copy(update={"backend": "gpu"})
    for gpu, status in (("NVIDIA H100-80GB", "SKIPPED"), ("NVIDIA A100-80GB PCIe", "PASS")):
        write_table(path, gpu_rows, backend="gpu", gpu=gpu, model="Llama-3-8B")
        write_manifest(tmp_path, tmp_path / "tables" / "manifest.json", [path])
        assert verdicts(tmp_path, one)[0].status == status


def edit_keeping_metadata(path: Path) -> None:
    table = pq.read_table(path)
    values = table["violation_rate"].to_pylist()
    values[7] += 1e-9
    at = table.column_names.index("violation_rate")
    edited = table.set_column(at, table.schema.field(at), [values])
    pq.write_table(edited.replace_schema_metadata(table.schema.metadata), path)


def edit_with_pandas(path: Path) -> None:
    frame = pd.read_parquet(path)
    frame.loc[3, "violation_rate"] = 0.0
    frame.to_parquet(path)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def exchange(path: Path) -> None:
    write_table(path, [{**row, "violation_rate": 0.0} for row in rows()], backend="sim")


def drop_a_row(path: Path) -> None:
    table = pq.read_table(path)
    pq.write_table(table.slice(1), path)


@pytest.mark.parametrize("harm", [edit_keeping_metadata, edit_with_pandas, truncate, exchange, drop_a_row, Path.unlink])
def test_a_table_that_is_not_as_written_is_broken(results, harm, capsys, tmp_path):
    path = write_claims(tmp_path / "claims.yaml", SOUND)
    command = ["verify", "--results", str(results), "--claims", str(path), "--report-only"]
    assert main(command) == 0
    harm(results / "tables" / "runs.parquet")
    capsys.readouterr()
    assert main(command) == 2
    said = capsys.readouterr().out
    assert said.startswith("BROKEN") and "runs.parquet: " in said and "run" in said


@pytest.mark.parametrize("text", [None, "{", "[]", '{"runs": {}}'])
def test_without_a_whole_manifest_there_is_no_verdict(results, text, capsys):
    path = results / "tables" / "manifest.json"
    path.unlink() if text is None else path.write_text(text)
    assert main(["verify", "--results", str(results)]) == 2
    assert "manifest" in capsys.readouterr().err


def test_a_manifest_lists_only_whole_tables(results):
    drop_a_row(results / "tables" / "runs.parquet")
    with pytest.raises(ResultError, match="is not as it was written"):
        write_manifest(results, results / "tables" / "m.json", [results / "tables" / "runs.parquet"])


def test_status_is_one_for_a_failure_that_nobody_expects(results, tmp_path):
    for name, one, status in (("a", with_expected(0.1), 1), ("b", with_expected(0.1, xfail="why"), 0)):
        path = write_claims(tmp_path / f"{name}.yaml", one)
        command = ["verify", "--results", str(results), "--claims", str(path)]
        assert main(command) == status and main([*command, "--report-only"]) == 0


def test_files_are_the_same_bytes_every_time(results, tmp_path):
    gone = with_expected(0.1, id="two", xfail="it is known", also={"at 3": {"load_qps": 3.0}})
    path = write_claims(tmp_path / "claims.yaml", SOUND, gone)
    for name in ("a", "b"):
        files = ["--json", str(tmp_path / f"{name}.json"), "--markdown", str(tmp_path / f"{name}.md")]
        assert main(["verify", "--results", str(results), "--claims", str(path), *files]) == 0
    for kind in ("json", "md"):
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()
    first, second = json.loads((tmp_path / "a.json").read_text())["claims"]
    assert first["status"] == "PASS" and first["measured"]["seeds"] == 3 and first["lowest"] is None
    assert second["status"] == "XFAIL" and second["xfail"] == "it is known" and second["also"][0]["case"] == "at 3"
    assert "XFAIL" in (tmp_path / "a.md").read_text()


def test_the_committed_claims_are_valid_and_every_number_they_name_is_printed():
    claims = load_claims().claims
    assert len(claims) > 50
    for one in claims:
        got = bounds(one)
        assert got.low < got.high and got.printed, one.id


def test_the_committed_reference_is_whole_and_answers_its_claims():
    claims = load_claims()
    got, broken = verify(REFERENCE, claims)
    listed = json.loads((REFERENCE / "tables" / "manifest.json").read_text())
    assert not broken and {"capacity", "summary", "cluster", "servers", "fidelity"} <= set(listed)
    for verdict in got:
        if verdict.claim.measure.table in listed:
            assert verdict.status in (Status.PASS, Status.XFAIL), f"{verdict.claim.id}: {verdict.why}"
            assert all(case.measured for case in verdict.also), verdict.also
        else:
            assert verdict.status == Status.SKIPPED and verdict.why, verdict.claim.id
