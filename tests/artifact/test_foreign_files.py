"""A file that is damaged, or that something else wrote, is one line that names it."""

import pytest

from artifact.__main__ import main
from artifact.config import ConfigError
from artifact.results.descriptions import read_description
from artifact.results.failures import Incomplete
from artifact.results.tables import ResultError, write_table
from traces import TraceError, load_trace

SIMULATE = ["simulate", "--trace", "azure-code-2023-synth", "--requests", "40", "--system", "niyama", "--load", "3"]
FOREIGN = [b"", b"{}", b"[]", b"root:x:0:0", b"\xff", b'{"trace": {}}', b'{"failures": 1, "outputs": {}}']


@pytest.mark.parametrize("content", FOREIGN)
def test_what_another_wrote_is_named(content, tmp_path):
    (path := tmp_path / "x.json").write_bytes(content)
    with pytest.raises(ConfigError, match=r"x\.json: "):
        read_description(path)
    with pytest.raises(ResultError, match=r"x\.json: is not what a failed run wrote"):
        Incomplete.read(path)


@pytest.mark.parametrize("command", ["merge", "server-table"])
@pytest.mark.parametrize("trace", ["azure-code-2023", {}])
def test_tables_of_another_command_are_not_joined(command, trace, tmp_path, capsys):
    """`simulate --out` and `load --out` only name the trace."""
    write_table(tmp_path / "requests.parquet", [{"a": 1}], trace=trace, backend="server")
    assert main([command, str(tmp_path / "requests.parquet"), "--out", str(tmp_path / "t.parquet")]) == 2
    assert "requests.parquet: does not describe its trace" in capsys.readouterr().err


def test_text_that_is_not_utf_8_is_named(tmp_path, capsys):
    (path := tmp_path / "latin").write_bytes("- {name: caf\xe9, share: 1.0, ttlt_s: 6}".encode("latin-1"))
    assert main([*SIMULATE, "--classes", str(path)]) == 2
    assert f"error: {path}: is not UTF-8 (" in capsys.readouterr().err
    with pytest.raises(TraceError, match="latin: is not UTF-8"):
        load_trace(str(path))
