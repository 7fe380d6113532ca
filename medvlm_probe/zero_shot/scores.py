"""From image embeddings and label directions to scores of a declared kind."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.errors import InputError, unknown_name
from medvlm_probe.types import ScoreKind, Scores
from medvlm_probe.zero_shot.text_embeddings import LabelDirections, unit_rows

SCORE_KINDS: dict[str, str] = {
    "cosine": "cosine between the image and the label's positive prompts, -1 to 1",
    "logit": "logit scale x (cosine to the positive prompts - cosine to the negative ones)",
    "probability": "the logit's logistic function: the softmax over a label's positive and negative prompts",
    "softmax": "softmax over the labels' positive prompts at the logit scale: exactly one label an image",
}
"""The scores that prompts give; all larger where the label is more likely."""


def prompt_scores(
    vectors: NDArray[np.floating], directions: LabelDirections, *, kind: str, logit_scale: float, ids: Sequence[str]
) -> Scores:
    """Return each image's score for each label.

    Args:
        vectors: image embeddings before normalisation, (n, D).
        directions: of L labels.
        kind: of `SCORE_KINDS`.
        logit_scale: the model's own multiplier of cosines.
        ids: what each row is called, n of them.

    Raises:
        UnknownNameError: another kind.
        InputError: logits or probabilities without negative prompts, or an image embedding that is zero.
    """
    if kind not in SCORE_KINDS:
        raise unknown_name("score", kind, SCORE_KINDS)
    units = unit_rows(vectors)
    cosines = (units @ directions.positive.T).astype(np.float64)
    declared: ScoreKind = "cosine"
    values = cosines
    if kind in ("logit", "probability"):
        if directions.negative is None:
            raise InputError(
                f"A {kind} needs negative prompts, which this prompt set lacks. Take --score cosine, or another set."
            )
        values = logit_scale * (cosines - (units @ directions.negative.T).astype(np.float64))
        declared = "logit"
        if kind == "probability":
            values, declared = logistic(values), "probability"
    elif kind == "softmax":
        values, declared = softmax(logit_scale * cosines), "probability"
    return Scores(values=values, kind=declared, labels=directions.labels, ids=tuple(ids))


def logistic(x: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return 1 / (1 + exp(-x)), exact for large |x|."""
    from scipy.special import expit

    return np.asarray(expit(np.asarray(x, dtype=np.float64)))


def softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the softmax over the last axis."""
    from scipy.special import softmax as scipy_softmax

    return np.asarray(scipy_softmax(np.asarray(logits, dtype=np.float64), axis=-1))
