"""A part of the pipeline that fails costs its own figure only: the report is made, and says what is missing and why."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
#: Imported by every Python of the run: one figure raises, and one experiment is killed without a word.
BREAKS = """
import os, signal, sys
if {"figure", "fig11"} <= set(sys.orig_argv):
    import figures.fig11
    def draw(*_):
        raise KeyError("no panel 3")
    figures.fig11.draw = draw
if {"cluster", "a100-llama3-8b-roofline"} <= set(sys.orig_argv):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def one_latency(folder: Path) -> Path:
    """The smoke configuration, as far as the default target needs it, with one latency model and one seed."""
    config = yaml.safe_load((ROOT / "workflows/config/smoke.yaml").read_text())
    searches = {name: {**config["searches"][name], "seeds": 1} for name in ("capacity", "long_capacity")}
    grids, cluster = {"summary": {**config["grids"]["summary"], "seeds": 1}}, {**config["cluster"], "seeds": 1}
    config = {"grids": grids, "searches": searches, "cluster": cluster}
    path = folder / "one.yaml"
    if not path.exists():
        path.write_text(yaml.safe_dump({"latencies": ["a100-llama3-8b-roofline"], **config}))
    return path


def pipeline(results: Path, broken: Path | None = None):
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--nolock", "--config"]
    command += [f"experiments={one_latency(results.parent)}", f"results={results}", "servers=none"]
    paths = [str(broken), str(ROOT)] * (broken is not None) + [os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.nightly("Snakefile", "workflows", "artifact/report", "artifact/workflow")
def test_what_fails_is_missing_with_its_reason_and_the_next_run_makes_it(tmp_path):
    results = tmp_path / "results"
    (tmp_path / "sitecustomize.py").write_text(BREAKS)
    done = pipeline(results, tmp_path)
    assert done.returncode != 0
    page = (results / "report.html").read_text()
    assert "This report is not complete" in page
    for figure in ("fig7", "fig7_ratios", "fig10", "fig_tbt"):
        assert f'<figure id="{figure}-' in page, "it has nothing to do with what failed"
    assert "Not made: fig11" in page and "KeyError: &#x27;no panel 3&#x27;" in page
    assert "By hand: <code>python -m artifact figure fig11" in page
    assert "Not made: fig1_table4" in page and "ended without a message" in page
    assert '<figure id="fig11-' not in page and '<figure id="fig1_table4-' not in page
    assert "<h3>Traces</h3>" in page and ">Claims<" in page
    last = done.stderr.strip().splitlines()
    assert last[-1].startswith("To go on (what is finished stays): snakemake --cores 2")
    said = "\n".join(last[-7:])
    assert (
        "2 parts failed; everything else was made." in said and f"says what is missing: {results}/report.html" in said
    )
    assert "figures/fig11.txt: KeyError: 'no panel 3'" in said

    kept = (results / "tables" / "capacity.parquet").stat().st_mtime_ns
    again = pipeline(results)
    assert again.returncode == 0, again.stderr[-3000:]
    page = (results / "report.html").read_text()
    assert '<figure id="fig11-' in page and '<figure id="fig1_table4-' in page and 'class="missing"' not in page
    assert (results / "tables" / "capacity.parquet").stat().st_mtime_ns == kept
    assert not (results / "tables" / "manifest-incomplete.json").exists()
