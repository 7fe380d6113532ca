"""The audit's page: what a committee reads, and what must never stand on it."""

from __future__ import annotations

import pytest
from audit_result import HOSTILE_LABEL, HOSTILE_SITE, QUOTED, SVG, audit_result, estimate, verdict
from html_checks import check_page

from medvlm_probe.errors import InputError
from medvlm_probe.report.audit_page import audit_page

FIGURES = {"shift_tests": SVG, "performance": SVG, "elsewhere": SVG}
TITLE = "Audit of a new site"


def page_of(result, figures=FIGURES, **options):
    return audit_page(result, figures, title=TITLE, **options)


def test_the_page_is_whole_and_loads_nothing() -> None:
    page = check_page(page_of(audit_result()))
    assert len(page.all("svg")) == 3
    assert page.all("title")[0] == {}


def test_verdict_and_reasons_come_first() -> None:
    text = check_page(page_of(audit_result())).text
    order = [
        "The policy “Proof of concept” is not met. Of 4 rules, 2 failed, 1 passed, 1 had not enough evidence.",
        "no shift beyond 0.02 by mmd",
        "recall(cardiomegaly) >= 0.80 with 95 % confidence 0.712 [0.672, 0.752] 52 people, 40 planned",
        "recall(pneumothorax) >= 0.70",
        "ece <= 0.10",
        "All patients are under 18.",
        "Numbers stand as value [95 % interval]",
        "Has the data moved?",
        "The images are different from the reference's: AUROC 0.83 [0.79, 0.87].",
        "Why did it move?",
        "Not answered: it was not asked.",
        "Does it still work?",
        "Limits",
        "Provenance",
        "Appendix: data cards and model card",
    ]
    contents = text.index("Numbers stand as")
    places = [text.index(words) if k < 6 else text.index(words, contents) for k, words in enumerate(order)]
    assert places == sorted(places)


def test_every_sentence_and_question_of_the_json_is_on_the_page() -> None:
    result = audit_result()
    result["new_question"] = {"sentence": "Something that this version does not know.", "share": estimate(0.25)}
    text = check_page(page_of(result)).text
    assert all(sentence in text for sentence in result["sentences"].values())
    assert "New question" in text
    assert "Something that this version does not know." in text
    assert "0.250 [0.200, 0.300]" in text
    assert "Left out: Pleural effusion: fewer than 10 people with it at the reference." in text


def test_a_figure_stands_at_its_question() -> None:
    html = page_of(audit_result())
    places = {name: html.index(f'id="figure-{number}-title"') for number, name in enumerate(("s", "p", "e"), start=1)}
    assert html.index('<section id="shift"') < places["s"] < html.index('<section id="what_moved"')
    assert html.index('<section id="performance"') < places["p"] < html.index('<section id="calibration"')
    assert html.index('<section id="more-figures"') < places["e"] < html.index('<section id="limits"')


def test_names_that_try_to_break_out_are_only_text() -> None:
    html = page_of(audit_result())
    page = check_page(html)
    for name in (HOSTILE_SITE, HOSTILE_LABEL, QUOTED):
        assert name in page.text
        assert name not in html


def test_nothing_private_reaches_the_page() -> None:
    result = audit_result()
    canaries = [
        "/home/jane.doe/study/CXR_0001.dcm",
        "C:\\Users\\jane\\export.csv",
        "../shared/hospital/manifest.csv",
        "Doe^Jane",
        "MRN0012345",
        "blunting of the left costophrenic angle",
    ]
    path, drive, relative, name, number, phrase = canaries
    result["notes"] += [f"Read {path} and {drive}."]
    result["provenance"]["model"]["name"] = f"local:{relative}"
    result["provenance"]["config"] = {"cohort": path, "who": name}
    result["outliers"]["nearest"] = [
        {"image": path, "patient": number, "report": phrase, "cosine": 0.5},
        {"image": "image-0123abcdef", "patient": name, "report": "", "cosine": 0.4},
    ]
    result["cards"]["Data card: reference"]["body"] = phrase
    result["verdicts"][0]["reason"] = f"Cannot read {relative}."
    html = page_of(result, {"shift": SVG.replace("AUROC of", f"AUROC {path} of")})
    assert not [canary for canary in canaries if canary in html]
    assert "jane" not in html.lower()
    page = check_page(html)
    assert "image-0123abcdef" in page.text
    assert "[path]" in page.text


def test_small_cells_are_suppressed_unless_nobody_is_behind_them() -> None:
    result = audit_result()
    result["sample_sizes"]["labels"][0]["n_positive"] = 7
    result["outliers"]["share_beyond"] = estimate(0.87, 0.1, n=8, n_groups=8)
    text = check_page(page_of(result)).text
    assert "under 10" in text
    assert "0.87 [0.77, 0.97]" not in text
    assert "0.87 [0.77, 0.97]" in check_page(page_of(result, small_cells=True)).text
    for side in ("site", "reference"):
        result["provenance"][side]["recipe"] = "phantom/v1"
    phantoms = check_page(page_of(result)).text
    assert "0.87 [0.77, 0.97]" in phantoms
    assert "Nothing on this page is about patients, or medicine." in phantoms
    assert "Nothing on this page is about patients" not in text


@pytest.mark.parametrize(
    ("outcomes", "words"),
    [
        (("pass", "pass"), "The policy is met."),
        (("pass", "not enough evidence"), "The policy is neither met nor broken."),
        (("fail", "pass"), "The policy is not met."),
        ((), "No policy was checked"),
    ],
)
def test_the_outcome_follows_from_the_rules(outcomes, words) -> None:
    rules = [verdict(f"rule {k}", outcome, 0.5, 60) for k, outcome in enumerate(outcomes)]
    assert words in check_page(page_of({"verdicts": rules}, {})).text


def test_rules_with_one_reason_and_no_value_stand_together() -> None:
    rules = [verdict(f"recall(label {k}) >= 0.7", "not enough evidence", None, None) for k in range(9)]
    page = check_page(page_of({"verdicts": rules}, {}))
    assert "recall(label 0) >= 0.7, and 8 more" in page.text
    assert "All 9 rules stand" in page.text
    assert "recall(label 8) >= 0.7" in page.text


def test_a_broken_figure_is_refused() -> None:
    with pytest.raises(InputError, match="no SVG file"):
        page_of(audit_result(), {"shift": "<svg><g></svg>"})
