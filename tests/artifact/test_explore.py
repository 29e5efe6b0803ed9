"""The page to play with: what its widgets say, and the answer; without a browser (`test_explore_browser`)."""

from __future__ import annotations

import pytest
import yaml

from artifact.config import ConfigError
from artifact.explore import page as explore
from artifact.explore.answered import TIMES, answer
from artifact.explore.asked import Asked, kept_upload
from artifact.planning.sizing import Sizing
from artifact.runs.spec import PAPER_MIX, load_classes

Q1 = {"name": "chat", "share": 30.0, "ttft_s": 6.0, "tbt_s": 0.05}
Q2 = {"name": "nightly", "share": 10.0, "ttlt_s": 600.0}
ASKED = Asked("azure-code-2023-synth", (Q1, Q2), 8.0, "a100-llama3-8b-linear", ("sarathi-silo", "niyama"))


@pytest.fixture(scope="module")
def found():
    return answer(ASKED.question())


@pytest.fixture
def page():
    return explore.Page(trace="azure-code-2023-synth", qps=4.0)


def test_shares_are_in_any_unit_and_the_list_has_the_price():
    question = ASKED.question()
    assert [c.share for c in question.classes] == [0.75, 0.25] and question.names == ("chat", "nightly")
    assert question.price(question.card).usd_per_gpu_hour == 1.6 and question.mean_qps == 8.0


def test_the_command_and_the_file_that_it_shows_ask_the_same(tmp_path):
    file = tmp_path / "classes.yaml"
    file.write_text(ASKED.classes_yaml())
    assert load_classes(file) == ASKED.specs()
    assert "--qps 8" in ASKED.command(str(file)) and "--gpu-hour" not in ASKED.command()
    assert "'my trace.csv'" in Asked("my trace.csv", (Q1,), 1.0, "x", ()).command()


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ({"name": "", "share": 1.0, "ttlt_s": 5.0}, "name"),
        ({"name": "a", "share": 1.0, "ttft_s": 6000.0, "tbt_s": 50.0}, "ttft_s is 6000"),
        ({"name": "a", "share": 0.0, "ttlt_s": 5.0}, "share of 0"),
    ],
)
def test_a_class_that_makes_no_sense_is_refused_by_name(row, named):
    with pytest.raises(ConfigError, match=named):
        Asked("azure-code-2023-synth", (row,), 1.0, ASKED.latency, ("niyama",)).question()


def test_gpus_are_the_planners(found):
    for row in found.rows:
        assert row.gpus == sum(Sizing(found.question).size(row.system).sizes)
        assert row.usd_a_month == row.gpus * 1.6 * 730
        assert len(row.curve) == len(TIMES) and set(row.violated) == {"chat", "nightly"}
    silo, niyama = found.rows
    assert niyama.gpus == found.compared_gpus <= silo.gpus
    assert max(niyama.violated.values()) <= 0.01
    assert f"Niyama holds 8 requests/s on {niyama.gpus} GPU" in found.sentence()
    assert f"Silos: {silo.gpus}" in found.sentence()


def test_an_impossible_class_is_said_and_nothing_is_made_up():
    tight = Asked("azure-code-2023-synth", ({**Q1, "ttft_s": 0.1},), 4.0, ASKED.latency, ("niyama",))
    found = answer(tight.question())
    assert found.rows[0].gpus is None and found.rows[0].usd_a_month is None
    assert found.sentence().startswith("No number of GPUs holds this load: ")


def test_letting_a_widget_go_answers_anew(page):
    first = page.headline.value
    assert "holds 4 requests/s" in first and bytes(page.picture.value).startswith(b"\x89PNG")
    page.qps.value = 12.0
    assert "holds 12 requests/s" in page.headline.value
    page.card.value = "h200-llama3-8b-vllm"
    assert "h200-llama3-8b-vllm" in page.note.value
    page.usd.value = "2.5"
    assert "--gpu-hour 2.5" in page.note.value


def test_classes_come_and_go(page):
    page.add(PAPER_MIX[1].model_copy(update={"name": "code"}))
    assert "code violated" in page.table.value and len(page.rows) == 4
    page.rows[-1].kind.value = explore.INTERACTIVE
    assert "ttft_s" in page.rows[-1].fields() and "ttlt_s" not in page.rows[-1].fields()
    page._remove(page.rows[-1])
    assert "code violated" not in page.table.value
    assert yaml.safe_load(page.asked().classes_yaml())[0]["name"] == "Q1"


@pytest.mark.parametrize(("widget", "value"), [("trace", "nobody-knows-it"), ("usd", "much"), ("usd", "-1")])
def test_what_makes_no_sense_is_a_line_and_the_last_answer_goes(page, widget, value):
    getattr(page, widget).value = value
    assert value.strip("-") in page.headline.value and "B00020" in page.headline.value
    assert page.table.value == "" and page.picture.layout.display == "none"
    getattr(page, widget).value = {"trace": "azure-code-2023-synth", "usd": ""}[widget]
    assert "holds 4 requests/s" in page.headline.value and page.picture.layout.display == ""


def test_an_upload_keeps_its_name_and_leaves_its_folder_never(tmp_path):
    assert kept_upload(tmp_path, "../../mine.csv", b"a,b\n") == tmp_path / "mine.csv"
    with pytest.raises(ConfigError, match="no name"):
        kept_upload(tmp_path, "/", b"")
