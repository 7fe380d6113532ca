"""Full fine-tuning on few-shot sets: every weight of both towers, with the losses of prompt tuning and fixed texts.

CalibPrompt (Basu et al. 2025) studies this regime at a learning rate of 2e-7, but released no code for it. It is read
here as the loop of prompt tuning (same draws, views, batches and course of the rate) with the zero-shot texts in place
of learned context, and all weights in place of the context vectors. The logit scale stays as it is; dropout is off.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from medvlm_probe.embeddings.precision import device_of
from medvlm_probe.embeddings.threads import torch_threads
from medvlm_probe.errors import InputError, unknown_name
from medvlm_probe.tuning.loss_mix import parse_losses
from medvlm_probe.tuning.prompt_tuning import (
    Batches,
    Schedule,
    Training,
    all_of,
    class_logits,
    draw_batches,
    last_least,
)
from medvlm_probe.tuning.towers import trainable_model
from medvlm_probe.tuning.views import KeptImages, Views, viewing

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medvlm_probe.cohort.cohort import Cohort
    from medvlm_probe.models.contract import VisionLanguageModel
    from medvlm_probe.tuning.loss_mix import LossMix
    from medvlm_probe.zero_shot.prompts import PromptSet

OptimizerName = Literal["sgd", "adamw"]

PUBLISHED_RATE = 2e-7
WARMUP_SHARE = 1 / 200
"""Of the full rate in the warm-up epoch: prompt tuning's 1e-5 of 2e-3."""

IMAGES_AT_ONCE = 32
"""Most images whose activations are kept at once; a larger step goes through the tower twice."""


