"""The three settings of the radiology study on one cohort: zero-shot, linear probe, fine-tuned, all judged alike."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.cohort.cohort import Cohort
from medvlm_probe.embeddings.extract import embed
from medvlm_probe.models.contract import VisionLanguageModel
from medvlm_probe.tuning.fine_tune import fine_tune
from medvlm_probe.tuning.fine_tune_settings import FineTuneSettings
from medvlm_probe.tuning.legacy_probe import fit_legacy_probe
from medvlm_probe.tuning.linear_probe import fit_linear_probe
from medvlm_probe.tuning.material import Material
from medvlm_probe.types import BoolArray, Scores
from medvlm_probe.zero_shot.predict import legacy_products, resolve_task, zero_shot_scores
from medvlm_probe.zero_shot.prompts import load_prompts
from medvlm_probe.zero_shot.thresholds import Thresholds, choose_thresholds

ZERO_SHOT, LINEAR_PROBE, FINE_TUNED = "zero_shot", "linear_probe", "fine_tuned"
SETTING_WORDS = {ZERO_SHOT: "Zero-shot", LINEAR_PROBE: "Linear probe", FINE_TUNED: "Fine-tuned"}


@dataclass(frozen=True)
class Parts:
    """Masks over a cohort, (n,): images to fit on, to choose on (thresholds, when to stop), and to show results for."""

    train: BoolArray
    calib: BoolArray
    test: BoolArray

    @classmethod
    def of(cls, cohort: Cohort) -> Parts:
        """Return the parts of a cohort whose splits are called `train`, `calib` and `test`."""
        splits = cohort.splits()
        return cls(splits == "train", splits == "calib", splits == "test")


@dataclass(frozen=True, eq=False)
class Setting:
    """One way to use the model, on the images shown.

    Attributes:
        name: a key of `SETTING_WORDS`.
        vectors: image embeddings, (n, D).
        scores: by the corrected recipe, kind logit.
        thresholds: chosen on the part `calib`.
        legacy_scores: by the study's own recipe, (n, L).
        seconds: of fitting; embedding the images is not counted.
        note: what a reader should know.
    """

    name: str
    vectors: NDArray[np.floating]
    scores: Scores
    thresholds: Thresholds
    legacy_scores: NDArray[np.float64]
    seconds: float
    note: str = ""


def zero_shot_setting(
    vectors: NDArray[np.floating], cohort: Cohort, model: VisionLanguageModel, parts: Parts, prompts: str
) -> Setting:
    """Return the zero-shot setting: prompt logits, and the study's raw products with the bare names.

    Args:
        vectors: of all images of the cohort, before normalisation.
        cohort: with all three parts.
        model: encodes the prompts.
        parts: see there.
        prompts: a prompt set with negatives.
    """
    started = time.monotonic()
    task = resolve_task(cohort, prompts, None, "logit")
    scores = zero_shot_scores(vectors, cohort, model, task)
    bare = load_prompts("bare").select(task.labels)
    products = legacy_products(vectors[parts.test], model, {n: p.positive[0] for n, p in bare.labels.items()})
    seconds = time.monotonic() - started
    return Setting(
        ZERO_SHOT,
        vectors[parts.test],
        scores.rows(parts.test),
        _thresholds(scores, cohort, parts.calib),
        products,
        seconds,
        f"prompt set '{prompts}'; published definition: bare names, raw products",
    )


def linear_probe_setting(
    vectors: NDArray[np.floating],
    cohort: Cohort,
    model: VisionLanguageModel,
    parts: Parts,
    labels: tuple[str, ...],
    seed: int,
) -> Setting:
    """Return the linear probe: strengths cross-validated by patient, and the study's own ten epochs of AdamW."""
    targets, groups = cohort.targets(labels), cohort.groups()
    started = time.monotonic()
    probe = fit_linear_probe(
        vectors[parts.train],
        targets[parts.train],
        groups[parts.train],
        labels,
        seed=seed,
        model_fingerprint=model.fingerprint,
    )
    seconds = time.monotonic() - started
    legacy = fit_legacy_probe(
        vectors[parts.train], targets[parts.train], vectors[parts.calib], targets[parts.calib], labels, seed=42
    )
    scores = probe.head.scores(vectors, tuple(cohort.table["image"].astype(str)))
    return Setting(
        LINEAR_PROBE,
        vectors[parts.test],
        scores.rows(parts.test),
        _thresholds(scores, cohort, parts.calib),
        legacy.head.logits(vectors[parts.test]),
        seconds,
        "the same embeddings as zero-shot, so the same distances",
    )


def fine_tuned_setting(
    vectors: NDArray[np.floating],
    keys: tuple[str, ...],
    cohort: Cohort,
    model: VisionLanguageModel,
    parts: Parts,
    labels: tuple[str, ...],
    settings: FineTuneSettings,
    folder: Path,
) -> Setting:
    """Return the fine-tuned setting; checkpoints go to `folder`, from which a killed run goes on.

    Training stops by the part `calib`, on which the thresholds are chosen too; no image that is shown takes part.
    """
    started = time.monotonic()
    tuned = fine_tune(model, Material(cohort, keys, vectors, parts.train, parts.calib, labels), settings, folder)
    seconds = time.monotonic() - started
    # The tuned weights have no files yet, so what decides them stands for their fingerprint in the store.
    named = replace(tuned.model, fingerprint=tuned.config_sha256)  # type: ignore[type-var]
    judged = cohort.select(parts.calib | parts.test)
    moved = embed(judged, named, precision="float32").vectors
    calib, test = (mask[parts.calib | parts.test] for mask in (parts.calib, parts.test))
    scores = tuned.head.scores(moved, tuple(judged.table["image"].astype(str)))
    return Setting(
        FINE_TUNED,
        moved[test],
        scores.rows(test),
        _thresholds(scores, judged, calib),
        np.asarray(scores.values[test], dtype=np.float64),
        seconds,
        f"{len(tuned.history) - 1} epochs, the best is epoch {tuned.best_epoch}; {tuned.n_trained:,} weights trained",
    )


def _thresholds(scores: Scores, cohort: Cohort, calib: BoolArray) -> Thresholds:
    targets = cohort.targets(scores.labels)[calib]
    return choose_thresholds(scores.rows(calib), targets, rule="youden", source="calib")


def prior_of(cohort: Cohort, labels: tuple[str, ...], rows: BoolArray) -> Mapping[str, float]:
    """Return the labels' frequencies among some rows."""
    from medvlm_probe.zero_shot.performance import label_frequencies

    return label_frequencies(cohort.select(rows), labels)
