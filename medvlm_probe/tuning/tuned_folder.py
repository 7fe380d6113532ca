"""A fine-tuned model as a folder that every command loads with `--model local:FOLDER`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvlm_probe.cohort.splits import GIVEN_SPLIT
from medvlm_probe.errors import ModelError
from medvlm_probe.models.assemble import Piece, assemble
from medvlm_probe.models.training_data import DECLARATION_FILE, TrainingData
from medvlm_probe.models.vendor import hugging_face_pieces, medclip_pieces, open_clip_pieces
from medvlm_probe.tuning.heads import FACTS_FILE, head_files, read_head
from medvlm_probe.tuning.tuned_card import CardFacts, tuned_card

if TYPE_CHECKING:
    from medvlm_probe.cohort.cohort import Cohort
    from medvlm_probe.models.contract import VisionLanguageModel
    from medvlm_probe.models.sources import Located
    from medvlm_probe.tuning.material import FineTuned, Material

CARD_FILE = "model_card.md"
IMAGES_FILE = "training_images_tuned.sha256"


@dataclass(frozen=True, eq=False)
class Base:
    """The model that was tuned.

    Attributes:
        located: its files.
        licence: of its weights.
        trained_on: what it declares.
    """

    located: Located
    licence: str
    trained_on: tuple[TrainingData, ...]


def standing_model(folder: Path, config_sha256: str) -> bool:
    """Return whether a folder holds the model of this very training already.

    Raises:
        ModelError: it holds something else.
    """
    if not folder.exists():
        return False
    if (folder / FACTS_FILE).is_file() and read_head(folder).about.get("config_sha256") == config_sha256:
        return True
    raise ModelError(f"{folder} holds something else than the model of this training. Give another folder to --out.")


def write_tuned(folder: Path, tuned: FineTuned, base: Base, material: Material, roles: dict[str, Any]) -> str:
    """Write the folder whole or not at all, with a lock over every file; returns the model's name.

    It holds what a vendored folder of the base holds, with the tuned weights (float32; the text tower as it was), the
    head, a model card, and `training_data.json`: what the base was trained on, and the images of this training.

    Args:
        folder: does not exist yet.
        tuned: what was trained.
        base: what it began with.
        material: the images.
        roles: which splits they are of.

    Raises:
        ModelError: the base's files cannot be copied.
        StoreError: the folder cannot be written.
    """
    cohort = material.cohort
    name = f"{base.located.name} fine-tuned on {cohort.name}"
    n_train, n_validation = int(material.train.sum()), int(material.validation.sum())
    here = this_training(cohort, roles["train_from"], roles["validation_from"], n_train, n_validation)
    trained_on = [*(base.trained_on or (undeclared(base),)), here]
    keys = [material.keys[row] for row in (material.train | material.validation).nonzero()[0].tolist()]
    pieces = base_pieces(base.located, weights_content(tuned.model))
    pieces += [Piece(file, content, made_from="written") for file, content in head_files(tuned.head).items()]
    pieces += declaration(trained_on, keys)
    facts = CardFacts(name, base.located.name, base.licence, cohort.name, roles, tuple(trained_on))
    pieces.append(Piece(CARD_FILE, tuned_card(tuned, facts).encode(), made_from="written"))
    assemble(pieces, folder, model=name, family=base.located.family, licence=base.licence)
    return name


def base_pieces(located: Located, weights: bytes) -> list[Piece]:
    """Return the files of a vendored folder of the base with other weights. Raises ModelError."""
    pieces = _own_pieces(located)
    return [replace(piece, source=weights, made_from="written") if piece.weights else piece for piece in pieces]


def _own_pieces(located: Located) -> list[Piece]:
    if located.bundle is not None:
        return open_clip_pieces(located.bundle)
    by_family = {"hugging_face_clip": hugging_face_pieces, "medclip": medclip_pieces}
    return by_family[located.family](located.folder)


def weights_content(model: VisionLanguageModel) -> bytes:
    """Return all of a model's tensors as a safetensors file's content."""
    from safetensors.torch import save

    module: Any = model.module  # type: ignore[attr-defined]
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in module.state_dict().items()}
    return save(tensors, metadata={"format": "pt"})


def undeclared(base: Base) -> TrainingData:
    """Return the entry of a base that declares nothing."""
    return TrainingData(f"undeclared data of {base.located.name}", note="The base declares nothing of its training.")


def this_training(
    cohort: Cohort, train_from: str, validation_from: str | None, n_train: int, n_validation: int
) -> TrainingData:
    """Return the entry of this training: its images by content decide; the split's name is for people."""
    dataset = (cohort.card.same_as or [cohort.card.name])[0].partition("/")[0]
    made_here = " (of a split file)" if GIVEN_SPLIT in cohort.table else ""
    splits = tuple(f"{name}{made_here}" for name in dict.fromkeys((train_from, validation_from)) if name)
    note = f"{n_train:,} images were trained on; {n_validation:,} decided when to stop."
    return TrainingData(dataset, splits=splits, note=note, images=Path(IMAGES_FILE))


def declaration(trained_on: Sequence[TrainingData], keys: Sequence[str]) -> list[Piece]:
    """Return `training_data.json` and its lists of images; `keys` are those of the entry that names `IMAGES_FILE`."""
    entries, lists = [], []
    for number, data in enumerate(trained_on):
        entry: dict[str, Any] = {key: value for key, value in asdict(data).items() if value and key != "images"}
        if data.images == Path(IMAGES_FILE):
            entry["images"] = IMAGES_FILE
            content = "".join(f"{key}\n" for key in sorted(set(keys)))
            lists.append(Piece(IMAGES_FILE, content.encode(), made_from="written"))
        elif data.images is not None:
            entry["images"] = f"training_images_{number}.sha256"
            lists.append(Piece(entry["images"], data.images))
        entries.append(entry)
    text = json.dumps({"trained_on": entries}, indent=2, ensure_ascii=False) + "\n"
    return [Piece(DECLARATION_FILE, text.encode(), made_from="written"), *lists]
