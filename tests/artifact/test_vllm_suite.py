"""How vLLM's own scheduler tests are fetched, and what the list of those that do not pass means."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from artifact.__main__ import main
from artifact.vllm_suite import expected, source
from artifact.vllm_suite.expected import ExpectationError, Outcome, Reason
from traces.files import sha256_of

RUN = "niyama"
ORDER = Reason("order", "another order", "failed", tests={RUN: ("a.py::test_order",)})
POOLING = Reason("refused-pooling", "no tokens", "refused", "pooling", {RUN: ("a.py::test_pool[1]",)})
PASSED, FAILED = Outcome("passed"), Outcome("failed", "assert 1 == 2")
REFUSED = Outcome("refused", "pooling models have no tokens")
CAME = {
    "a.py::test_order[x]": FAILED,
    "a.py::test_order[y]": FAILED,
    "a.py::test_pool[1]": REFUSED,
    "a.py::test_pool[2]": PASSED,
}


def problems(**changed: Outcome | None) -> list[str]:
    came = {**CAME, **{f"a.py::test_{name}": outcome for name, outcome in changed.items()}}
    return expected.problems([ORDER, POOLING], RUN, came)


def test_what_comes_out_as_listed_is_no_problem() -> None:
    assert problems() == []


@pytest.mark.parametrize("outcome", [FAILED, REFUSED, Outcome("switched off"), Outcome("skipped")])
def test_an_unlisted_test_must_pass(outcome: Outcome) -> None:
    (line,) = problems(new=outcome)
    assert "a.py::test_new" in line and outcome.outcome in line and "not listed" in line


def test_a_listed_test_that_passes_is_an_error() -> None:
    (line,) = problems(**{"pool[1]": PASSED})
    assert "a.py::test_pool[1] passes now" in line and "refused-pooling" in line


def test_a_listed_test_must_fail_in_the_listed_way() -> None:
    for outcome in (FAILED, Outcome("refused", "Mamba layers")):
        (line,) = problems(**{"pool[1]": outcome})
        assert "not as refused-pooling says" in line and outcome.text in line


def test_a_listed_test_must_exist() -> None:
    came = {test: outcome for test, outcome in CAME.items() if "order" not in test}
    (line,) = expected.problems([ORDER, POOLING], RUN, came)
    assert "a.py::test_order is listed under order, and there is no such test" in line


def test_an_update_keeps_reasons_and_finds_those_of_refusals() -> None:
    came = {**CAME, "a.py::test_pool[2]": REFUSED, "a.py::test_new": FAILED, "a.py::test_order[x]": PASSED}
    order, pooling, rest = expected.updated([ORDER, POOLING], RUN, came)
    assert order.tests[RUN] == ("a.py::test_order[y]",)
    assert pooling.tests[RUN] == ("a.py::test_pool",)  # all of its parameters
    assert (rest.name, rest.tests[RUN]) == (expected.UNEXPLAINED, ("a.py::test_new",))
    (line,) = expected.problems([order, pooling, rest], RUN, came)
    assert "a.py::test_new" in line and "without a reason" in line


def test_an_update_does_not_hide_a_failure_under_another_reason() -> None:
    *_, rest = expected.updated([ORDER, POOLING], RUN, {**CAME, "a.py::test_pool[1]": FAILED})
    assert rest.tests[RUN] == ("a.py::test_pool[1]",)


def test_the_file_is_read_as_written(tmp_path: Path) -> None:
    path = tmp_path / "expected.yaml"
    expected.save("1.2", [ORDER, POOLING], path)
    again = expected.load("1.2", path)
    assert [(r.name, r.why, r.outcome, r.says, r.tests[RUN]) for r in again] == [
        (r.name, r.why, r.outcome, r.says, r.tests[RUN]) for r in (ORDER, POOLING)
    ]
    with pytest.raises(ExpectationError, match=r"for vLLM 1\.2 and 1\.3 is installed"):
        expected.load("1.3", path)
    path.write_text(path.read_text().replace("outcome: failed", "outcome: fialed"))
    with pytest.raises(ExpectationError, match=r"order has outcome 'fialed'.*failed, refused, switched off"):
        expected.load("1.2", path)


def test_the_committed_list_is_sound() -> None:
    """Every test is listed once for a run, and none without a reason."""
    (release,) = source.SHA256
    reasons = expected.load(release)
    assert expected.UNEXPLAINED not in [r.name for r in reasons]
    for run in ("niyama", "niyama-async"):
        tests = [test for r in reasons for test in r.tests[run]]
        assert len(tests) == len(set(tests))
        assert {test.partition("::")[0] for test in tests} <= set(source.TESTS)


def fake_sdist(folder: Path) -> Path:
    """A source distribution with a file for each wanted name, whose build must not be tried."""
    path = folder / "vllm-0.0.7.tar.gz"
    build = '[build-system]\nrequires = ["no-such-package-at-all"]\nbuild-backend = "setuptools.build_meta"\n'
    files = {
        "pyproject.toml": build,
        "setup.py": "raise SystemExit('built')",
        "PKG-INFO": "Name: vllm\nVersion: 0.0.7\n",
    }
    files |= {f"tests/{name}": f"# {name}" for name in (*source._BESIDE, *(f"v1/{test}" for test in source.TESTS))}
    with tarfile.open(path, "w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(f"vllm-0.0.7/{name}")
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
    return path


def test_the_tests_come_through_the_users_pip_and_nothing_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    monkeypatch.setattr(source, "SHA256", {"0.0.7": sha256_of(fake_sdist(mirror))})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(mirror))
    folder = source.unpacked("0.0.7", tmp_path / "cache")
    assert (folder / "tests" / "v1" / "core" / "utils.py").read_text() == "# v1/core/utils.py"
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    assert source.unpacked("0.0.7", tmp_path / "cache") == folder  # kept
    with pytest.raises(source.Unavailable, match=r"cannot be downloaded.*--sdist"):
        source.unpacked("0.0.7", tmp_path / "another")


def test_other_bytes_than_vllms_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(source.Unavailable, match="sha256 differs"):
        source.unpacked("0.32.0", tmp_path / "cache", fake_sdist(tmp_path))
    with pytest.raises(source.Unavailable, match="there is no file"):
        source.unpacked("0.32.0", tmp_path / "cache", tmp_path / "absent.tar.gz")
    assert not (tmp_path / "cache" / "vllm-0.32.0").exists()


def test_without_vllm_the_command_says_what_to_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent(name: str) -> str:
        raise source.PackageNotFoundError(name)

    monkeypatch.setattr(source, "version", absent)
    assert main(["vllm-suite"]) == 2
    assert capsys.readouterr().err == "error: vLLM is not installed; run `make setup ENGINE=cpu`\n"
