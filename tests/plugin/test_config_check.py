"""`python -m niyama.vllm check`: ten kinds of wrong files, what is allowed and looks wrong, and hashing a key."""

import hashlib
import io
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from niyama.vllm.__main__ import main as run

CHAT = "{name: chat, ttft_s: 2, tbt_s: 0.1}"
TIERS = "default_class: chat\nservice_tiers: {}\n"
#: kind -> the file, and what its one line says: field, value, fix.
WRONG = {
    "milliseconds": (
        f"classes: [{{name: chat, ttft_s: 6000, tbt_s: 0.05}}]\n{TIERS}",
        ("ttft_s is 6000", "write ttft_s: 6"),
    ),
    "misspelt field": ("polcy: niyama", ("polcy is not a known field", "did you mean 'policy'?")),
    "wrong type": ("strict: 3", ("strict is 3", "boolean")),
    "out of bounds": ("delivery_s: 10", ("delivery_s is 10", "less than or equal to 1")),
    "unknown name": ("policy: niyma", ("policy", "'niyma' is unknown", "did you mean 'niyama'?")),
    "class that is none": ("default_class: Q9", ("default_class is 'Q9'", "use one of Q1, Q2, Q3")),
    "mixed class": (f"classes: [{{name: chat, ttft_s: 2, ttlt_s: 60}}]\n{TIERS}", ("ttft_s=2", "set ttft_s and tbt_s")),
    "range without its value": (
        f"classes: [{{name: chat, ttft_s: 2, tbt_s: 0.1, ttft_s_range: [3, 9]}}]\n{TIERS}",
        ("ttft_s_range is [3, 9]", "around ttft_s, which is 2"),
    ),
    "key in place of its hash": (
        "identities: [{name: a, keys: [{sha256: sk-secret}], classes: [Q1]}]",
        ("identities.0.keys.0.sha256 is hidden", "pattern"),
    ),
    "file that cannot be read": ("latency: none.json", ("latency", "none.json", "correct the path")),
    "no YAML": ("strict: [", ("is not valid YAML", "correct it")),
    "field given twice": ("strict: true\nstrict: false", ("'strict' is given twice", "correct it")),
}


@pytest.fixture
def checked(tmp_path, capsys):
    """What a check of a file with this text returns and says."""

    def check(text):
        path = tmp_path / "niyama.yaml"
        path.write_text(text)
        status = run(["check", str(path)])
        said = capsys.readouterr()
        return status, said.out, said.err.splitlines()

    return check


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_file_is_one_line_with_field_value_and_fix(kind, checked):
    text, words = WRONG[kind]
    status, out, lines = checked(text)
    assert (status, out, len(lines)) == (2, "", 1)
    assert lines[0].startswith("error: ") and "niyama.yaml" in lines[0] and "sk-secret" not in lines[0]
    for word in words:
        assert word in lines[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"classes: [{{name: chat, ttft_s: 250, tbt_s: 0.1}}]\n{TIERS}", ("'chat': ttft_s is 250", "write 0.25")),
        (f"classes: [{{name: chat, ttft_s: 20, tbt_s: 5}}]\n{TIERS}", ("tbt_s is 5 seconds", "write 0.005")),
        (
            f"classes: [{{name: chat, ttft_s: 2, tbt_s: 0.1, ttft_s_range: [1, 9000]}}]\n{TIERS}",
            ("ttft_s_range is 9000 seconds", "write 9"),
        ),
        ("classes: [{name: Q2, ttlt_s: 40000}]\nservice_tiers: {}", ("'Q2': ttlt_s is 40000", "write 40")),
        (f"classes: [{{name: chat, ttft_s: 0.5, tbt_s: 0.5}}]\n{TIERS}", ("no shorter than ttft_s", "swap them")),
        (f"classes: [{CHAT}, {{name: night, ttlt_s: 1.5}}]\n{TIERS}", ("'night': ttlt_s is 1.5", "of 'chat', 2")),
        ("delivery_s: 0.5", ("delivery_s is 0.5", "write 0.0005")),
    ],
)
def test_what_is_allowed_and_looks_wrong_is_a_warning(text, words, checked):
    status, out, lines = checked(text)
    assert status == 0 and "fine" in out and len(lines) == 1 and lines[0].startswith("warning: ")
    for word in words:
        assert word in lines[0]


@pytest.mark.parametrize("text", ["", f"classes: [{CHAT}, {{name: night, ttlt_s: 43200}}]\n{TIERS}"])
def test_usual_values_get_no_warning(text, checked):
    assert checked(text)[2] == []


@pytest.mark.parametrize(
    ("days", "words"), [(-1, ("expired, at", "remove it")), (13, ("expires soon", "add a newer one")), (15, ())]
)
def test_keys_that_expire_within_two_weeks_get_a_warning(days, words, checked):
    expires = (datetime.now(UTC) + timedelta(days=days)).isoformat()
    key = f"{{sha256: {'a' * 64}, expires: {expires}}}"
    status, _, lines = checked(f"identities: [{{name: team, keys: [{key}, {{sha256: {'b' * 64}}}], classes: [Q1]}}]")
    assert status == 0 and len(lines) == bool(words)
    for word in ("'team'", "aaaaaaaa...", *words) if words else ():
        assert word in lines[0]


def test_the_command_itself_says_errors_on_stderr_and_by_its_status(tmp_path):
    (tmp_path / "bad.yaml").write_text("strikt: true\n")
    command = [sys.executable, "-m", "niyama.vllm", "check", str(tmp_path / "bad.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith("strikt is not a known field; did you mean 'strict'?\n")


@pytest.mark.parametrize("typed", ["sk-secret", "sk-secret\n", " sk-secret \n"])
def test_a_key_is_hashed_as_the_server_reads_it(typed, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    assert run(["hash-key"]) == 0
    assert capsys.readouterr().out == hashlib.sha256(b"sk-secret").hexdigest() + "\n"


def test_no_key_is_an_error(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))
    assert run(["hash-key"]) == 2
    assert "no key on stdin" in capsys.readouterr().err
