"""Estimates without labels hold the truth while nothing or only prevalence moved, and do not where scores moved.

The full size is `analyses/label_free_coverage.py`; that of prevalence `analyses/label_shift_coverage.py`.
"""

from __future__ import annotations

import numpy as np
import pytest
from label_free_simulation import Population, one_run

N = 4000


def population(rng: np.random.Generator, *, move: float = 0.0, separation: float = 1.5) -> Population:
    """Normal scores, higher by `separation` with the finding, which 30 % have; all higher by `move`."""
    label = (rng.random(N) < 0.3).astype(float)
    return Population.of(label, rng.standard_normal(N) + separation * (label - 0.5) + move, np.arange(N))


def held(reference: Population, site: Population, rng: np.random.Generator, runs: int = 25) -> dict[str, float]:
    """Return how often each method's interval holds the site's accuracy."""
    found: dict[str, list[bool]] = {}
    for _ in range(runs):
        for one in one_run(reference, site, (250, 150), rng):
            if one.metric == "accuracy":
                found.setdefault(one.method, []).append(one.held)
    return {method: float(np.mean(values)) for method, values in found.items()}


def test_where_assumptions_hold_so_do_intervals() -> None:
    rng = np.random.default_rng(0)
    reference = population(rng)
    assert min(held(reference, reference, rng).values()) >= 0.8
    assert held(reference, reference.at(0.6), rng)["label_shift"] >= 0.8


def test_where_scores_moved_they_do_not() -> None:
    rng = np.random.default_rng(0)
    found = held(population(rng), population(rng, move=1.0), rng)
    assert found["average_confidence"] < 0.5
    assert found["difference_of_confidences"] < 0.5


def test_a_population_knows_its_truth(rng: np.random.Generator) -> None:
    patients = np.repeat(np.arange(N // 2), 2)
    label = (rng.random(N // 2) < 0.3).astype(float)[patients]
    scores = rng.standard_normal(N) + label
    whole = Population.of(label, scores, patients)
    called = scores >= 0.4
    truth = whole.truth(0.4, np.full(N, 0.5))
    assert truth["accuracy"] == pytest.approx((called == label).mean())
    assert truth["precision"] == pytest.approx(label[called].mean())
    moved = whole.at(0.5).truth(0.4, np.full(N, 0.5))
    assert moved["recall"] == pytest.approx(truth["recall"])
    assert moved["accuracy"] == pytest.approx((truth["recall"] + truth["specificity"]) / 2)
    drawn_labels, drawn, groups = whole.draw(300, rng)
    assert len(drawn) == 600
    assert (np.bincount(groups) == 2).all()
    assert (drawn_labels[::2] == drawn_labels[1::2]).all()
    assert whole.at(0.5).draw(2000, rng)[0].mean() == pytest.approx(0.5, abs=0.05)
