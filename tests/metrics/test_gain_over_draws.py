"""Gains over draws: against the t test and the paired interval, and how often the interval covers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from medvlm_probe.metrics.gain_over_draws import gain_over_draws
from medvlm_probe.metrics.intervals import paired_mean


def test_one_draw_is_the_paired_interval_and_its_p_value_agrees(rng: np.random.Generator) -> None:
    gains, groups = rng.normal(0.1, 1, 300), np.repeat(np.arange(150), 2)
    found, p_value = gain_over_draws(gains[None], groups)
    plain = paired_mean(gains, groups)
    assert (found.value, found.low, found.high) == pytest.approx((plain.value, plain.low, plain.high))
    assert found.n_groups == 150
    means = gains.reshape(150, 2).mean(axis=1)
    assert p_value == pytest.approx(stats.ttest_1samp(means, 0).pvalue, rel=0.1)
    shifted = gains - found.low  # zero stands on the bound
    assert gain_over_draws(shifted[None], groups)[1] == pytest.approx(0.05, abs=1e-6)


def test_draws_that_differ_widen_the_interval_and_unknown_images_are_left_out(rng: np.random.Generator) -> None:
    base, groups = rng.normal(0.5, 0.1, 100), np.arange(100)
    same, p_same = gain_over_draws(np.stack([base] * 5), groups)
    apart, p_apart = gain_over_draws(np.stack([base + move for move in (-0.6, -0.3, 0, 0.3, 0.6)]), groups)
    assert apart.value == pytest.approx(same.value)
    assert apart.high - apart.low > 5 * (same.high - same.low)
    assert p_same < 1e-6 < p_apart
    holed = np.stack([base] * 2)
    holed[1, :40] = np.nan
    assert gain_over_draws(holed, groups)[0].n == 60
    nothing, p_nothing = gain_over_draws(np.zeros((3, 20)), np.arange(20))
    assert (nothing.value, p_nothing, nothing.reliable) == (0.0, 1.0, False)
    assert not gain_over_draws(np.full((1, 5), np.nan), np.arange(5))[0].reliable


def test_the_interval_covers_over_images_and_draws() -> None:
    rng = np.random.default_rng(0)
    hits, runs = 0, 400
    for _ in range(runs):
        images, draws = rng.normal(0, 1, 60), rng.normal(0, 0.3, 5)
        gains = 0.2 + images[None] + draws[:, None] + rng.normal(0, 0.5, (5, 60))
        found, _ = gain_over_draws(gains, np.arange(60))
        hits += found.low <= 0.2 <= found.high
    assert 0.92 <= hits / runs <= 0.98
