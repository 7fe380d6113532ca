"""What a saliency map explains: a label's logit as a differentiable function of the image's embedding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medvlm_probe.errors import ModelError, unknown_name
from medvlm_probe.tuning.heads import LinearHead
from medvlm_probe.zero_shot.prompts import LabelPrompts, PromptSet, prompts_of_tuned
from medvlm_probe.zero_shot.text_embeddings import LabelDirections, label_directions

if TYPE_CHECKING:
    from torch import Tensor

    from medvlm_probe.models.contract import VisionLanguageModel

NONSENSE = ("Evidence of a purple bicycle.", "No purple bicycle.")
"""A text that no radiograph shows, and its absence: what a map for no finding at all looks like."""
NONSENSE_LABEL = "nonsense"


@dataclass(frozen=True, eq=False)
class Target:
    """Logits of labels.

    Attributes:
        name: what the logits come from, for tables.
        labels: L names, snake_case.
        logits: from embeddings as the model gives them, (N, D), to logits (N, L), larger for more likely present.
            Gradients flow through it.
        nonsense: the same for a label that means nothing, (N, D) to (N, 1); a control.
    """

    name: str
    labels: tuple[str, ...]
    logits: Callable[[Tensor], Tensor]
    nonsense: Callable[[Tensor], Tensor] | None = None

    def select(self, labels: Sequence[str]) -> Target:
        """Return the target of these labels alone, in this order.

        Raises:
            UnknownNameError: a label that it does not have.
        """
        for label in labels:
            if label not in self.labels:
                raise unknown_name("label", label, self.labels)
        columns, all_logits = [self.labels.index(label) for label in labels], self.logits
        return replace(self, labels=tuple(labels), logits=lambda embeddings: all_logits(embeddings)[:, columns])

    def nonsense_target(self) -> Target:
        """Return the control as a target of its own.

        Raises:
            ModelError: this target has none.
        """
        if self.nonsense is None:
            raise ModelError(f"The target '{self.name}' has no nonsense label. Give `Target` its `nonsense` logits.")
        return Target(f"{self.name}, nonsense", (NONSENSE_LABEL,), self.nonsense)


def prompt_target(
    model: VisionLanguageModel,
    prompts: PromptSet,
    *,
    logit_scale: float | None = None,
    cache_dir: Path | None = None,
) -> Target:
    """Return logits as `zero_shot.scores` computes them: scale x (cosine to positive - cosine to negative prompts).

    A set without negative prompts gives scale x cosine to the positive ones. Tuned prompts take the context vectors
    that they were tuned with, and so does their nonsense label.

    Args:
        model: encodes the prompts.
        prompts: of the labels wanted.
        logit_scale: the multiplier of cosines; None takes the one that the prompts were tuned at, else the model's.
        cache_dir: where text embeddings are kept; None for the usual place.

    Raises:
        InputError: some labels have negative prompts and others have none.
        ModelError: a prompt is too long for the model, or was tuned for another one.
    """
    tuned = prompts.tuned
    own = model.logit_scale if tuned is None else tuned.logit_scale
    scale = own if logit_scale is None else logit_scale
    directions = label_directions(model, prompts, cache_dir=cache_dir)
    nonsense = label_directions(model, _nonsense_prompts(prompts), cache_dir=cache_dir)
    return Target(prompts.name, directions.labels, _cosines(directions, scale), _cosines(nonsense, scale))


def head_target(head: LinearHead, model: VisionLanguageModel | None = None) -> Target:
    """Return the logits of a linear probe, or of a fine-tuned model's head (give the fine-tuned model with it).

    Its nonsense label is a random direction, seeded, as long as the head's weights are on average.

    Args:
        head: see `tuning.heads`.
        model: the one whose embeddings it will get; None checks nothing.

    Raises:
        ModelError: the head is for another model's embeddings.
    """
    if model is not None and head.model_fingerprint not in ("", model.fingerprint):
        raise ModelError(
            f"This head was fitted on embeddings of another model ({head.model_fingerprint[:12]}...) than {model.name} "
            f"({model.fingerprint[:12]}...). Give the model that it belongs to."
        )
    direction = np.random.default_rng(0).standard_normal(head.weight.shape[1])
    length = np.linalg.norm(head.weight, axis=1).mean() / np.linalg.norm(direction)
    nonsense = replace(head, labels=(NONSENSE_LABEL,), weight=(direction * length)[None], bias=np.zeros(1))
    return Target(head.kind, head.labels, _linear(head), _linear(nonsense))


def _nonsense_prompts(prompts: PromptSet) -> PromptSet:
    """Return the nonsense label in a prompt set's own form: with negatives where it has them, tuned where it is."""
    present, absent = NONSENSE
    tuned = prompts.tuned
    if tuned is None:
        texts = LabelPrompts((present,), (absent,) if prompts.has_negatives else ())
        return replace(prompts, labels={NONSENSE_LABEL: texts})
    n_labels = len(tuned.labels)
    return prompts_of_tuned(
        replace(
            tuned,
            labels=(NONSENSE_LABEL,),
            positive=(present,),
            negative=(absent,) if tuned.negative else (),
            context_of=tuned.context_of[:1] + tuned.context_of[n_labels : n_labels + 1],
        )
    )


def _cosines(directions: LabelDirections, scale: float) -> Callable[[Tensor], Tensor]:
    positive, negative = directions.positive, directions.negative
    weight = scale * (positive.astype(np.float64) - (0 if negative is None else negative))

    def logits(embeddings: Tensor) -> Tensor:
        import torch

        units = torch.nn.functional.normalize(embeddings, dim=1)
        return units @ torch.from_numpy(weight).to(units).T

    return logits


def _linear(head: LinearHead) -> Callable[[Tensor], Tensor]:
    def logits(embeddings: Tensor) -> Tensor:
        import torch

        vectors = torch.nn.functional.normalize(embeddings, dim=1) if head.space == "l2" else embeddings
        weight, bias = (torch.from_numpy(np.asarray(part, dtype=np.float64)) for part in (head.weight, head.bias))
        return vectors @ weight.to(vectors).T + bias.to(vectors)

    return logits
