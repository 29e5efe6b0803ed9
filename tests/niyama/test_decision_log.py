"""A decision log replays to the same decisions on any machine, and a log that was changed is found out at its line."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from niyama import QoSClass, load_policy
from niyama.decision_log import DecisionLog, LogError, replay
from niyama.own_rules import RuleError
from niyama.rules import rank_rule
from niyama.scheduler import Arrival, Scheduler, Timing
from niyama.sim import Requests, shared, simulate_logged
from niyama.step import CHUNK, DRAFTED, ENDED, LOADED, LOADING, LOST, NO_ROOM, PACED, SLOTTED
from tests.helpers.reference_formulas import ROOFLINE

CLASSES = (QoSClass("chat", ttft_s=0.5, tbt_s=0.03), QoSClass("job", ttlt_s=3.0))
N = 80


@rank_rule
def latest_first(job, alpha):
    return -job.arrival_s


OWN = replace(load_policy("niyama"), name="own", rank=latest_first)


def requests(n=N):
    random = np.random.default_rng(5)
    return Requests(
        CLASSES,
        random.integers(0, 2, n),
        np.cumsum(random.exponential(0.08, n)),
        random.integers(1, 3000, n),
        random.integers(1, 60, n),
        random.random(n) < 0.7,
    )


def write(path, policy, **options):
    return simulate_logged(shared(policy), requests(), ROOFLINE, ROOFLINE, path, **options)


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """A log with relegation in it."""
    path = tmp_path_factory.mktemp("log") / "decisions.jsonl"
    assert write(path, load_policy("niyama"), overlapped=True).relegations.sum() > 3
    return path


def changed(log, tmp_path, number, change):
    """A copy of the log, with `change` done to the JSON of line `number`."""
    lines = log.read_text().splitlines(keepends=True)
    values = json.loads(lines[number - 1])
    change(values)
    lines[number - 1] = json.dumps(values) + "\n"
    path = tmp_path / "changed.jsonl"
    path.write_text("".join(lines))
    return path


def step_with(log, kind):
    """Number of a line, past the first steps, that reports an event of this kind; and where in `events` it stands."""
    for number, line in enumerate(log.read_text().splitlines(), 1):
        events = json.loads(line).get("events", [])
        if number > 30 and kind in events[::3]:
            return number, 3 * events[::3].index(kind)
    raise AssertionError(f"no event {kind}")


def test_a_log_replays(log):
    seen = []
    found = replay(log, progress=seen.append)
    assert (found.divergence, found.cut_short) == (None, None)
    assert seen == list(range(1, found.steps + 1))
    assert found.chunks >= N


def test_a_log_replays_without_the_compiler(log):
    script = "import sys; from niyama.decision_log import replay; print(replay(sys.argv[1]))"
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    command = [sys.executable, "-c", script, str(log)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == str(replay(log))


@pytest.fixture
def passed_over(tmp_path):
    """The log of an engine that reports only after five steps that it granted a planned request nothing."""
    path, sizes = tmp_path / "late.jsonl", {"kv_tokens": 16_000, "apps": 1}
    log = DecisionLog.open(path, load_policy("niyama"), ROOFLINE, **sizes)
    scheduler = Scheduler(load_policy("niyama"), ROOFLINE, watch=log.write, **sizes)
    row = scheduler.arrive(Arrival(0.0, 900, 6.0, 0.05, True, True, 0))
    assert [scheduler.step(Timing(0.1 * i, 0.0, 0.0, 0)).rows for i in range(6)] == [[row], [], [], [], [], []]
    scheduler.report(CHUNK, row, 0)
    assert scheduler.step(Timing(0.7, 0.0, 0.0, 0)).rows == [row]
    log.close()
    return path


def test_a_planned_request_may_be_passed_over_for_many_steps(passed_over):
    found = replay(passed_over)
    assert (found.steps, found.divergence, found.cut_short) == (7, None, None)


@pytest.mark.parametrize("first", [CHUNK, LOST])
def test_a_plan_is_reported_once(passed_over, tmp_path, first):
    path = changed(passed_over, tmp_path, 8, lambda step: step.update(events=[first, 0, 0, CHUNK, 0, 0]))
    with pytest.raises(LogError, match="line 8: event 'chunk' cannot happen to request 0 there"):
        replay(path)


def test_rules_that_are_not_built_in_are_asked_for(tmp_path):
    path = tmp_path / "own.jsonl"
    write(path, replace(OWN, alpha_low=0.001))
    with pytest.raises(LogError, match="policy 'own' has rules that are not built in; name them with --system"):
        replay(path)
    assert replay(path, OWN).divergence is None  # the numbers are the log's
    assert replay(path, load_policy("niyama")).divergence is not None


@rank_rule
def refuses_all(job, alpha):
    if job.prompt_tokens > 0:
        raise ValueError("no such job")
    return 0.0


def test_a_rule_that_raises_is_named_and_not_the_log(log):
    with pytest.raises(RuleError, match=r"test_decision_log\.py, line \d+.*ValueError: no such job"):
        replay(log, replace(OWN, rank=refuses_all))


def test_built_in_rules_under_another_name_need_no_asking(tmp_path):
    path = tmp_path / "renamed.jsonl"
    write(path, replace(load_policy("niyama"), name="mine", max_chunk_tokens=700))
    assert replay(path).divergence is None


def test_a_changed_chunk_is_found_at_its_line(log, tmp_path):
    number = next(n for n, line in enumerate(log.read_text().splitlines(), 1) if n > 30 and '"chunks":[[' in line)

    def one_token_more(step):
        step["chunks"][0][1] += 1

    found = replay(changed(log, tmp_path, number, one_token_more))
    assert found.divergence.startswith(f"line {number}, ") and ": chunks is [[" in found.divergence
    assert found.steps == number - 1


@pytest.mark.parametrize(("event", "fits"), [((SLOTTED, 0, 2**31 - 1), True), ((SLOTTED, 0, 1), False)])
def test_how_many_may_hold_kv_is_replayed(log, tmp_path, event, fits):
    path = changed(log, tmp_path, 2, lambda step: step["events"].extend(event))
    assert (replay(path).divergence is None) is fits


@pytest.mark.parametrize("event", [(NO_ROOM, 999, 0), (SLOTTED, 1, 3), (DRAFTED, 1, 3), (PACED, 1, 2000)])
def test_no_room_is_for_a_request_that_is_there_and_what_is_of_all_for_none(log, tmp_path, event):
    path = changed(log, tmp_path, 2, lambda step: step["events"].extend(event))
    with pytest.raises(LogError, match=r"line 2: event .* cannot happen to request"):
        replay(path)


def test_a_changed_event_is_found_at_its_line(log, tmp_path):
    number, at = step_with(log, CHUNK)

    def one_token_less(step):
        step["events"][at + 2] -= 1

    assert replay(changed(log, tmp_path, number, one_token_less)).divergence.startswith(f"line {number}, ")


@pytest.mark.parametrize(
    ("kind", "shift", "value", "words"),
    [
        (CHUNK, 1, 10**6, "event 'chunk' cannot happen to request 1000000 there"),
        (ENDED, 1, -1, "event 'ended' cannot happen to request -1 there"),
        (CHUNK, 0, 99, "there is no event 99"),
        (CHUNK, 2, -5, "with value -5"),
        (CHUNK, 2, 0.5, "with value 0.5"),
        (ENDED, 2, 2**40, "there is no event 4"),
        (ENDED, 0, LOADED, "event 'loaded' cannot happen to request"),
        (ENDED, 0, LOADING, "event 'loading' cannot happen to request"),
    ],
)
def test_an_event_that_cannot_have_happened_is_named(log, tmp_path, kind, shift, value, words):
    """The kernel would believe it, and write beyond its arrays."""
    number, at = step_with(log, kind)
    path = changed(log, tmp_path, number, lambda step: step["events"].__setitem__(at + shift, value))
    with pytest.raises(LogError, match=f"line {number}: .*{words}"):
        replay(path)


@pytest.mark.parametrize(
    ("number", "change", "words"),
    [
        (1, lambda v: v.update(version=7), "line 1 is not the header of a decision log of version 1"),
        (1, lambda v: v["policy"].update(margin=0.5), "line 1 .*margin is 0.5"),
        (1, lambda v: v.pop("card"), "line 1 does not say how the scheduler was made"),
        (1, lambda v: v["sizes"].update(colour=1), "line 1 .*colour"),
        (9, lambda v: v.pop("chunks"), "line 9 lacks \\['chunks'\\]"),
        (9, lambda v: v.pop("timing"), "line 9 is not a step"),
        (9, lambda v: v.update(timing=["soon", 0, 0, 0, 1]), "line 9 is not a step"),
        (9, lambda v: v.update(events=[1, 2]), "line 9 is not a step"),
        (2, lambda v: v["arrivals"][0].__setitem__(7, 9), "line 2: request 0 cannot arrive there"),
        (2, lambda v: v["arrivals"][0].__setitem__(0, 5), "line 2: request 0 cannot arrive there"),
    ],
)
def test_a_line_that_is_not_what_it_should_be_is_named(log, tmp_path, number, change, words):
    with pytest.raises(LogError, match=words):
        replay(changed(log, tmp_path, number, change))


def test_a_log_that_was_cut_short_says_so(log, tmp_path):
    text, path = log.read_text(), tmp_path / "cut.jsonl"
    lines = text.splitlines(keepends=True)
    path.write_text("".join(lines[:20])[:-7])  # as a killed engine leaves it
    assert replay(path).cut_short == "line 20 is incomplete" and replay(path).steps == 18
    path.write_text("".join(lines[:20]))
    assert replay(path).cut_short == "there is no end after step 19"
    path.write_text("".join(lines[:20] + lines[21:]))
    with pytest.raises(LogError, match="line 21: event 'chunk' cannot happen"):
        replay(path)
    path.write_text("".join([*lines[:20], lines[-1]]))
    with pytest.raises(LogError, match=f"line 21 ends {len(lines) - 2} steps, not 19; lines are missing"):
        replay(path)
    path.write_text(text + lines[5])
    with pytest.raises(LogError, match="comes after the end"):
        replay(path)


def test_a_log_of_an_earlier_version_replays(log, tmp_path):
    """Its policy lacks a number that came later, and its card has an earlier name."""

    def as_before(header):
        del header["policy"]["queued_prefill_share"]
        header["card"]["margin"] = header["card"].pop("error_p95")

    found = replay(changed(log, tmp_path, 1, as_before))
    assert (found.divergence, found.cut_short) == (None, None)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "line 1 is not the header"),
        (b"[1]\n", "line 1 is not a JSON object"),
        (b"hello\n", "line 1 is not JSON"),
        (b"PAR1\xff\xfe", "is not text"),
        (None, "cannot be read"),
    ],
)
def test_what_is_no_log_is_refused(tmp_path, content, words):
    path = tmp_path / "no.log"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LogError, match=words):
        replay(path)


def test_a_log_is_of_one_replica_that_knows_no_future(tmp_path):
    path = tmp_path / "log"
    with pytest.raises(ValueError, match="has 2 replicas and a log has one scheduler"):
        simulate_logged(shared(OWN, 2), requests(), ROOFLINE, ROOFLINE, path)
    with pytest.raises(ValueError, match="estimator 'oracle'"):
        simulate_logged(shared(replace(OWN, estimator="oracle")), requests(), ROOFLINE, ROOFLINE, path)
    assert not path.exists()
