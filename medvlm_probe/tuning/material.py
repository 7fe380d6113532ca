"""What a fine-tuning takes and gives: images with their roles, a tuned model, and the hash of all that decides it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from medvlm_probe.runs import sha256_json

if TYPE_CHECKING:
    from medvlm_probe.cohort.cohort import Cohort
    from medvlm_probe.embeddings.precision import Precision
    from medvlm_probe.models.contract import VisionLanguageModel
    from medvlm_probe.tuning.fine_tune_settings import EpochLog, FineTuneSettings
    from medvlm_probe.tuning.heads import LinearHead
    from medvlm_probe.types import BoolArray, FloatArray

FORMAT = "fine-tune/v1"
"""Version of how settings become weights; a checkpoint of another version is refused."""


@dataclass(frozen=True, eq=False)
class Material:
    """The images to fine-tune on.

    Attributes:
        cohort: images that can all be read, (n,).
        keys: their content keys, (n,).
        vectors: their embeddings by the model as it is, (n, D): the head begins at a linear probe on them.
        train, validation: masks over the images, without an image in common.
        labels: L names.
    """

    cohort: Cohort
    keys: tuple[str, ...]
    vectors: FloatArray
    train: BoolArray
    validation: BoolArray
    labels: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class FineTuned:
    """The weights of the best epoch.

    Attributes:
        model: a copy of the model with the tuned tower, frozen, in evaluation mode; its `fingerprint` still is the
            model's before: the tuned one has its own once it is saved and loaded.
        head: for embeddings of the tuned tower.
        history: the epochs.
        best_epoch: the one whose weights these are; 0 where no training made the validation loss better.
        precision: of the products in the tower; weights and optimiser are float32.
        n_trained, n_frozen: numbers in the image tower that were trained and that were not.
        seconds: of training, over all runs that it took.
        config_sha256: of all that decides the result.
    """

    model: VisionLanguageModel
    head: LinearHead
    history: tuple[EpochLog, ...]
    best_epoch: int
    precision: Precision
    n_trained: int
    n_frozen: int
    seconds: float
    config_sha256: str


def config_of(model: VisionLanguageModel, material: Material, settings: FineTuneSettings) -> str:
    """Return the sha256 over everything that decides a fine-tuned model but device and threads."""
    rows = np.flatnonzero(material.train | material.validation)
    targets = material.cohort.targets(material.labels)[rows]
    return sha256_json(
        {
            "format": FORMAT,
            "settings": settings.to_json(),
            "model": model.fingerprint,
            "recipe": material.cohort.source.recipe,
            "labels": list(material.labels),
            "images": [material.keys[row] for row in rows.tolist()],
            "train": material.train[rows].tolist(),
            "groups": np.unique(material.cohort.groups()[rows], return_inverse=True)[1].tolist(),
            "targets": [[None if math.isnan(value) else int(value) for value in row] for row in targets.tolist()],
        }
    )
