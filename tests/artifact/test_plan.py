"""`plan`: fleets for a trace with its classes, what they hold, what they cost, and the files that run them."""

import json
import re
from dataclasses import replace
from html import unescape

import numpy as np
import pytest
import yaml

from artifact.__main__ import main
from artifact.config import ConfigError
from artifact.experiments.fleets import Fleets, silo_share
from artifact.latency.gpu_prices import Price
from artifact.planning import Question, plan, quick
from artifact.planning.demand import Demand, Workloads
from artifact.planning.deployment import CONFIG, MANIFEST, deployment
from artifact.planning.facts import facts
from artifact.planning.hours import _paid
from artifact.planning.page import plan_page
from artifact.planning.sizing import Sizing
from artifact.planning.text import plan_text, shown
from artifact.runs.spec import ClassSpec
from benchmarks.planning import day
from niyama import load_card
from traces import Trace

CLASSES = (
    ClassSpec(name="chat", share=0.6, ttft_s=6.0, tbt_s=0.1),
    ClassSpec(name="nightly", share=0.4, ttlt_s=600.0),
)
AS_PAPER = {"steady": True, "with_tbt": False, "sustained": False}
FEW = {"seeds": 2, "most_requests": 1500}


def made_trace(hours=1.0, rows=1200, prompt=1500, wave=0.8) -> Trace:
    """Requests alike, whose rate goes up and down once."""
    at = (np.arange(rows) + 0.5) / rows
    fine = np.linspace(0.0, 1.0, 10_001)
    arrival = np.interp(at, fine - wave * np.sin(2 * np.pi * fine) / (2 * np.pi), fine) * hours * 3600
    lengths = np.full(rows, prompt, np.int32), np.full(rows, 40, np.int32)
    return Trace("made", *lengths, arrival - arrival[0], "local", "0" * 64, "none", "none")


@pytest.fixture(scope="module")
def html(found):
    """Its page."""
    return plan_page(facts(found), deployment(found))


@pytest.fixture(scope="module")
def found():
    """A plan of everything, small."""
    return plan(Question(made_trace(), CLASSES, qps=12.0, headroom=0.2, gpu_hour_usd=2.5, **FEW))


# ---- the load


def test_the_load_is_the_traces_own_over_time_scaled_to_the_mean():
    demand = Demand(Question(made_trace(hours=24.0), qps=30.0))
    assert (demand.bins, demand.bin_s) == (24, pytest.approx(3600, rel=0.01))
    assert demand.qps.mean() == pytest.approx(30.0)
    assert demand.qps.max() / demand.qps.min() == pytest.approx(9, rel=0.3)  # 1.8 to 0.2
    assert demand.peak in (11, 12)


def test_the_benchmarks_day_has_a_peak_and_a_night():
    demand = Demand(Question(day(5000), qps=10.0))
    assert demand.bins == 24 and 3 < demand.qps.max() / demand.qps.min() < 6


def test_what_arrives_has_the_load_of_its_bins():
    question = Question(made_trace(), qps=10.0, most_requests=100_000)
    demand, requests = Demand(question), Workloads(question).requests(0)
    counts = np.bincount(demand.bins_of(requests.arrival_s), minlength=demand.bins)
    assert demand.window.whole
    assert counts / demand.bin_s == pytest.approx(demand.qps, rel=0.1)


def test_more_load_is_the_same_requests_closer_together():
    loads = Workloads(Question(made_trace(), qps=10.0, most_requests=5000))
    one, two = loads.requests(0, 1.0), loads.requests(0, 1.5)
    assert len(two) == pytest.approx(1.5 * len(one), rel=0.02)
    assert (np.diff(two.arrival_s) >= 0).all()


def test_a_class_alone_gets_its_own_requests_of_the_whole():
    loads = Workloads(Question(made_trace(), CLASSES, qps=10.0))
    whole, chat = loads.requests(0), loads.requests(0, 1.0, CLASSES[0])
    assert (chat.arrival_s == whole.arrival_s[whole.class_index == 0]).all()


