"""Files of claims: families and what they stand for, folders, and errors that name file, claim and field."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from artifact.claims.model import CLAIMS, load_claims, table_minutes
from artifact.config import ConfigError
from tests.helpers.claim_tables import claim, write_claims

HEAD = """
tables:
  runs: {compute_min: 2}
names:
  system:
    edf: {title: EDF, system: sarathi-edf, cases: null, runs: 7}
    niyama: {title: Niyama, system: niyama, cases: {load_qps: 3.0}, runs: 9}
defaults:
  paper: Fig 7a
  unit: times
  measure:
    table: runs
    column: violation_rate
    where: {group: all}
  expected: {direction: at_most, value: 1.0, because: made up}
claims:
"""
FAMILY = (
    HEAD
    + """
  - id: <system>-at-<load>
    for: {system: [edf, niyama], load: [a, b]}
    statement: <system.title> holds <load>.
    measure:
      where: {group: null, system: <system.system>}
    least_requests: <system.runs>
    also:
      other load: <system.cases>
      other group: {group: Q1, system: <system>}
    xfail:
      - ids: [edf-at-a, niyama-at-b]
        reason: too short a run
"""
)


def written(folder: Path, text: str, name: str = "own.yaml") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


def test_a_family_stands_for_a_claim_of_each_combination(tmp_path):
    loaded = load_claims(written(tmp_path, FAMILY))
    claims = {one.id: one for one in loaded.claims}
    assert list(claims) == ["edf-at-a", "edf-at-b", "niyama-at-a", "niyama-at-b"], "the last variable changes first"
    first, last = claims["edf-at-a"], claims["niyama-at-b"]
    assert (first.statement, last.statement) == ("EDF holds a.", "Niyama holds b.")
    assert first.measure.where == {"system": "sarathi-edf"} and first.measure.column == "violation_rate"
    assert (first.least_requests, last.least_requests) == (7, 9), "a value stays a number"
    assert list(first.also) == ["other group"] and last.also["other load"] == {"load_qps": 3.0}, "null is left out"
    assert [one.xfail for one in claims.values()] == ["too short a run", None, None, "too short a run"]
    assert loaded.tables["runs"].target == "results/tables/runs.parquet" and loaded.tables["runs"].human_min == 1


def test_a_folder_is_its_files_by_name_with_what_they_share(tmp_path):
    head, claims = HEAD.split("defaults:")
    own = f"defaults:{claims}  - {{id: <system>-<n>, for: {{system: [edf], n: [N]}}, statement: <system.title>}}\n"
    for name, number in (("2-b", 2), ("1-a", 1)):
        written(tmp_path, own.replace("[N]", f"[{number}]"), f"{name}.yaml")
    written(tmp_path, head, "common.yaml")
    assert [one.id for one in load_claims(tmp_path).claims] == ["edf-1", "edf-2"]
    assert [one.id for one in load_claims(tmp_path / "2-b.yaml").claims] == ["edf-2"]
    assert table_minutes(tmp_path) == {"runs": 2.0}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("holds <load>", "holds <lode>", "claim <system>-at-<load>: statement has <lode>, and `for` has no 'lode'"),
        ("<system.runs>", "<system.run>", "least_requests has <system.run>, and `names` has no system.edf.run"),
        ("[edf, niyama]", "[edf, niyma]", "has <system.system>, and `names` has no system.niyma.system"),
        ("[edf, niyama]", "edf", "claim <system>-at-<load>: for.system is 'edf'"),
        ("[edf, niyama]", "[]", "claim <system>-at-<load>: for.system is []"),
        ("load: [a, b]", "load: [a, b, b]", "claim edf-at-b: id 'edf-at-b' is used twice"),
        ("ids: [edf-at-a,", "ids: [edf-at-c,", "xfail has id 'edf-at-c'; the claims here are edf-at-a, edf-at-b"),
        ("ids: [edf-at-a, niyama-at-b]", "ids: [edf-at-a, edf-at-a]", "xfail has id 'edf-at-a' twice"),
        ("reason: too", "because: too", "claim <system>-at-<load>: xfail 1: reason is missing"),
        ("reason: too short a run", "reason: 3", "xfail 1: reason is 3"),
        ("statement: <system.title>", "statment: <system.title>", "claim edf-at-a: statement is missing"),
        ("  runs: {compute_min: 2}", "  runs: {compute_min: two}", "tables.runs: compute_min is 'two'"),
        ("  runs: {compute_min", "  walks: {compute_min", "claim edf-at-a: measure.table is 'runs'; `tables` must say"),
        ("tables:", "tables:\n  walks: {compute_min: 1}", "tables has 'walks', and no claim is read from it"),
        ("unit: times", "unit: apples", "claim edf-at-a: unit is 'apples'"),
        (
            "value: 1.0, because: made up",
            "of: {in: fig7, number: EDF}",
            "claim edf-at-a: expected.of: in: fig7, row: {}",
        ),
        ("claims:", "claim:", "own.yaml: claim is not a known field"),
        ("    measure:\n      where: {group: null,", "    measure: [", "is not valid YAML"),
        ("  - id: <system>-at-<load>\n    for:", "  - for:", "claim number 1: id is missing"),
    ],
)
def test_an_error_names_file_claim_and_field(old, new, said, tmp_path):
    assert old in FAMILY
    path = written(tmp_path, FAMILY.replace(old, new))
    with pytest.raises(ConfigError) as error:
        load_claims(path)
    text = str(error.value)
    assert text.startswith(str(path)) and said in text and "\n" not in text


@pytest.mark.parametrize("text", ["", "[]", "claims: []", "claims: 3", "tables: {}", "claims: [3]"])
def test_a_file_without_claims_says_so(text, tmp_path):
    with pytest.raises(ConfigError, match=r"own.yaml: .*(claims|not a mapping)"):
        load_claims(written(tmp_path, text))


def test_a_folder_without_files_and_a_path_to_nothing_are_named(tmp_path):
    for path, said in ((tmp_path, "holds no file of claims"), (tmp_path / "none.yaml", "cannot be read")):
        with pytest.raises(ConfigError, match=said):
            load_claims(path)


def test_an_id_is_used_once(tmp_path):
    path = write_claims(tmp_path / "claims.yaml", claim(), claim())
    with pytest.raises(ConfigError, match="id 'one' is used twice"):
        load_claims(path)


@pytest.mark.parametrize("file", sorted(CLAIMS.glob("[0-9b]*.yaml")), ids=lambda path: path.stem)
def test_every_committed_file_loads_alone(file):
    assert load_claims(file).claims


ODD: tuple[Any, ...] = (
    None,
    3,
    -1.5,
    True,
    "",
    "<x>",
    "<system.x>",
    "<system.cases>",
    "x",
    [],
    [None],
    {},
    {"a": None},
    {3: 4},
    [[1]],
)


def places(node: Any) -> list[tuple[Any, Any]]:
    """Every place of a value in nested mappings and lists: what holds it, and its key there."""
    keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
    return [place for key in keys for place in ((node, key), *places(node[key]))]


def test_whatever_stands_in_a_file_is_loaded_or_one_line(tmp_path):
    chance = random.Random(11)
    for _ in range(300):
        document = yaml.safe_load(FAMILY)
        for _ in range(chance.choice((1, 1, 2))):
            node, key = chance.choice(places(document))
            node[key] = chance.choice(ODD)
        path = written(tmp_path, yaml.safe_dump(document, sort_keys=False))
        try:
            load_claims(path)
        except ConfigError as error:
            assert str(error).startswith(str(path)) and "\n" not in str(error), yaml.safe_dump(document)
