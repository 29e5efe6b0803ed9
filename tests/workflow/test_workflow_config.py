"""`snakemake --config`: every key that a rule reads is known, and nothing else is."""

import re
from pathlib import Path

import pytest
from snakemake.shell import shell

from artifact.config import ConfigError
from artifact.workflow.config import as_text, exported, known_keys, refuse_place, refuse_unknown
from tests.helpers.snakemake_forks import ROOT, run_snakemake


def test_known_keys_are_those_that_are_read():
    assert {"experiments", "results", "servers", "servers_config"} <= set(known_keys(ROOT))
    refuse_unknown({"servers": "none", "results": "results"}, ROOT)


def test_an_unknown_key_gets_a_suggestion():
    with pytest.raises(ConfigError, match=r"--config server is not known; did you mean 'servers'\? use one of "):
        refuse_unknown({"server": "none"}, ROOT)


def test_every_value_is_text():
    config = {"results": 2026, "servers_latency": 0.5, "servers": "none"}
    as_text(config)
    assert config == {"results": "2026", "servers_latency": "0.5", "servers": "none"}


def test_results_are_a_folder_that_snakemake_can_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    for results, why in (("file", "file is a file"), ("file/x", "file is a file"), ("a{b}", "brace"), ("a}", "brace")):
        with pytest.raises(ConfigError, match=f"--config results={re.escape(results)}: .*{why}"):
            refuse_place(results)
    for results in (".", "new/folder", str(tmp_path), str(tmp_path / "new")):
        refuse_place(results)


def test_every_command_finds_what_is_exported_whatever_is_in_it(tmp_path):
    """Snakemake formats what stands before a command; then a shell reads it."""
    (odd := tmp_path / 'it\'s "{x}" $HOME `id`').mkdir()
    (odd / "python").write_text("#!/bin/sh\necho found\n")
    (odd / "python").chmod(0o755)
    shell.prefix(exported({"ODD": odd.name}, odd))
    try:
        assert shell('python; echo "$ODD"; cat /dev/null', read=True).splitlines() == ["found", odd.name]
    finally:
        shell.prefix("")


@pytest.mark.parametrize(
    "entry",
    ["results=", "results=Makefile", "results=re{su}lts", "servers=nne", "server=none", "experiments=nowhere.yaml"],
)
def test_a_mistake_is_one_line_for_snakemake(entry, tmp_path):
    done = run_snakemake("--dry-run", "--quiet", "--config", f"results={tmp_path}", entry)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if "profile" not in line and line]
    assert done.returncode == 2 and len(lines) == 1 and lines[0].startswith("error: ")
    assert entry.split("=")[1 if "server=" not in entry else 0] in lines[0]
