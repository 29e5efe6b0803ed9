"""Folders of engine metrics: those of killed servers go when the next server starts, those of living ones stay."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("prometheus_client")
from niyama.vllm import metric_files


def test_folders_of_killed_servers_are_swept_and_no_others(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    server = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    dead = metric_files._private_folder(server.pid)
    server.kill()
    server.wait()
    living = metric_files._private_folder(os.getppid())
    again = living.with_name(f"{living.name}1")  # the number came again, for another process
    elsewhere = tmp_path / f"niyama-metrics-{os.getuid()}-77-1-1"  # of another container
    others = [tmp_path / "niyama-metrics-x", tmp_path / "other"]
    for folder in (dead, living, again, elsewhere, *others):
        folder.mkdir()
        (folder / "counter_1.db").write_text("")
    own = metric_files.engine_folder({})
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in (own, living, elsewhere, *others)}
