"""A changed file is in force without a restart, or refused as a whole; every request is served as it was promised."""

import asyncio
import hashlib
import json
import logging
import os
import threading

import pytest

pytest.importorskip("prometheus_client", reason="prometheus_client comes with vLLM")
pytest.importorskip("httpx", reason="httpx comes with vLLM")

import yaml
from prometheus_client import REGISTRY

from niyama.vllm import reloading
from niyama.vllm.config import load_config
from niyama.vllm.metrics import SchedulerMetrics
from niyama.vllm.qos import KEY, VERSION, serve
from niyama.vllm.reloading import API_SERVER_LOOKS, APPLIED, ENGINE_LOOKS, INVALID, KEPT, NEEDS_RESTART, LiveConfig
from niyama.vllm.serving.middleware import QoSMiddleware
from tests.helpers.asgi_app import COMPLETIONS, Echo
from tests.helpers.waiting import wait_for


def classes(ttft_s=6.0, **more):
    return {
        "classes": [
            {"name": "Q1", "ttft_s": ttft_s, "tbt_s": 0.05},
            {"name": "Q2", "ttlt_s": 600},
            {"name": "Q3", "ttlt_s": 1800},
        ],
        **more,
    }


class Server:
    """A configuration file, and who reads it: an engine and a middleware, which look when they are told to."""

    def __init__(self, path, app=None, **fields):
        self.path, self.results, self._writes = path, [], 0
        self.write(**fields)
        config = load_config({"niyama": str(path)}, {})
        self.engine = LiveConfig(config, path, lambda result, config: self.results.append(result), ENGINE_LOOKS)
        self.middleware = QoSMiddleware(app or Echo(), config, path)
        self.settle()
        self.results.clear()

    def write(self, text=None, **fields):
        self.path.write_text(yaml.safe_dump(fields) if text is None else text)
        self._writes += 1  # two writes within a tick of the file system's clock are one to it
        os.utime(self.path, ns=(self._writes, self._writes))

    def settle(self):
        """As many looks as it takes until both have read what the file says now."""
        for _ in range(1 + API_SERVER_LOOKS):
            self.engine.look()
            self.middleware.live.look()

    async def ask(self, headers=()):
        """Status, headers and the arguments that reach the engine."""
        sent, body = [], json.dumps({"prompt": "x"}).encode()
        pairs = [(b"content-type", b"application/json"), *((k.encode(), v.encode()) for k, v in headers)]

        async def receive():
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message):
            sent.append(message)

        await self.middleware({"type": "http", "method": "POST", "path": COMPLETIONS, "headers": pairs}, receive, send)
        answer = b"".join(message.get("body", b"") for message in sent[1:])
        got = json.loads(answer)
        return sent[0]["status"], dict(sent[0]["headers"]), got.get("vllm_xargs", got)


@pytest.fixture(autouse=True)
def no_thread(monkeypatch, request):
    """Tests look by themselves, but for the one of the thread."""
    if "a_thread_watches" not in request.node.name:
        monkeypatch.setattr(LiveConfig, "watch", lambda self: self)


@pytest.fixture
def server(tmp_path):
    return Server(tmp_path / "niyama.yaml", **classes())


@pytest.fixture
def said(monkeypatch):
    """Log lines."""
    lines = []
    for level in (logging.INFO, logging.ERROR):
        name = logging.getLevelName(level).lower()
        monkeypatch.setattr(reloading.logger, name, lambda line, *values, **_: lines.append(line % values))
    return lines


Q1 = [("x-niyama-class", "Q1")]


def sha256(key):
    return hashlib.sha256(key.encode()).hexdigest()


def ttft(answer):
    return answer[1][b"x-niyama-slo-ttft-ms"]


def test_a_new_slo_is_what_the_next_request_gets_and_what_the_engine_serves(server, said):
    before = asyncio.run(server.ask(Q1))
    server.write(**classes(8.0))
    server.settle()
    after = asyncio.run(server.ask(Q1))
    assert (ttft(before), ttft(after)) == (b"6000", b"8000")
    assert serve(server.engine.of(after[2]), after[2]).deadline_slo_s == 8.0
    assert serve(server.engine.of(before[2]), before[2]).deadline_slo_s == 6.0  # what it was promised, however late
    assert server.results == [APPLIED]
    assert len(said) == 2 and all(str(server.path) in line for line in said)  # one of each process


