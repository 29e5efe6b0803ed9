"""tables.yaml says what results tables hold: ours are as it says, and a table that is not is not written."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from artifact.results import schema
from artifact.results.schema import SchemaError, load_schema
from artifact.results.tables import read_table, write_table

ROOT = Path(__file__).parents[2]
REFERENCE = sorted((ROOT / "artifact" / "reference").rglob("*.parquet"))
GRID = next(path for path in REFERENCE if path.stem == "mixes")
SEARCH = next(path for path in REFERENCE if path.stem == "medha")


@pytest.mark.parametrize("path", REFERENCE, ids=lambda path: path.stem)
def test_the_reference_tables_are_as_the_schema_says(path):
    found = load_schema().of(path.stem, ())
    assert found is not None, "a table that the schema does not name"
    assert not list(schema.differences(pq.read_schema(path), found[1], load_schema().columns))


def test_the_schema_names_no_table_and_no_column_in_vain():
    known, stems = load_schema(), {path.stem for path in REFERENCE}
    named = {*known.tables, *(name for kind in known.kinds.values() for name in kind.names)}
    assert named == stems
    used = {column for table in [*known.tables.values(), *known.kinds.values()] for column in table.columns}
    assert used == known.columns.keys() and not known.columns.keys() & known.raw["sets"].keys()
    listed = [name for section in known.raw["columns"].values() for entry in section for name in entry["names"]]
    assert len(listed) == len(set(listed)), "a column is described twice"


def test_grids_and_searches_of_the_paper_are_listed():
    """But for those of the default target, whose tables stand in the schema by their own names."""
    config, kinds = yaml.safe_load((ROOT / "workflows/config/paper.yaml").read_text()), load_schema().kinds
    assert set(kinds["grid"].names) == config["grids"].keys() - {"summary"}
    assert set(kinds["search"].names) == config["searches"].keys() - {"capacity", "long_capacity"}


def write(tmp_path, source: Path, name: str, change) -> Path:
    path = tmp_path / f"{name}.parquet"
    write_table(path, change(read_table(source)), backend="sim")
    return path


@pytest.mark.parametrize(
    ("source", "name"), [(GRID, "mine"), (SEARCH, "azure-x"), (GRID, "alpha"), (GRID, "medha"), (SEARCH, "alpha")]
)
def test_a_table_that_is_as_its_schema_says_is_written(tmp_path, source, name):
    assert read_table(write(tmp_path, source, name, lambda table: table)).num_rows


def with_column(table: pa.Table, name: str, value) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, pa.array([value] * len(table)))


BAD = [
    (GRID, lambda t: t.append_column("mood", pa.nulls(len(t))), "'grid' .*: column 'mood' is unknown"),
    (GRID, lambda t: t.drop_columns(["seed"]), "'grid' .*: column 'seed' is missing"),
    (GRID, lambda t: with_column(t, "variant", 1), "column 'variant' is int64, not string"),
    (SEARCH, lambda t: t.rename_columns({"system": "policy"}), "'policy' is unknown; column 'system' is missing"),
    (SEARCH, lambda t: with_column(t, "seed_capacity_qps", [1]), "'seed_capacity_qps' is list<.*>, not list of double"),
]


@pytest.mark.parametrize(("source", "change", "told"), BAD)
def test_one_line_names_the_table_and_the_columns_that_differ(tmp_path, source, change, told):
    with pytest.raises(SchemaError, match=told) as error:
        write(tmp_path, source, "mine", change)
    assert "\n" not in str(error.value) and "mine.parquet: does not match table" in str(error.value)
    assert not list(tmp_path.iterdir())


def test_a_known_name_needs_the_columns_that_its_kind_is_known_by(tmp_path):
    with pytest.raises(SchemaError, match=r"'search' .*: column 'variant' is missing"):
        write(tmp_path, SEARCH, "medha", lambda table: table.drop_columns(["variant"]))


def test_nulls_alone_have_any_type_and_a_part_without_rows_has_no_columns(tmp_path):
    path = write(tmp_path, SEARCH, "mine", lambda t: with_column(t, "backend", None))
    assert read_table(path)["backend"].null_count
    write_table(tmp_path / "servers.parquet", [])
    assert read_table(tmp_path / "servers.parquet").num_columns == 0


def test_a_file_without_a_schema_may_hold_anything(tmp_path):
    write_table(tmp_path / "step_times.parquet", [{"seconds": 1.0}])
    write_table(tmp_path / "engine.parquet", [{"seconds": 1.0}], listed=False)
    assert read_table(tmp_path / "engine.parquet").column_names == ["seconds"]
    assert read_table(tmp_path / "step_times.parquet").column_names == ["seconds"]
