"""Prompt tuning on embedded images: only the text tower runs in a step, for several trainings at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medvlm_probe.errors import InputError
from medvlm_probe.tuning.loss_mix import LossMix, parse_losses

if TYPE_CHECKING:
    from medvlm_probe.tuning.few_shot import FewShotSet, Problem
    from medvlm_probe.tuning.prompt_learner import PromptLearner

TEXTS_AT_ONCE = 64
"""How many texts go through the text tower together: as many trainings as these make form a block."""


@dataclass(frozen=True)
class Schedule:
    """Stochastic gradient descent as CalibPrompt's released code sets it.

    Attributes:
        epochs: passes over the few-shot set.
        batch_size: images a step; what is left of an epoch is dropped, and a smaller set is one batch.
        rate: of the first epoch after the warm-up; half a cosine over `epochs` then leads it towards 0.
        warmup_epochs: epochs at `warmup_rate`.
        warmup_rate: 1e-5, for MedCLIP 1e-3.
        momentum, weight_decay: of the optimiser.
    """

    epochs: int = 50
    batch_size: int = 16
    rate: float = 0.002
    warmup_epochs: int = 1
    warmup_rate: float = 1e-5
    momentum: float = 0.9
    weight_decay: float = 5e-4

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch_size) < 1 or self.rate <= 0 or not 0 <= self.warmup_epochs <= self.epochs:
            raise InputError(
                f"{self.epochs} epochs ({self.warmup_epochs} of warm-up) in batches of {self.batch_size} at rate "
                f"{self.rate:g}: expected at least 1, at least 1, and above 0."
            )

    def rate_at(self, epoch: int) -> float:
        """Return the learning rate of an epoch, from 0."""
        if epoch < self.warmup_epochs:
            return self.warmup_rate
        return 0.5 * self.rate * (1 + math.cos(math.pi * (epoch - self.warmup_epochs) / self.epochs))


@dataclass(frozen=True, eq=False)
class Training:
    """One training: a loss, a few-shot set, and the seed of its beginning and batches."""

    loss: LossMix
    few_shot: FewShotSet
    seed: int


@dataclass(frozen=True, eq=False)
class Trained:
    """What a training gives.

    Attributes:
        context: (G, n, C) float32, of the epoch that was kept.
        losses: each epoch's mean loss.
        validation: each epoch's cross entropy on the validation images; empty without any.
        kept_epoch: the epoch kept, from 1: the last, or with validation images the one with the least cross entropy.
        n_steps: steps taken.
    """

    context: NDArray[np.float32]
    losses: tuple[float, ...]
    validation: tuple[float, ...]
    kept_epoch: int
    n_steps: int


@dataclass(frozen=True, eq=False)
class EmbeddedViews:
    """Unit embeddings of the images that few-shot sets name.

    Attributes:
        rows: the cohort's row of each image, (m,), ascending.
        views: (V, m, D), what is learned from.
        clean: (m, D), what an epoch is chosen by.
    """

    rows: NDArray[np.int64]
    views: Tensor
    clean: Tensor

    def positions(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return where rows of the cohort stand."""
        found = np.minimum(np.searchsorted(self.rows, rows), len(self.rows) - 1)
        if len(rows) and not (self.rows[found] == rows).all():
            raise InputError("A few-shot set names images that have no embedded views.")
        return found


@dataclass(frozen=True, eq=False)
class Batches:
    """Every step of a training, of P problems with batches of B.

    Attributes:
        positions: (S, B, P) of the images, -1 where there is none.
        views: (S, B, P) which view of each.
        truth: (S, B, P) float32 class numbers, NaN where there is no image.
    """

    positions: Tensor
    views: Tensor
    truth: Tensor

    def to(self, device: torch.device) -> Batches:
        """Return the same on a device."""
        return Batches(self.positions.to(device), self.views.to(device), self.truth.to(device))


