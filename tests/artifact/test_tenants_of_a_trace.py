"""A trace's tenants reach the kernel: the policy that shares out by tenant serves the small one first."""

from __future__ import annotations

import numpy as np

from artifact.runs.run import arrivals_of, run
from artifact.runs.spec import RunSpec


def test_vtc_sees_the_tenants_of_a_file(tmp_path):
    """One tenant floods the replica for 20 s; another one sends a request every 2 s, and waits behind none of that."""
    heavy = [f"{0.05 * i},2000,20,heavy" for i in range(400)]
    light = [f"{2.0 * i + 0.01},2000,20,light" for i in range(10)]
    file = tmp_path / "mine.csv"
    file.write_text("\n".join(["time,prompt,output,tenant", *heavy, *light]))
    columns = {name: name for name in ("time", "prompt", "output", "tenant")}
    base = RunSpec(
        trace=str(file),
        columns=columns,
        time_unit="s",
        system="policies/vtc.py:vtc",
        load_qps=20.5,
        requests=410,
        arrivals={"kind": "replay"},
    )
    requests = arrivals_of(base)
    assert requests.tenants == 2
    ttft = {}
    for system in ("policies/vtc.py:vtc", "sarathi-fcfs"):
        done = run(base.model_copy(update={"system": system})).run
        first_s = done.token_s[done.token_start[:-1]] - requests.arrival_s
        ttft[system] = np.median(first_s[requests.tenant == np.argmin(np.bincount(requests.tenant))])
    assert ttft["policies/vtc.py:vtc"] < 0.2 * ttft["sarathi-fcfs"]
