"""From a model's name and images to a fine-tuned model in a folder: trained, gone on with, or found there already."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from medvlm_probe.models.spec import LoadOptions
from medvlm_probe.models.training_data import declared_training_data
from medvlm_probe.models.vendor import licence_in_card
from medvlm_probe.models.zoo import find_spec, locate_model
from medvlm_probe.tuning.fine_tune import fine_tune
from medvlm_probe.tuning.heads import LinearHead, read_head
from medvlm_probe.tuning.material import config_of
from medvlm_probe.tuning.tuned_folder import Base, standing_model, write_tuned

if TYPE_CHECKING:
    from medvlm_probe.embeddings.precision import Precision
    from medvlm_probe.models.contract import VisionLanguageModel
    from medvlm_probe.tuning.fine_tune_settings import EpochLog, FineTuneSettings
    from medvlm_probe.tuning.material import Material
    from medvlm_probe.tuning.roles import Roles

MODEL_FOLDER, CHECKPOINT_FOLDER = "model", "checkpoint"


def base_of(model_name: str) -> Base:
    """Return the files, licence and declared training data of a model, as `load_model` takes its name.

    Raises:
        UnknownNameError: there is no such model.
        ModelError: its files are not to be had, or another package loads it.
    """
    located, spec = locate_model(model_name, LoadOptions()), find_spec(model_name)
    card = located.folder / "README.md"
    if spec is not None:
        licence = spec.licence
    elif located.lock is not None:
        licence = located.lock.licence
    else:
        licence = licence_in_card(card.read_text(encoding="utf-8")) if card.is_file() else "not stated"
    return Base(located, licence, declared_training_data(model_name))


def make_tuned(
    folder: Path,
    model: VisionLanguageModel,
    base: Base,
    material: Material,
    roles: Roles,
    settings: FineTuneSettings,
    *,
    precision: Precision = "float32",
    workers: int | None = None,
    progress: Callable[[int, int, float], None] = lambda done, total, seconds: None,
    on_epoch: Callable[[EpochLog], None] = lambda log: None,
) -> LinearHead:
    """Return the head of a fine-tuned model that then lies in `folder / "model"`, with the head beside its weights.

    A model of this very training that lies there already is taken; an unfinished training goes on from
    `folder / "checkpoint"`, which is removed at the end.

    Args:
        folder: of the run.
        model: the base, loaded.
        base: its files.
        material: images and labels.
        roles: which images those are, for the card.
        settings: of the training.
        precision, workers, progress, on_epoch: as in `fine_tune`.

    Raises:
        ModelError: the folder holds another model, or the base cannot be trained or copied.
        InputError, StoreError: as in `fine_tune`.
    """
    target, checkpoint = folder / MODEL_FOLDER, folder / CHECKPOINT_FOLDER
    if not standing_model(target, config_of(model, material, settings)):
        tuned = fine_tune(
            model,
            material,
            settings,
            checkpoint,
            precision=precision,
            workers=workers,
            progress=progress,
            on_epoch=on_epoch,
        )
        write_tuned(target, tuned, base, material, roles.to_json())
    shutil.rmtree(checkpoint, ignore_errors=True)
    return read_head(target)
