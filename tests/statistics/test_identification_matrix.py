"""Injected shifts get their names: a small version of `analyses/shift_identification.py`."""

from __future__ import annotations

import numpy as np
import pytest

from medvlm_probe.shift.identification import identify_shift

D = 16
RUNS = 12


def side(n: int, prevalence: float, move: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Labels, vectors and patients of two images each: the label moves one direction by 2.5 standard deviations."""
    groups = np.repeat(np.arange(n), 2)
    label = (rng.random(n) < prevalence)[groups].astype(float)
    x = (rng.standard_normal((n, D))[groups] + rng.standard_normal((2 * n, D))) / np.sqrt(2)
    x[:, 0] += 2.5 * label
    return label, np.column_stack([x + move, np.full(len(x), 12.0)]), groups


@pytest.mark.parametrize(
    ("name", "prevalence", "move", "least"),
    [("none", 0.3, 0.0, 10), ("prevalence", 0.55, 0.0, 10), ("covariate", 0.3, 0.8, 10), ("both", 0.6, 0.8, 9)],
)
def test_injected_shift_gets_its_name(name: str, prevalence: float, move: float, least: int) -> None:
    rng = np.random.default_rng([3, round(100 * prevalence), round(10 * move)])
    named = 0
    for _ in range(RUNS):
        direction = rng.standard_normal(D)
        label, x, groups = side(150, 0.3, np.zeros(D), rng)
        _, y, other = side(120, prevalence, move * direction / np.linalg.norm(direction), rng)
        named += identify_shift(label, x, y, groups, other, rng=rng).shift == name
    assert named >= least
