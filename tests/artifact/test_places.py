"""A place that cannot be written, or read, is one line: before anything long runs where that can be known."""

import errno
import os

import pytest

from artifact.__main__ import main
from artifact.experiments import cli as steps
from artifact.runs import cli as commands

SIMULATE = ["simulate", "--trace", "azure-code-2023-synth", "--requests", "40", "--system", "niyama", "--load", "3"]


@pytest.fixture
def one_line(capsys):
    """Runs a command that must be refused; its line."""

    def refused(*arguments):
        status = main([str(a) for a in arguments])
        out, err = capsys.readouterr()
        assert (status, out) == (2, "") and err.startswith("error: ") and len(err.splitlines()) == 1
        return err

    return refused


@pytest.fixture
def never(monkeypatch):
    """Nothing may start to run."""

    def ran(*_, **__):
        raise AssertionError("it ran")

    for module, name in ((commands, "run"), (commands, "warm_up_like"), (steps.runs, "warm_up")):
        monkeypatch.setattr(module, name, ran)
    monkeypatch.setattr(steps, "describe_trace", ran)


@pytest.mark.parametrize(
    "command",
    [
        [*SIMULATE, "--out"],
        [*SIMULATE, "--decision-log"],
        ["compile", "--out"],
        ["trace", "azure-code-2023", "--out"],
        ["serve", "--system", "niyama", "--folder"],
        ["manifest", "--results", ".", "--out"],
        ["verify", "--json"],
    ],
    ids=lambda command: " ".join((command[0], command[-1])),
)
def test_a_place_that_cannot_be_made_is_told_before_anything_runs(command, one_line, never, tmp_path):
    (tmp_path / "file").touch()
    for place in ("/proc/x/y", tmp_path / "file" / "x"):
        line = one_line(*command, place)
        assert f"error: {command[-1]} {place}: " in line and "name a place that can be written" in line
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_stands_where_a_file_or_folder_is_to_be_is_told(one_line, never, tmp_path):
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    assert "file is not a folder" in one_line(*SIMULATE, "--out", tmp_path / "file")
    assert "is a folder, not a file" in one_line("compile", "--out", tmp_path)
    assert "is not an ordinary file" in one_line("compile", "--out", tmp_path / "pipe")  # /dev/null would be replaced
    assert "is a folder, not a file" in one_line(*SIMULATE, "--decision-log", tmp_path)


@pytest.mark.parametrize("option", ["--out", "--decision-log", "--classes"])
def test_an_empty_path_is_refused(option, capsys):
    for given in ([option, ""], [f"{option}="]):
        with pytest.raises(SystemExit) as ended:
            main([*SIMULATE, *given])
        assert ended.value.code == 2 and f"argument {option}: is empty" in capsys.readouterr().err


def test_folders_that_are_missing_are_made(tmp_path, capsys):
    log, out = tmp_path / "a" / "log", tmp_path / "b" / "c"
    assert main([*SIMULATE, "--decision-log", str(log), "--out", str(out)]) == 0
    assert log.stat().st_size and {path.name for path in out.iterdir()} == {"requests.parquet", "iterations.parquet"}


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.ENOSPC, "No space", "/x/y"), "error: /x/y: no space left on the disk; make room\n"),
        (OSError(errno.ENOSPC, "No space"), "error: no space left on the disk\n"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "error: /x: Permission denied; name a place "),
        (OSError("odd"), "error: odd\n"),
    ],
)
def test_what_the_operating_system_refuses_is_one_line(error, told, one_line, monkeypatch, tmp_path):
    def fails(*_):
        raise error

    monkeypatch.setattr(steps.runs, "warm_up", fails)
    assert one_line("compile", "--out", tmp_path / "x").startswith(told)


def test_what_is_missing_is_named(one_line, tmp_path):
    gone = tmp_path / "gone"
    line = one_line("load", "--url", "x", "--workload", gone)
    assert f"trace '{gone}' is no file and no name of the catalog" in line


def test_a_manifest_of_no_folder_is_refused(one_line, tmp_path):
    line = one_line("manifest", "--results", tmp_path / "gone", "--out", tmp_path / "manifest.json")
    assert "gone: is no folder" in line and not list(tmp_path.iterdir())
