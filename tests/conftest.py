"""What all tests share: hypothesis draws the same examples everywhere, without deadline; engines run one by one."""

from functools import cache
from pathlib import Path

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

settings.register_profile("niyama", deadline=None, derandomize=True, database=None)
settings.load_profile("niyama")


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
