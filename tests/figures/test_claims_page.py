"""Claims on the report's page: folded by part of the paper, each linked to its figure and back."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from artifact.claims.model import load_claims
from artifact.claims.verify import Status, Verdict, bounds
from artifact.report import claims_section as claims_page
from artifact.report.claims_section import figure_of, link, section

CLAIMS = load_claims()
STYLE = Path(claims_page.__file__).with_name("templates").joinpath("style.css").read_text()


def verdicts(status: Status) -> list[Verdict]:
    return [Verdict(c, CLAIMS.tables[c.measure.table], bounds(c), status, "<why>") for c in CLAIMS.claims]


@pytest.mark.parametrize(
    ("paper", "figures"),
    [
        ("Fig 7a", {"fig7"}),
        ("Fig 7b", {"fig7_models"}),
        ("Fig 1, Table 4", {"fig1_table4"}),
        ("Table 4", {"fig1_table4"}),
        ("Table 5", {"table5"}),
        ("Table 6", {"table6"}),
        ("Fig 12", {"fig12"}),
        ("Fig 15a", {"fig15a"}),
    ],
)
def test_a_claim_belongs_to_the_figure_of_its_place_in_the_paper(paper, figures):
    assert {figure_of(claim) for claim in CLAIMS.claims if claim.paper == paper} == figures


def test_claims_are_folded_by_part_and_linked_both_ways():
    found = verdicts(Status.FAIL)
    html = str(section(found, {"capacity": "it was edited"}, {"fig7", "table6"}))
    assert html.count("<details class=") == html.count("</details>") >= 6 and "<details open" not in html
    assert len(re.findall(r'<tr id="claim-', html)) == len(found) and "BROKEN it was edited" in html
    assert 'href="#fig7"' in html and 'href="#fig12"' not in html, "only to figures that are on the page"
    assert 'id="claims-fig7"' in html and 'id="claims-fig12"' in html and "&lt;why&gt;" in html
    back = str(link(found, "fig7"))
    assert 'href="#claims-fig7"' in back and re.search(r"\d+ ", back)
    assert link(found, "fig_no_such") == ""


@pytest.mark.parametrize("status", Status)
def test_each_verdict_has_its_class(status):
    """Each is a word, a colour and a sign."""
    html = str(section(verdicts(status), {}, ()))
    assert set(re.findall(r'class="verdict ([a-z]+)"', html)) == {str(status).lower()}
    assert f".verdict.{str(status).lower()}" in STYLE
