"""What all tests share, notebooks included: it lies here so that `pytest notebooks --nightly` knows the options.

Hypothesis draws the same examples everywhere, without a clock; engines run one by one; the kernel is compiled once,
before processes start; tests marked `nightly` run with --nightly, or where a file that they depend on has changed.
"""

import gc
import random
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

from tests.helpers.compile_kernel import compile_all
from tests.helpers.nightly import draw_examples, waits

UNTIMED = [HealthCheck.too_slow]  # a busy machine is no fault of a test
settings.register_profile("niyama", deadline=None, derandomize=True, database=None, suppress_health_check=UNTIMED)
settings.load_profile("niyama")
A_NOTEBOOK = "capacity"  # runs with every other test; all of them show figures in the same way


def pytest_addoption(parser):
    parser.addoption("--shuffle", type=int, metavar="SEED", help="run the tests in a random order")
    parser.addoption("--nightly", action="store_true", help="run the tests marked `nightly` as well")
    parser.addoption(
        "--examples", type=float, metavar="N", help="N times the examples of every property; if more, at random"
    )


def pytest_collection_modifyitems(config, items):
    """Left out: what waits for the night. --shuffle: files in a random order, and the tests of each in another."""
    for item in items:
        if item.path.suffix == ".ipynb" and item.path.stem != A_NOTEBOOK:
            item.add_marker(pytest.mark.nightly("figures"))
        if item.path.parent.name == "laws" and of_another_paper(item):
            item.add_marker(pytest.mark.nightly("policies", "scheduler/niyama"))
    if not config.getoption("--nightly"):
        named = frozenset((config.invocation_params.dir / arg.split("::")[0]).resolve() for arg in config.args)
        waiting = [item for item in items if waits(item, named)]
        config.hook.pytest_deselected(items=waiting)
        items[:] = [item for item in items if item not in waiting]
    if (times := config.getoption("--examples")) is not None:
        draw_examples(items, times)
    if (seed := config.getoption("--shuffle")) is not None:
        draw = random.Random(seed)
        place = {path: draw.random() for path in dict.fromkeys(item.path for item in items)}
        items.sort(key=lambda item: (place[item.path], draw.random()))


def of_another_paper(item):
    """Whether it holds a policy of `policies/` to a law, but for the two that stand for them all."""
    name = item.callspec.params.get("name", "") if hasattr(item, "callspec") else ""
    file = f"{name}.py".replace("-", "_")
    return file not in ("slai.py", "vtc.py") and (item.config.rootpath / "policies" / file).is_file()


def pytest_collection_finish():
    """What imports have made stays to the end: keep the garbage collector from looking through it again and again."""
    gc.freeze()


@pytest.fixture
def at_once(monkeypatch):
    """The load client sends as soon as it is ready: a fake engine has nothing that must settle."""
    monkeypatch.setattr("artifact.servers.client.SETTLE_S", 0.02)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(config, specs):
    """In the process that starts the others."""
    compile_all()


@cache
def runs_the_engine(path: Path) -> bool:
    """Whether a test file uses the marker `engine`."""
    return "pytest.mark.engine" in path.read_text()


@cache
def shares_fixtures(path: Path) -> bool:
    """Whether tests of a file share what takes long to make."""
    return 'scope="module"' in path.read_text()


class OneEngine(LoadScopeScheduling):
    """Gives the files that run the engine to one process, first; all other tests go to whichever is free.

    An engine takes gigabytes and all cores. A file whose tests share a fixture stays together, so that it is made once.
    (xdist's own groups do not work with pytest 9.2.)
    """

    def _split_scope(self, nodeid: str) -> str:
        path = self.config.rootpath / nodeid.split("::")[0]
        if path.suffix != ".py":
            return nodeid
        return "engine" if runs_the_engine(path) else str(path) if shares_fixtures(path) else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    return OneEngine(config, log)
