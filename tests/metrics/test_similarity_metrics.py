"""Overlap of two classes' scores and the modality gap, against plain readings of their definitions."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.stats import gaussian_kde, norm

from medvlm_probe.errors import InputError
from medvlm_probe.metrics.modality_gap import modality_gap
from medvlm_probe.metrics.overlap import BANDWIDTH_SHARE, overlaps


def test_overlap_is_the_area_under_both_of_scipys_densities(rng: np.random.Generator) -> None:
    label = (rng.random(300) < 0.2).astype(float)
    scores = rng.normal(size=300) + label
    [found] = overlaps(scores[:, None], label[:, None], n_permutations=0, rng=rng)
    parts = [scores[label == side] for side in (1, 0)]
    within = math.sqrt(sum(((part - part.mean()) ** 2).sum() for part in parts) / 298)
    width = BANDWIDTH_SHARE * 1.06 * within * min(map(len, parts)) ** -0.2
    grid = np.linspace(scores.min() - 4 * width, scores.max() + 4 * width, 4000)
    densities = [gaussian_kde(part, width / part.std(ddof=1))(grid) for part in parts]
    assert found.estimate.value == pytest.approx(np.trapezoid(np.minimum(*densities), grid), abs=2e-3)
    np.testing.assert_allclose(found.positive, np.interp(found.grid, grid, densities[0]), atol=1e-3)
    assert math.isnan(found.p_value)


@pytest.mark.parametrize("shift", [0.0, 1.0, 3.0])
def test_overlap_is_near_that_of_normal_densities(shift: float, rng: np.random.Generator) -> None:
    label = np.repeat([1.0, 0.0], [400, 1600])
    scores = rng.normal(size=2000) + shift * label
    [found] = overlaps(scores[:, None], label[:, None], n_permutations=199, rng=rng)
    assert found.estimate.value == pytest.approx(2 * norm.cdf(-shift / 2), abs=0.07)
    assert found.estimate.low <= 2 * norm.cdf(-shift / 2) <= found.estimate.high
    assert (found.p_value > 0.025) == (shift == 0.0)
    assert found.estimate.reliable


def test_the_jackknife_leaves_out_whole_groups(rng: np.random.Generator) -> None:
    groups = np.repeat(np.arange(60), 2)
    label = (np.arange(60) % 2)[groups].astype(float)
    scores = (rng.normal(size=60)[groups] + 0.2 * rng.normal(size=120) + label)[:, None]
    [grouped] = overlaps(scores, label[:, None], groups, n_permutations=0, rng=rng)
    [alone] = overlaps(scores, label[:, None], n_permutations=0, rng=rng)
    assert grouped.estimate.value == alone.estimate.value
    assert grouped.estimate.value - grouped.estimate.low > 1.2 * (alone.estimate.value - alone.estimate.low)
    assert (grouped.estimate.n, grouped.estimate.n_groups) == (120, 60)


def test_unknown_labels_are_left_out_and_labels_do_not_feel_each_other(rng: np.random.Generator) -> None:
    scores, labels = rng.normal(size=(80, 2)), (rng.random((80, 2)) < 0.5).astype(float)
    labels[:10, 1] = np.nan
    both = overlaps(scores, labels, n_permutations=49, rng=np.random.default_rng(1))
    alone = overlaps(scores[:, :1], labels[:, :1], n_permutations=49, rng=np.random.default_rng(1))
    assert (both[0].estimate, both[0].p_value) == (alone[0].estimate, alone[0].p_value)
    [known] = overlaps(scores[10:, 1:], labels[10:, 1:], n_permutations=0, rng=rng)
    assert both[1].n_positive + both[1].n_negative == 70
    assert both[1].estimate.value == pytest.approx(known.estimate.value, abs=1e-3)


def test_what_has_no_overlap_is_undefined(rng: np.random.Generator) -> None:
    labels = np.array([[1, 1.0, np.nan], [0, 1, np.nan], [0, 0, np.nan], [0, 0, np.nan]])
    scores = np.array([[1, 2.0, 0], [2, 2, 0], [3, 1, 0], [4, 1, 0]])
    for found in overlaps(scores, labels, n_permutations=9, rng=rng):
        assert math.isnan(found.estimate.value)
        assert not found.estimate.reliable
        assert not len(found.grid)
    with pytest.raises(InputError, match="expected finite"):
        overlaps(np.full((4, 3), np.nan), labels, rng=rng)
    with pytest.raises(InputError, match="do not fit scores"):
        overlaps(scores, labels[:, :2], rng=rng)


def _gap_by_pairs(x: np.ndarray, text: np.ndarray, groups: np.ndarray) -> float:
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    t = (text / np.linalg.norm(text, axis=1, keepdims=True)).mean(axis=0)
    pairs = [x[i] @ x[j] for i, j in itertools.permutations(range(len(x)), 2) if groups[i] != groups[j]]
    return math.sqrt(max(np.mean(pairs) - 2 * x.mean(axis=0) @ t + t @ t, 0.0))


def test_the_gap_is_over_pairs_of_different_groups(rng: np.random.Generator) -> None:
    x, text = rng.normal(size=(30, 6)) + 2 * np.eye(6)[0], rng.normal(size=(4, 6))
    groups = rng.integers(0, 12, 30)
    found = modality_gap(x, text, groups)
    assert found.value == pytest.approx(_gap_by_pairs(x, text, groups))
    without = np.array([_gap_by_pairs(x[groups != g], text, groups[groups != g]) for g in np.unique(groups)])
    n = len(without)
    error = math.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum())
    assert 2.0 < (found.high - found.value) / error < 3.5
    assert (found.n, found.n_groups) == (30, n)
    assert modality_gap(x * 7, text * 0.1, groups).value == pytest.approx(found.value)


def test_the_gap_of_many_images_is_that_of_the_means(rng: np.random.Generator) -> None:
    x, text = rng.normal(size=(20_000, 4)) + 1, rng.normal(size=(5, 4)) - 1
    means = [(v / np.linalg.norm(v, axis=1, keepdims=True)).mean(axis=0) for v in (x, text)]
    assert modality_gap(x, text).value == pytest.approx(np.linalg.norm(means[0] - means[1]), abs=1e-4)
    with pytest.raises(InputError, match="do not fit texts"):
        modality_gap(x, text[:, :2])
    with pytest.raises(InputError, match="zero vectors"):
        modality_gap(np.zeros((3, 4)), text)
