"""The cards of CalibPrompt's data sets: complete, equal to the code, and one with the folders that its scripts make."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from PIL import Image
from test_hospital_cards import table_of

from medvlm_probe.cohort.catalog import IMPORTERS, LEGACY_SPLITS, load_cohort, load_with_notes, shipped_cards
from medvlm_probe.cohort.data_cards import parse_card, read_card
from medvlm_probe.cohort.importers.calibprompt_folder import DATA_SETS
from medvlm_probe.cohort.importers.one_class import labels_in_order
from medvlm_probe.cohort.importers.published import ImportOptions
from medvlm_probe.cohort.write_manifest import ManifestPlan, write_manifest
from medvlm_probe.errors import DataCardError, InputError, ManifestError
from medvlm_probe.zero_shot.predict import NAMES, resolve_task

CLASS_NAMES = {
    "covid": {"covid": "covid", "normal": "normal"},
    "rsna18": {
        "lung_opacity": "lung opacity",
        "no_lung_opacity_not_normal": "no lung opacity, not normal",
        "normal": "normal",
    },
    "kather": {
        "ADI": "adipose tissue",
        "BACK": "background",
        "DEB": "debris",
        "LYM": "lymphocytes",
        "MUC": "mucus",
        "MUS": "smooth muscle",
        "NORM": "normal colon mucosa",
        "STR": "cancer-associated stroma",
        "TUM": "colorectal adenocarcinoma epithelium",
    },
    "pannuke": {"benign": "benign", "malignant": "malignant"},
    "digestpath": {"benign": "benign", "malignant": "malignant"},
}
"""The folders and `classnames.txt` of the published data sets."""

TEMPLATES = {
    "covid": "A chest X-ray image of {} patient",
    "rsna18": "A chest X-ray image of {} patient",
    "kather": "An H&E image of {}.",
    "pannuke": "An H&E image patch of {} tissue.",
    "digestpath": "An H&E image patch of {} tissue.",
}


def prepare(folder: Path, classes: dict[str, str]) -> Path:
    for split in ("train", "test"):
        for number, name in enumerate(classes):
            place = folder / "images" / split / name
            place.mkdir(parents=True)
            Image.new("RGB", (24, 24), (number, 9, len(split))).save(place / "a.png")
    (folder / "classnames.txt").write_text("\n".join(f"{name} {words}" for name, words in reversed(classes.items())))
    (folder / "preprocessed.pkl").write_bytes(b"\x80\x04.")
    return folder


@pytest.mark.parametrize("name", DATA_SETS.values())
def test_cards_are_complete_and_their_tables_those_of_the_code(name: str) -> None:
    card = read_card(shipped_cards()[name])
    label_map = importlib.import_module(f"medvlm_probe.cohort.importers.{name}").LABEL_MAP
    assert card.name == card.importer == name
    assert name in IMPORTERS
    assert card.task == "single_label"
    assert card.title
    assert card.known_traps
    assert "not stated" not in (card.licence, card.citation, card.access)
    assert f"medvlm-probe cohort import {name}:FOLDER" in card.body
    assert ("--legacy-split" in card.body) == (name in LEGACY_SPLITS)
    assert table_of(card) == label_map
    assert tuple(card.labels) == labels_in_order(label_map)


@pytest.mark.parametrize("name", DATA_SETS)
def test_a_prepared_folder_has_the_labels_words_and_template_of_its_data_set(tmp_path: Path, name: str) -> None:
    folder = prepare(tmp_path / name, CLASS_NAMES[name])
    cohort, published = load_cohort(f"calibprompt:{folder}"), read_card(shipped_cards()[DATA_SETS[name]])
    assert cohort.labels == tuple(published.labels)
    assert {label: cohort.card.words(label) for label in cohort.labels} == dict(published.labels)
    assert cohort.card.prompt_template == published.prompt_template == TEMPLATES[name]
    assert cohort.card.same_as[0] == DATA_SETS[name]
    assert cohort.card.task == "single_label"
    assert (cohort.name, cohort.card.importer) == (name, "calibprompt")
    assert cohort.splits().tolist() == ["test"] * len(cohort.labels) + ["train"] * len(cohort.labels)
    prompts = resolve_task(cohort, NAMES, None, None).prompts
    words = list(published.labels.values())
    assert [texts.positive for texts in prompts.labels.values()] == [(TEMPLATES[name].replace("{}", w),) for w in words]


def test_an_imported_folder_keeps_its_template(tmp_path: Path) -> None:
    folder = prepare(tmp_path / "kather", CLASS_NAMES["kather"])
    write_manifest([load_with_notes(f"calibprompt:{folder}")], ManifestPlan(folder / "m.csv"), lambda done, n: None)
    card = load_cohort(str(folder / "m.csv")).card
    assert card.prompt_template == TEMPLATES["kather"]
    assert card.same_as == ["kather_colon"]


def test_other_folders(tmp_path: Path) -> None:
    cohort = load_cohort(f"calibprompt:{prepare(tmp_path / 'mine', CLASS_NAMES['covid'])}")
    assert cohort.card.prompt_template == "An image of {}."
    assert cohort.card.same_as == []
    with pytest.raises(ManifestError, match="no images/train or images/test"):
        load_cohort(f"calibprompt:{tmp_path}")
    with pytest.raises(InputError, match="needs a folder"):
        load_cohort("calibprompt")
    with pytest.raises(InputError, match="takes no labels file"):
        load_with_notes(f"calibprompt:{tmp_path / 'mine'}", ImportOptions(labels_file=tmp_path / "x.csv"))


def test_a_template_has_one_place_for_the_name() -> None:
    with pytest.raises(DataCardError, match="field 'prompt_template': a template needs exactly one"):
        parse_card('---\nname: x\nprompt_template: "An image"\n---\n', "card.md")
