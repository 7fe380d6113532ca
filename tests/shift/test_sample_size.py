"""Sample sizes against trying every number, powers against simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from medvlm_probe.errors import InputError
from medvlm_probe.shift.sample_size import (
    design_effect_of,
    detectable_difference,
    positives_for_half_width,
    power_of_difference,
)


def width(recall: float, n: float) -> float:
    if n < 20:
        return (
            stats.beta.ppf(0.975, recall * n + 1, n - recall * n)
            - stats.beta.ppf(0.025, recall * n, n - recall * n + 1)
        ) / 2
    z = stats.norm.ppf(0.975)
    return z / (1 + z * z / n) * math.sqrt(recall * (1 - recall) / n + (z / (2 * n)) ** 2)


@pytest.mark.parametrize("recall", [0.5, 0.8, 0.95])
@pytest.mark.parametrize("half_width", [0.05, 0.1, 0.3])
@pytest.mark.parametrize("effect", [1.0, 1.5])
def test_fewest_positives_by_trying_every_number(recall: float, half_width: float, effect: float) -> None:
    found = positives_for_half_width(recall, half_width=half_width, design_effect=effect, prevalence=0.1)
    expected = next(n for n in range(1, 2000) if width(recall, n / effect) <= half_width)
    assert found.positives == pytest.approx(expected, abs=1)
    assert found.half_width <= half_width
    assert found.images == 10 * found.positives


def test_the_known_number_for_a_recall_of_eight_tenths() -> None:
    assert positives_for_half_width(0.8).positives == 245
    assert positives_for_half_width(0.8).images is None
    assert design_effect_of(3, 0.5) == 2
    assert positives_for_half_width(0.8, design_effect=2).positives == 489


def test_power_against_simulation() -> None:
    rng = np.random.default_rng(0)
    n = (150, 90)
    hits = rng.binomial(n, (0.8, 0.62), size=(20_000, 2))
    share = hits / n
    pooled = hits.sum(axis=1) / sum(n)
    z = (share[:, 0] - share[:, 1]) / np.sqrt(pooled * (1 - pooled) * (1 / n[0] + 1 / n[1]))
    assert power_of_difference(0.8, 0.62, *n) == pytest.approx((np.abs(z) > 1.96).mean(), abs=0.02)
    assert power_of_difference(0.5, 0.5, 100, 100) == pytest.approx(0.05)


def test_detectable_difference_has_the_power() -> None:
    found = detectable_difference(0.8, 200, 60)
    assert power_of_difference(0.8, 0.8 - found.fall, 200, 60) == pytest.approx(0.8, abs=1e-6)
    assert power_of_difference(0.8, 0.8 + found.rise, 200, 60) == pytest.approx(0.8, abs=1e-6)
    assert math.isnan(detectable_difference(0.95, 100, 20).rise)
    assert detectable_difference(0.8, 2000, 600).fall < found.fall
    assert math.isnan(detectable_difference(1.0, 100, 100).rise)


def test_numbers_outside_their_range_are_refused() -> None:
    for call in (
        lambda: positives_for_half_width(1.2),
        lambda: positives_for_half_width(0.8, half_width=0.6),
        lambda: positives_for_half_width(0.8, prevalence=0.0),
        lambda: design_effect_of(0.5, 0.1),
        lambda: detectable_difference(0.8, 0, 10),
    ):
        with pytest.raises(InputError):
            call()
