"""What `make cpu` does, from a profile to a figure, on vLLM's real CPU engine: few steps, one system, one load."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from artifact.__main__ import main
from artifact.results.tables import provenance, read_table

ROOT = Path(__file__).parents[2]
SYSTEM = "niyama-steady"
# in a process of its own, because vLLM reads its environment when it is imported
PROFILE = """
import sys
from artifact.__main__ import main
from artifact.latency import engine_profile
from niyama.vllm.profiling.step_grid import Grid
engine_profile.GRIDS = {"cpu": (Grid((0, 2, 8), (64, 512), (0, 32, 256, 1024), (512,), (256,), 2),)}
sys.exit(main(["profile", "--backend", "cpu", "--grid", "cpu", "--out", sys.argv[1]]))
"""


@pytest.mark.engine
@pytest.mark.nightly("artifact/servers", "artifact/latency", "workflows", "scheduler/niyama/vllm")
def test_from_a_profile_to_a_figure(tmp_path):
    pytest.importorskip("vllm")
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        pytest.skip("needs vLLM's CPU build")
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    steps, results = tmp_path / "step_times.parquet", tmp_path / "results"
    subprocess.run([sys.executable, "-c", PROFILE, str(steps)], cwd=ROOT, env=environment, check=True)
    assert main(["fit", str(steps), "--kinds", "monotone", "--name", "card"]) == 0

    config = yaml.safe_load((ROOT / "workflows" / "config" / "cpu.yaml").read_text())
    config |= {"trace": "azure-code-2023-synth", "systems": [SYSTEM], "attempts": 1}
    (tmp_path / "cpu.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--nolock"]
    command += [f"{results}/servers/short/figures/fig_servers.txt", "--config", f"results={results}"]
    command += [f"servers_config={tmp_path / 'cpu.yaml'}", f"servers_latency={tmp_path / 'card-monotone.json'}"]
    done = subprocess.run([*command, "servers_backend=cpu"], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]

    table = read_table(results / "servers" / "short" / "tables" / "servers.parquet")
    about, rows = provenance(table), [row for row in table.to_pylist() if row["group"] == "all"]
    assert about["backend"] == "cpu" and about["failures"] == [] and about["latency_model"]["name"] == "card-monotone"
    assert {(row["backend"], row["system"]) for row in rows} == {("cpu", SYSTEM), ("sim", SYSTEM)}
    (real,) = (row for row in rows if row["backend"] == "cpu")
    assert real["group_requests"] == real["requests"] > 0 and real["relegated_share"] is not None
    assert real["predictor"] == "card-monotone, corrected by measurement"