@pytest.mark.parametrize("most", [300, 2_000, 10**6])
def test_a_run_has_at_most_so_many_requests_and_the_busiest(most):
    demand = Demand(Question(made_trace(), qps=2.0, most_requests=most))
    window = demand.window
    assert window.requests <= 1.1 * most
    assert window.whole == (most == 10**6)
    assert window.start_s < (demand.peak + 1) * demand.bin_s and window.end_s > demand.peak * demand.bin_s


def test_without_times_the_load_must_be_said():
    timeless = Trace("made", np.full(9, 9, np.int32), np.full(9, 9, np.int32), None, "local", "0" * 64, "", "")
    with pytest.raises(ConfigError, match="no load of its own; give --qps"):
        Question(timeless)
    assert not Question(timeless, qps=1.0).follows_trace


# ---- fleets


def test_a_fleet_holds_the_load_with_its_headroom_and_one_less_does_not(found):
    sizing = Sizing(found.question)
    for outcome in found.outcomes:
        sizes = outcome.sized.sizes
        worst = [np.nanmax(sizing.rates(outcome.system, sizes, seed, 1.2)) for seed in range(2)]
        if outcome.system != "sarathi-silo":  # its pools are planned by themselves
            assert np.mean(worst) <= 0.01
            assert outcome.breaks is None or outcome.breaks.mean > 1.1
    assert found.best.gpus <= min(o.gpus for o in found.outcomes)


def test_no_fleet_is_smaller_than_the_work_although_the_run_is_short():
    """Two minutes of a batch class with an hour's time: any fleet is done in time, and falls behind for ever after."""
    batch = (ClassSpec(name="nightly", share=1.0, ttlt_s=3600.0),)
    question = Question(made_trace(), batch, qps=20.0, steady=True, seeds=1, most_requests=1000)
    sizing = Sizing(question)
    assert sizing.size("niyama").sizes == (sizing.floor("niyama", None, 1.0),) > (2,)


def test_what_piles_up_breaks_a_fleet_that_a_short_run_would_call_idle():
    """The same class: its fleet does not break `not found` times the load, and one replica less is no fleet."""
    batch = (ClassSpec(name="nightly", share=1.0, ttlt_s=3600.0),)
    question = Question(made_trace(), batch, qps=20.0, steady=True, seeds=2, most_requests=1000, systems=("niyama",))
    found = plan(question)
    (own,) = found.outcomes
    assert own.first_class == "work piles up" and 1.0 <= own.breaks.mean < 1.5
    less = found.what_ifs[-1]
    assert less.what == "one replica less" and "work piles up" in less.note


def test_a_stray_request_a_day_later_takes_no_gpu_away():
    batch = (ClassSpec(name="chat", share=1.0, ttft_s=6.0, tbt_s=0.05),)
    busy = np.arange(6000) / 20.0
    fleets = []
    for times in (busy, np.append(busy, 86_400.0)):
        lengths = np.full(len(times), 1000, np.int32), np.full(len(times), 50, np.int32)
        trace = Trace("t.csv", *lengths, times, "local", None, "", "")
        fleets.append(quick(Question(trace, batch)).gpus)
    assert fleets[1] >= fleets[0] > 1


def test_a_class_without_requests_and_times_that_are_one_are_told():
    with pytest.raises(ConfigError, match="class 'idle' has no requests"):
        Question(
            made_trace(), (ClassSpec(name="chat", share=1.0, ttlt_s=9.0), ClassSpec(name="idle", share=0.0, ttlt_s=9.0))
        )
    lengths = np.full(3, 9, np.int32)
    with pytest.raises(ConfigError, match="all its requests at one time"):
        Question(Trace("t.csv", lengths, lengths, np.zeros(3), "local", None, "", ""))