@dataclass(frozen=True)
class FullSettings:
    """What decides a full fine-tuning besides its few-shot set, loss and seed.

    Attributes:
        schedule: epochs, batches and the rate; its rate of warm-up is that of `full_schedule`.
        optimizer: `sgd` with momentum, as the released prompt tuning has it, or `adamw`.
        views: which views of the images are learned from.
        logit_scale: the multiplier of cosines; None: the model's own.
    """

    schedule: Schedule
    optimizer: OptimizerName
    views: Views
    logit_scale: float | None = None

    def __post_init__(self) -> None:
        if self.optimizer not in get_args(OptimizerName):
            raise unknown_name("optimiser", self.optimizer, get_args(OptimizerName))

    def to_json(self) -> dict[str, Any]:
        """Return all settings."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class FullyTuned:
    """What a full fine-tuning gives.

    Attributes:
        model: a tuned copy, frozen, in evaluation mode; its `fingerprint` still is the base's until it is saved and
            loaded.
        losses: each epoch's mean loss.
        validation: each epoch's cross entropy on the validation images; empty without any.
        kept_epoch: the epoch kept, from 1: the last, or with validation images the one with the least cross entropy.
        n_steps: steps taken.
        n_trained: how many numbers were trained.
        weight_change: how far they moved, as a share of their length: both are norms over all trained numbers.
    """

    model: VisionLanguageModel
    losses: tuple[float, ...]
    validation: tuple[float, ...]
    kept_epoch: int
    n_steps: int
    n_trained: int
    weight_change: float


def full_schedule(epochs: int, batch_size: int, rate: float = PUBLISHED_RATE) -> Schedule:
    """Return the published schedule of prompt tuning at another full rate: a warm-up at 1/200 of it, then a cosine."""
    return Schedule(epochs=epochs, batch_size=batch_size, rate=rate, warmup_rate=rate * WARMUP_SHARE)


def tune_fully(
    model: VisionLanguageModel,
    prompts: PromptSet,
    training: Training,
    cohort: Cohort,
    settings: FullSettings,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> FullyTuned:
    """Return a copy of a model all of whose weights are tuned; the model itself is not changed.

    Equal arguments give equal bytes on one machine with one thread.

    Args:
        model: any model with a `module`.
        prompts: the texts of the labels, as zero-shot scores take them; none is changed.
        training: the loss, the few-shot set (rows of `cohort`) and the seed of batches and views.
        cohort: images that can all be read.
        settings: see there.
        progress: told the steps done and all of them.

    Raises:
        InputError: a loss that is no longer finite, or several labels without texts for absence.
        ModelError: the model has no weights that can be trained.
    """
    single = cohort.card.task == "single_label"
    if prompts.tuned is not None:
        raise InputError(f"Prompts '{prompts.name}' are context vectors of the untuned model. Give plain texts.")
    if not single and not prompts.has_negatives:
        raise InputError(f"Prompt set '{prompts.name}' has no texts for absence, which several labels need.")
    with torch_threads():
        return _Full(model, prompts, training, cohort, settings, single=single).run(progress)


def text_features(model: VisionLanguageModel, prompts: PromptSet, *, single_label: bool) -> Tensor:
    """Return unit text features with gradients: (K, D) where one label is right, else (L, 2, D), negative first.

    Several texts of a label are averaged as `label_directions` does.
    """
    sides = [[entry.positive for entry in prompts.labels.values()]]
    if not single_label:
        sides.insert(0, [entry.negative for entry in prompts.labels.values()])
    texts = list(dict.fromkeys(text for side in sides for group in side for text in group))
    alone = getattr(model, "texts_feel_each_other", False)
    calls: list[Sequence[str]] = [[text] for text in texts] if alone else [texts]
    units = functional.normalize(torch.cat([model.encode_texts(call) for call in calls]), dim=1)
    place = {text: number for number, text in enumerate(texts)}
    means = [torch.stack([units[[place[text] for text in group]].mean(dim=0) for group in side]) for side in sides]
    directions = [functional.normalize(side, dim=1) for side in means]
    return directions[0] if single_label else torch.stack(directions, dim=1)


class _Full:
    """A training in progress."""

    def __init__(
        self,
        model: VisionLanguageModel,
        prompts: PromptSet,
        training: Training,
        cohort: Cohort,
        settings: FullSettings,
        *,
        single: bool,
    ) -> None:
        self.base, self.prompts, self.training, self.settings, self.single = model, prompts, training, settings, single
        self.device = device_of(model)
        self.scale = model.logit_scale if settings.logit_scale is None else settings.logit_scale
        self.tower = trainable_model(model)
        self.tower.train(False)
        self.source = KeptImages(cohort.source)
        views = settings.views
        self.viewers = [
            model if views.kind == "clean" else viewing(model, views, number) for number in range(views.n_views)
        ]
        with torch.no_grad():
            self.zero_shot = text_features(model, prompts, single_label=single)
        parameters, schedule = list(self.tower.parameters.values()), settings.schedule
        self.optimizer: torch.optim.Optimizer = (
            torch.optim.SGD(
                parameters, lr=schedule.rate, momentum=schedule.momentum, weight_decay=schedule.weight_decay
            )
            if settings.optimizer == "sgd"
            else torch.optim.AdamW(parameters, lr=schedule.rate, weight_decay=schedule.weight_decay)
        )

    def run(self, progress: Callable[[int, int], None]) -> FullyTuned:
        schedule, few_shot = self.settings.schedule, self.training.few_shot
        plan = draw_batches(self.training, schedule, len(self.viewers), lambda rows: rows)
        n_all = len(plan.truth)
        n_steps, held_out = n_all // schedule.epochs, all_of(few_shot.validation)
        losses, validation, best = [], [], self.tower.state() if held_out else {}
        for epoch in range(schedule.epochs):
            self.optimizer.param_groups[0]["lr"] = schedule.rate_at(epoch)
            of_epoch = 0.0
            for step in range(epoch * n_steps, (epoch + 1) * n_steps):
                of_epoch += self._step(plan, step) / n_steps
                progress(step + 1, n_all)
            if not np.isfinite(of_epoch):
                raise InputError(
                    f"Loss '{self.training.loss}' of seed {self.training.seed} is not finite in epoch {epoch + 1}. "
                    "Lower the rate."
                )
            losses.append(of_epoch)
            if held_out is not None:
                validation.append(self._cross_entropy(*held_out))
                if validation[-1] <= min(validation):
                    best = self.tower.state()
        if held_out is not None:
            self.tower.load(best)
        for parameter in self.tower.parameters.values():
            parameter.requires_grad_(False)
            parameter.grad = None
        kept = schedule.epochs if held_out is None else last_least(np.array(validation)) + 1
        return FullyTuned(
            self.tower.model, tuple(losses), tuple(validation), kept, n_all, self.tower.n_trained, self._weight_change()
        )

    def _weight_change(self) -> float:
        before: Any = self.base.module  # type: ignore[attr-defined]
        moved = length = 0.0
        for name, old in before.named_parameters():
            if name in self.tower.parameters:
                moved += float((self.tower.parameters[name].double() - old.double()).square().sum())
                length += float(old.double().square().sum())
        return float(np.sqrt(moved / length))

    def _step(self, plan: Batches, step: int) -> float:
        """Take one step; returns the loss before it."""
        pixels, place = self._pixels(plan.positions[step].numpy(), plan.views[step].numpy())
        truth = plan.truth[step].to(self.device)
        untuned = self._untuned(pixels, place) if self.training.loss.needs("zero-shot logits") else None
        self.optimizer.zero_grad(set_to_none=True)
        parts = torch.split(pixels, IMAGES_AT_ONCE)
        if len(parts) == 1:
            loss = self._loss(self.training.loss, self.tower.model.encode_images(pixels), place, truth, untuned)
            torch.autograd.backward(loss)
        else:
            with torch.no_grad():
                vectors = torch.cat([self.tower.model.encode_images(part) for part in parts])
            vectors.requires_grad_()
            loss = self._loss(self.training.loss, vectors, place, truth, untuned)
            torch.autograd.backward(loss)
            assert vectors.grad is not None
            for part, gradient in zip(parts, torch.split(vectors.grad, IMAGES_AT_ONCE), strict=True):
                torch.autograd.backward(self.tower.model.encode_images(part), gradient)
        self.optimizer.step()
        return loss.item()

    def _loss(self, mix: LossMix, vectors: Tensor, place: Tensor, truth: Tensor, untuned: Tensor | None) -> Tensor:
        """Return the loss of images (m, D), `place` (B, P) saying which one stands where in `truth` (B, P)."""
        features = text_features(self.tower.model, self.prompts, single_label=self.single)
        logits = class_logits(functional.normalize(vectors, dim=1)[place], features, self.scale)
        labels = truth[:, 0].long() if self.single else truth
        return mix(logits, labels, text_features=features, zero_shot_logits=untuned)

    def _untuned(self, pixels: Tensor, place: Tensor) -> Tensor:
        with torch.no_grad():
            vectors = torch.cat([self.base.encode_images(part) for part in torch.split(pixels, IMAGES_AT_ONCE)])
            return class_logits(functional.normalize(vectors, dim=1)[place], self.zero_shot, self.scale)

    def _cross_entropy(self, rows: NDArray[np.int64], truth: Tensor) -> float:
        pixels, place = self._pixels(rows, None)
        with torch.no_grad():
            vectors = torch.cat([self.tower.model.encode_images(part) for part in torch.split(pixels, IMAGES_AT_ONCE)])
            return self._loss(parse_losses("ce"), vectors, place, truth.to(self.device), None).item()

    def _pixels(self, rows: NDArray[np.int64], views: NDArray[np.int64] | None) -> tuple[Tensor, Tensor]:
        """Return different images as pixels (m, 3, H, W), and where each of `rows` (B, P) is among them.

        Where there is no image (a row of -1) any stands: its class is not known. `views` None takes the clean image.
        """
        numbers = np.full_like(rows, -1) if views is None else views
        pairs = np.stack([np.where(rows < 0, rows.max(), rows), np.where(rows < 0, numbers.max(), numbers)], axis=-1)
        different, place = np.unique(pairs.reshape(-1, 2), axis=0, return_inverse=True)
        viewers = {number: self.base if number < 0 else self.viewers[number] for number in different[:, 1].tolist()}
        pixels = [viewers[view].preprocess(self.source.read(row)) for row, view in different.tolist()]
        return torch.stack(pixels).to(self.device), torch.from_numpy(place.reshape(rows.shape)).to(self.device)
