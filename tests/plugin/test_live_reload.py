"""A running server whose configuration changes under load, over HTTP: keys and SLOs follow, and no request is lost."""

from __future__ import annotations

import hashlib
import json
import urllib.error
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.helpers.live_server import call, counted
from tests.helpers.waiting import HANG_S, wait_for

pytest.importorskip("vllm", reason="vLLM is not installed")

from artifact.runs.spec import PAPER_MIX
from artifact.servers import Engine, build_server_system
from artifact.servers.one_server import starting

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.nightly("scheduler/niyama/vllm")]
CLIENTS, CHANGES = 8, 3


def promising(ttft_s: float, *keys: str, **more: object) -> dict[str, object]:
    hashes = [{"sha256": hashlib.sha256(key.encode()).hexdigest()} for key in keys]
    return {
        "classes": [
            {"name": "Q1", "ttft_s": ttft_s, "tbt_s": 0.05},
            {"name": "Q2", "ttlt_s": 600},
            {"name": "Q3", "ttlt_s": 1800},
        ],
        "identities": [{"name": "team", "keys": hashes, "classes": ["Q1"]}],
        "anonymous": [],
        **more,
    }


def test_keys_and_slos_change_under_load_and_no_request_is_lost(tmp_path: Path) -> None:
    first, file = promising(2.0, "sk-0", "sk-1"), tmp_path / "niyama.yaml"
    with starting(build_server_system("niyama", PAPER_MIX), Engine("emulated"), tmp_path, first) as server:
        server.wait_until_ready(HANG_S)
        url, key, stop = server.url, ["sk-0"], []
        (model,) = (m["id"] for m in json.loads(call(f"{url}/v1/models", method="GET"))["data"])

        def ask(key: str) -> str:
            body = {"model": model, "prompt": [1 + i % 199 for i in range(500)], "max_tokens": 8, "ignore_eos": True}
            answer = json.loads(call(f"{url}/v1/completions", body, headers={"Authorization": f"Bearer {key}"}))
            assert answer["usage"]["completion_tokens"] == 8
            return answer["kv_transfer_params"]["niyama"]["class"]

        def client(_: int) -> set[str]:
            served = {ask(key[0])}
            while not stop:
                served.add(ask(key[0]))
            return served

        with ThreadPoolExecutor(CLIENTS) as clients:
            answers = [clients.submit(client, i) for i in range(CLIENTS)]
            try:
                for change in range(1, CHANGES + 1):
                    key[0] = f"sk-{change}"  # which the last change has added
                    file.write_text(json.dumps(promising(2.0 + change, f"sk-{change}", f"sk-{change + 1}")))
                    applied = "niyama_config_reloads_total", "niyama_http_config_reloads_total"
                    wait_for(
                        lambda n=change, a=applied: [counted(url, name) for name in a] == [n, n], f"change {change}"
                    )
                    assert counted(url, "niyama_config_hash") == counted(url, "niyama_http_config_hash")
                file.write_text(json.dumps(promising(9.0, "sk-9", policy="sarathi-edf")))
                wait_for(lambda: counted(url, "niyama_http_config_reloads_total") == CHANGES + 1, "the refusal")
            finally:
                stop.append(True)
            assert [answer.result() for answer in answers] == [{"Q1"}] * CLIENTS
        with pytest.raises(urllib.error.HTTPError, match="401"):
            ask("sk-0")
        assert counted(url, "niyama_fallbacks_total") == counted(url, "niyama_aborted_requests_total") == 0.0
        server.check_alive()