def train_prompts(
    learner: PromptLearner,
    trainings: Sequence[Training],
    images: EmbeddedViews,
    schedule: Schedule,
    *,
    logit_scale: float,
    zero_shot: Tensor | None = None,
) -> list[Trained]:
    """Return what trainings give, in their order; those of a block (see `blocks`) go through the text tower together.

    Each training takes its own steps: it shares nothing with the others but matrix products, so results agree with
    those of a training alone to rounding, and are the same bytes for the same list of trainings.

    Args:
        learner: the prompts.
        trainings: all of one task.
        images: of all their few-shot sets, on the model's device.
        schedule: of all.
        logit_scale: the multiplier of cosines.
        zero_shot: unit text features of the untuned prompts, as `PromptLearner.features` shapes them for one run, for
            losses that need zero-shot logits.

    Raises:
        InputError: a loss that is no longer finite, or one that needs `zero_shot`.
    """
    found: list[Trained] = []
    for block in blocks(learner, trainings, schedule):
        found += _train_block(learner, block, images, schedule, logit_scale, zero_shot)
    return found


def blocks(learner: PromptLearner, trainings: Sequence[Training], schedule: Schedule) -> list[list[Training]]:
    """Return the trainings in consecutive blocks of equal numbers of steps and at most `TEXTS_AT_ONCE` texts."""
    size = max(1, TEXTS_AT_ONCE // len(learner.context_of))
    equal = groupby(trainings, key=lambda training: _steps_an_epoch(training.few_shot.train, schedule.batch_size))
    parts = [list(together) for _, together in equal]
    return [part[start : start + size] for part in parts for start in range(0, len(part), size)]


def class_logits(units: Tensor, features: Tensor, logit_scale: float) -> Tensor:
    """Return logits of image embeddings by text features.

    Args:
        units: (B, P, D) unit embeddings, one for each problem.
        features: (K, D) for one problem of K classes, giving (B, K); or (L, 2, D), giving (B, L, 2).
        logit_scale: the multiplier.
    """
    if features.ndim == 2:
        return logit_scale * units[:, 0] @ features.T
    return logit_scale * torch.einsum("bld,lkd->blk", units, features)


def _train_block(
    learner: PromptLearner,
    block: Sequence[Training],
    images: EmbeddedViews,
    schedule: Schedule,
    logit_scale: float,
    zero_shot: Tensor | None,
) -> list[Trained]:
    device = images.views.device
    n_views = len(images.views)
    plans = [draw_batches(training, schedule, n_views, images.positions).to(device) for training in block]
    held_out = [_validation(training, images, device) for training in block]
    context = torch.stack([learner.start(training.seed) for training in block]).to(device).requires_grad_()
    optimizer = torch.optim.SGD(
        [context], lr=schedule.rate, momentum=schedule.momentum, weight_decay=schedule.weight_decay
    )
    cross_entropy = parse_losses("ce")
    n_steps = len(plans[0].positions) // schedule.epochs
    losses, validation = np.zeros((len(block), schedule.epochs)), np.full((len(block), schedule.epochs), np.nan)
    best = context.detach().clone()
    for epoch in range(schedule.epochs):
        optimizer.param_groups[0]["lr"] = schedule.rate_at(epoch)
        of_epoch = torch.zeros(len(block), device=device)
        for step in range(epoch * n_steps, (epoch + 1) * n_steps):
            features = learner.features(context)
            values = []
            for run, (training, plan) in enumerate(zip(block, plans, strict=True)):
                positions = plan.positions[step]
                units = images.views[plan.views[step], positions.clamp(min=0)]
                values.append(_loss(training.loss, units, plan.truth[step], features[run], logit_scale, zero_shot))
            of_runs = torch.stack(values)
            optimizer.zero_grad()
            of_runs.sum().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            of_epoch += of_runs.detach()
        losses[:, epoch] = (of_epoch / n_steps).cpu().numpy()
        if not np.isfinite(losses[:, epoch]).all():
            wrong = block[int(np.flatnonzero(~np.isfinite(losses[:, epoch]))[0])]
            raise InputError(
                f"Loss '{wrong.loss}' of seed {wrong.seed} is not finite in epoch {epoch + 1}. Lower the rate."
            )
        if any(part is not None for part in held_out):
            with torch.no_grad():
                features = learner.features(context)
                for run, part in enumerate(held_out):
                    if part is not None:
                        value = _loss(cross_entropy, images.clean[part[0]], part[1], features[run], logit_scale, None)
                        validation[run, epoch] = float(value)
                        if validation[run, epoch] <= np.nanmin(validation[run]):
                            best[run] = context[run].detach()
    contexts, best_contexts = context.detach().cpu().numpy(), best.cpu().numpy()
    return [
        Trained(
            context=contexts[run] if held_out[run] is None else best_contexts[run],
            losses=tuple(losses[run].tolist()),
            validation=() if held_out[run] is None else tuple(validation[run].tolist()),
            kept_epoch=schedule.epochs if held_out[run] is None else last_least(validation[run]) + 1,
            n_steps=n_steps * schedule.epochs,
        )
        for run in range(len(block))
    ]


def _loss(
    loss: LossMix, units: Tensor, truth: Tensor, features: Tensor, logit_scale: float, zero_shot: Tensor | None
) -> Tensor:
    """Return a loss of a batch: `units` (B, P, D), `truth` (B, P) of class numbers, NaN where there is no image."""
    labels = truth[:, 0].long() if features.ndim == 2 else truth
    untuned = None
    if loss.needs("zero-shot logits") and zero_shot is not None:
        untuned = class_logits(units, zero_shot, logit_scale)
    logits = class_logits(units, features, logit_scale)
    return loss(logits, labels, text_features=features, zero_shot_logits=untuned)


def _steps_an_epoch(problems: Sequence[Problem], batch_size: int) -> int:
    return max(_batches_of(problem, batch_size) for problem in problems)


def _batches_of(problem: Problem, batch_size: int) -> int:
    return max(1, len(problem.rows) // batch_size)


def draw_batches(
    training: Training, schedule: Schedule, n_views: int, positions_of: Callable[[NDArray[np.int64]], NDArray[np.int64]]
) -> Batches:
    """Return the order and the view of every image in every epoch, drawn by the training's seed.

    A problem with fewer batches than the largest goes through its own again.

    Args:
        training: its few-shot set and seed.
        schedule: epochs and batch size.
        n_views: how many views an image has.
        positions_of: from rows of the cohort to the positions to be told.
    """
    problems = training.few_shot.train
    n_steps = _steps_an_epoch(problems, schedule.batch_size)
    size = min(schedule.batch_size, max(len(problem.rows) for problem in problems))
    shape = (schedule.epochs, n_steps, size, len(problems))
    positions, views, truth = np.full(shape, -1), np.zeros(shape, dtype=np.int64), np.full(shape, np.nan)
    for epoch in range(schedule.epochs):
        rng = np.random.default_rng([training.seed, 1, epoch])
        for p, problem in enumerate(problems):
            n_images = len(problem.rows)
            order, view = rng.permutation(n_images), rng.integers(n_views, size=n_images)
            at = positions_of(problem.rows)
            for step in range(n_steps):
                start = step % _batches_of(problem, size) * size
                chosen = order[start : start + size]
                positions[epoch, step, : len(chosen), p] = at[chosen]
                views[epoch, step, : len(chosen), p] = view[chosen]
                truth[epoch, step, : len(chosen), p] = problem.truth[chosen]
    flat = (schedule.epochs * n_steps, size, len(problems))
    return Batches(
        positions=torch.from_numpy(positions.reshape(flat)),
        views=torch.from_numpy(views.reshape(flat)),
        truth=torch.from_numpy(truth.reshape(flat)).float(),
    )


def all_of(problems: Sequence[Problem]) -> tuple[NDArray[np.int64], Tensor] | None:
    """Return rows (B, P), -1 where there is none, and classes (B, P), NaN there, of all images; None without any."""
    size = max(len(problem.rows) for problem in problems)
    if not size:
        return None
    rows, truth = np.full((size, len(problems)), -1), np.full((size, len(problems)), np.nan)
    for p, problem in enumerate(problems):
        rows[: len(problem.rows), p] = problem.rows
        truth[: len(problem.rows), p] = problem.truth
    return rows, torch.from_numpy(truth).float()


def _validation(training: Training, images: EmbeddedViews, device: torch.device) -> tuple[Tensor, Tensor] | None:
    """Return positions (B, P) and classes (B, P) of the validation images, as `all_of`; None without any."""
    found = all_of(training.few_shot.validation)
    if found is None:
        return None
    rows, truth = found
    some_row = np.where(rows < 0, images.rows[0], rows)  # its class is NaN where there is no image
    positions = images.positions(some_row.ravel()).reshape(rows.shape)
    return torch.from_numpy(positions).to(device), truth.to(device)


def last_least(values: NDArray[np.float64]) -> int:
    """Return the last place of the least value."""
    return int(np.flatnonzero(values <= values.min())[-1])
