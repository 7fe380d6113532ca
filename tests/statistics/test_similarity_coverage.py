"""Intervals of overlap, modality gap, clusters and separability rows cover the truth where they claim to."""

from __future__ import annotations

import pytest
from scipy import stats
from separability_simulation import Design
from similarity_simulation import DESIGNS, Coverage, simulate, simulate_rows

CLAIM = 0.92
"""An interval that calls itself reliable covers at least this share, nominal being .95."""


def _check(found: dict[str, Coverage]) -> None:
    for name, coverage in found.items():
        assert stats.binom.cdf(coverage.n_covered, coverage.n_claimed, CLAIM) >= 0.001, f"{name}: {coverage}"


@pytest.mark.slow
@pytest.mark.parametrize("design", DESIGNS[1::3], ids=str)
def test_similarity_covers(design: Design) -> None:
    _check(simulate(design, 100))


@pytest.mark.slow
@pytest.mark.parametrize("design", [DESIGNS[2], DESIGNS[15]], ids=str)
def test_separability_rows_cover(design: Design) -> None:
    _check(simulate_rows(design, 60))
