"""Do images look like children's: asked of the model's own text prompts, where no age is given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.models.contract import VisionLanguageModel
from medvlm_probe.types import FloatArray
from medvlm_probe.zero_shot.text_embeddings import embed_texts, unit_rows

CHILD = ("a chest X-ray of a child", "a pediatric chest radiograph", "a chest X-ray of an infant")
ADULT = ("a chest X-ray of an adult", "an adult chest radiograph", "a chest X-ray of an elderly person")


def child_scores(
    model: VisionLanguageModel, vectors: FloatArray, *, cache_dir: Path | None = None
) -> NDArray[np.float64]:
    """Return how much nearer each image lies to words for children than to words for adults, (n,).

    A hint, not a measurement: whether a model's words know children is not checked here. Only the comparison of two
    sides says something, and only where it is extreme.

    Args:
        model: encodes the words.
        vectors: image embeddings before normalisation, (n, D).
        cache_dir: where text embeddings are kept; None for the usual place.
    """
    texts = unit_rows(embed_texts(model, [*CHILD, *ADULT], cache_dir=cache_dir))
    cosines = (unit_rows(vectors) @ texts.T).astype(np.float64)
    return np.asarray(cosines[:, : len(CHILD)].mean(axis=1) - cosines[:, len(CHILD) :].mean(axis=1))
