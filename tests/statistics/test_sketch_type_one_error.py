"""The test from two sketches keeps its level, finds a shift, and its interval holds the truth.

The full size is `analyses/sketch_type_one_error.py`.
"""

from __future__ import annotations

import numpy as np
from scipy import stats
from shift_simulation import Design
from sketch_simulation import label_shift_from_sketches, sketch_p_values


def test_the_level_and_power() -> None:
    rng = np.random.default_rng(0)
    p, held = sketch_p_values(Design(260, 240, dimensions=8), 60, rng, n_features=64)
    low, high = stats.binom.ppf([0.0005, 0.9995], len(p), 0.05)
    assert low <= (p <= 0.05).sum() <= high
    assert stats.kstest(p, "uniform").pvalue > 0.001
    assert held >= 0.87
    found, _ = sketch_p_values(Design(260, 240, dimensions=8, mean=0.8), 10, rng, n_features=64)
    assert (found <= 0.05).mean() > 0.8


def test_frequencies_of_findings_are_as_sure_as_from_images() -> None:
    found = label_shift_from_sketches(300, 300, (0.2, 0.4), 1.5, 30, np.random.default_rng(0))
    for rows in found.values():
        p, em, bbse = rows.T
        assert (p <= 0.05).sum() <= stats.binom.ppf(0.9995, len(p), 0.05)
        assert min(em.mean(), bbse.mean()) >= 0.8
    # Cells of a working sketch are so narrow that the test hardly differs.
    assert np.corrcoef(found["images"][:, 0], found["working"][:, 0])[0, 1] > 0.9
