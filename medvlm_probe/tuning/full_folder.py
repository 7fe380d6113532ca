"""A fully fine-tuned model as a folder that every command loads with `--model local:FOLDER`, written whole."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from medvlm_probe.errors import ModelError
from medvlm_probe.models.assemble import Piece, assemble
from medvlm_probe.runs import parse_json, sha256_json
from medvlm_probe.tuning.full_fine_tuning import FullSettings, FullyTuned, tune_fully
from medvlm_probe.tuning.tuned_folder import (
    CARD_FILE,
    Base,
    base_pieces,
    declaration,
    this_training,
    undeclared,
    weights_content,
)

if TYPE_CHECKING:
    from medvlm_probe.cohort.cohort import Cohort
    from medvlm_probe.models.contract import VisionLanguageModel
    from medvlm_probe.tuning.prompt_tuning import Training
    from medvlm_probe.zero_shot.prompts import PromptSet

FORMAT = "full fine-tuning/v1"
"""Version of how settings become weights; part of every result's key."""

FACTS_FILE = "full_fine_tuning.json"

_CARD = """\
---
license: {licence}
---
# {name}

A research artefact, made by `medvlm-probe tune --regime full`. Not a medical device: do not use it on or for patients.

| | |
| --- | --- |
| base | {base}, fingerprint `{fingerprint}`, licence of its weights: {licence} |
| trained | {n_trained:,} numbers: both towers, moved by {change:.2g} of their length |
| logit scale | {scale:g}, not trained |
| texts | the prompts below, as plain texts |
| labels | {labels} |
| loss | `{loss}`, {optimizer} at rate {rate:g} |
| trained on | {n_labels} labels of {n_images} images of split `{split}` of `{cohort}`: {shots} a class, seed {seed} |
| views | {views} |
| steps | {steps}, epoch {kept} of {epochs} kept |

The sha256 of the training images are listed beside, so that results on them say "seen in training". The licence and
consent of these images bind this model too. Texts other than those below have moved along, for better or worse.

## Texts

{texts}
"""


@dataclass(frozen=True, eq=False)
class FullMaterial:
    """What the trainings of one task share.

    Attributes:
        model, base: the model that they begin with, loaded, and its files.
        prompts: the labels' texts.
        cohort: images that can all be read; rows of few-shot sets are its.
        keys: content keys of the cohort's rows.
        train_from: the split that the sets were drawn from.
        settings: of the training.
    """

    model: VisionLanguageModel
    base: Base
    prompts: PromptSet
    cohort: Cohort
    keys: Sequence[str]
    train_from: str
    settings: FullSettings

    def key(self, training: Training) -> str:
        """Return the sha256 over everything that decides a training's result but device and threads."""
        return sha256_json(
            {
                "format": FORMAT,
                "model": self.model.fingerprint,
                "texts": self.texts,
                "recipe": self.cohort.source.recipe,
                "settings": self.settings.to_json(),
                "loss": str(training.loss),
                "seed": training.seed,
                "few_shot": training.few_shot.fingerprint(self.keys),
            }
        )

    @property
    def texts(self) -> dict[str, dict[str, list[str]]]:
        """Each label's texts, for JSON."""
        return {
            label: {"positive": list(entry.positive), "negative": list(entry.negative)}
            for label, entry in self.prompts.labels.items()
        }


