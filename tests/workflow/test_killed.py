"""A killed run of the pipeline goes on without a manual step, in a folder of any name, to the same bytes."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.helpers.waiting import HANG_S

ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("NIYAMA_KILLS", "2"))
ODD_NAME = 'my results; it\'s "ü" $HOME'


def small_config(folder: Path) -> Path:
    """The smoke configuration cut down to what one manifest needs."""
    config = yaml.safe_load((ROOT / "workflows/config/smoke.yaml").read_text())
    grids, searches = config["grids"], config["searches"]
    config = {name: config[name] for name in ("latencies", "cluster")}
    config["latencies"] = config["latencies"][:1]
    short = {"requests": {"azure-code-2023": 300}, "seeds": 1, "systems": ["sarathi-fcfs", "niyama"]}
    long = {"requests": {"azure-code-2023": 400}, "seeds": 1}
    config["searches"] = {"capacity": searches["capacity"] | short, "long_capacity": searches["long_capacity"] | long}
    config["grids"] = {"summary": grids["summary"] | {"requests": 300, "seeds": 1}}
    config["cluster"] |= {"requests": 300, "seeds": 1, "fleets": {}}
    path = folder / "small configuration.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def started(folder: Path, results: str) -> subprocess.Popen:
    """The pipeline as far as its manifest, with its lock, in a folder of its own."""
    for name in ("workflows", "artifact", "benchmarks", "figures", "traces", "scheduler"):
        if not (folder / name).exists():
            (folder / name).symlink_to(ROOT / name)
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder)]
    command += ["--cores", "2", "--rerun-incomplete", f"{results}/tables/manifest.json", "--config"]
    command += [f"experiments={small_config(folder)}", f"results={results}", "servers=none"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    packages = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": packages}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True, **pipes)


def whole(folder: Path, results: str) -> dict[str, str]:
    """Run to the end; the digests of all tables."""
    run = started(folder, results)
    said = run.communicate(timeout=HANG_S)[0]
    assert run.returncode == 0, said[-3000:]
    return tables(folder / results)


def tables(results: Path) -> dict[str, str]:
    files = [*results.rglob("*.parquet"), *results.rglob("manifest.json")]
    assert not list(results.rglob(".*.part"))
    return {str(f.relative_to(results)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


@pytest.mark.slow
@pytest.mark.nightly("Snakefile", "workflows", "artifact/workflow")
def test_kills_at_random_moments_cost_no_manual_step_and_no_byte(tmp_path):
    """NIYAMA_KILLS=20 for more. Every other kill leaves the jobs running, as the kernel's out-of-memory killer does."""
    (undisturbed := tmp_path / "undisturbed").mkdir()
    (disturbed := tmp_path / "disturbed").mkdir()
    start = time.monotonic()
    expected = whole(undisturbed, ODD_NAME)
    took_s = time.monotonic() - start
    moments, killed = random.Random(1), 0
    for number in range(3 * KILLS):
        run = started(disturbed, "results")
        try:
            said = run.communicate(timeout=moments.uniform(0.1, 0.8) * took_s)[0]
        except subprocess.TimeoutExpired:
            (os.kill if number % 2 else os.killpg)(run.pid, signal.SIGKILL)
            run.wait()
            run.stdout.close()
            killed += 1
        else:  # it came to its end: the same bytes, and from the start again
            assert run.returncode == 0, said[-3000:]
            assert tables(disturbed / "results") == expected
            shutil.rmtree(disturbed / "results")
        if killed == KILLS:
            break
    assert killed == KILLS
    assert whole(disturbed, "results") == expected