@pytest.mark.parametrize(
    ("change", "asked", "status"),
    [
        ({"default_class": "Q1"}, [], 200),
        ({"service_tiers": {}}, Q1, 200),
        ({"strict": False}, [("x-niyama-class", "Q9")], 200),
        ({"identities": [{"name": "a", "key_sha256": sha256("k"), "classes": ["Q1"]}], "anonymous": []}, Q1, 401),
        ({"max_body_bytes": 1024, "client_priority": "keep", "max_upload_bytes": 2048}, Q1, 200),
    ],
)
def test_all_that_only_says_what_is_promised_to_whom_is_read_again(server, change, asked, status):
    server.write(**classes(**change))
    server.settle()
    assert server.results == [APPLIED]
    got, headers, arguments = asyncio.run(server.ask(asked))
    assert got == status
    if status == 200:
        served = serve(server.engine.of(arguments), arguments)
        assert headers[b"x-niyama-class"].decode() == served.class_name and served.fault is None
    assert server.middleware.live.now == server.engine.now == load_config({"niyama": str(server.path)}, {})


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (classes(8.0, policy="sarathi-edf"), "policy is 'sarathi-edf' and was 'niyama'"),
        (classes(8.0, policy={"name": "no such"}), "policy is {'name': 'no such'}"),
        (classes(8.0, latency="other.json"), "latency is"),
        (classes(8.0, delivery_s=0.1), "delivery_s is 0.1 and was 0.01"),
        (classes(8.0, decision_log="/no-such/x"), "decision_log is '/no-such/x' and was None"),
        (classes(8.0, app_histories=1), "app_histories is 1"),
        (
            {"classes": classes(8.0)["classes"][:2], "service_tiers": {}},
            "classes is ('Q1', 'Q2') and was ('Q1', 'Q2', 'Q3')",
        ),
        ({"classes": classes(8.0)["classes"][::-1]}, "classes is ('Q3', 'Q2', 'Q1')"),
        (
            {"classes": [{"name": "Q1", "ttlt_s": 60}, *classes()["classes"][1:]]},
            "kinds of classes is ('batch', 'batch', 'batch') and was ('interactive', 'batch', 'batch')",
        ),
    ],
)
def test_what_needs_a_restart_is_refused_with_everything_else_in_the_file(server, said, fields, words):
    server.write(**fields)
    server.settle()
    server.settle()
    assert server.results == [NEEDS_RESTART]
    assert len(said) == 2 and words in said[0] and "restart" in said[0]
    assert ttft(asyncio.run(server.ask(Q1))) == b"6000" and server.engine.now.classes[0].ttft_s == 6.0


@pytest.mark.parametrize("text", ["strict: [", "- 1", "strikt: true", "classes: []", "\x00", "default_class: Q9"])
def test_a_wrong_file_leaves_everything_as_it_was(server, said, text):
    server.write(text)
    server.settle()
    server.settle()
    assert server.results == [INVALID] and len(said) == 2 and "\n" not in said[0]
    assert ttft(asyncio.run(server.ask(Q1))) == b"6000"
    server.write(**classes())
    server.settle()
    assert server.results == [INVALID, APPLIED]  # the file is well again


def test_a_file_that_is_gone_leaves_everything_as_it_was(server):
    server.path.unlink()
    server.settle()
    assert server.results == [INVALID]
    assert asyncio.run(server.ask(Q1))[0] == 200


def test_a_file_that_is_being_written_is_not_read(server):
    """Half of one may be valid, and let strangers in."""
    for ttft_s in range(7, 20):
        server.write(**classes(float(ttft_s)))
        server.engine.look()
        server.middleware.live.look()
    assert server.results == [] and ttft(asyncio.run(server.ask(Q1))) == b"6000"


def test_a_link_that_turns_to_another_file_is_a_change(tmp_path):
    """As Kubernetes does it with a ConfigMap."""
    link = tmp_path / "niyama.yaml"
    for name, ttft_s in (("one", 6.0), ("other", 8.0)):
        (tmp_path / name).write_text(yaml.safe_dump(classes(ttft_s)))
    link.symlink_to(tmp_path / "one")
    live = LiveConfig(load_config({"niyama": str(link)}, {}), link, lambda result, config: None, ENGINE_LOOKS)
    live.look()
    live.look()
    link.unlink()
    link.symlink_to(tmp_path / "other")
    live.look()
    live.look()
    assert live.now.classes[0].ttft_s == 8.0


