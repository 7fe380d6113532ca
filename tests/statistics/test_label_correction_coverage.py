"""Corrected prevalence, recall and specificity cover the truth, with labeler, model and patients all drawn anew."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from medvlm_probe.errors import InputError
from medvlm_probe.metrics.label_correction import (
    corrected_prevalence,
    corrected_recall,
    corrected_specificity,
    labeler_errors,
)
from medvlm_probe.types import Estimate

CLAIM = 0.92
PREVALENCE, RECALL, SPECIFICITY = 0.1, 0.8, 0.9


def patients(positives: int, size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Groups and presence: `positives` expected, images of one patient correlated at .5 on the latent scale."""
    n_groups = round(positives / PREVALENCE) // size
    groups = np.repeat(np.arange(n_groups), size)
    shared, own = rng.normal(size=n_groups)[groups], rng.normal(size=len(groups))
    latent = (shared + own) / np.sqrt(2) if size > 1 else own
    return groups, stats.norm.cdf(latent) < PREVALENCE


def seen(present: np.ndarray, sensitivity: float, specificity: float, rng: np.random.Generator) -> np.ndarray:
    return np.where(present, rng.random(len(present)) < sensitivity, rng.random(len(present)) >= specificity)


def simulate(positives: int, size: int, errors: tuple[float, float], n: int) -> dict[str, list[tuple[Estimate, float]]]:
    rng = np.random.default_rng(positives * 10 + size)
    found: dict[str, list[tuple[Estimate, float]]] = {"prevalence": [], "recall": [], "specificity": []}
    for _ in range(n):
        groups, present = patients(positives, size, rng)
        other_groups, other_present = patients(positives, size, rng)
        labelled, predicted = seen(present, *errors, rng), seen(present, RECALL, SPECIFICITY, rng)
        try:
            measured = labeler_errors(other_present, seen(other_present, *errors, rng), other_groups)
        except InputError:
            continue
        found["prevalence"].append((corrected_prevalence(labelled, groups, measured), PREVALENCE))
        found["recall"].append((corrected_recall(labelled, predicted, groups, measured).corrected, RECALL))
        found["specificity"].append(
            (corrected_specificity(labelled, predicted, groups, measured).corrected, SPECIFICITY)
        )
    return found


@pytest.mark.parametrize("errors", [(0.9, 0.97), (0.7, 0.99)], ids=["se .90 sp .97", "se .70 sp .99"])
@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("positives", [10, 50, 200])
def test_interval_covers_where_it_claims_to(positives: int, size: int, errors: tuple[float, float]) -> None:
    for name, estimates in simulate(positives, size, errors, 120).items():
        claimed = [(e.low <= truth <= e.high) for e, truth in estimates if e.reliable]
        assert stats.binom.cdf(sum(claimed), len(claimed), CLAIM) >= 0.001, f"{name}: {sum(claimed)} of {len(claimed)}"
