"""Sketches of two samples of patients: p-values, how often the interval holds the truth, distance from the exact MMD.

`analyses/sketch_type_one_error.py` runs the same at full size.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from shift_simulation import Design

from medvlm_probe.shift.mmd import median_bandwidth, mmd_test
from medvlm_probe.shift.random_features import RandomFeatures
from medvlm_probe.shift.sketch import Sketch, sketch
from medvlm_probe.shift.sketch_distance import sketch_distance
from medvlm_probe.shift.sketch_plan import SketchPlan
from medvlm_probe.shift.two_samples import site_permutations, two_samples
from medvlm_probe.types import FloatArray, IntArray

N_FEATURES = 256


def plan_of(dimensions: int, *, bandwidth: float = 1.0, n_features: int = N_FEATURES) -> SketchPlan:
    return SketchPlan(RandomFeatures(dimensions, bandwidth, n_features), "simulated", "")


def sketched(plan: SketchPlan, vectors: FloatArray, groups: IntArray, name: str) -> Sketch:
    return sketch(plan, vectors, [f"{name} {group}" for group in groups])


def sketch_p_values(
    design: Design, n_simulations: int, rng: np.random.Generator, *, n_features: int = N_FEATURES
) -> tuple[NDArray[np.float64], float]:
    """Return the p-values of as many pairs of sketches, and how often the interval of squared MMD holds 0."""
    plan = plan_of(design.dimensions, n_features=n_features)
    p, held = np.empty(n_simulations), 0
    for k in range(n_simulations):
        reference, site, first, second = design.draw(rng)
        # Names are new each time, so that the folds are.
        found = sketch_distance(
            sketched(plan, reference, first, f"reference {k}"), sketched(plan, site, second, f"site {k}")
        )
        assert found.test is not None
        p[k] = found.test.p_value
        held += found.mmd.low <= 0 <= found.mmd.high
    return p, held / n_simulations


def agreement(design: Design, rng: np.random.Generator, *, n_features: int) -> tuple[float, float]:
    """Return squared MMD by the exact test of both samples, and from their sketches, at the same bandwidth."""
    reference, site, first, second = design.draw(rng)
    samples = two_samples(reference, site, first, second)
    seed = int(rng.integers(2**31))
    exact = mmd_test(samples, site_permutations(samples.of_site, 1, rng), np.random.default_rng(seed))
    bandwidth = median_bandwidth(samples.points, samples.groups, np.random.default_rng(seed))
    plan = plan_of(design.dimensions, bandwidth=bandwidth, n_features=n_features)
    found = sketch_distance(sketched(plan, reference, first, "reference"), sketched(plan, site, second, "site"))
    return exact.statistic, found.mmd.value
