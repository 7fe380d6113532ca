"""What a model was trained on, as its zoo entry or its folder declares it.

A local bundle declares it in a file `training_data.json` in its folder, which is no part of the model's fingerprint:

    {"trained_on": [{"dataset": "iu_xray", "splits": ["train"], "images": "training_images.sha256",
                     "note": "reports with uid % 5 below 3"}]}

Only `dataset` is needed. `images` names a file in the same folder with the sha256 of each training image's bytes, one
in hex a line (`sha256sum` output will do). A folder without the file has declared nothing, and results say so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medvlm_probe.errors import ModelError, unknown_name

DECLARATION_FILE = "training_data.json"

_TEXTS, _LISTS = ("dataset", "note", "images"), ("sites", "splits")


@dataclass(frozen=True)
class TrainingData:
    """A data set that a model has seen, or a part of one.

    Attributes:
        dataset: its name, as data cards write it (`mimic_cxr`); other spellings are known to `embeddings.same_data`.
        sites: the sites that were used; empty where all were, or where it is not told.
        splits: the data set's own splits that were used; empty where all were, or where it is not told. Of phantoms:
            `PREVALENCE, seed SEED`.
        note: what else a reader should know, a sentence.
        images: a file with the sha256 of each training image's bytes, one a line; None where there is none.
    """

    dataset: str
    sites: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    note: str = ""
    images: Path | None = None

    def image_keys(self) -> frozenset[str]:
        """Return the sha256 (64 hex digits) of the training images; empty without a list.

        Raises:
            ModelError: the list cannot be read, or a line does not begin with a sha256.
        """
        if self.images is None:
            return frozenset()
        try:
            lines = self.images.read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ModelError(f"The list of training images {self.images} cannot be read: {error}.") from error
        keys = {number: line.split()[0].lower() for number, line in enumerate(lines, start=1) if line.strip()}
        wrong = [number for number, key in keys.items() if not re.fullmatch(r"[0-9a-f]{64}", key)]
        if wrong:
            raise ModelError(f"{self.images}, line {wrong[0]}: expected the sha256 of an image, 64 hex digits.")
        return frozenset(keys.values())


def declared_training_data(model: str) -> tuple[TrainingData, ...]:
    """Return what the model called `model` declares, as `load_model` takes the name; empty where it declares nothing.

    A hub repository or open_clip tag that a zoo entry is loaded from is taken for that entry.

    Raises:
        UnknownNameError: there is no such model.
        ModelError: a local folder's declaration cannot be read.
    """
    from medvlm_probe.models.zoo import ZOO, find_spec

    spec = find_spec(model) or next((spec for spec in ZOO.values() if spec.source == model), None)
    if spec is not None:
        return spec.trained_on
    scheme, _, place = model.partition(":")
    return read_training_data(Path(place)) if scheme in ("local", "hf") else ()


def read_training_data(folder: Path) -> tuple[TrainingData, ...]:
    """Return what a local bundle declares; empty where its folder has no `training_data.json`.

    Raises:
        ModelError: the file is no such declaration, or names a list that is missing or outside the folder.
    """
    from medvlm_probe.models.bundle import read_json

    folder = folder.expanduser()
    path = folder / DECLARATION_FILE
    if not path.is_file():
        return ()
    entries = read_json(path).get("trained_on")
    if not isinstance(entries, list) or not entries:
        raise ModelError(f'{path}: expected {{"trained_on": [{{"dataset": NAME}}, ...]}} with at least one data set.')
    found = []
    for entry in entries:
        fields = _fields(entry, path)
        images = fields.pop("images", None)
        found.append(TrainingData(**fields, images=None if images is None else _list(folder, images)))
    return tuple(found)


def _fields(entry: Any, path: Path) -> dict[str, Any]:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("dataset"), str) or not entry["dataset"].strip():
        raise ModelError(f'{path}: each data set needs a name, {{"dataset": NAME}}; found {entry!r}.')
    for name, value in entry.items():
        if name not in (*_TEXTS, *_LISTS):
            raise ModelError(f"{path}: {unknown_name('field', str(name), (*_TEXTS, *_LISTS))}")
        texts = value if name in _LISTS and isinstance(value, list) else [value]
        if (name in _LISTS) != isinstance(value, list) or not all(isinstance(text, str) for text in texts):
            raise ModelError(f"{path}: '{name}' must be {'a list of texts' if name in _LISTS else 'a text'}.")
    return {name: tuple(value) if name in _LISTS else value for name, value in entry.items()}


def _list(folder: Path, name: str) -> Path:
    if Path(name).name != name or not (folder / name).is_file():
        raise ModelError(
            f"{folder / DECLARATION_FILE} names the list of images '{name}'; expected the name of a file beside it."
        )
    return folder / name
