"""Named experiments: what a configuration lists is what runs, and a mistake in it is one line that names it."""

import re
from pathlib import Path

import pytest

from artifact.__main__ import main
from artifact.config import ConfigError
from artifact.experiments.capacity import find_capacity
from artifact.experiments.config import ClusterExperiment, Grid, Search, load_experiments, named_experiment
from artifact.experiments.fleets import cluster
from artifact.experiments.grid import grid_rows, search_rows
from artifact.runs.rows import summary_rows
from artifact.runs.run import run
from artifact.runs.spec import RunSpec
from artifact.runs.systems import build_system

ROOT = Path(__file__).parents[2]
SMOKE = ROOT / "workflows" / "config" / "smoke.yaml"
LATENCY = "a100-llama3-8b-linear"
TRACE = "azure-code-2023-synth"
ALPHA_0 = {"policy": {"alpha_low": 0.0, "alpha_high": 0.0}}


def grid(**changes) -> Grid:
    fields = {"traces": [TRACE], "systems": ["niyama"], "loads_qps": [5], "requests": 400, "seeds": 2}
    return Grid.model_validate({**fields, **changes})


def without(rows: list[dict], *columns: str) -> list[dict]:
    return [{k: v for k, v in row.items() if k not in columns} for row in rows]


def test_a_grid_is_every_variant_system_load_and_seed():
    own = grid(systems=["niyama", "sarathi-edf"], loads_qps=[4, 5.5], variants={"a": ALPHA_0, "b": {"requests": 200}})
    specs = own.specs(TRACE, LATENCY)
    seen = {(label, s.system, s.load_qps, s.seed) for label, s in specs}
    assert len(specs) == len(seen) == 2 * 2 * 2 * 2
    assert {s.requests for label, s in specs if label == "b"} == {200}
    assert {s.requests for label, s in specs if label == "a"} == {400}
    assert all(s.latency == LATENCY and s.trace == TRACE for _, s in specs)


