"""What models declare of their training data."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from medvlm_probe.errors import ModelError
from medvlm_probe.models.training_data import DECLARATION_FILE, TrainingData, read_training_data
from medvlm_probe.models.zoo import PHANTOM_CLIP_FOLDER, ZOO

KEYS = [hashlib.sha256(bytes([number])).hexdigest() for number in range(3)]


def declare(folder: Path, *entries: object) -> None:
    (folder / DECLARATION_FILE).write_text(json.dumps({"trained_on": list(entries)}))


def test_a_bundle_declares_its_training_data(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(f"{KEYS[0]}\n\n{KEYS[1].upper()}  images/b.png\r\n")
    declare(
        tmp_path,
        {"dataset": "iu_xray", "splits": ["train"], "images": "list.txt", "note": "reports too"},
        {"dataset": "mimic_cxr", "sites": ["bidmc"]},
    )
    first, second = read_training_data(tmp_path)
    assert first == TrainingData("iu_xray", splits=("train",), note="reports too", images=tmp_path / "list.txt")
    assert second == TrainingData("mimic_cxr", sites=("bidmc",))
    assert first.image_keys() == set(KEYS[:2])
    assert second.image_keys() == frozenset()


def test_without_the_file_nothing_is_declared(tmp_path: Path) -> None:
    assert read_training_data(tmp_path) == ()


def test_phantom_clip_declares_the_same_in_the_zoo_and_in_its_folder() -> None:
    assert read_training_data(PHANTOM_CLIP_FOLDER) == ZOO["phantom-clip"].trained_on


def test_every_zoo_entry_declares_data_sets() -> None:
    for spec in ZOO.values():
        assert all(isinstance(entry, TrainingData) and entry.dataset for entry in spec.trained_on)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"splits": ["train"]}, "needs a name"),
        ("iu_xray", "needs a name"),
        ({"dataset": "a", "splits": "train"}, "'splits' must be a list of texts"),
        ({"dataset": "a", "sites": [1]}, "'sites' must be a list of texts"),
        ({"dataset": "a", "note": ["b"]}, "'note' must be a text"),
        ({"dataset": "a", "images": "nowhere.txt"}, "expected the name of a file beside it"),
        ({"dataset": "a", "images": "../outside.txt"}, "expected the name of a file beside it"),
    ],
)
def test_a_wrong_declaration_is_refused(tmp_path: Path, entry: object, words: str) -> None:
    declare(tmp_path, entry)
    with pytest.raises(ModelError, match=words):
        read_training_data(tmp_path)


def test_an_unknown_field_is_named(tmp_path: Path) -> None:
    declare(tmp_path, {"dataset": "a", "split": ["train"]})
    with pytest.raises(ModelError, match="Did you mean splits"):
        read_training_data(tmp_path)


def test_a_declaration_without_data_sets_is_refused(tmp_path: Path) -> None:
    declare(tmp_path)
    with pytest.raises(ModelError, match="at least one data set"):
        read_training_data(tmp_path)


def test_a_line_that_is_no_hash_is_named(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text(f"{KEYS[0]}\nimages/b.png\n")
    with pytest.raises(ModelError, match="line 2: expected the sha256"):
        TrainingData("a", images=path).image_keys()
    with pytest.raises(ModelError, match="cannot be read"):
        TrainingData("a", images=tmp_path / "gone.txt").image_keys()
