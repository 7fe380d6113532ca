"""Intervals of class_distances that call themselves reliable cover the truth; three positives claim nothing."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from separability_simulation import DESIGNS, FLAT, QUANTITIES, Design, simulate

CLAIM = 0.92
"""An interval that calls itself reliable covers at least this share, nominal being .95."""


@pytest.mark.slow
@pytest.mark.parametrize("design", [d for d in DESIGNS if d.positives > 3] + FLAT[::4], ids=str)
def test_intervals_cover_where_they_claim_to(design: Design) -> None:
    result = simulate(design, 100 if design.positives == 200 else 200)
    claimed = result.reliable.sum(axis=0)
    covered = (result.covered & result.reliable).sum(axis=0)
    for name, n_claimed, n_covered in zip(QUANTITIES, claimed, covered, strict=True):
        assert stats.binom.cdf(n_covered, n_claimed, CLAIM) >= 0.001, f"{name}: {n_covered} of {n_claimed} cover"


@pytest.mark.parametrize("design", [d for d in DESIGNS if d.positives == 3], ids=str)
def test_three_positives_claim_nothing(design: Design) -> None:
    result = simulate(design, 40)
    claims = dict(zip(QUANTITIES, result.reliable.mean(axis=0), strict=True))
    assert claims.pop("intra_negative") == 1
    assert not np.any(list(claims.values()))
