"""The two-way bootstrap's intervals cover, in a small version of `analyses/two_way_coverage.py`."""

from __future__ import annotations

import numpy as np
import pytest
from two_way_simulation import METRICS, Design, covered, truths


@pytest.fixture(scope="module")
def truth() -> dict[str, float]:
    return truths(size=4_000, draws=400)


def test_paired_differences_cover_over_draws_and_patients(truth: dict[str, float]) -> None:
    runs = [covered(Design(8, 60), truth, seed, n_resamples=200) for seed in range(60)]
    for metric in METRICS:
        assert np.mean([run[metric]["covers"] for run in runs]) >= 0.87, metric
