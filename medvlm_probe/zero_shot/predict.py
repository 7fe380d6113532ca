"""Zero-shot scores of a cohort's embeddings: which prompts, which kind of score, then `prompt_scores`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.cohort.cohort import Cohort, resolve_labels
from medvlm_probe.errors import InputError, unknown_name
from medvlm_probe.models.contract import VisionLanguageModel
from medvlm_probe.types import Scores
from medvlm_probe.zero_shot.prompts import PromptSet, load_prompts, prompts_of_names
from medvlm_probe.zero_shot.scores import SCORE_KINDS, prompt_scores
from medvlm_probe.zero_shot.text_embeddings import embed_texts, label_directions

NAMES = "names"


@dataclass(frozen=True)
class Task:
    """Which labels are scored by which prompts, as which kind of score.

    Attributes:
        prompts: of exactly the labels scored, in their order.
        kind: of `scores.SCORE_KINDS`.
        left_out: labels of the cohort that have no prompts.
    """

    prompts: PromptSet
    kind: str
    left_out: tuple[str, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels scored."""
        return tuple(self.prompts.labels)


def resolve_task(cohort: Cohort, prompts: str, labels: Sequence[str] | None, kind: str | None) -> Task:
    """Return what is scored on a cohort.

    Args:
        cohort: its labels are scored where the set has prompts for them.
        prompts: a shipped set, a TOML file, `tuned:FOLDER`, or `names`: the data card's own names.
        labels: those that must be scored; None takes all that can be.
        kind: None takes softmax where exactly one label is right an image, else logit, else (no negatives) cosine.

    Raises:
        InputError: a label that must be scored has no prompts, or none has.
        UnknownNameError: no such set, label or kind.
    """
    if kind is not None and kind not in SCORE_KINDS:
        raise unknown_name("score", kind, SCORE_KINDS)
    wanted = resolve_labels(cohort, labels)
    if not wanted:
        raise InputError(f"Cohort '{cohort.name}' has no labels to score. Add a column of 1 and 0 for each label.")
    words = {label: cohort.card.words(label) for label in wanted}
    templates = (cohort.card.prompt_template or "{}",)
    given = prompts_of_names(words, templates) if prompts == NAMES else load_prompts(prompts)
    known = wanted if labels else tuple(label for label in wanted if label in given.labels)
    if not known:
        raise InputError(
            f"Prompt set '{given.name}' has prompts for none of the cohort's labels ({', '.join(wanted[:5])}). "
            "Take --prompts names, or a file of your own."
        )
    chosen = given.select(known)
    default = "logit" if chosen.has_negatives else "cosine"
    if cohort.card.task == "single_label":
        default = "softmax"
    return Task(chosen, kind or default, tuple(label for label in wanted if label not in known))


def zero_shot_scores(
    vectors: NDArray[np.floating],
    cohort: Cohort,
    model: VisionLanguageModel,
    task: Task,
    *,
    logit_scale: float | None = None,
    cache_dir: Path | None = None,
) -> Scores:
    """Return the scores of embedded images.

    Args:
        vectors: image embeddings before normalisation, (n, D), in the order of the cohort.
        cohort: names the rows.
        model: encodes the prompts.
        task: see `resolve_task`.
        logit_scale: the multiplier of cosines; None takes the one that the prompts were tuned at, else the model's.
        cache_dir: where text embeddings are kept; None for the usual place.
    """
    directions = label_directions(model, task.prompts, cache_dir=cache_dir)
    tuned = task.prompts.tuned
    own = model.logit_scale if tuned is None else tuned.logit_scale
    return prompt_scores(
        vectors,
        directions,
        kind=task.kind,
        logit_scale=own if logit_scale is None else logit_scale,
        ids=cohort.table["image"].astype(str).tolist(),
    )


def legacy_products(
    vectors: NDArray[np.floating],
    model: VisionLanguageModel,
    words: Mapping[str, str],
    *,
    cache_dir: Path | None = None,
) -> NDArray[np.float64]:
    """Return the study's scores, (n, L): raw products of image embeddings and those of each label's first bare prompt.

    Neither is normalised, and no logit scale is used (Sadman, Zulkernine and Kwan 2025).
    """
    texts = embed_texts(model, list(words.values()), cache_dir=cache_dir)
    return np.asarray(vectors, dtype=np.float64) @ np.asarray(texts, dtype=np.float64).T