def test_the_papers_table_comes_out_as_cluster_has_it():
    """In a short form. The whole of it: `test_table_4_comes_out_of_plan`."""
    name = "azure-code-2024-week-synth"
    from artifact.runs.run import trace

    question = Question(trace(name), qps=8.0, **AS_PAPER, seeds=2, most_requests=3000)
    sizing, fleets = Sizing(question), Fleets(2)
    base = question.spec("sarathi-silo")
    silo = [fleets.plan(silo_share(base, c)) for c in base.classes]
    shared = fleets.plan(question.spec("niyama"))
    assert sizing.size("sarathi-silo").sizes == tuple(silo)
    assert sizing.size("niyama").sizes == (shared,)


@pytest.mark.nightly("artifact/planning", "artifact/experiments")
def test_table_4_comes_out_of_plan():
    from artifact.runs.run import trace

    paper = {"qps": 35.0, **AS_PAPER, "seeds": 5, "most_requests": 360_000}
    sizing = Sizing(Question(trace("azure-code-2024-week-synth"), **paper))
    assert sizing.size("niyama").sizes == (10,)
    assert sizing.size("sarathi-silo").sizes == (6, 3, 3)


def test_a_quick_answer_is_the_same_kind_by_one_seed():
    one = quick(Question(made_trace(), CLASSES, qps=12.0), "niyama-steady")
    assert len(one.gpus_by_seed) == 1 and one.gpus >= 1 and set(one.attained) == {"chat", "nightly"}


def test_gpus_of_a_replica_are_counted():
    question = Question(made_trace(), CLASSES, "h100-tp4-llama3-70b-vllm", qps=6.0, steady=True, **FEW)
    one = quick(question)
    assert one.gpus == 4 * sum(one.sized.sizes)


# ---- classes that cannot be met


def test_every_class_that_no_number_of_gpus_helps_is_named_at_once():
    tight = (CLASSES[0].model_copy(update={"ttft_s": 0.05}), ClassSpec(name="eager", share=0.4, ttlt_s=0.1))
    with pytest.raises(ConfigError) as refused:
        plan(Question(made_trace(), tight, qps=5.0, **FEW))
    text = str(refused.value)
    assert re.search(
        r"class 'chat' cannot be met by any number of GPUs: prefill of prompts above 1,499 tokens alone takes longer "
        r"than its TTFT of 0\.05 s; 100\.0% of the trace's requests have such prompts, and 1% may miss",
        text,
    )
    assert "class 'eager' misses 100.0%" in text


def test_a_system_that_cannot_serve_a_class_says_so_and_the_others_are_planned():
    """A silo's chunks of 256 tokens take a long prompt longer than Niyama's."""
    chat = (ClassSpec(name="chat", share=1.0, ttft_s=1.0, tbt_s=0.1),)
    said = []
    few = {"qps": 0.3, "systems": ("sarathi-silo", "niyama"), "seeds": 1, "most_requests": 60}
    question = Question(made_trace(prompt=7500), chat, **few)
    found = plan(question, warned=said.append)
    silo, niyama = found.outcomes
    assert silo.gpus is None and "7,499 tokens" in silo.reason and niyama.gpus
    assert said == [f"sarathi-silo: {silo.reason}"]
    answer = facts(found)
    assert "silos cannot meet every class's SLOs with any number" in answer["answer"]
    assert silo.reason in " ".join(plan_text(answer).split()) and "7,499 tokens" in plan_page(answer, {})


@pytest.mark.parametrize("steady", [False, True])
def test_a_trace_that_says_its_classes_is_planned_by_them(steady):
    """Chats are short and nightly jobs long: a silo's pools see their own."""
    made = made_trace()
    chat = np.arange(len(made)) % 4 > 0
    trace = replace(made, prompt_tokens=np.where(chat, 500, 4500).astype("i4"))
    classes = tuple(c.model_copy(update={"share": s}) for c, s in zip(CLASSES, (0.75, 0.25), strict=True))
    question = Question(trace, classes, qps=9.0, steady=steady, class_of_row=np.where(chat, 0, 1), **FEW)
    loads = Workloads(question)
    for index, qos in enumerate(classes):
        assert set(loads.requests(0, 1.0, qos).prompt_tokens) == {(500, 4500)[index]}
    whole = loads.requests(0)
    assert ((whole.prompt_tokens == 500) == (whole.class_index == 0)).all()


