"""Data cards: the fields, and what is said where one is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from medvlm_probe.cohort.catalog import IMPORTERS, shipped_cards
from medvlm_probe.cohort.data_cards import DataCard, parse_card, read_card
from medvlm_probe.errors import DataCardError

CARD = """---
name: north_clinic
title: North Clinic
task: multi_label
labels: {edema: Oedema, pleural_effusion: Pleural effusion}
uncertainty: ones
image_root: images
manifest: table.csv
split: {test: results}
licence: internal
known_traps: ["Two scanners."]
---

# North Clinic

Text --- with dashes.
---
More.
"""


def refusal(text: str) -> str:
    with pytest.raises(DataCardError) as caught:
        parse_card(text, "card.md")
    return str(caught.value)


def test_fields_and_body() -> None:
    card = parse_card(CARD, "card.md")
    assert card.name == "north_clinic"
    assert list(card.labels) == ["edema", "pleural_effusion"]
    assert card.words("edema") == "Oedema"
    assert card.words("lung_opacity") == "Lung opacity"
    assert card.uncertainty == "ones"
    assert card.importer == "manifest"
    assert card.citation == "not stated"
    assert card.body == "# North Clinic\n\nText --- with dashes.\n---\nMore."


def test_crlf_and_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "card.md").write_bytes(b"\xef\xbb\xbf" + CARD.replace("\n", "\r\n").encode())
    assert read_card(tmp_path / "card.md").labels == parse_card(CARD, "card.md").labels


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("licence:", "license:", "Unknown field 'license'. Did you mean licence?"),
        ("name: north_clinic", "name: North Clinic", "field 'name'"),
        ("name: north_clinic\n", "", "field 'name': Field required"),
        ("task: multi_label", "task: multilabel", "field 'task'"),
        ("uncertainty: ones", "uncertainty: maybe", "field 'uncertainty'"),
        ("edema: Oedema", "Edema: Oedema", "'Edema' is no label name"),
        ("edema: Oedema", "site: Site", "'site' is no label name"),
        ("edema: Oedema", "edema: ''", "field 'labels.edema'"),
        ("image_root: images", "image_root: ../images", "field 'image_root': the path must be relative"),
        ("image_root: images", "image_root: /images", "field 'image_root': the path must be relative"),
        ("manifest: table.csv", "manifest: C:/table.csv", "field 'manifest': the path must be relative"),
        ("manifest: table.csv", "manifest: 7", "field 'manifest'"),
        ('["Two scanners."]', "Two scanners.", "field 'known_traps'"),
        ("title: North Clinic", "title: North: Clinic", "no valid YAML near line 3"),
        ("title: North Clinic", "title: !!python/object:os.system x", "no valid YAML"),
        ("title: North Clinic", "body: x", "Unknown field 'body'"),
        ("---\n\n# North", "\n\n# North", "no valid YAML"),
        ("---\nname", "name", "no front matter"),
    ],
)
def test_what_is_wrong_is_named(old: str, new: str, what: str) -> None:
    assert old in CARD
    assert what in refusal(CARD.replace(old, new, 1))


def test_front_matter_must_be_fields() -> None:
    assert "must be YAML fields" in refusal("---\n- a\n- b\n---\n")
    assert "no front matter" in refusal("")


def test_files_that_are_no_card(tmp_path: Path) -> None:
    with pytest.raises(DataCardError, match="There is no data card"):
        read_card(tmp_path / "none.md")
    (tmp_path / "latin.md").write_bytes(b"---\nname: x\xff\n---\n")
    with pytest.raises(DataCardError, match="UTF-8"):
        read_card(tmp_path / "latin.md")
    (tmp_path / "huge.md").write_bytes(b"-" * 2_000_000)
    with pytest.raises(DataCardError, match="larger than"):
        read_card(tmp_path / "huge.md")


@pytest.mark.parametrize("name", ["phantom", "generic_folder"])
def test_shipped_cards_are_complete(name: str) -> None:
    card = read_card(shipped_cards()[name])
    assert card.name == name
    assert card.importer in IMPORTERS
    assert card.known_traps
    assert card.body
    assert "not stated" not in (card.licence, card.citation, card.access)


def test_cards_cannot_be_changed() -> None:
    with pytest.raises(Exception, match="frozen"):
        DataCard(name="x").name = "y"  # type: ignore[misc]
