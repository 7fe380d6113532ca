"""What decides how a model is fine-tuned, the published study's recipe among it, and the log of a training."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from medvlm_probe.errors import InputError
from medvlm_probe.tuning.multilabel_losses import loss_named
from medvlm_probe.types import finite_or_none


@dataclass(frozen=True)
class FineTuneSettings:
    """Settings of a training; equal ones give equal bytes on equal devices, threads and precision.

    Attributes:
        epochs: most passes over the training images.
        batch_size: images that go through the tower at once.
        accumulate: batches to one update: the gradient is that of one batch of all their images.
        rate, head_rate: full learning rates of tower and head.
        decay: AdamW's weight decay; none on biases and norms (published recipe: on all).
        warmup: share of the updates in which the rate rises, from 0 to below 1.
        loss: of `multilabel_losses.LOSSES`; the validation images are judged by the same.
        patience: epochs without a better validation loss before the training stops.
        least_gain: how much better counts as better.
        last_blocks: train only so many of the tower's last blocks; None: all.
        augment: change training images a little, anew in each epoch (see `augment`).
        seed: of the order of the images, augmentation, dropout, folds and a head that begins at random.
        legacy: the published study's effective schedule: a head that begins at random on raw embeddings; in each epoch
            a new AdamW, its memory wiped, at a constant rate; no warm-up, no shortened gradients; labels that are not
            1 count as absent.
    """

    epochs: int = 10
    batch_size: int = 32
    accumulate: int = 1
    rate: float = 3e-5
    head_rate: float = 3e-4
    decay: float = 0.01
    warmup: float = 0.1
    loss: str = "bce"
    patience: int = 3
    least_gain: float = 0.0
    last_blocks: int | None = None
    augment: bool = False
    seed: int = 0
    legacy: bool = False

    def __post_init__(self) -> None:
        loss_named(self.loss)
        whole = {"epochs": self.epochs, "batch size": self.batch_size, "accumulate": self.accumulate}
        for name, value in (whole | {"patience": self.patience}).items():
            if value < 1:
                raise InputError(f"{name} is {value}; expected at least 1.")
        if min(self.rate, self.head_rate) <= 0 or self.decay < 0 or not 0 <= self.warmup < 1:
            raise InputError(
                f"Rates {self.rate:g} and {self.head_rate:g}, decay {self.decay:g}, warm-up {self.warmup:g}: expected "
                "rates above 0, a decay of at least 0 and a warm-up from 0 to below 1."
            )

    def to_json(self) -> dict[str, Any]:
        """Return all settings."""
        return asdict(self)


def legacy_settings(seed: int = 42) -> FineTuneSettings:
    """Return the effective recipe of the BiomedCLIP study (Sadman, Zulkernine and Kwan 2025), as its notebook runs.

    Its code means to warm up for an epoch and then to unfreeze; the test for that is commented out, so every epoch
    builds a new AdamW at a tenth of 1e-4. Mixed precision is that of the device, as elsewhere here.
    """
    return FineTuneSettings(
        epochs=10,
        batch_size=24,
        rate=1e-5,
        head_rate=1e-5,
        decay=1e-2,
        warmup=0.0,
        patience=5,
        least_gain=1e-4,
        seed=seed,
        legacy=True,
    )


@dataclass(frozen=True)
class EpochLog:
    """One epoch; epoch 0 is before any training.

    `validation_auroc` is the unweighted mean over the labels that have both kinds there, NaN without any.
    """

    epoch: int
    train_loss: float
    validation_loss: float
    validation_auroc: float

    def to_json(self) -> dict[str, Any]:
        """Return the fields; undefined numbers are None."""
        return {
            name: value if isinstance(value, int) else finite_or_none(value) for name, value in asdict(self).items()
        }

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> EpochLog:
        """Return the log that `to_json` gave."""
        numbers = {
            name: math.nan if value is None else float(value) for name, value in fields.items() if name != "epoch"
        }
        return cls(epoch=int(fields["epoch"]), **numbers)
