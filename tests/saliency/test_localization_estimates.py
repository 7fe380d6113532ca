"""Means and differences of localisation measures: their values by hand, their edges, and what their intervals cover."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from medvlm_probe.errors import InputError
from medvlm_probe.metrics.proportions import proportion
from medvlm_probe.saliency.localization_estimates import (
    difference_between,
    difference_of_hits,
    localization_estimates,
    mean_of_hits,
    mean_of_shares,
    size_thirds,
)


def test_hits_without_ties_are_a_proportion() -> None:
    hits, groups = np.array([1.0, 0, 1, 1, 0, 1]), np.array([0, 0, 1, 2, 3, 4])
    assert mean_of_hits(hits, groups) == proportion(hits == 1, groups)
    tied = mean_of_hits(np.array([0.5, 0, 1, 1, 0, 1]), groups)
    assert tied.value == pytest.approx(3.5 / 6)
    assert 0 < tied.low < tied.value < tied.high < 1


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_intervals_have_width_where_every_image_agrees(value: float) -> None:
    values, groups = np.full(12, value), np.arange(12)
    for found in (mean_of_hits(values, groups), mean_of_shares(values, groups)):
        assert found.value == value
        assert found.high - found.low > 0.1
    apart = difference_of_hits(values, np.full(12, 0.2), groups)
    assert apart.value == pytest.approx(value - 0.2)
    assert apart.high - apart.low > 0.2


def test_one_image_that_decides_a_mean_leaves_an_interval_that_says_something() -> None:
    values = np.full(84, 1e-4)
    values[3] = 0.9
    found = localization_estimates(
        "relevance_mass", values, {"uniform": np.full(84, 0.02)}, np.zeros(84), np.arange(84)
    )
    assert 0 <= found.estimate.low < found.estimate.value < found.estimate.high < 0.15
    assert -0.15 < found.over_chance["uniform"].low < found.over_chance["uniform"].high < 0.15


def test_a_difference_of_paired_hits_is_newcombes() -> None:
    # 4 images found by both, 3 by the first alone, 1 by the second alone, 12 by neither.
    first = np.array([1.0] * 4 + [1] * 3 + [0] * 1 + [0] * 12)
    second = np.array([1.0] * 4 + [0] * 3 + [1] * 1 + [0] * 12)
    groups = np.arange(20)
    found = difference_of_hits(first, second, groups)
    a, b = proportion(first == 1, groups), proportion(second == 1, groups)
    phi = np.corrcoef(first, second)[0, 1]
    down, up = a.value - a.low, b.high - b.value
    assert found.value == pytest.approx(0.1)
    assert found.low == pytest.approx(0.1 - np.sqrt(down**2 + up**2 - 2 * phi * down * up))
    assert (found.n, found.n_groups) == (20, 20)


def test_an_estimate_counts_what_it_leaves_out() -> None:
    values, unseen = np.array([0.2, np.nan, np.nan, 0.4]), np.array([0, 1.0, 0, 0.5])
    found = localization_estimates("iou", values, {"uniform": np.full(4, 0.1)}, unseen, np.array([0, 0, 1, 2]))
    assert (found.estimate.n, found.n_unseen, found.n_undefined) == (2, 1, 1)
    assert found.estimate.value == pytest.approx(0.3)
    assert found.chance["uniform"].value == pytest.approx(0.1)
    assert found.over_chance["uniform"].value == pytest.approx(0.2)
    empty = localization_estimates("iou", values[1:3], {}, unseen[1:3], np.arange(2))
    assert np.isnan(empty.estimate.value)
    with pytest.raises(InputError, match="as many"):
        localization_estimates("iou", values, {}, unseen, np.arange(3))


@pytest.mark.parametrize("name", ["pointing_game", "iou", "peak_distance_pixels"])
def test_two_sides_are_compared_by_their_means(name: str) -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 2, 60).astype(float) if name == "pointing_game" else rng.uniform(0.2, 0.6, 60)
    first, groups = np.arange(60) < 25, np.arange(60) // 2
    values[first] = np.clip(values[first] + 0.3, 0, 1)
    found = difference_between(name, values, first, ~first, groups)
    assert found.value == pytest.approx(values[first].mean() - values[~first].mean())
    assert found.low < found.value < found.high
    assert (found.n, found.n_groups) == (60, 30)
    values[first] = np.nan
    assert np.isnan(difference_between(name, values, first, ~first, groups).value)


def test_thirds_of_region_size() -> None:
    parts, bounds = size_thirds(np.array([0.01, 0.2, 0.05, 0.1, 0.3, 0.02]))
    assert {name: np.flatnonzero(part).tolist() for name, part in parts.items()} == {
        "small": [0, 5],
        "medium": [2, 3],
        "large": [1, 4],
    }
    assert 0.02 < bounds[0] < 0.05 < 0.1 < bounds[1] < 0.2


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "rate", "n_groups"), [("hits", 0.05, 12), ("hits", 0.3, 50), ("shares", 0.3, 12)])
def test_differences_to_chance_cover_the_truth(kind: str, rate: float, n_groups: int) -> None:
    """Groups of one to three images, correlated by half; chance levels that vary by image and go with the hits."""
    rng = np.random.default_rng(7)
    name = "pointing_game" if kind == "hits" else "relevance_mass"

    def drawn(groups_wanted: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        groups = np.repeat(np.arange(groups_wanted), rng.integers(1, 4, groups_wanted))

        def uniform() -> np.ndarray:
            shared, own = rng.normal(size=groups_wanted)[groups], rng.normal(size=len(groups))
            return np.asarray(stats.norm.cdf(np.sqrt(0.5) * (shared + own)))

        chance = stats.beta.ppf(uniform(), 2, 18)
        likely = np.clip(rate * chance / 0.1, 0, 1)
        if kind == "hits":
            return (uniform() < likely).astype(float), chance, groups
        return 0.5 * stats.beta.ppf(uniform(), 20 * rate, 20 * (1 - rate)) + 0.5 * likely, chance, groups

    values, chance, _ = drawn(20_000)
    truth = float((values - chance).mean())
    covered = []
    for _ in range(100):
        values, chance, groups = drawn(n_groups)
        found = localization_estimates(name, values, {"uniform": chance}, np.zeros(len(values)), groups)
        apart = found.over_chance["uniform"]
        covered.append(apart.low <= truth <= apart.high)
    assert stats.binom.cdf(sum(covered), len(covered), 0.92) >= 0.001
