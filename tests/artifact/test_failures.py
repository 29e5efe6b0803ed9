"""What a command notes when it fails, whose fault a missing figure is, and the last words of a run."""

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from artifact.__main__ import main
from artifact.results import failures
from artifact.results.failures import Failure, Incomplete, closing_text, incomplete


@dataclass(eq=False)
class Job:
    """A job as far as we look at it."""

    name: str
    output: list[str]
    needs: list["Job"] = field(default_factory=list)
    finished: bool = False
    shellcmd: str = ""

    @property
    def rule(self):
        return SimpleNamespace(name=self.name)


def dag_of(*jobs: Job):
    return SimpleNamespace(
        jobs=jobs,
        needrun=lambda job: True,
        finished=lambda job: job.finished,
        dependencies={job: job.needs for job in jobs},
    )


def test_a_command_notes_why_it_failed_only_where_the_pipeline_asked(tmp_path, monkeypatch, capsys):
    arguments = ["merge", str(tmp_path / "gone.parquet"), "--out", str(tmp_path / "tables" / "t.parquet")]
    assert main(arguments) == 2
    monkeypatch.setenv(failures.FOLDER, str(tmp_path / "failures"))
    assert main(arguments) == 2
    assert "gone.parquet: is missing" in capsys.readouterr().err
    job = Job("named_table", [str(tmp_path / "tables" / "t.parquet")])
    (found,) = incomplete(dag_of(job), tmp_path).failures
    assert found.part == job.output[0] and "gone.parquet: is missing" in found.reason
    assert found.command == " ".join(["python -m artifact", *arguments])


@pytest.mark.parametrize("folder", ["/proc/failures", "file/failures"])
def test_where_no_note_can_be_written_the_error_itself_is_told(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    monkeypatch.setenv(failures.FOLDER, folder)
    assert main(["merge", "gone.parquet", "--out", "t.parquet"]) == 2
    assert "gone.parquet: is missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    "note", [b"", b'{"reason": "x", "comm', b"\xff", b"[]", b"{}", b'{"reason": 1, "command": "x"}']
)
def test_a_damaged_note_counts_as_none(note, tmp_path):
    job = Job("table", [str(tmp_path / "t.parquet")], shellcmd="python -m artifact table")
    path = failures._record(tmp_path / "failures", job.output[0])
    path.parent.mkdir()
    path.write_bytes(note)
    (found,) = incomplete(dag_of(job), tmp_path).failures
    assert (found.reason, found.command) == (failures.SILENT, job.shellcmd)
    path.unlink()
    path.mkdir()  # cannot be read
    assert incomplete(dag_of(job), tmp_path).failures == (found,)


def test_a_mistake_of_ours_is_noted_with_its_kind_and_raised(tmp_path, monkeypatch):
    monkeypatch.setenv(failures.FOLDER, str(tmp_path / "failures"))
    out = tmp_path / "overhead.parquet"

    def broken(*_):
        raise KeyError("x")

    monkeypatch.setattr("benchmarks.vllm_steps.steps", broken)
    with pytest.raises(KeyError):
        main(["overhead", "--out", str(out)])
    (found,) = incomplete(dag_of(Job("overhead", [str(out)])), tmp_path).failures
    assert found.reason == "KeyError: 'x'"


def test_a_missing_figure_is_the_fault_of_the_first_that_failed_before_it(tmp_path):
    trace = Job("trace", ["r/traces/a.json"], finished=True)
    sweep = Job("sweep", ["r/sweep/a.parquet"], [trace], shellcmd="python -m artifact grid")
    cluster = Job("cluster", ["r/cluster/a.parquet"], [trace], finished=True)
    summary = Job("summary_table", ["r/tables/summary.parquet"], [sweep])
    own = Job("figure", ["r/figures/fig1.txt"], [cluster])
    other = Job("figure", ["r/figures/fig11.txt", "r/figures/fig11.html"], [summary])
    drawn = Job("figure", ["r/figures/fig7.txt"], [cluster], finished=True)
    report = Job("report", ["r/report.html"], [own, other, drawn])
    dag = dag_of(trace, sweep, cluster, summary, own, other, drawn, report)
    found = incomplete(dag, Path("./r/"))
    assert [failure.part for failure in found.failures] == ["r/figures/fig1.txt", "r/sweep/a.parquet"]
    missing = {"figures/fig1.txt", "figures/fig11.txt", "figures/fig11.html", "tables/summary.parquet"}
    assert set(found.outputs) == missing | {"sweep/a.parquet", "report.html"}
    (why,) = found.outputs["figures/fig11.txt"]
    assert why == Failure("r/sweep/a.parquet", failures.SILENT, "python -m artifact grid")
    assert found.outputs["tables/summary.parquet"] == (why,)
    found.write(tmp_path / "i.json")
    assert Incomplete.read(tmp_path / "i.json") == found


@pytest.mark.parametrize("results", ["./out", "out/", "out//.", "out"])
def test_a_reason_is_found_however_the_folder_is_written(results, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(failures.FOLDER, f"{results}/failures")
    out = f"{results}/tables/t.parquet"  # as the Snakefile has it
    assert main(["merge", "gone.parquet", "--out", out]) == 2
    (found,) = incomplete(dag_of(Job("named_table", [out])), Path(results)).failures
    assert "gone.parquet: is missing" in found.reason


def test_only_the_notes_on_what_is_to_run_are_forgotten(tmp_path, monkeypatch, capsys):
    """Another run on other targets may have written the rest."""
    monkeypatch.setenv(failures.FOLDER, str(tmp_path / "failures"))
    jobs = [Job(name, [str(tmp_path / f"{name}.parquet")]) for name in ("mine", "other")]
    for job in jobs:
        main(["merge", "gone.parquet", "--out", job.output[0]])
    failures.forget(dag_of(jobs[0]), tmp_path / "failures")
    reasons = {found.part: found.reason for found in incomplete(dag_of(*jobs), tmp_path).failures}
    assert reasons[jobs[0].output[0]] == failures.SILENT and "is missing" in reasons[jobs[1].output[0]]


def test_the_last_words_say_what_why_and_how_to_go_on(tmp_path, monkeypatch):
    found = Incomplete((Failure("r/tables/x.parquet", "no\nroom" + "!" * 300, "python -m artifact x"),), {})
    monkeypatch.setenv(failures.AGAIN, "make reproduce")
    first, what, by_hand, report, again = closing_text(found, tmp_path / "report.html").splitlines()
    assert first == "1 part failed; everything else was made." and what.startswith("  r/tables/x.parquet: no room!!")
    assert len(what) < 300 and by_hand == "    by hand: python -m artifact x" and report.endswith("report.html")
    assert again == "To go on (what is finished stays): make reproduce"
    monkeypatch.delenv(failures.AGAIN)
    assert closing_text(found, None).splitlines()[-1].endswith("snakemake --cores all")
