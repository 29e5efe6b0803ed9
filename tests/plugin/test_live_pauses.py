"""Pauses, resets and sleeps of a running server under load, over HTTP: every request completes, and Niyama stays."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.helpers.live_server import call, counted
from tests.helpers.waiting import HANG_S

pytest.importorskip("vllm", reason="vLLM is not installed")

from artifact.runs.spec import PAPER_MIX
from artifact.servers import Engine, build_server_system
from artifact.servers.one_server import starting

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.nightly("scheduler/niyama")]
REQUESTS, PROMPT_TOKENS, OUTPUT_TOKENS = 24, 6000, 8
#: What trainers and operators call between two steps, each followed by the call that ends it.
CALLS = (
    ("/pause?mode=keep&clear_cache=true", "/resume"),
    ("/pause?mode=keep&clear_cache=true", "/resume"),
    ("/pause?mode=wait&clear_cache=true", "/resume"),
    ("/reset_prefix_cache?reset_running_requests=true", None),
    ("/sleep?level=1&mode=keep", "/wake_up"),
    ("/sleep?level=1&mode=wait", "/wake_up"),
)


def test_requests_survive_pauses_resets_and_sleeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_SERVER_DEV_MODE", "1")
    with starting(build_server_system("niyama", PAPER_MIX), Engine("emulated"), tmp_path) as server:
        server.wait_until_ready(HANG_S)
        url = server.url
        (model,) = (m["id"] for m in json.loads(call(f"{url}/v1/models", method="GET"))["data"])

        def complete(row: int) -> int:
            prompt = [row + i % 199 for i in range(PROMPT_TOKENS)]
            body = {"model": model, "prompt": prompt, "max_tokens": OUTPUT_TOKENS, "ignore_eos": True}
            return json.loads(call(f"{url}/v1/completions", body))["usage"]["completion_tokens"]

        with ThreadPoolExecutor(REQUESTS) as clients:
            answers = [clients.submit(complete, row) for row in range(REQUESTS)]
            for begins, ends in CALLS:
                while not counted(url, "vllm:num_requests_running"):
                    assert not all(answer.done() for answer in answers), f"nobody was left to meet {begins}"
                call(url + begins)
                if ends is not None:
                    call(url + ends)
            assert [answer.result() for answer in answers] == [OUTPUT_TOKENS] * REQUESTS
        assert counted(url, "niyama_fallbacks_total") == 0.0
        server.check_alive()
