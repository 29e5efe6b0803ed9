"""What all tests share: hypothesis draws the same examples everywhere, without a clock; engines run one by one."""

import random
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

UNTIMED = [HealthCheck.too_slow]  # a busy machine is no fault of a test
settings.register_profile("niyama", deadline=None, derandomize=True, database=None, suppress_health_check=UNTIMED)
settings.load_profile("niyama")


def pytest_addoption(parser):
    parser.addoption("--shuffle", type=int, metavar="SEED", help="run the tests in a random order")


def pytest_collection_modifyitems(config, items):
    """Files in a random order, and the tests of each: a file's servers still start once."""
    if (seed := config.getoption("--shuffle")) is not None:
        draw = random.Random(seed)
        place = {path: draw.random() for path in dict.fromkeys(item.path for item in items)}
        items.sort(key=lambda item: (place[item.path], draw.random()))


@cache
def runs_the_engine(path: Path) -> bool:
    """Whether a test file uses the marker `engine`."""
    return "pytest.mark.engine" in path.read_text()


class OneEngine(LoadScopeScheduling):
    """Gives the files that run the engine to one process, first; every other test goes to whichever is free.

    An engine takes gigabytes and all cores. (xdist's own groups do not work with pytest 9.2.)
    """

    def _split_scope(self, nodeid: str) -> str:
        path = self.config.rootpath / nodeid.split("::")[0]
        return "engine" if path.suffix == ".py" and runs_the_engine(path) else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    return OneEngine(config, log)
