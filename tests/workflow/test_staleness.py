"""An edit makes those jobs run again whose results it could change, and no others: `snakemake -n` says which."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from artifact.experiments.chunk_curve import LATENCIES
from tests.helpers.snakemake_forks import LIBRARIES, ROOT, Forks

TRACE, LINEAR, ROOFLINE = "azure-code-2023", "a100-llama3-8b-linear", "a100-llama3-8b-roofline"
FIGURES = {"fig_tbt": "summary", "fig4": "chunk_curve", "predictor_accuracy": "predictor_accuracy"}
SWEEPS = {f"grids/summary/{TRACE}/{latency}.parquet" for latency in (LINEAR, ROOFLINE)}
GRID = {f"grids/steps/{TRACE}/{LINEAR}.parquet"}  # one of its predictors is ROOFLINE
PANELS = {f"panels/chunk_curve/{latency}.parquet" for latency in LATENCIES}
ALONE = {"kernel.txt", f"traces/{TRACE}.json"}


def tables(*names: str) -> set[str]:
    """These tables, and the figures drawn from them."""
    return {f"tables/{name}.parquet" for name in names} | {
        f"figures/{figure}.txt" for figure, table in FIGURES.items() if table in names
    }


ALL = ALONE | SWEEPS | GRID | PANELS | tables("summary", "steps", "chunk_curve", "predictor_accuracy")


def small_config() -> dict:
    """The smoke configuration with one grid and one panel."""
    config = yaml.safe_load((ROOT / "workflows/config/smoke.yaml").read_text())
    config = {key: config[key] for key in ("latencies", "cluster", "grids", "searches", "panels")}
    config["searches"] = {"capacity": config["searches"]["capacity"]}
    config["grids"]["steps"]["variants"] = {"own": {}, "other": {"predictor": ROOFLINE}}
    config["panels"] = {"chunk_curve": config["panels"]["chunk_curve"]}
    return config


class Checkout:
    """A copy of the repository in which everything is made, as Snakemake sees it: the files are empty."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("artifact", "benchmarks", "figures", "scheduler", "traces", "workflows"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy2(ROOT / "Snakefile", folder)
        (folder / "small.yaml").write_text(yaml.safe_dump(small_config()))
        for name in (*ALL, *(f"figures/{figure}.html" for figure in FIGURES)):
            (folder / "results" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "results" / name).touch()
        packages = os.pathsep.join([str(folder / "scheduler"), str(folder)])
        # nothing is simulated: without the compiler an edited scheduler is not compiled anew
        environment = {**os.environ, "PYTHONPATH": packages, "NUMBA_DISABLE_JIT": "1"}
        self.forks = Forks(LIBRARIES, cwd=folder, env=environment)
        self.snakemake("--touch", "--forceall")

    def snakemake(self, *arguments: str) -> str:
        """What it says of all the tables and figures here."""
        targets = [f"results/{name}" for name in sorted(ALL) if name.startswith(("tables/", "figures/"))]
        settings = ("--config", "experiments=small.yaml", "servers=none")
        done = self.forks.run("--cores", "1", "--nolock", *arguments, *targets, *settings, cwd=self.folder, env={})
        said = done.stdout + done.stderr
        assert done.returncode == 0, said
        return said

    def to_run(self) -> set[str]:
        """The first output of every job that would run."""
        return set(re.findall(r"^    output: results/([^,\n]+)", self.snakemake("--dry-run"), re.MULTILINE))

    @contextmanager
    def edited(self, path: str, old: str, new: str) -> Iterator[None]:
        """With other text in a file, and then as it was, its time too."""
        file = self.folder / path
        text, time_ns = file.read_text(), file.stat().st_mtime_ns
        assert old in text
        file.write_text(text.replace(old, new, 1))
        yield
        file.write_text(text)
        os.utime(file, ns=(time_ns, time_ns))


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Iterator[Checkout]:
    own = Checkout(tmp_path_factory.mktemp("checkout"))
    yield own
    own.forks.close()


FUTURE = "from __future__ import annotations\n"
PREDICTORS = tables("predictor_accuracy")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "old", "new", "stale"),
    [
        ("scheduler/niyama/plan.py", FUTURE, FUTURE + "OTHER = 1\n", ALL - PREDICTORS - {f"traces/{TRACE}.json"}),
        (
            f"scheduler/niyama/latency/cards/{ROOFLINE}.json",
            '"kv_tokens": 420000',
            '"kv_tokens": 420001',
            {one for one in SWEEPS | PANELS if ROOFLINE in one} | GRID | tables("summary", "steps", "chunk_curve"),
        ),
        (
            "traces/catalog.yaml",
            "rows: 8819",
            "rows: 8820",
            {f"traces/{TRACE}.json"} | SWEEPS | GRID | tables("summary", "steps"),
        ),
        ("figures/load_lines.py", FUTURE, FUTURE + "OTHER = 1\n", {"figures/fig_tbt.txt"}),
    ],
    ids=["scheduler", "card", "trace", "figure"],
)
def test_an_edit_makes_stale_what_it_concerns(checkout, path, old, new, stale):
    with checkout.edited(path, old, new):
        assert checkout.to_run() == stale
