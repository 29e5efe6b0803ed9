"""Searches for the fewest replicas end: with the number, when a class cannot be met by any."""

import pytest

from artifact.config import ConfigError
from artifact.experiments import fleets as cluster
from artifact.experiments import planner
from artifact.experiments.fleets import Fleets
from artifact.experiments.panel_config import Fleets as Panel
from artifact.experiments.polyserve import polyserve_fleets
from artifact.runs.spec import ClassSpec, RunSpec

TRACE = "azure-code-2023-synth"
CHAT = ClassSpec(name="chat", share=1.0, ttft_s=0.6, tbt_s=0.05)


def spec(*classes, system="niyama"):
    return RunSpec(trace=TRACE, system=system, load_qps=4.0, requests=400, classes=classes)


def panel(qos: ClassSpec) -> Panel:
    """Half of that class, half of one that is easy to meet."""
    one = {"trace": TRACE, "systems": ("niyama",), "load_qps": 4.0, "requests": 400, "seeds": 1, "shares": (0.5,)}
    return Panel(**one, classes=(qos, qos.model_copy(update={"name": "easy", "ttft_s": 6.0})))


@pytest.mark.parametrize(
    "plan", [lambda s: Fleets(2).plan(s), lambda s: polyserve_fleets(panel(s.classes[0]), s.latency)]
)
def test_a_ttft_below_the_prefill_of_long_prompts_is_said_not_searched_for_ever(plan):
    words = (
        r"class 'chat' misses \d+\.\d% of its requests on any number of replicas .*TTFT of 0\.6 s .* [\d,]+ tokens on"
    )
    with pytest.raises(ConfigError, match=words):
        plan(spec(CHAT))


def test_the_class_that_cannot_be_met_is_named():
    easy = ClassSpec(name="nightly", share=0.5, ttlt_s=3600.0)
    with pytest.raises(ConfigError, match="class 'chat' misses"):
        Fleets(1).plan(spec(easy, CHAT.model_copy(update={"share": 0.5})))


@pytest.mark.parametrize("system", ["sarathi-silo", "polyserve"])
def test_a_shared_fleet_has_one_pool(system):
    easy = ClassSpec(name="easy", share=0.5, ttft_s=6.0, tbt_s=0.1)
    with pytest.raises(ConfigError, match=f"cluster.shared has '{system}' with 2 pools; name systems of one pool"):
        Fleets(1).plan(spec(easy, CHAT.model_copy(update={"share": 0.5}), system=system))


def test_a_batch_class_that_cannot_be_met_is_said():
    with pytest.raises(
        ConfigError, match=r"class 'batch' misses .*TTLT of 0\.1 s is less than one request alone takes"
    ):
        Fleets(1).plan(spec(ClassSpec(name="batch", share=1.0, ttlt_s=0.1)))


def test_what_can_be_met_is_planned_as_before():
    """With patience left and without: the same fewest replicas."""
    easy = spec(CHAT.model_copy(update={"ttft_s": 6.0}))
    size = Fleets(1).plan(easy)
    fleets = Fleets(1)
    worst = [fleets.worst(easy.model_copy(update={"replicas": (n,)}), 0) for n in (size - 1, size) if n]
    assert worst[-1] <= 0.01 < (worst[0] if size > 1 else 1)


def test_a_fleet_that_never_holds_stops_at_a_replica_for_each_request(monkeypatch):
    """Feasible alone, and yet nothing holds: no search goes on for ever."""
    monkeypatch.setattr(planner, "refuse_infeasible", lambda *a, **k: None)
    monkeypatch.setattr(cluster.Fleets, "worst", lambda self, spec, seed: 0.5)
    with pytest.raises(ConfigError, match="one for each request, still miss more than 1%"):
        Fleets(1).plan(spec(CHAT))
