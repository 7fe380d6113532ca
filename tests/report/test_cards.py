"""The cards of the appendix: what is declared, and nothing of where files are."""

from __future__ import annotations

import json

from audit_result import audit_result
from html_checks import check_page

from medvlm_probe.cohort.data_cards import parse_card
from medvlm_probe.report.audit_page import audit_page
from medvlm_probe.report.cards import audit_cards, model_card

CARD = """---
name: st_mary_2026
title: A hospital's radiographs
labels: {edema: Oedema}
manifest: private/people.csv
licence: internal
known_traps: [Children are mixed in.]
---
Call Dr Smith.
"""


def test_a_page_ends_with_the_cards() -> None:
    card = parse_card(CARD, "card.md")
    cards = audit_cards(card, card, {"model": {"name": "phantom-clip", "fingerprint": "ab" * 32}})
    text = check_page(audit_page(audit_result() | {"cards": cards}, {}, title="Audit")).text
    for words in ("Data card: new site", "A hospital's radiographs", "Oedema", "Children are mixed in.", "internal"):
        assert words in text[text.index("Appendix: data cards and model card") :]
    assert "Model card Name phantom-clip" in text
    assert not [word for word in ("Smith", "private", "people", "st_mary") if word in json.dumps(cards)]


def test_a_model_that_declares_nothing_says_so() -> None:
    found = model_card({"model": {"name": "local:a-model", "fingerprint": "ab"}})
    assert found["trained_on"] == "not declared"
    assert model_card({"model": {"name": "phantom-clip", "fingerprint": "ab"}})["trained_on"] != "not declared"
