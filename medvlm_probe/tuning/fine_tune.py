"""Fine-tuning: a model's image tower under a linear head, stopped by validation images, gone on with where killed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from medvlm_probe.embeddings.precision import Precision, device_of
from medvlm_probe.embeddings.threads import decoding_pool, default_workers, torch_threads
from medvlm_probe.errors import InputError, StoreError
from medvlm_probe.metrics.classification import auroc
from medvlm_probe.metrics.legacy_study import legacy_labels
from medvlm_probe.tuning import checkpoints
from medvlm_probe.tuning.augment import augmented
from medvlm_probe.tuning.fine_tune_settings import EpochLog, FineTuneSettings
from medvlm_probe.tuning.head_layer import HeadLayer, from_nothing, from_probe
from medvlm_probe.tuning.heads import HeadKind, LinearHead
from medvlm_probe.tuning.linear_probe import fit_linear_probe
from medvlm_probe.tuning.material import FineTuned, Material, config_of
from medvlm_probe.tuning.multilabel_losses import loss_named, positive_weights
from medvlm_probe.tuning.pixels import KEPT_BYTES, Pixels
from medvlm_probe.tuning.schedule import warmup_cosine, warmup_steps
from medvlm_probe.tuning.towers import TrainableTower, trainable_tower

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medvlm_probe.models.contract import VisionLanguageModel

LONGEST_NORM = 1.0
"""Gradients longer than this are shortened to it."""

CHECKPOINT_SECONDS = 120.0


def fine_tune(
    model: VisionLanguageModel,
    material: Material,
    settings: FineTuneSettings,
    folder: Path,
    *,
    precision: Precision = "float32",
    workers: int | None = None,
    kept_bytes: int = KEPT_BYTES,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    progress: Callable[[int, int, float], None] = lambda done, total, seconds: None,
    on_epoch: Callable[[EpochLog], None] = lambda log: None,
) -> FineTuned:
    """Return a fine-tuned copy of a model; the model itself is not changed.

    Killed at any moment, the same call goes on from the checkpoint in `folder`, and ends with the same weights at equal
    device, precision and threads.

    Args:
        model: an open_clip, CLIP or MedCLIP model.
        material: images and labels.
        settings: see there.
        folder: for checkpoints; of one training alone.
        precision: of the products in the tower, `float32` or `bfloat16`; weights and optimiser are float32 either way.
        workers: threads that decode; None: one a core.
        kept_bytes: memory for images that are kept decoded.
        checkpoint_seconds: how often to write a checkpoint within an epoch; each epoch's end writes one.
        progress: called after each batch with images done, images to do at most, and seconds.
        on_epoch: told each epoch when it is over; after a restart only the new ones.

    Raises:
        InputError: no images or labels to learn from, float16, or a loss that is no number any more.
        ModelError: the model has no tower that can be trained.
        StoreError: the checkpoint is of another training, or cannot be written or read.
    """
    if precision == "float16":
        raise InputError("Training in float16 needs scaled losses, which are not offered. Take bfloat16 or float32.")
    config = config_of(model, material, settings)
    with torch_threads(), decoding_pool(default_workers() if workers is None else workers) as pool:
        ahead = 2 if device_of(model).type == "cuda" else 0
        pixels = Pixels(material.cohort.source, material.keys, model, pool, ahead=ahead, kept_bytes=kept_bytes)
        training = _Training(model, material, settings, folder, config, pixels, precision, checkpoint_seconds, progress)
        training.resume()
        training.run(on_epoch)
        return training.result()


@dataclass
class _Training:
    """A training in progress: what changes from update to update."""

    given: VisionLanguageModel
    material: Material
    settings: FineTuneSettings
    folder: Path
    config: str
    pixels: Pixels
    precision: Precision
    checkpoint_seconds: float
    progress: Callable[[int, int, float], None]
    epoch: int = 0
    update: int = 0
    loss_sum: float = 0.0
    known_sum: int = 0
    history: list[EpochLog] = field(default_factory=list)
    best_epoch: int = -1
    seconds_before: float = 0.0
    n_done: int = 0

    def __post_init__(self) -> None:
        material, settings = self.material, self.settings
        targets = np.asarray(material.cohort.targets(material.labels), dtype=np.float64)
        self.targets = legacy_labels(targets, material.labels) if settings.legacy else targets
        self.train_rows = np.flatnonzero(material.train)
        self.validation_rows = np.flatnonzero(material.validation)
        for rows, what in ((self.train_rows, "train on"), (self.validation_rows, "decide when to stop")):
            if np.isnan(self.targets[rows]).all():
                raise InputError(f"There is no image with a known label to {what}. Check the splits and labels.")
        self.started = time.monotonic()
        self.device = device_of(self.given)
        self.tower: TrainableTower = trainable_tower(self.given, settings.last_blocks)
        self.layer = self._first_layer().to(self.device)
        self.loss: Callable[[Tensor, Tensor], Tensor] = loss_named(settings.loss)
        if settings.loss == "weighted-bce":
            weight = torch.from_numpy(positive_weights(self.targets[self.train_rows])).to(self.device)
            self.loss = partial(loss_named(settings.loss), positive_weight=weight)
        self.optimizer = self._new_optimizer()
        per_update = settings.batch_size * settings.accumulate
        self.n_updates = -(-len(self.train_rows) // per_update)
        self.last_checkpoint = time.monotonic()

    @property
    def seconds(self) -> float:
        return self.seconds_before + time.monotonic() - self.started

    def run(self, on_epoch: Callable[[EpochLog], None]) -> None:
        """Go through the epochs that are left."""
        if not self.history and not self.settings.legacy:
            self._end_epoch(0, math.nan, on_epoch)
        while self.epoch < self.settings.epochs and not self._has_stopped():
            if self.settings.legacy and self.update == 0:
                self.optimizer = self._new_optimizer()
            self._one_epoch()
            self._end_epoch(self.epoch + 1, self.loss_sum / max(self.known_sum, 1), on_epoch)

    def result(self) -> FineTuned:
        """Return the best epoch's weights."""
        self._load(checkpoints.read_best(self.folder, self.best_epoch))
        self.tower.train(False)
        for parameter in self.tower.parameters.values():
            parameter.requires_grad_(False)
        weight, bias = self.layer.plain()
        kind: HeadKind = "fine_tune_legacy" if self.settings.legacy else "fine_tune"
        about = {
            "settings": self.settings.to_json(),
            "best_epoch": self.best_epoch,
            "epochs": [log.to_json() for log in self.history],
            "n_train": len(self.train_rows),
            "n_validation": len(self.validation_rows),
            "precision": self.precision,
            "base_fingerprint": self.given.fingerprint,
            "config_sha256": self.config,
        }
        head = LinearHead(self.material.labels, weight, bias, self.layer.space, kind, about=about)
        return FineTuned(
            model=self.tower.model,
            head=head,
            history=tuple(self.history),
            best_epoch=self.best_epoch,
            precision=self.precision,
            n_trained=self.tower.n_trained,
            n_frozen=self.tower.n_frozen,
            seconds=self.seconds,
            config_sha256=self.config,
        )

    def resume(self) -> None:
        """Take over the checkpoint, where there is one."""
        found = checkpoints.read_checkpoint(self.folder)
        if found is None:
            return
        facts = found.facts
        if facts.get("config") != self.config:
            raise StoreError(
                f"{self.folder} holds the checkpoint of another training (other images, labels, model or settings). "
                "Give another folder, or remove that one."
            )
        self._load(dict(found.weights))
        checkpoints.restore_optimizer(self.optimizer, found.optimizer)
        self.epoch, self.update = facts["epoch"], facts["update"]
        self.loss_sum, self.known_sum = facts["loss_sum"], facts["known_sum"]
        self.history = [EpochLog.from_json(log) for log in facts["history"]]
        self.best_epoch, self.seconds_before = facts["best_epoch"], facts["seconds"]

    def _first_layer(self) -> HeadLayer:
        material, settings = self.material, self.settings
        if settings.legacy:
            return from_nothing(material.vectors.shape[1], len(material.labels), settings.seed)
        vectors = material.vectors[self.train_rows]
        groups = material.cohort.groups()[self.train_rows]
        probe = fit_linear_probe(vectors, self.targets[self.train_rows], groups, material.labels, seed=settings.seed)
        return from_probe(probe.head, vectors)

    def _new_optimizer(self) -> torch.optim.Optimizer:
        settings = self.settings
        named = [(p, settings.rate) for p in self.tower.parameters.values()]
        named += [(p, settings.head_rate) for p in self.layer.parameters()]
        groups = [
            {
                "params": [p],
                "lr": rate,
                "full": rate,
                "weight_decay": settings.decay if settings.legacy or p.ndim > 1 else 0.0,
            }
            for p, rate in named
        ]
        return torch.optim.AdamW(groups)

    def _one_epoch(self) -> None:
        order = self.train_rows[
            np.random.default_rng([self.settings.seed, self.epoch]).permutation(len(self.train_rows))
        ]
        size, accumulate = self.settings.batch_size, self.settings.accumulate
        parts = [order[start : start + size] for start in range(0, len(order), size)]
        updates = [parts[start : start + accumulate] for start in range(0, len(parts), accumulate)][self.update :]
        images = self.pixels.batches([part for update in updates for part in update])
        self.n_done = self.epoch * len(order) + min(self.update * size * accumulate, len(order))
        self.tower.train(True)
        for rows_of_batches in updates:
            self._one_update(rows_of_batches, images)
            self.update += 1
            if time.monotonic() - self.last_checkpoint >= self.checkpoint_seconds:
                self._write()

    def _one_update(self, rows_of_batches: list[NDArray[np.int64]], images: Any) -> None:
        settings, step = self.settings, self.epoch * self.n_updates + self.update
        if not settings.legacy:
            total = settings.epochs * self.n_updates
            share = warmup_cosine(step, total, warmup_steps(total, settings.warmup))
            for group in self.optimizer.param_groups:
                group["lr"] = group["full"] * share
        n_known = int((~np.isnan(self.targets[np.concatenate(rows_of_batches)])).sum())
        self.optimizer.zero_grad(set_to_none=True)
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(settings.seed * 1_000_003 + step)
            for rows in rows_of_batches:
                labels = torch.from_numpy(self.targets[rows]).float().to(self.device)
                known = int((~labels.isnan()).sum())
                loss = self.loss(self._logits(self._prepared(next(images), rows)), labels)
                if not bool(torch.isfinite(loss)):
                    raise InputError(
                        f"The loss is no number any more in epoch {self.epoch + 1}. Give a lower --rate and start anew."
                    )
                torch.autograd.backward(loss * (known / max(n_known, 1)))
                self.loss_sum += loss.item() * known
                self.known_sum += known
                self._show(len(rows))
        if not settings.legacy:
            trained = [*self.tower.parameters.values(), *self.layer.parameters()]
            torch.nn.utils.clip_grad_norm_(trained, LONGEST_NORM)
        self.optimizer.step()

    def _prepared(self, pixels: Tensor, rows: NDArray[np.int64]) -> Tensor:
        pixels = pixels.to(self.device, non_blocking=True)
        if not self.settings.augment:
            return pixels
        return augmented(pixels, [(self.settings.seed, self.epoch, int(row)) for row in rows])

    def _logits(self, pixels: Tensor) -> Tensor:
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bfloat16"):
            embeddings = self.tower.model.encode_images(pixels)
        logits: Tensor = self.layer(embeddings)
        return logits

    def _end_epoch(self, epoch: int, train_loss: float, on_epoch: Callable[[EpochLog], None]) -> None:
        """Judge the weights on the validation images, keep them where they are the best, and write a checkpoint."""
        logits = self._validation_logits()
        labels = torch.from_numpy(self.targets[self.validation_rows]).float()
        loss = self.loss(logits, labels.to(self.device)).item()
        areas = [auroc(labels[:, k].numpy(), logits[:, k].cpu().numpy()) for k in range(labels.shape[1])]
        defined = [area for area in areas if not math.isnan(area)]
        log = EpochLog(epoch, train_loss, loss, float(np.mean(defined)) if defined else math.nan)
        best = next((past for past in self.history if past.epoch == self.best_epoch), None)
        if best is None or loss < best.validation_loss - self.settings.least_gain:
            checkpoints.write_best(self.folder, epoch, self._weights())
            self.best_epoch = epoch
        self.history.append(log)
        self.epoch, self.update, self.loss_sum, self.known_sum = epoch, 0, 0.0, 0
        self._write()
        checkpoints.remove_other_bests(self.folder, self.best_epoch)
        on_epoch(log)

    def _validation_logits(self) -> Tensor:
        rows, size = self.validation_rows, self.settings.batch_size
        parts = [rows[start : start + size] for start in range(0, len(rows), size)]
        self.tower.train(False)
        found = []
        with torch.no_grad():
            for pixels in self.pixels.batches(parts):
                found.append(self._logits(pixels.to(self.device)))
        return torch.cat(found)

    def _has_stopped(self) -> bool:
        return bool(self.history) and self.history[-1].epoch - self.best_epoch >= self.settings.patience

    def _weights(self) -> dict[str, Tensor]:
        head = {f"head/{name}": value.detach().cpu().clone() for name, value in self.layer.state_dict().items()}
        return {f"tower/{name}": value for name, value in self.tower.state().items()} | head

    def _load(self, weights: dict[str, Tensor]) -> None:
        self.tower.load(checkpoints.under(weights, "tower/"))
        self.layer.load_state_dict(checkpoints.under(weights, "head/"))

    def _write(self) -> None:
        facts = {
            "config": self.config,
            "epoch": self.epoch,
            "update": self.update,
            "loss_sum": self.loss_sum,
            "known_sum": self.known_sum,
            "history": [log.to_json() for log in self.history],
            "best_epoch": self.best_epoch,
            "seconds": round(self.seconds, 3),
        }
        state = checkpoints.optimizer_tensors(self.optimizer)
        checkpoints.write_checkpoint(self.folder, checkpoints.Checkpoint(self._weights(), state, facts))
        self.last_checkpoint = time.monotonic()

    def _show(self, n_images: int) -> None:
        self.n_done += n_images
        self.progress(self.n_done, self.settings.epochs * len(self.train_rows), self.seconds)
