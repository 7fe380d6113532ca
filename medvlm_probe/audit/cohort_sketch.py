"""From a cohort's embeddings to its sketch: the plan, probabilities, outlier scores, and the patients' names."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medvlm_probe.audit.inputs import targets_of
from medvlm_probe.audit.sketch_shards import SketchRows, sketch_in_shards
from medvlm_probe.cohort.cohort import Cohort
from medvlm_probe.embeddings.engines import Engine, LocalEngine
from medvlm_probe.errors import InputError
from medvlm_probe.metrics.pairwise import points_of
from medvlm_probe.models.contract import VisionLanguageModel
from medvlm_probe.runs import sha256_json
from medvlm_probe.shift.mmd import median_bandwidth
from medvlm_probe.shift.outlier_scores import OutlierInputs, fit_outlier_score
from medvlm_probe.shift.random_features import N_FEATURES, RandomFeatures
from medvlm_probe.shift.sketch import Sketch
from medvlm_probe.shift.sketch_plan import SketchPlan
from medvlm_probe.types import Scores
from medvlm_probe.zero_shot.predict import Task, resolve_task, zero_shot_scores
from medvlm_probe.zero_shot.prompts import PromptSet, load_prompts
from medvlm_probe.zero_shot.scores import logistic

UNSCORED = "none"
_LOCAL = LocalEngine()


@dataclass(frozen=True, eq=False)
class CohortScores:
    """What a cohort's images score.

    Attributes:
        labels: of the columns; none where the model gives no probabilities.
        probabilities: (n, L).
        targets: 1, 0 or NaN, (n, L).
        outliers: outlier scores that need no fit, by name, (n,).
        prompts: what made them, in a few words that hold no name of a file.
    """

    labels: tuple[str, ...]
    probabilities: NDArray[np.float64]
    targets: NDArray[np.float64]
    outliers: dict[str, NDArray[np.float64]]
    prompts: str


def patient_names(cohort: Cohort, keys: Sequence[str]) -> list[str]:
    """Return a name for each image's patient: its id, else that of the study, else the image's content key."""
    names = pd.Series([f"image {key}" for key in keys], dtype=object)
    for kind in ("study", "patient"):
        if kind in cohort.table:
            ids = cohort.table[kind]
            names = names.mask(ids.notna(), f"{kind} " + ids.astype(object))
    return [str(name) for name in names]


def score_cohort(
    cohort: Cohort,
    vectors: NDArray[np.float32],
    model: VisionLanguageModel,
    prompts: str,
    labels: Sequence[str] | None = None,
) -> CohortScores:
    """Return probabilities and outlier scores of embedded images.

    Args:
        cohort: the usable images, in the order of `vectors`.
        vectors: before normalisation, (n, D).
        model: encodes the prompts.
        prompts: as `--prompts`; `none` scores nothing.
        labels: those to score, whether or not the cohort has them; None takes the cohort's, or all of the set's where
            it has none.

    Raises:
        InputError: labels without prompts.
    """
    n = len(vectors)
    if prompts == UNSCORED or (labels is not None and not labels):
        return CohortScores((), np.zeros((n, 0)), np.zeros((n, 0)), {}, "")
    task = task_of(cohort, prompts, labels)
    scores = zero_shot_scores(vectors, cohort, model, task)
    described = words_of_prompts(task)
    if scores.kind == "cosine":
        return CohortScores((), np.zeros((n, 0)), np.zeros((n, 0)), {}, described)
    return CohortScores(
        task.labels, _probabilities(scores), targets_of(cohort, task.labels), _outliers(scores), described
    )


def task_of(cohort: Cohort, prompts: str, labels: Sequence[str] | None) -> Task:
    """Return what is scored: the labels named, whether or not the cohort has them; see `score_cohort`."""
    single = cohort.card.task == "single_label"
    if labels is None and cohort.labels:
        return resolve_task(cohort, prompts, None, None)
    chosen = load_prompts(prompts)
    chosen = chosen.select(tuple(chosen.labels if labels is None else labels))
    return Task(chosen, "softmax" if single else "logit" if chosen.has_negatives else "cosine")


def words_of_prompts(task: Task) -> str:
    """Return what makes probabilities in a few words: equal for equal texts alone, without the name of a file."""
    return f"{task.kind}, {_digest(task.prompts)}"


def _digest(prompts: PromptSet) -> str:
    texts = {label: [list(found.positive), list(found.negative)] for label, found in prompts.labels.items()}
    context = "" if prompts.tuned is None else hashlib.sha256(prompts.tuned.context.tobytes()).hexdigest()
    return f"prompts {sha256_json([texts, context])[:16]}"


def _probabilities(scores: Scores) -> NDArray[np.float64]:
    return logistic(scores.values) if scores.kind == "logit" else np.asarray(scores.values, dtype=np.float64)


def _outliers(scores: Scores) -> dict[str, NDArray[np.float64]]:
    if scores.kind != "logit":
        return {"max_softmax": -np.asarray(scores.values, dtype=np.float64).max(axis=1)}
    inputs = OutlierInputs(logits=scores.values)
    return {"joint_energy": fit_outlier_score("joint_energy", inputs).scores(inputs)}


def own_plan(
    model: VisionLanguageModel,
    vectors: NDArray[np.float32],
    names: Sequence[str],
    scored: CohortScores,
    *,
    n_features: int = N_FEATURES,
    bandwidth: float | None = None,
) -> SketchPlan:
    """Return a plan made for these images: the bandwidth is the median distance, thresholds lie between both kinds.

    Args:
        model, vectors, scored: what is sketched.
        names: of the images' patients, (n,).
        n_features: F.
        bandwidth: None takes the median distance between patients, to three digits.
    """
    if bandwidth is None:
        groups = np.unique(np.asarray(names, dtype=str), return_inverse=True)[1]
        order = np.argsort(groups, kind="stable")
        median = median_bandwidth(points_of(vectors, "l2", order), groups[order], np.random.default_rng(0))
        bandwidth = float(f"{median:.3g}")
    return SketchPlan(
        features=RandomFeatures(vectors.shape[1], bandwidth, n_features),
        model=model.name,
        fingerprint=model.fingerprint,
        prompts=scored.prompts,
        labels=scored.labels,
        thresholds=tuple(_middle(p, y) for p, y in zip(scored.probabilities.T, scored.targets.T, strict=True)),
        outlier_scores=tuple(scored.outliers),
    )


def _middle(probabilities: NDArray[np.float64], targets: NDArray[np.float64]) -> float:
    """Return the middle of the mean log odds of positives and negatives as a probability; .5 where one is missing."""
    odds = np.log(np.clip(probabilities, 1e-9, 1)) - np.log(np.clip(1 - probabilities, 1e-9, 1))
    kinds = [odds[targets == value] for value in (1, 0)]
    if not all(len(kind) for kind in kinds):
        return 0.5
    return float(f"{logistic(np.array(sum(kind.mean() for kind in kinds) / 2)):.6g}")


def sketch_cohort(
    plan: SketchPlan,
    model: VisionLanguageModel,
    vectors: NDArray[np.float32],
    names: Sequence[str],
    scored: CohortScores,
    *,
    chosen_here: bool,
    engine: Engine = _LOCAL,
) -> Sketch:
    """Return the working sketch of a cohort.

    Args:
        plan: its own, or that of the sketch which it will be compared or merged with.
        model, vectors, names, scored: as `own_plan`.
        chosen_here: whether the plan's numbers come from these images.
        engine: sketches shards of patients, which are merged; every engine gives the same bytes.

    Raises:
        InputError: another model or other prompts than the plan's.
    """
    if (model.fingerprint, scored.prompts) != (plan.fingerprint, plan.prompts):
        what = "model" if model.fingerprint != plan.fingerprint else "prompts"
        raise InputError(
            f"The {what} given differ{'s' if what == 'model' else ''} from those of the sketch given with --like "
            f"({plan.model}). Name the same --model and --prompts."
        )
    rows = SketchRows(vectors, np.asarray(names, dtype=str), scored.probabilities, scored.targets, scored.outliers)
    return sketch_in_shards(plan, rows, engine, own_plan=chosen_here)