# ---- over time


def test_replicas_are_paid_from_a_cold_start_before_they_are_needed():
    need = np.array([1, 3, 1, 1])
    assert _paid(need, 3600.0, 0.0) == pytest.approx(1.5, abs=0.01)
    assert _paid(need, 3600.0, 1800.0) == pytest.approx((4 * 1 + 2 + 2 * 0.5) / 4, abs=0.01)
    assert _paid(need, 3600.0, 7200.0) == pytest.approx((3 + 3 + 1 + 1) / 4, abs=0.01)


def test_hours_follow_the_load(found):
    hours = found.best.hours
    assert max(hours.replicas) == hours.fixed == sum(found.best.sized.sizes)
    assert min(hours.replicas) < hours.fixed and 0 < hours.saved < 1
    assert hours.replicas[found.demand.peak] == hours.fixed


# ---- what it says


def leaves(value):
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list):
        return [value]
    return [leaf for item in value for leaf in leaves(item)]


def test_every_number_of_the_json_is_on_the_page(found, html):
    answer = json.loads(json.dumps(facts(found)))
    text = unescape(re.sub(r"<[^>]+>", " ", re.sub(r"<style>.*?</style>|src=\"[^\"]*\"", " ", html)))
    on_page = set(re.findall(r"-?[\d,]*\.?\d+", text))
    numbers = [leaf for leaf in leaves(answer) if isinstance(leaf, int | float) and not isinstance(leaf, bool)]
    assert len(numbers) > 100
    assert [n for n in numbers if shown(n) not in on_page] == []


def test_the_answer_comes_first_with_gpus_and_cost(found, html):
    answer = facts(found)
    gpus = found.best.gpus
    usd = f"{round(gpus * 2.5 * 730):,}"
    for text in (plan_text(answer), html.partition("<body>")[2]):
        head = text[:400]
        assert f"on {gpus} GPU" in head and f"USD {usd} a month" in head and "12 requests/s" in head
    assert answer["systems"][-1]["usd_a_month"] == answer["systems"][-1]["gpus"] * 1825


def test_everything_says_where_it_comes_from(found):
    answer = facts(found)
    text = plan_text(answer)
    for part in ("backend sim", "latency a100-llama3-8b-linear", "(oracle)", "2 seeds", f"code {found.code}"):
        assert part in " ".join(text.split())
    assert all(row["policy"] for row in answer["systems"])


def test_a_price_list_is_taken_and_no_price_is_said():
    question = Question(made_trace(), CLASSES, qps=3.0, systems=("niyama",), seeds=1, most_requests=500)
    dear = {load_card(question.latency).gpu: Price(7.0, "a list")}
    assert "no cost" in plan_text(facts(plan(question)))
    answer = facts(plan(question.but(prices=dear)))
    assert answer["price"] == {"gpu_hour_usd": 7.0, "source": "a list", "hours_a_month": 730.0}


def test_what_would_change_it(found):
    what = [line.what for line in found.what_ifs]
    assert what[0] == "TTFT of chat 12 s instead of 6 s"
    assert what[1:] == ["step times with 10 % noise", "on H100-80GB SXM (h100-llama3-8b-engine)", "one replica less"]
    assert found.what_ifs[0].gpus <= found.best.gpus and found.what_ifs[2].gpus <= found.best.gpus


# ---- the files that run it


def test_the_files_run_what_was_planned(found, tmp_path, capsys):
    pytest.importorskip("pydantic")
    from niyama.vllm.__main__ import main as check

    files = deployment(found)
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    assert check(["check", str(tmp_path / CONFIG)]) == 0
    assert capsys.readouterr().err == ""
    documents = {d["kind"]: d for d in yaml.safe_load_all(files[MANIFEST])}
    assert documents["ConfigMap"]["data"] == {CONFIG: files[CONFIG]}
    spec = documents["Deployment"]["spec"]
    assert spec["replicas"] == sum(found.best.sized.sizes)
    (container,) = spec["template"]["spec"]["containers"]
    assert "--shutdown-timeout=600" in container["args"]
    assert spec["template"]["spec"]["terminationGracePeriodSeconds"] == 680
    command = files["serve.sh"].replace("\\\n", "").split()
    assert command[-len(container["args"]) :] == container["args"]


