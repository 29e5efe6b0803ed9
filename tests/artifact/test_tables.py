"""Results tables: whole or absent, the same bytes for the same content, and clear when damaged."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from artifact.__main__ import main
from artifact.experiments.merge import merge
from artifact.results.digest import content_sha256
from artifact.results.tables import ResultError, provenance, read_table, write_table
from artifact.workflow.timings import timings, timings_text

ROWS = [{"system": "niyama", "capacity_qps": 4.5}, {"system": "sarathi-edf", "capacity_qps": None}]


def test_round_trip_and_provenance(tmp_path):
    write_table(tmp_path / "t.parquet", ROWS, backend="sim")
    table = read_table(tmp_path / "t.parquet")
    assert table.to_pylist() == ROWS
    assert provenance(table) == {"schema_version": 1, "backend": "sim"}


def test_same_rows_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_table(tmp_path / name, ROWS, backend="sim")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "t.parquet"
    write_table(path, ROWS)
    before = path.read_bytes()
    with pytest.raises(Exception, match="nothere"):
        write_table(path, (_fail() for _ in range(2)))
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def _fail():
    raise RuntimeError("nothere")


def test_missing_truncated_and_foreign_files_say_what_to_do(tmp_path):
    with pytest.raises(ResultError, match="is missing; run `snakemake"):
        read_table(tmp_path / "none.parquet")
    path = tmp_path / "t.parquet"
    write_table(path, ROWS)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ResultError, match="cannot be read"):
        read_table(path)


COLUMNS = {
    "text": ["a", None, "c"],
    "number": [1.5, None, 2.0],
    "list": [[1.0, None], None, []],
    "flag": [True, False, None],
    "count": [1, 2, 3],
    "nothing": [None, None, None],
}


def test_the_digest_is_of_values_not_of_their_layout(tmp_path):
    table = pa.table(COLUMNS)
    same = pa.concat_tables([table.slice(0, 1), table.slice(1)])
    assert content_sha256(same, b"") == content_sha256(table, b"")
    pq.write_table(table, tmp_path / "t", row_group_size=1, compression="none")
    assert content_sha256(pq.read_table(tmp_path / "t"), b"") == content_sha256(table, b"")


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("text", ["a", "", "c"]),
        ("number", [1.5, 0.0, 2.0]),
        ("number", [1.5, None, 2.0000000000000004]),
        ("list", [[1.0, None], [], None]),
        ("list", [[1.0], [None], []]),
        ("flag", [True, False, False]),
        ("count", [1.0, 2.0, 3.0]),
        ("count", [2, 1, 3]),
    ],
)
def test_the_digest_changes_with_any_value(column, values):
    changed = {name: values if name == column else old for name, old in COLUMNS.items()}
    assert content_sha256(pa.table(changed), b"") != content_sha256(pa.table(COLUMNS), b"")
    assert content_sha256(pa.table(COLUMNS), b"other provenance") != content_sha256(pa.table(COLUMNS), b"")


def test_an_edited_table_is_not_read(tmp_path):
    path = tmp_path / "t.parquet"
    write_table(path, ROWS, backend="sim")
    table = pq.read_table(path)
    edited = table.set_column(1, "capacity_qps", pa.array([4.6, None]))
    pq.write_table(edited.replace_schema_metadata(table.schema.metadata), path)
    with pytest.raises(ResultError, match="is not as it was written"):
        read_table(path)


def test_merge_keeps_rows_and_sources(tmp_path):
    for name, rows in (("a", ROWS[:1]), ("b", ROWS[1:])):
        write_table(tmp_path / name, rows, trace={"trace": name, "source": "local"})
    merge([tmp_path / "a", tmp_path / "b"], tmp_path / "all")
    table = read_table(tmp_path / "all")
    assert table.to_pylist() == ROWS and set(provenance(table)["traces"]) == {"a", "b"}


@pytest.mark.parametrize("second", ["a", "../a/a", "link", "copy", "more"])
def test_no_row_is_joined_twice(tmp_path, second):
    folder = tmp_path / "a"
    for name, rows in (("a", ROWS), ("copy", ROWS), ("more", [*ROWS[1:], {"system": "niyama", "capacity_qps": 4.6}])):
        write_table(folder / name, rows, traces={})
    (folder / "link").symlink_to("a")
    with pytest.raises(ResultError, match=r"[12] of the 4 rows to join are there twice; give each table once"):
        merge([folder / "a", folder / second], tmp_path / "all")
    assert not (tmp_path / "all").exists()


@pytest.mark.parametrize("content", [None, "mine = 1\n", "of the pipeline"])
@pytest.mark.parametrize(
    ("command", "advice"),
    [
        (["fit"], "give what `python -m artifact profile` wrote"),
        (["merge", "--out", "all"], "give tables that our commands wrote"),
        (["server-table", "--out", "all"], "give tables that our commands wrote"),
    ],
)
def test_a_users_own_file_is_not_to_be_deleted(tmp_path, monkeypatch, capsys, command, advice, content):
    monkeypatch.chdir(tmp_path)
    if content == "of the pipeline":
        pq.write_table(pa.Table.from_pylist(ROWS), "mine.py")
    elif content is not None:
        (tmp_path / "mine.py").write_text(content)
    assert main([command[0], "mine.py", *command[1:]]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: mine.py: ") and said.endswith(f"; {advice}\n") and "snakemake" not in said


def test_timings_of_an_empty_folder_name_the_command(tmp_path):
    with pytest.raises(ValueError, match="make reproduce"):
        timings_text(tmp_path)


def test_timings_leave_out_what_earlier_versions_left(tmp_path):
    for folder, seconds in (("grid", 2.5), ("sweep", 40.0)):  # there is no rule `sweep` any more
        (tmp_path / "benchmarks" / folder).mkdir(parents=True)
        (tmp_path / "benchmarks" / folder / "a.tsv").write_text(f"s\tmax_rss\n{seconds}\t1\n")
    assert timings(tmp_path) == [{"part": "grid", "jobs": 1, "seconds": 2.5, "longest_s": 2.5}]
