"""How a run begins and ends, in a pipeline of two parts and a server: nothing stale stays, and no failure is lost."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from artifact.results.failures import Failure, Incomplete
from artifact.results.manifest import problems, read_manifests
from artifact.results.tables import read_table, write_table
from artifact.workflow import endings
from tests.helpers.snakemake_forks import run_snakemake

SNAKEFILE = """
from pathlib import Path
from artifact.workflow import endings
from artifact.results import failures
from artifact.workflow.config import exported

RESULTS = Path("results")
shell.prefix(exported({failures.FOLDER: "results/failures"}, Path(sys.executable).parent))
NAMES = "a", "b"

rule manifest:
    input: expand("results/tables/{name}.parquet", name=NAMES)
    output: "results/tables/manifest.json"
    shell: "echo '{{}}' > {output}"

rule part:
    output: "results/parts/{name}.parquet"
    wildcard_constraints: name="a|b"
    params: margin=config.get("margin", 1)
    shell: "test ! -e {wildcards.name}-fails && cp {wildcards.name}-{params.margin}.parquet {output}"

rule table:
    input: "results/parts/{name}.parquet"
    output: "results/tables/{name}.parquet"
    shell: "cp {input} {output}"

rule server_sweep: # a run cycle that fails only notes it
    output: "results/parts/server.parquet"
    shell: "cp server.parquet {output}"

onstart: endings.begin(workflow, RESULTS, False, 0.0)
onerror: endings.end(workflow, RESULTS, [], False)
onsuccess:
    if not endings.end(workflow, RESULTS, [], False):
        sys.exit(1)
"""


@pytest.fixture
def folder(tmp_path):
    """A pipeline whose parts are there, at either margin, and only to be copied."""
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    for name in ("a", "b"):
        for margin in (1, 2):
            write_table(tmp_path / f"{name}-{margin}.parquet", [{"margin": margin}])
    return tmp_path


def snakemake(folder: Path, *arguments: str):
    return run_snakemake("--cores", "1", "--keep-going", "--rerun-incomplete", *arguments, cwd=folder)


def margins(folder: Path) -> dict[str, int]:
    files = (folder / "results" / "tables").glob("*.parquet")
    return {path.stem: read_table(path)["margin"][0].as_py() for path in files}


def test_what_a_failed_run_was_to_make_again_is_gone_and_the_rest_is_listed(folder):
    results = folder / "results"
    assert snakemake(folder).returncode == 0 and margins(folder) == {"a": 1, "b": 1}
    assert snakemake(folder, "--forceall", "--touch").returncode == 0 and margins(folder) == {"a": 1, "b": 1}

    (folder / "a-fails").touch()
    done = snakemake(folder, "--config", "margin=2")
    assert done.returncode != 0 and "1 part failed; everything else was made." in done.stderr
    assert margins(folder) == {"b": 2}, "the table of the run before would stand beside it"
    assert not (results / "tables" / "manifest.json").exists()
    assert set(read_manifests(results)) == {"b"} and not problems(results)


def test_a_damaged_table_is_in_no_manifest(tmp_path):
    for name in ("a", "b"):
        write_table(tmp_path / "tables" / f"{name}.parquet", [{"margin": 1}])
    (damaged := tmp_path / "tables" / "a.parquet").write_bytes(damaged.read_bytes()[:50])
    names = ("tables/a.parquet", "tables/b.parquet", "tables/gone.parquet", "parts/a.parquet")
    dag = SimpleNamespace(jobs=[SimpleNamespace(output=[str(tmp_path / name) for name in names])])
    endings._list_made(dag, tmp_path, Incomplete((), {"tables/manifest.json": ()}))
    assert set(read_manifests(tmp_path)) == {"b"}


@pytest.mark.parametrize("broken", ["incomplete", "_failed_run_cycles", "_list_made", "_report"])
def test_the_last_words_are_said_whatever_fails_on_the_way(broken, monkeypatch, tmp_path):
    """Such as on a full disk."""
    job = SimpleNamespace(rule=SimpleNamespace(name="report"), output=[str(tmp_path / "r.html")], shellcmd="make it")
    monkeypatch.setattr(endings, "incomplete", lambda *_: Incomplete((Failure("r.html", "no room", "make it"),), {}))
    monkeypatch.setattr(endings, "_report", lambda *_: None)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(endings, broken, full)
    said = []
    monkeypatch.setattr(endings, "_say_last", said.append)
    workflow = SimpleNamespace(dag=SimpleNamespace(jobs=[job]), scheduler=None)
    assert endings.end(workflow, tmp_path, [], False) is False
    (text,) = said
    assert "No space left on device" in text and "To go on (what is finished stays)" in text
    assert "everything else was made" not in text and ("r.html: no room" in text) == (broken != "incomplete")


@pytest.mark.parametrize("beside", [(), ("results/tables/a.parquet",)], ids=["alone", "beside one that fails"])
def test_a_server_that_failed_fails_the_run_whatever_was_asked_for(folder, beside):
    """Its table is there all the same; the next run starts it again."""
    why = {"part": "niyama, seed 0", "reason": "server niyama-0 ended with status 1"}
    write_table(folder / "server.parquet", [{"margin": 1}], failures=[why])
    if beside:
        (folder / "a-fails").touch()
    targets = ("results/tables/server.parquet", *beside)
    done = snakemake(folder, *targets)
    assert done.returncode != 0 and margins(folder) == {"server": 1}
    last = done.stderr[done.stderr.index("part" + "s" * len(beside) + " failed") :]
    assert "results/parts/server.parquet: server niyama-0 ended with status 1" in last and "by hand: cp server" in last

    write_table(folder / "server.parquet", [{"margin": 2}])
    (folder / "a-fails").unlink(missing_ok=True)
    assert snakemake(folder, *targets[:1]).returncode == 0 and margins(folder) == {"server": 2}
