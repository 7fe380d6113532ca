"""The cards of published hospital data: complete, and their tables equal to the code's."""

from __future__ import annotations

import importlib
import re

import pytest

from medvlm_probe.cohort.catalog import IMPORTERS, shipped_cards
from medvlm_probe.cohort.data_cards import DataCard, read_card
from medvlm_probe.cohort.importers.class_labels import labels_of
from medvlm_probe.cohort.importers.published import LabelMap

NAMES = ("nih_cxr14", "chexpert", "mimic_cxr", "padchest", "vindr_cxr", "rsna_pneumonia")


def label_map(name: str) -> LabelMap:
    module = "padchest_labels" if name == "padchest" else name
    found: LabelMap = importlib.import_module(f"medvlm_probe.cohort.importers.{module}").LABEL_MAP
    return found


def table_of(card: DataCard) -> dict[str, tuple[str, ...]]:
    rows = re.findall(r"^\| (.+?) \| (.+?) \|$", card.body.partition("## Labels")[2], flags=re.MULTILINE)
    return {name: () if labels == "-" else tuple(labels.split(", ")) for name, labels in rows[1:]}


@pytest.mark.parametrize("name", NAMES)
def test_cards_are_complete(name: str) -> None:
    card = read_card(shipped_cards()[name])
    assert card.name == card.importer == name
    assert name in IMPORTERS
    assert card.title
    assert card.known_traps
    assert "not stated" not in (card.licence, card.citation, card.access)
    assert f"medvlm-probe cohort import {name}:FOLDER" in card.body


@pytest.mark.parametrize("name", NAMES)
def test_the_table_of_the_card_is_that_of_the_code(name: str) -> None:
    card = read_card(shipped_cards()[name])
    assert table_of(card) == label_map(name)
    assert tuple(card.labels) == labels_of(label_map(name))
