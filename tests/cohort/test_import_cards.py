"""The cards of the importers: complete, and named as the importers are."""

from __future__ import annotations

import pytest

from medvlm_probe.cohort.catalog import IMPORTERS, PUBLISHED, card_of, shipped_cards
from medvlm_probe.cohort.data_cards import read_card
from medvlm_probe.cohort.labels import CHEXPERT_LABELS


def test_every_published_data_set_has_an_importer_that_exists() -> None:
    import importlib.util

    assert {*PUBLISHED} <= {*IMPORTERS}
    modules = {name: importlib.util.find_spec(f"medvlm_probe.cohort.importers.{PUBLISHED[name]}") for name in PUBLISHED}
    assert [name for name in shipped_cards() if name in PUBLISHED and modules[name] is None] == []


@pytest.mark.parametrize("name", ["iu_xray", "dicom"])
def test_cards_are_complete(name: str) -> None:
    card = read_card(shipped_cards()[name])
    assert card_of(name) == card
    assert (card.name, card.importer) == (name, name)
    assert tuple(card.labels) == (CHEXPERT_LABELS if name == "iu_xray" else ())
    assert len(card.known_traps) >= 5
    assert card.body
    assert "not stated" not in (card.licence, card.citation, card.access)
