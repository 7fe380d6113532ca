"""Two-sample tests keep their level on patients of several images, and effects' intervals hold the truth.

The full size, with power, is `analyses/shift_type_one_error.py`.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from shift_simulation import Design, FromPools, covered, effect_coverage, fact_coverage, fact_results, p_values

from medvlm_probe.shift import shift_tests


def keeps_level(p: np.ndarray, level: float = 0.05) -> bool:
    """Whether the share below the level is what a test of this level shows, but for once in a thousand runs."""
    low, high = stats.binom.ppf([0.0005, 0.9995], len(p), level)
    return bool(low <= (p <= level).sum() <= high)


@pytest.mark.slow
def test_every_test_keeps_its_level() -> None:
    rng = np.random.default_rng(0)
    cheap = p_values(Design(), ("mmd", "energy"), 400, rng, n_permutations=99)
    others = p_values(Design(), ("classifier", "frechet", "directions"), 100, rng, n_permutations=99)
    for column in (*cheap.T, *others.T):
        assert keeps_level(column)
        assert stats.kstest(column, "uniform").pvalue > 0.001


def test_counting_images_as_patients_does_not_keep_it() -> None:
    rng = np.random.default_rng(0)
    design = Design(correlation=0.9)
    rejected = 0
    for _ in range(60):
        reference, site, *_ = design.draw(rng)
        report = shift_tests.test_shift(reference, site, tests=("energy",), n_permutations=99, rng=rng)
        rejected += report.tests[0].p_value <= 0.05
    assert rejected >= 15


def test_a_shift_is_found_more_often_the_larger_it_is() -> None:
    rng = np.random.default_rng(0)
    small, large = (p_values(Design(mean=m), ("mmd", "energy"), 40, rng, n_permutations=99) <= 0.05 for m in (0.5, 1.5))
    assert (large.mean(axis=0) > 0.9).all()
    assert (small.mean(axis=0) < large.mean(axis=0)).all()


@pytest.mark.slow
@pytest.mark.parametrize("mean", [0.0, 1.0])
def test_effects_hold_the_truth(mean: float) -> None:
    found = effect_coverage(Design(decay=0.0, mean=mean), 60, np.random.default_rng(0))
    assert {name: share for name, c in found.items() if (share := c.share) < 0.87} == {}


def test_facts_keep_their_level_and_hold_the_truth() -> None:
    rng = np.random.default_rng(0)
    null = np.array([[test.p_value for test in pair] for pair in fact_results(0.0, 150, rng)])
    assert all(keeps_level(column) for column in null.T)
    assert {name: share for name, c in fact_coverage(1.0, 60, rng).items() if (share := c.share) < 0.87} == {}


def test_coverage_counts_what_is_inside() -> None:
    from medvlm_probe.types import Estimate

    estimates = [Estimate(0.0, low, low + 1, 1, 1, "") for low in (-0.5, 0.5, -2.0)]
    assert covered(estimates, 0.0).share == pytest.approx(1 / 3)


def test_patients_of_pools_are_drawn_whole_and_once(rng: np.random.Generator) -> None:
    vectors, groups = rng.standard_normal((300, 4)), np.sort(rng.integers(0, 120, 300))
    design = FromPools((vectors, groups), (vectors + 50, groups), reference=40, site=30, share=0.2)
    reference, site, own, other = design.draw(rng)
    assert (len(np.unique(own)), len(np.unique(other))) == (40, 30)
    assert not set(own) & set(other)
    away = site.mean(axis=1) > 25
    assert len(np.unique(other[away])) == 6
    assert len(reference) == np.isin(groups, own).sum()
    assert away.sum() == np.isin(groups, other[away] - groups.max() - 1).sum()
