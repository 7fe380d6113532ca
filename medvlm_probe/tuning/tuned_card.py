"""The model card of a fine-tuned model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medvlm_probe.models.training_data import TrainingData
    from medvlm_probe.tuning.material import FineTuned

_TEXT = """\
---
license: {licence}
---
# {name}

A research artefact, made by `medvlm-probe fine-tune`. Not a medical device: do not use it on or for patients.

| | |
| --- | --- |
| base | {base}, licence of its weights: {licence} |
| trained | {n_trained:,} numbers of the image tower ({n_frozen:,} left alone), a linear head for {n_labels} labels |
| text tower | as in the base; the image tower has moved, so **scores by text prompts mean little** |
| head | `head.json`, `head.safetensors`: logits from {space} embeddings |
| precision | {precision} products, float32 weights |

## Trained on

{trained_on}

This training: cohort `{cohort}`, split `{train_from}` ({n_train:,} images), stopped by `{validation_from}` \
({n_validation:,} images). Their sha256 are listed beside, so that results on them say "seen in training". The licence \
and consent of these images bind this model too.

## Settings

{settings}

## On the images that decided when to stop

Epoch {best_epoch} was the best and is the one here{unchanged}. These images chose it, so a held-out number is lower.

| epoch | training loss | validation loss | mean AUROC |
| --- | --- | --- | --- |
{epochs}

Labels: {labels}.
"""


@dataclass(frozen=True)
class CardFacts:
    """What a card says besides the training; `roles` as `Roles.to_json` gives them."""

    name: str
    base: str
    licence: str
    cohort: str
    roles: Mapping[str, Any]
    trained_on: Sequence[TrainingData]


def tuned_card(tuned: FineTuned, facts: CardFacts) -> str:
    """Return the card, Markdown."""
    about = tuned.head.about
    rows = [
        " | ".join(("", str(log.epoch), *map(_number, (log.train_loss, log.validation_loss, log.validation_auroc)), ""))
        for log in tuned.history
    ]
    return _TEXT.format(
        name=facts.name,
        base=facts.base,
        licence=facts.licence,
        n_trained=tuned.n_trained,
        n_frozen=tuned.n_frozen,
        n_labels=len(tuned.head.labels),
        space={"l2": "L2-normalised", "raw": "raw"}[tuned.head.space],
        precision=tuned.precision,
        trained_on="\n".join(f"- {_words(data)}" for data in facts.trained_on),
        cohort=facts.cohort,
        train_from=facts.roles["train_from"],
        validation_from=facts.roles["validation_from"],
        n_train=about["n_train"],
        n_validation=about["n_validation"],
        settings="\n".join(f"- {name.replace('_', ' ')}: {value}" for name, value in about["settings"].items()),
        best_epoch=tuned.best_epoch,
        unchanged=", before any training: nothing made it better" if tuned.best_epoch == 0 else "",
        epochs="\n".join(row.strip() for row in rows),
        labels=", ".join(tuned.head.labels),
    )


def _number(value: float) -> str:
    return f"{value:.4f}" if value == value else "–"


def _words(data: TrainingData) -> str:
    details = ", ".join([*data.sites, *data.splits])
    return f"{data.dataset}{f' ({details})' if details else ''}. {data.note}".strip()