def test_a_replica_of_several_gpus_is_started_on_them():
    question = Question(made_trace(), CLASSES, "h100-tp4-llama3-70b-vllm", qps=1.0, systems=("niyama",), **FEW)
    files = deployment(plan(question.but(seeds=1)))
    documents = {d["kind"]: d for d in yaml.safe_load_all(files[MANIFEST])}
    (container,) = documents["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 4
    assert "--tensor-parallel-size=4" in container["args"] and "--tensor-parallel-size=4" in files["serve.sh"]


# ---- the command


def test_the_command_writes_all_it_is_asked_for(tmp_path, capsys):
    classes = tmp_path / "classes.yaml"
    classes.write_text(
        "- {name: chat, share: 0.5, ttft_s: 6.0, tbt_s: 0.1}\n- {name: nightly, share: 0.5, ttlt_s: 600}\n"
    )
    options = [
        "--trace",
        "azure-code-2023-synth",
        "--classes",
        str(classes),
        "--qps",
        "3",
        "--seeds",
        "1",
        "--jobs",
        "1",
    ]
    options += [
        "--requests",
        "500",
        "--gpu-hour",
        "2.5",
        "--html",
        str(tmp_path / "plan.html"),
        "--out",
        str(tmp_path / "run"),
    ]
    assert main(["plan", *options, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["load"]["over_time"] == "constant" and answer["hours"] is None
    assert {p.name for p in (tmp_path / "run").iterdir()} == {"niyama.yaml", "serve.sh", "kubernetes.yaml"}
    assert answer["answer"].split(" (")[0] in (tmp_path / "plan.html").read_text()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--qps", "0"], "--qps is 0.0; give a number from 0.0001"),
        (["--qps", "nan"], "--qps is nan"),
        ([], "has no times, so no load of its own; give --qps"),
        (["--qps", "2", "--headroom", "-0.1"], "--headroom is -0.1; give a number from 0 to 10"),
        (["--qps", "2", "--gpu-hour", "0"], "--gpu-hour is 0.0"),
        (["--qps", "2", "--seeds", "0"], "--seeds is 0"),
        (["--qps", "2", "--latency", "b300"], "latency model 'b300' is unknown"),
        (["--qps", "2", "--classes", "missing.yaml"], "missing.yaml: cannot be read"),
        (["--qps", "2", "--other-latency", "b300"], "latency model 'b300' is unknown"),
    ],
)
def test_mistakes_are_one_line(options, words, capsys):
    assert main(["plan", "--trace", "azure-code-2023-synth", *options]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


def csv_of(path, rows, names="TIMESTAMP,ContextTokens,GeneratedTokens,class"):
    path.write_text(names + "\n" + "".join(",".join(map(str, row)) + "\n" for row in rows))
    return path


def test_a_file_with_classes_of_its_own_is_planned(tmp_path, capsys):
    rows = [(1_700_000_000 + 2 * i, 400 + 10 * (i % 7), 20, ("chat", "nightly")[i % 4 == 0]) for i in range(400)]
    trace = csv_of(tmp_path / "mine.csv", rows, "arrival,in,out,kind")
    classes = tmp_path / "classes.yaml"
    classes.write_text("- {name: chat, ttft_s: 6.0, tbt_s: 0.1}\n- {name: nightly, ttlt_s: 600}\n")
    columns = ["--columns", "time=arrival,prompt=in,output=out,class=kind", "--time-unit", "s"]
    options = ["--classes", str(classes), *columns, "--qps", "4", "--seeds", "1", "--jobs", "1", "--requests", "400"]
    assert main(["plan", "--trace", str(trace), *options, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [c["share"] for c in answer["classes"]] == [0.75, 0.25]
    assert answer["trace_rows"] == 400 and answer["load"]["trace_qps"] == pytest.approx(0.5, abs=0.01)
    assert answer["trace_source"] == "file" and len(answer["trace_sha256"]) == 64


@pytest.mark.parametrize(
    ("rule", "words"), [("refuse", "--too-long drop"), ("drop", "2 of 60"), ("truncate", "truncated")]
)
def test_requests_that_no_kv_cache_holds_follow_the_rule(rule, words, tmp_path, capsys):
    rows = [(10 * i, 10**6 if i in (7, 9) else 500, 20) for i in range(60)]
    trace = csv_of(tmp_path / "long.csv", rows, "t,p,o")
    columns = ["--columns", "time=t,prompt=p,output=o", "--time-unit", "s"]
    options = [*columns, "--too-long", rule, "--classes", str(tmp_path / "missing.yaml")]
    assert main(["plan", "--trace", str(trace), *options]) == 2
    error = capsys.readouterr().err
    assert words in error and ("missing.yaml" in error) == (rule != "refuse")


def test_shares_that_are_no_whole_are_refused():
    with pytest.raises(ConfigError, match=r"classes have shares that sum to 0\.6; make them sum to 1"):
        Question(made_trace(), CLASSES[:1], qps=1.0)


def classes_file(tmp_path, rows):
    path = tmp_path / "classes.yaml"
    path.write_text(yaml.safe_dump(rows))
    return str(path)


def test_a_plan_without_a_class_that_cannot_be_met(tmp_path, capsys):
    """By rule: its requests leave the trace. By share: the lengths stay, and the load is less."""
    trace = tmp_path / "mine.csv"
    rows = [f"{i * 0.5},{9000 if i % 10 == 0 else 500},20" for i in range(400)]
    trace.write_text("\n".join(["arrival_s,prompt_tokens,output_tokens", *rows]) + "\n")
    by_rule = [
        {"name": "chat", "ttft_s": 6.0, "tbt_s": 0.1},
        {"name": "novel", "ttft_s": 0.5, "tbt_s": 0.1, "when": "prompt > 8000"},
    ]
    options = ["plan", "--trace", str(trace), "--seeds", "1", "--requests", "400", "--jobs", "1"]
    asked = [*options, "--classes", classes_file(tmp_path, by_rule), "--json"]
    assert main(asked) == 2
    text = capsys.readouterr().err
    assert "class 'novel' cannot be met" in text and "plan --without the class" in text
    assert main([*asked, "--without", "novel"]) == 0
    said = capsys.readouterr()
    assert "without novel: 10.0% of the requests are not planned for" in said.err
    found = json.loads(said.out)
    assert [c["name"] for c in found["classes"]] == ["chat"]
    assert found["load"]["mean_qps"] == pytest.approx(0.9 * 400 / 199.5, rel=0.01)
    by_share = [
        {"name": "chat", "share": 0.75, "ttft_s": 20.0, "tbt_s": 0.1},
        {"name": "fast", "share": 0.25, "ttft_s": 0.01, "tbt_s": 0.1},
    ]
    asked = [*options, "--classes", classes_file(tmp_path, by_share), "--qps", "4", "--json", "--without", "fast"]
    assert main(asked) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["load"]["mean_qps"] == pytest.approx(3.0)
    assert [c["share"] for c in found["classes"]] == [1.0]


@pytest.mark.parametrize(
    ("names", "words"), [(["Q9"], "--without is 'Q9'; the classes are Q1, Q2, Q3"), (["Q1", "Q2", "Q3"], "no requests")]
)
def test_what_is_left_out_must_be_a_class_and_not_all(names, words, capsys):
    options = ["plan", "--trace", "azure-code-2023-synth", "--qps", "4"]
    assert main([*options, *(word for name in names for word in ("--without", name))]) == 2
    assert words in capsys.readouterr().err
