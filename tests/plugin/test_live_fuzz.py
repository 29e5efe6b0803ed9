"""A running server, the real engine on an emulated GPU, against clients of all kinds: it answers, and it stays well."""

import asyncio
import re
from dataclasses import replace

import pytest

from tests.helpers.waiting import HANG_S, wait_for

pytest.importorskip("vllm", reason="vLLM is not installed")

from artifact.runs.spec import PAPER_MIX
from artifact.servers import Engine, build_server_system
from artifact.servers.one_server import starting
from tests.helpers.fuzz_requests import CHAT, CONFIG, KV_BLOCKS, MODEL_TOKENS, knocks
from tests.helpers.raw_http import Knock, Reply, knock, request

pytestmark = pytest.mark.engine
SEED, REQUESTS, AT_ONCE = 0, 500, 48
IDLE = ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc")
IDLE += ("niyama_waiting_requests", "niyama_running_requests")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Niyama with CONFIG, and a KV cache so small that requests lose it to each other."""
    small = ("--max-model-len", str(MODEL_TOKENS), "--num-gpu-blocks-override", str(KV_BLOCKS))
    system = build_server_system("niyama", PAPER_MIX)
    (pool,) = system.pools
    system = replace(system, pools=(replace(pool, arguments=(*pool.arguments, *small)),))
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(
            "VLLM_ENABLE_RESPONSES_API_STORE", "1"
        )  # responses in the background, which can be cancelled
        with starting(system, Engine("emulated"), tmp_path_factory.mktemp("fuzz"), CONFIG) as server:
            server.wait_until_ready(HANG_S)
            yield server


@pytest.fixture(scope="module")
def replies(server):
    """Every request of the fuzz with what came back, once all are over."""

    async def all_of_them():
        free = asyncio.Semaphore(AT_ONCE)

        async def one(it: Knock) -> tuple[Knock, Reply]:
            async with free:
                return it, await knock(port(server), it.sent, it.leaves_s)

        return await asyncio.gather(*(one(it) for it in knocks(SEED, REQUESTS, server.model)))

    return asyncio.run(all_of_them())


def port(server) -> int:
    return int(server.url.rpartition(":")[2])


def metrics(server) -> dict[str, list[float]]:
    """Metric name -> the values of its samples."""
    found: dict[str, list[float]] = {}
    reply = asyncio.run(knock(port(server), request("/metrics", b"", method="GET")))
    for name, value in re.findall(rb"^([a-z][\w:]*)(?:\{.*\})? (\S+)$", reply.body, re.MULTILINE):
        found.setdefault(name.decode(), []).append(float(value))
    return found


def complaint(it: Knock, reply: Reply) -> str | None:
    """What is wrong with a reply; None: nothing."""
    if reply.status is None:
        return None if it.leaves_s is not None or not it.statuses else "no answer"
    if reply.status not in (it.statuses or range(200, 500)):
        return f"status {reply.status}: {reply.body[:300]!r}"
    if it.served is not None and reply.headers.get("x-niyama-class") != it.served:
        return f"served as {reply.headers.get('x-niyama-class')}, not {it.served}"
    said = reply.body.decode()
    if it.says is not None and reply.status >= 400:
        said = f"{reply.json['error']['message']} {reply.json['error']['param']}"
    return None if it.says is None or it.says in said else f"does not say {it.says}: {said[:300]}"


def test_everyone_gets_the_answer_that_is_due(replies):
    wrong = [f"{it.what}: {text}" for it, reply in replies if (text := complaint(it, reply)) is not None]
    assert not wrong, "\n".join(wrong)


def test_the_engine_is_well_afterwards(server, replies):
    """Niyama still plans, nothing is left in it, and the KV cache is empty."""
    wait_for(lambda: not any(any(metrics(server)[name]) for name in IDLE), "an idle engine")
    server.check_alive()
    found = metrics(server)
    assert found["niyama_fallbacks_total"] == [0.0]
    assert sum(found["niyama_aborted_requests_total"]) > 0 and sum(found["niyama_relegations_total"]) > 0


@pytest.mark.parametrize("name", ["Q1", "Q2", "Q3"])
def test_and_serves_whoever_comes_next(server, replies, name):
    headers = [(b"Authorization", b"Bearer sk-all"), (b"x-niyama-class", name.encode())]
    body = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 5}
    reply = asyncio.run(knock(port(server), request(CHAT, body, headers)))
    assert reply.status == 200 and reply.json["usage"]["completion_tokens"] == 5
    assert reply.json["kv_transfer_params"] == {"niyama": {"class": name, "relegated": False}}