def test_grid_rows_are_those_of_the_runs_with_their_label():
    own = grid(run={"noise": 0.1}, variants={"noisy": {}, "quiet": {"noise": 0.0}})
    rows = grid_rows(own, own.specs(TRACE, LATENCY))
    for label, noise in (("noisy", 0.1), ("quiet", 0.0)):
        spec = RunSpec(trace=TRACE, system="niyama", load_qps=5.0, requests=400, seed=1, noise=noise)
        found = [row for row in rows if row["variant"] == label and row["seed"] == 1]
        assert without(found, "variant") == summary_rows(run(spec))
    assert without(rows[: len(rows) // 2], "variant") != without(rows[len(rows) // 2 :], "variant")


def test_a_policys_numbers_reach_the_kernel():
    """The paper's alpha 0 is EDF order: Niyama with it is its own ablation without hybrid priority."""
    one = {"loads_qps": [7], "requests": 1500, "seeds": 1}
    grids = grid(**one, run=ALPHA_0), grid(**one, systems=["niyama-dc-er"]), grid(**one)
    changed, ablation, own = (without(grid_rows(each, each.specs(TRACE, LATENCY)), "system") for each in grids)
    assert changed == ablation and changed != own


def test_a_policys_numbers_reach_every_pool():
    system = build_system("sarathi-silo", grid_classes(), changes={"max_running": 8})
    assert [pool.policy.max_running for pool in system.pools] == [8, 8, 8]
    assert [pool.policy.max_chunk_tokens for pool in system.pools] == [256, 2048, 2048]


def grid_classes():
    return RunSpec(trace=TRACE, system="niyama", load_qps=1.0, requests=1).classes


def test_search_rows_are_those_of_find_capacity_with_their_label():
    own = Search.model_validate(
        {
            "systems": ["sarathi-fcfs", "sarathi-silo"],
            "requests": {TRACE: 1200},
            "seeds": 1,
            "step_qps": 0.5,
            "variants": {"plain": {}, "planned ahead": {"overlapped": True}},
        }
    )
    rows = search_rows(own, own.specs(TRACE, LATENCY, own.requests[TRACE]))
    assert [(r["variant"], r["system"]) for r in rows[::2]] == [
        (label, system) for label in own.variants for system in own.systems
    ]
    assert {r["backend"] for r in rows if r["variant"] == "planned ahead"} == {"sim-overlapped"}
    spec = RunSpec(trace=TRACE, system="sarathi-fcfs", load_qps=1.0, requests=1200)
    assert without(rows[:2], "variant", "backend") == find_capacity(spec, 1, 0.5)


def search(**changes) -> Search:
    fields = {"systems": ["sarathi-fcfs", "niyama"], "requests": {TRACE: 300}, "seeds": 1, "step_qps": 0.5}
    return Search.model_validate({**fields, **changes})


@pytest.mark.parametrize(("column", "first"), [("run_length", "run_length"), (None, "trace")])
def test_labels_stand_in_the_column_that_the_entry_names(column, first):
    own, runs = search(label_column=column, variants={"long": {}}), grid(label_column=column, variants={"long": {}})
    rows = search_rows(own, own.specs(TRACE, LATENCY, 300))
    assert list(rows[0])[:2] == ["backend", first] and rows[0].get(column) == ("long" if column else None)
    rows = grid_rows(runs, runs.specs(TRACE, LATENCY))
    assert next(iter(rows[0])) == (column or "backend") and "variant" not in rows[0]


def test_a_search_starts_at_the_systems_earlier_answer_else_at_that_of_the_one_before(monkeypatch):
    starts = {}

    def find(spec, seeds, step_qps, guess_qps, on_run=None):
        starts[spec.system] = guess_qps
        return [{"capacity_qps": 2.0}]

    monkeypatch.setattr("artifact.experiments.grid.find_capacity", find)
    own = search(systems=["sarathi-fcfs", "niyama", "sarathi-edf"])
    earlier = [
        {"system": "niyama", "criterion": criterion, "capacity_qps": qps}
        for criterion, qps in (("violation_rate", 1.0), ("violation_rate_without_tbt", 4.0))
    ]
    search_rows(own, own.specs(TRACE, LATENCY, 300), earlier=earlier)
    assert starts == {"sarathi-fcfs": None, "niyama": 4.0, "sarathi-edf": 2.0}


def test_a_search_that_continues_another_joins_its_table():
    found = load_experiments(SMOKE)
    assert found.entries_of("capacity") == ("capacity", "long_capacity") and found.entries_of("bursts") == ("bursts",)
    assert "capacity" in found.tables and "long_capacity" not in found.tables and "summary" in found.tables


@pytest.mark.parametrize(
    ("section", "entry"),
    [
        ("capacity", "searches.capacity, with label_column: run_length, variants: {paper: {}}"),
        ("long_capacity", "searches.long_capacity, with continues: capacity, label_column: run_length, variants"),
        ("sweep", "grids.summary, with label_column: null"),
    ],
)
def test_a_section_of_earlier_files_is_told_where_it_belongs(tmp_path, section, entry):
    path = tmp_path / "c.yaml"
    path.write_text(f"{SMOKE.read_text()}{section}: {{seeds: 2}}\n")
    with pytest.raises(ConfigError, match=re.escape(f": {section} is no section any more; write it as {entry}")):
        load_experiments(path)


def test_latency_models_are_the_files_unless_given():
    found = load_experiments(SMOKE)
    assert found.latencies_of(found.grids["steps"]) == (LATENCY,)
    assert found.latencies_of(found.searches["bursts"]) == found.latencies


def test_an_unknown_name_lists_the_known_ones():
    assert named_experiment(SMOKE, "steps", Grid).requests == 1500
    with pytest.raises(ConfigError, match=r"there is no search 'steps'; use one of capacity"):
        named_experiment(SMOKE, "steps", Search)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "alpha_low: 0.0",
            "alpha_lo: 0.0",
            ["grids.steps: variant 'alpha 0'", "did you mean 'alpha_low'"],
        ),
        ("alpha_low: 0.0", "alpha_low: high", ["grids.steps", "policy.alpha_low is 'high'", "a number"]),
        ("alpha_low: 0.0", "alpha_low: 0.5", ["grids.steps", "alpha_low is 0.5", "at most alpha_high"]),
        ("noise: 0.1", "noise: -1", ["grids.steps", "noise is -1"]),
        ("noise: 0.1", "nois: 0.1", ["grids.steps", "nois is not a known field"]),
        ("noise: 0.1", "load_qps: 3", ["grids.steps", "run.load_qps is 3", "list it under loads_qps"]),
        ("noise: 0.1", "predictor: h100", ["grids.steps", "latency model 'h100' is unknown"]),
        ("loads_qps: [4, 6]", "loads_qps: [4, 0]", ["grids.steps.loads_qps.1 is 0"]),
        ("loads_qps: [4, 6]", "loads_qps: []", ["grids.steps.loads_qps is []"]),
        ("loads_qps: [4, 6]", "loads_qps: [4, 1.0e-9]", ["grids.steps.loads_qps.1 is 1e-09", "equal to 0.0001"]),
        ("loads_qps: [4, 6]", "loads_qps: [4, 6e0]", ["grids.steps.loads_qps.1 is '6e0'", "write 6.0e+0"]),
        ("loads_qps: [4, 6]", "loads_qps: [4, 4.0]", ["grids.steps.loads_qps", "4.0 is there 2 times; give it once"]),
        (
            "systems: [niyama]\n    loads",
            "systems: [niyama, niyama]\n    loads",
            ["steps.systems", "'niyama' is there 2"],
        ),
        ("  shared: [niyama]", "  shared: [niyama, niyama]", ["cluster.shared", "'niyama' is there 2 times"]),
        (
            "sarathi-silo: [[2, 1, 1]]",
            "sarathi-silo: [[2, 1, 1], [2, 1, 1]]",
            ["cluster.fleets", "[2, 1, 1] is there 2"],
        ),
        ("  load_qps: 8\n  requests: 3000", "  load_qps: 1.0e-9\n  requests: 3000", ["cluster.load_qps is 1e-09"]),
        (
            "requests: 1500\n    seeds: 2\n    run",
            "requests: 1.5e3\n    seeds: 2\n    run",
            ["requests is '1.5e3'", "; write 1500"],
        ),
        ("loads_qps: [4, 20]", "loads_qps: [20, 20]", ["panels.chunk_throughput.loads_qps", "20.0 is there 2 times"]),
        ("shares: [0.5]", "shares: [0.5, 0.5]", ["panels.polyserve_fleets.shares", "0.5 is there 2 times"]),
        ("load_qps: 12,", "load_qps: 1.0e-9,", ["panels.polyserve_fleets.load_qps is 1e-09", "equal to 0.0001"]),
        ("alpha_low: 0.0", "alpha_low: 0e0", ["alpha_low is text; write 0.0e+0"]),
        ("systems: [niyama]\n    loads", "systems: [nyama]\n    loads", ["grids.steps", "did you mean 'niyama'"]),
        ("cv: 3.0", "cv: 0.0", ["searches.bursts", "arrivals.gamma.cv = 0.0"]),
        ("azure-code-2023: 4000}", "a: 0}", ["requests.a is 0"]),
        ("azure-code-2023: 4000}", "azure-conv-2023: 4000}", ["searches.long_capacity", "has not all of its traces"]),
        (
            "continues: capacity",
            "continues: bursts",
            ["searches.long_capacity: continues is 'bursts'; name a"],
        ),
        ("    label_column: null\n", "", ["grids.summary: label_column is 'variant'", "write label_column: null"]),
        (
            "  bursts:\n",
            "  bursts:\n    label_column: run_length\n",
            ["searches.bursts", "write label_column: variant"],
        ),
        ("variants: {paper: {}}", "variants: {full: {}}", ["searches.capacity", "'full'", "long or paper"]),
        ("  bursts:", "  engine:", ["searches.engine", "choose another name"]),
        ("  summary:", "  other:", ["grids has no 'summary'"]),
        ("label_column: null", "label_column: system", ["grids.summary", "label_column is 'system'"]),
        ("    run: {noise: 0.1}\n", "    label_column: null\n", ["grids.steps: label_column is null", "leave it out"]),
        ("  bursts:", "  steps:", ["searches.steps", "choose another name"]),
        ("  bursts:", "  cluster:", ["searches.cluster", "choose another name"]),
        ("  bursts:", "  Bursts-2:", ["searches.Bursts-2", "lower-case letters"]),
    ],
)
def test_a_mistake_is_one_line_that_names_the_entry_the_field_and_the_value(tmp_path, old, new, words):
    text = SMOKE.read_text()
    assert text.count(old) == 1
    path = tmp_path / "c.yaml"
    path.write_text(text.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        load_experiments(path)
    said = str(caught.value)
    assert "\n" not in said
    for word in words:
        assert word in said


@pytest.mark.parametrize("text", ["- 1", "- null", "- {like: x}", "hello", "1", "[[1]]"])
@pytest.mark.parametrize(
    "command", [["panel", "chunk_curve"], ["grid", "summary", "--trace", TRACE], ["engine-sweep", "--system", "niyama"]]
)
def test_a_file_that_is_no_mapping_is_one_line(tmp_path, capsys, command, text):
    (path := tmp_path / "c.yaml").write_text(text)
    more = ["--described", "x"] if command[0] == "engine-sweep" else []
    line = [*command, *more, "--config", str(path), "--latency", LATENCY, "--out", str(tmp_path / "t")]
    assert main(line) == 2
    assert re.fullmatch(rf"error: {re.escape(str(path))}: is .*, not a mapping; [^\n]+\n", capsys.readouterr().err)


def test_a_trace_that_says_its_classes_is_run_by_them(tmp_path):
    """Shares come from the trace; the silo's pools, whose rows are all in one trace, are planned together."""
    trace = tmp_path / "mine.csv"
    rows = [f"{600 + 50 * (i % 9)},{10 + i % 7},{('chat', 'batch')[i % 3 == 0]}" for i in range(300)]
    trace.write_text("\n".join(["prompt_tokens,output_tokens,qos_class", *rows]) + "\n")
    classes = [{"name": "chat", "ttft_s": 6.0, "tbt_s": 0.1}, {"name": "batch", "ttlt_s": 60.0}]
    experiment = ClusterExperiment(
        traces=(str(trace),),
        load_qps=30.0,
        requests=400,
        seeds=1,
        shared=("niyama",),
        fleets={},
        run={"classes": classes},
    )
    spec = experiment.spec(str(trace), "a100-llama3-8b-linear", "niyama")
    assert [c.share for c in spec.classes] == pytest.approx([2 / 3, 1 / 3])
    found = cluster(experiment, str(trace), "a100-llama3-8b-linear")
    silo = {row["fleet"] for row in found if row["system"] == "sarathi-silo"}
    assert len(silo) == 1 and silo.pop().count("-") == 1
    assert {row["group"] for row in found} >= {"chat", "batch"}
    worst = max(row["violation_rate_without_tbt"] for row in found if row["group"] in ("chat", "batch"))
    assert worst <= 0.01
    with pytest.raises(ConfigError, match=r"run\.trace is 'x'"):
        experiment.model_copy(update={"run": {"trace": "x"}}).check("a100-llama3-8b-linear")