def make_fully_tuned(
    folder: Path,
    material: FullMaterial,
    training: Training,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Return the facts of a fully tuned model that then lies in a folder; one that lies there already is taken.

    Killed before its end, a training begins anew.

    Args:
        folder: of this one model.
        material: what the trainings of a task share.
        training: the loss, the few-shot set and the seed.
        progress: told the steps done and all of them.

    Raises:
        ModelError: the folder holds something else, or the base cannot be trained or copied.
        InputError: as in `tune_fully`.
        StoreError: the folder cannot be written.
    """
    key = material.key(training)
    standing = _standing(folder, key)
    if standing is not None:
        return standing
    tuned = tune_fully(
        material.model, material.prompts, training, material.cohort, material.settings, progress=progress
    )
    facts = _facts(material, training, tuned, key)
    _write(folder, material, training, tuned, facts)
    return facts


def _standing(folder: Path, key: str) -> dict[str, Any] | None:
    """Return the facts of the model of this very training, where the folder holds it."""
    if not folder.exists():
        return None
    path = folder / FACTS_FILE
    facts: dict[str, Any] = parse_json(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if facts.get("config_sha256") != key:
        raise ModelError(
            f"{folder} holds something else than the model of this training (other settings or images). Give another "
            "folder to --out, or remove it."
        )
    return facts


def _facts(material: FullMaterial, training: Training, tuned: FullyTuned, key: str) -> dict[str, Any]:
    few_shot, settings = training.few_shot, material.settings
    scale = material.model.logit_scale if settings.logit_scale is None else settings.logit_scale
    return {
        "format": FORMAT,
        "config_sha256": key,
        "base": material.model.name,
        "base_fingerprint": material.model.fingerprint,
        "labels": list(material.prompts.labels),
        "texts": material.texts,
        "logit_scale": scale,
        "loss": str(training.loss),
        "settings": settings.to_json(),
        "shots": few_shot.shots,
        "validation_shots": few_shot.validation_shots,
        "seed": training.seed,
        "labels_used": few_shot.n_labels_used,
        "parameters": tuned.n_trained,
        "weight_change": tuned.weight_change,
        "steps": tuned.n_steps,
        "kept_epoch": tuned.kept_epoch,
        "losses": list(tuned.losses),
        "validation": list(tuned.validation),
        "few_shot_sha256": few_shot.fingerprint(material.keys),
        "cohort": material.cohort.name,
        "train_from": material.train_from,
        "training_images": sorted({material.keys[row] for row in few_shot.rows.tolist()}),
    }


def _write(
    folder: Path, material: FullMaterial, training: Training, tuned: FullyTuned, facts: Mapping[str, Any]
) -> None:
    base, cohort, few_shot = material.base, material.cohort, training.few_shot
    name = f"{base.located.name} fully fine-tuned on {cohort.name}, seed {training.seed}"
    with torch.no_grad():
        # A scale that was asked for becomes the model's own, so that its scores are those of the training.
        if material.settings.logit_scale is not None:
            tuned.model.module.logit_scale.fill_(math.log(facts["logit_scale"]))  # type: ignore[attr-defined]
    n_train, n_validation = (len({*_rows(problems)}) for problems in (few_shot.train, few_shot.validation))
    here = this_training(cohort, material.train_from, None, n_train, n_validation)
    trained_on = [*(base.trained_on or (undeclared(base),)), here]
    pieces = base_pieces(base.located, weights_content(tuned.model))
    pieces += declaration(trained_on, facts["training_images"])
    pieces.append(Piece(CARD_FILE, _card(name, base, facts).encode(), made_from="written"))
    content = json.dumps(dict(facts), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    pieces.append(Piece(FACTS_FILE, content.encode(), made_from="written"))
    assemble(pieces, folder, model=name, family=base.located.family, licence=base.licence)


def _rows(problems: Sequence[Any]) -> list[int]:
    return [row for problem in problems for row in problem.rows.tolist()]


def _card(name: str, base: Base, facts: Mapping[str, Any]) -> str:
    settings = facts["settings"]
    schedule, views = settings["schedule"], settings["views"]
    texts = [
        f"- `{label}`: {'; '.join(entry['positive'])}"
        + (f" / absent: {'; '.join(entry['negative'])}" if entry["negative"] else "")
        for label, entry in facts["texts"].items()
    ]
    return _CARD.format(
        name=name,
        base=base.located.name,
        licence=base.licence,
        fingerprint=facts["base_fingerprint"],
        n_trained=facts["parameters"],
        change=facts["weight_change"],
        scale=facts["logit_scale"],
        labels=", ".join(f"`{label}`" for label in facts["labels"]),
        loss=facts["loss"],
        optimizer=settings["optimizer"],
        rate=schedule["rate"],
        n_labels=facts["labels_used"],
        n_images=len(facts["training_images"]),
        shots=facts["shots"],
        seed=facts["seed"],
        cohort=facts["cohort"],
        split=facts["train_from"],
        views=f"{views['n_views']} {views['kind']}",
        steps=facts["steps"],
        kept=facts["kept_epoch"],
        epochs=schedule["epochs"],
        texts="\n".join(texts),
    )
