"""The pytest plugin that vLLM's tests run under: our scheduler classes for theirs, and a file of what came out.

    python -m pytest -p artifact.vllm_suite.inside --schedulers niyama --outcomes FILE ...

Only what a test finds under a scheduler's name is another class; no test and nothing of vLLM is edited.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from vllm.model_executor.models import ModelRegistry
from vllm.model_executor.models.opt import OPTForCausalLM
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.diffusion_scheduler import DiffusionAsyncScheduler, DiffusionScheduler
from vllm.v1.core.sched.scheduler import Scheduler

from niyama.vllm.engine import Unplannable
from niyama.vllm.scheduler import NiyamaAsyncScheduler, NiyamaScheduler

#: All schedulers of ours that the running test has made.
_made: list[Any] = []
_outcomes: dict[str, dict[str, str]] = {}


class _Watched:
    """Mixed in before one of our classes: remembers each object, to ask it later whether it has switched itself off."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _made.append(self)


class _NiyamaScheduler(_Watched, NiyamaScheduler):
    pass


class _NiyamaAsyncScheduler(_Watched, NiyamaAsyncScheduler):
    pass


# `--scheduler-cls` takes the place of vLLM's diffusion schedulers as well. The -async ones give every test, also those
# written for the other class, one that schedules a step before the last one's output is known.
SCHEDULERS = {
    "stock": {},
    "stock-async": {Scheduler: AsyncScheduler, DiffusionScheduler: DiffusionAsyncScheduler},
    "niyama": {
        Scheduler: _NiyamaScheduler,
        AsyncScheduler: _NiyamaAsyncScheduler,
        DiffusionScheduler: _NiyamaScheduler,
        DiffusionAsyncScheduler: _NiyamaAsyncScheduler,
    },
    "niyama-async": dict.fromkeys(
        (Scheduler, AsyncScheduler, DiffusionScheduler, DiffusionAsyncScheduler), _NiyamaAsyncScheduler
    ),
}


class _OneImageModel(OPTForCausalLM):
    """A model that takes images of 576 tokens, as LLaVA 1.5 does; LLaVA itself needs torchvision."""

    supports_multimodal = True
    _images = SimpleNamespace(
        ctx=SimpleNamespace(model_config=SimpleNamespace(max_model_len=4096)),
        supported_mm_limits={"image": None},
        allowed_mm_limits={"image": 999},
        get_mm_max_tokens_per_item=lambda seq_len, mm_counts: {"image": 576},
    )
    _processor_factory = SimpleNamespace(
        info=lambda ctx: _OneImageModel._images,
        build_processor=lambda ctx: SimpleNamespace(info=_OneImageModel._images),
    )


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--schedulers", choices=sorted(SCHEDULERS), required=True)
    parser.addoption("--outcomes", type=Path, required=True, help="JSON file: id of each test -> what came out")


def pytest_configure(config: pytest.Config) -> None:
    ModelRegistry.register_model("LlavaForConditionalGeneration", _OneImageModel)


def pytest_collection_modifyitems(config: pytest.Config) -> None:
    """The tests and their helpers are imported: exchange the classes that they know."""
    classes = SCHEDULERS[config.getoption("--schedulers")]
    for name, module in list(sys.modules.items()):
        if name.startswith("tests."):
            for attribute, value in list(vars(module).items()):
                if isinstance(value, type) and value in classes:
                    setattr(module, attribute, classes[value])


@pytest.fixture
def caplog_vllm(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Of vLLM's own conftest, which cannot be imported here: records of vLLM's loggers."""
    monkeypatch.setattr(logging.getLogger("vllm"), "propagate", True)
    with caplog.at_level(logging.INFO):
        yield caplog


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> Iterator[Any]:
    report = yield
    if call.when == "setup":
        _made.clear()
    if report.skipped:
        _note(item, "skipped", str(call.excinfo.value))
    elif report.failed:
        refusal = _refusal(call.excinfo.value)
        _note(item, "refused", str(refusal)) if refusal else _note(item, "failed", call.excinfo.exconly())
    elif call.when == "call":
        off = any(made.planner is None for made in _made)
        _note(item, "switched off", "the plug-in has switched itself off") if off else _note(item, "passed", "")
    return report


def _note(item: pytest.Item, outcome: str, text: str) -> None:
    name = item.nodeid.removeprefix("tests/v1/")
    if _outcomes.get(name, {}).get("outcome") in (None, "passed"):  # the first thing that goes wrong counts
        _outcomes[name] = {"outcome": outcome, "text": text}


def _refusal(error: BaseException | None) -> Unplannable | None:
    """The plug-in's refusal that this error is or comes from."""
    while error is not None and not isinstance(error, Unplannable):
        error = error.__cause__ or error.__context__
    return error


def pytest_sessionfinish(session: pytest.Session) -> None:
    session.config.getoption("--outcomes").write_text(json.dumps(_outcomes, indent=1), encoding="utf-8")
