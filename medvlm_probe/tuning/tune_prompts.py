"""From few-shot sets to tuned prompts on disk: trainings in blocks, each written when it is done, and resumed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvlm_probe.errors import InputError, ModelError
from medvlm_probe.runs import sha256_json
from medvlm_probe.tuning.prompt_tuning import EmbeddedViews, Schedule, Trained, Training, blocks, train_prompts
from medvlm_probe.zero_shot.tuned_prompts import FACTS_FILE, TunedPrompts, read_tuned_prompts, write_tuned_prompts

if TYPE_CHECKING:
    from torch import Tensor

    from medvlm_probe.tuning.prompt_learner import PromptLearner
    from medvlm_probe.tuning.views import Views

FORMAT = "prompt tuning/v1"
"""Version of how settings become context vectors; part of every result's key."""

_CARD = """\
# Prompts tuned for {model}

A research artefact, made by `medvlm-probe tune`. Not a medical device: do not use it on or for patients.

| | |
| --- | --- |
| model | {model}, fingerprint `{fingerprint}`: these vectors mean nothing to another |
| labels | {labels} |
| context | {n_context} vectors of {width} numbers, {n_contexts} of them; the name at the {place} |
| loss | `{loss}` at logit scale {scale:g} |
| trained on | {n_labels} labels of {n_images} images: {shots} a class, seed {seed}, cohort `{cohort}` |
| views | {views} |
| steps | {steps}, epoch {kept} of {epochs} kept |

Use: `--prompts tuned:FOLDER` with this folder. The sha256 of the training images stand in `prompts.json`: results on
them say so. The licence and consent of these images bind the vectors too.
"""


@dataclass(frozen=True, eq=False)
class Material:
    """What trainings of one task share.

    Attributes:
        learner: the prompts.
        labels: of the task, in the order of the learner's texts.
        images: unit embeddings of every few-shot image.
        keys: content keys of the cohort's rows.
        views: what `images` are views of.
        schedule: of the optimiser.
        logit_scale: the multiplier of cosines in training and in use.
        zero_shot: untuned unit text features, for losses that need them.
        facts: what else decides a result (reading recipe, precision) or should be known (cohort), for JSON.
    """

    learner: PromptLearner
    labels: tuple[str, ...]
    images: EmbeddedViews
    keys: Sequence[str]
    views: Views
    schedule: Schedule
    logit_scale: float
    zero_shot: Tensor | None
    facts: Mapping[str, Any]

    def key(self, training: Training, block: Sequence[Training]) -> str:
        """Return the sha256 over everything that decides a training's result, to the bit on one machine."""
        learner = self.learner
        return sha256_json(
            {
                "format": FORMAT,
                "model": learner.model.fingerprint,
                "texts": [learner.positive, learner.negative],
                "context_of": learner.context_of,
                "n_context": learner.tokens.n_context,
                "words": None if learner.beginning is None else learner.beginning.flatten().tolist(),
                "place": learner.place,
                "legacy": learner.legacy,
                "views": asdict(self.views),
                "schedule": asdict(self.schedule),
                "logit_scale": self.logit_scale,
                "facts": dict(self.facts),
                "loss": str(training.loss),
                "seed": training.seed,
                "few_shot": training.few_shot.fingerprint(self.keys),
                "beside": [[str(other.loss), other.seed] for other in block],
            }
        )


def tune_prompts(material: Material, trainings: Mapping[str, Training], folder: Path | None) -> dict[str, TunedPrompts]:
    """Return tuned prompts by the trainings' names, in their order.

    A block of trainings whose prompts all lie in the folder, made from this very configuration, is read; another is
    trained and written, whole files at a time. Killed at any moment, a rerun ends with the same bytes.

    Args:
        material: what they share.
        trainings: by name, which names a subfolder.
        folder: where prompts lie; None keeps nothing.

    Raises:
        InputError: a folder that holds prompts of another configuration, or a loss that is no longer finite.
        StoreError: the folder cannot be written.
    """
    found: dict[str, TunedPrompts] = {}
    names = iter(trainings)
    for block in blocks(material.learner, list(trainings.values()), material.schedule):
        of_block = [next(names) for _ in block]
        keys = [material.key(training, block) for training in block]
        standing = [_standing(folder, name, key) for name, key in zip(of_block, keys, strict=True)]
        if all(prompts is not None for prompts in standing):
            found |= {name: prompts for name, prompts in zip(of_block, standing, strict=True) if prompts is not None}
            continue
        trained = train_prompts(
            material.learner,
            block,
            material.images,
            material.schedule,
            logit_scale=material.logit_scale,
            zero_shot=material.zero_shot,
        )
        for name, key, training, result in zip(of_block, keys, block, trained, strict=True):
            found[name] = _tuned(material, training, result, key)
            if folder is not None:
                write_tuned_prompts(folder / name, found[name], card_of(found[name]))
    return found


def card_of(tuned: TunedPrompts) -> str:
    """Return the card of tuned prompts, Markdown."""
    about = tuned.about
    return _CARD.format(
        model=tuned.model_name,
        fingerprint=tuned.model_fingerprint,
        labels=", ".join(f"`{label}`" for label in tuned.labels),
        n_contexts=f"{len(tuned.context)} set{'s' if len(tuned.context) > 1 else ''}",
        n_context=tuned.context.shape[1],
        width=tuned.context.shape[2],
        place=tuned.place,
        loss=about["loss"],
        scale=tuned.logit_scale,
        n_labels=about["labels_used"],
        n_images=len(about["training_images"]),
        shots=about["shots"],
        seed=about["seed"],
        cohort=about["facts"].get("cohort", "not stated"),
        views=about["views"],
        steps=about["steps"],
        kept=about["kept_epoch"],
        epochs=about["schedule"]["epochs"],
    )


def _standing(folder: Path | None, name: str, key: str) -> TunedPrompts | None:
    """Return the prompts of this very training, where they lie in the folder already and are whole."""
    if folder is None or not (folder / name / FACTS_FILE).is_file():
        return None
    try:
        found = read_tuned_prompts(folder / name)
    except ModelError:
        return None
    if found.about.get("config_sha256") != key:
        raise InputError(
            f"{folder / name} holds prompts tuned with other settings or images. Give another folder to --out, or "
            "remove it."
        )
    return found


def _tuned(material: Material, training: Training, trained: Trained, key: str) -> TunedPrompts:
    learner, few_shot = material.learner, training.few_shot
    about = {
        "config_sha256": key,
        "loss": str(training.loss),
        "shots": few_shot.shots,
        "validation_shots": few_shot.validation_shots,
        "seed": training.seed,
        "labels_used": few_shot.n_labels_used,
        "short_of_images": few_shot.short,
        "parameters": trained.context.size,
        "views": material.views.words,
        "schedule": asdict(material.schedule),
        "steps": trained.n_steps,
        "kept_epoch": trained.kept_epoch,
        "losses": list(trained.losses),
        "validation": list(trained.validation),
        "few_shot_sha256": few_shot.fingerprint(material.keys),
        "facts": dict(material.facts),
        "training_images": sorted({material.keys[row] for row in few_shot.rows.tolist()}),
    }
    return TunedPrompts(
        labels=material.labels,
        positive=learner.positive,
        negative=learner.negative,
        context=trained.context,
        context_of=learner.context_of,
        place=learner.place,
        model_name=learner.model.name,
        model_fingerprint=learner.model.fingerprint,
        logit_scale=material.logit_scale,
        legacy=learner.legacy,
        about=about,
    )