def test_a_file_that_says_the_same_in_other_words_is_no_change(server, said):
    server.write("# nothing new\n" + yaml.safe_dump(classes()))
    server.settle()
    assert server.results == [] and said == []


def test_the_engine_reads_a_change_before_the_middleware_promises_by_it(server):
    server.write(**classes(8.0))
    for _ in range(1 + ENGINE_LOOKS):
        server.engine.look()
        server.middleware.live.look()
    assert (server.engine.now.classes[0].ttft_s, server.middleware.live.now.classes[0].ttft_s) == (8.0, 6.0)
    before = asyncio.run(server.ask(Q1))
    assert serve(server.engine.of(before[2]), before[2]).deadline_slo_s == 6.0


def test_a_file_that_changes_all_the_time_is_read_by_the_engine_alone_and_requests_keep_their_promises(server):
    for ttft_s in range(7, 7 + 2 * KEPT):
        server.write(**classes(float(ttft_s)))
        for _ in range(1 + ENGINE_LOOKS):
            server.engine.look()
            server.middleware.live.look()
        asked = asyncio.run(server.ask(Q1))
        assert ttft(asked) == b"6000" and serve(server.engine.of(asked[2]), asked[2]).deadline_slo_s == 6.0
    assert server.engine.now.classes[0].ttft_s == 6.0 + 2 * KEPT


def test_an_engine_that_did_not_get_round_to_it_reads_what_a_request_names(server):
    server.write(**classes(8.0))
    for _ in range(1 + API_SERVER_LOOKS):
        server.middleware.live.look()
    after = asyncio.run(server.ask(Q1))
    assert serve(server.engine.of(after[2]), after[2]).deadline_slo_s == 8.0
    server.settle()
    assert server.results == [APPLIED]


def test_a_version_that_nobody_knows_is_served_by_what_is_in_force(server):
    for version in ("0" * 32, 7, None, ["x"]):
        assert server.engine.of({VERSION: version}) is server.engine.now
    assert server.engine.of(None) is server.engine.now
    server.write("strict: [")
    assert server.engine.of({VERSION: "1" * 32}).classes[0].ttft_s == 6.0
    server.settle()
    assert server.results == [INVALID]  # said once, and not by the request


def test_a_client_cannot_name_a_version(tmp_path):
    server = Server(tmp_path / "niyama.yaml", **classes())
    old = server.engine.now.version

    async def ask():
        sent, body = [], json.dumps({"prompt": "x", "vllm_xargs": {VERSION: old}}).encode()

        async def receive():
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message):
            sent.append(message)

        headers = [(b"content-type", b"application/json")]
        await server.middleware(
            {"type": "http", "method": "POST", "path": COMPLETIONS, "headers": headers}, receive, send
        )
        return sent

    start, end = asyncio.run(ask())
    assert start["status"] == 400 and b"niyama_config is not for clients to set" in end["body"]


def keyed(*names, ttft_s):
    keys = [{"sha256": sha256(name)} for name in names]
    return classes(ttft_s, identities=[{"name": "team", "keys": keys, "classes": ["Q1"]}], anonymous=[])


def test_under_load_every_request_is_served_as_it_was_promised(tmp_path):
    """Keys and SLOs change twenty times while requests are under way; each is answered by one file, as a whole."""
    waiting, answers = [], []

    class Slow(Echo):
        async def __call__(self, scope, receive, send):
            gate = asyncio.Event()
            waiting.append(gate)
            await gate.wait()
            await super().__call__(scope, receive, send)

    server = Server(tmp_path / "niyama.yaml", app=Slow(), **keyed("sk-0", "sk-1", ttft_s=1.0))

    async def client(name, round_):
        answer = await server.ask([*Q1, ("authorization", f"Bearer {name}")])
        answers.append((round_, *answer, serve(server.engine.of(answer[2]), answer[2])))

    async def load():
        clients = []
        for round_ in range(20):
            clients += [asyncio.create_task(client(f"sk-{round_ + late}", round_)) for late in (0, 0, 1, 9)]
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            server.write(**keyed(f"sk-{round_ + 1}", f"sk-{round_ + 2}", ttft_s=2.0 + round_))
            server.settle()
            while len(waiting) > 12:  # the oldest go on, after several changes
                waiting.pop(0).set()
            await asyncio.sleep(0)
        for gate in waiting:
            gate.set()
        await asyncio.gather(*clients)

    asyncio.run(load())
    assert len(answers) == 80 and server.results == [APPLIED] * 20
    assert [status for _, status, *_ in answers].count(401) == 20
    for round_, status, headers, arguments, served in answers:
        if status == 401:
            continue
        assert (status, served.fault, served.class_name) == (200, None, "Q1")
        assert headers[b"x-niyama-slo-ttft-ms"] == str(1000 * (round_ + 1)).encode()
        assert served.deadline_slo_s == round_ + 1.0
        assert arguments[KEY] in map(sha256, (f"sk-{round_}", f"sk-{round_ + 1}"))


def test_a_thread_watches_the_file_and_ends_with_whom_it_serves(tmp_path, monkeypatch):
    monkeypatch.setattr(reloading, "POLL_S", 0.01)
    path = tmp_path / "niyama.yaml"
    path.write_text(yaml.safe_dump(classes()))
    config, before = load_config({"niyama": str(path)}, {}), set(threading.enumerate())
    kept = [LiveConfig(config, path, lambda result, config: None, ENGINE_LOOKS).watch()]
    (thread,) = set(threading.enumerate()) - before
    path.write_text(yaml.safe_dump(classes(8.0)))
    wait_for(lambda: kept[0].now.classes[0].ttft_s == 8.0, "the change")
    kept.clear()
    wait_for(lambda: not thread.is_alive(), "the end")


def test_metrics_say_what_came_of_changes_and_whether_all_agree(server, tmp_path):
    metrics = SchedulerMetrics(["Q1", "Q2", "Q3"], {}, folder=tmp_path)
    engine = LiveConfig(server.engine.now, server.path, metrics.configured, ENGINE_LOOKS)

    def value(name, registry=REGISTRY, **labels):
        return registry.get_sample_value(name, labels)

    def counts():
        of_engine = [value("niyama_config_reloads_total", metrics.registry, result=r) for r in reloading.RESULTS]
        return of_engine, [value("niyama_http_config_reloads_total", result=r) for r in reloading.RESULTS]

    before = counts()[1]
    for text in (yaml.safe_dump(classes(8.0)), "strict: [", yaml.safe_dump(classes(policy="sarathi-edf"))):
        server.write(text)
        for _ in range(1 + API_SERVER_LOOKS):
            engine.look()
            server.middleware.live.look()
    of_engine, of_middleware = counts()
    assert of_engine == [1, 1, 1] and of_middleware == [n + 1 for n in before]
    assert value("niyama_config_hash", metrics.registry) == value("niyama_http_config_hash") > 0


def test_the_slos_in_the_metrics_are_those_in_force(server, tmp_path):
    metrics = SchedulerMetrics(["Q1", "Q2", "Q3"], {}, folder=tmp_path)
    metrics.describe(server.engine.now.classes, version="1")
    engine, shown = LiveConfig(server.engine.now, server.path, metrics.configured, ENGINE_LOOKS), []
    for text in (yaml.safe_dump(classes(8.0)), "strict: [", yaml.safe_dump(classes(9.0, policy="sarathi-edf"))):
        server.write(text)
        for _ in range(1 + ENGINE_LOOKS):
            engine.look()
        shown.append(metrics.registry.get_sample_value("niyama_slo_seconds", {"class": "Q1", "slo": "ttft"}))
    assert shown == [8.0, 8.0, 8.0]


def test_a_report_that_fails_leaves_the_new_configuration_in_force(server, said):
    def fail(result, config):
        raise OSError("no space")

    live = LiveConfig(server.engine.now, server.path, fail, ENGINE_LOOKS)
    server.write(**classes(8.0))
    live.look()
    live.look()
    assert live.now.classes[0].ttft_s == 8.0 and not any("stays as it was" in line for line in said)
