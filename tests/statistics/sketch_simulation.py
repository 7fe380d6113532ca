"""Sketches of two samples of patients: p-values, how often the interval holds the truth, distance from the exact MMD.

`analyses/sketch_type_one_error.py` runs the same at full size.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import special
from shift_simulation import Design

from medvlm_probe.shift.label_shift import estimate_label_shift
from medvlm_probe.shift.mmd import median_bandwidth, mmd_test
from medvlm_probe.shift.random_features import RandomFeatures
from medvlm_probe.shift.sketch import Sketch, sketch
from medvlm_probe.shift.sketch_cells import stand_ins
from medvlm_probe.shift.sketch_distance import sketch_distance
from medvlm_probe.shift.sketch_export import export_sketch
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


def label_shift_from_sketches(
    n: int, m: int, prevalence: tuple[float, float], strength: float, n_simulations: int, rng: np.random.Generator
) -> dict[str, NDArray[np.float64]]:
    """Return, for images and for sketches of either kind, the misfit test's p-values and whether intervals held.

    Under label shift: scores of both sides are normal with the finding and without it, `strength` standard deviations
    apart. Columns: p-value, whether the interval of EM and that of BBSE held the site's prevalence, (simulations, 3).
    """
    plan = SketchPlan(RandomFeatures(2, 1.0, 2), "simulated", "", "normal scores", ("finding",), (0.5,))
    found: dict[str, list[list[float]]] = {"images": [], "working": [], "export": []}
    for k in range(n_simulations):
        labels = [rng.random(size) < share for size, share in zip((n, m), prevalence, strict=True)]
        own, site = (rng.standard_normal(len(y)) + strength * (y - 0.5) for y in labels)
        working = sketch(
            plan,
            rng.standard_normal((n, 2)),
            [f"{k} {row}" for row in range(n)],
            probabilities=special.expit(own)[:, None],
            labels=labels[0][:, None].astype(float),
        )
        sides = {"images": (labels[0], own, site)}
        for made in (working, export_sketch(working)):
            told = stand_ins(made, 0, most=n)
            assert told is not None
            snapped = told.snapped(special.expit(site))
            sides[made.kind] = (told.present, special.logit(told.centres[told.cell]), special.logit(snapped))
        for kind, (y, first, second) in sides.items():
            shift = estimate_label_shift(y.astype(float), first, second, np.arange(len(y)), np.arange(m), rng=rng)
            held = [float(e.low <= prevalence[1] <= e.high) for e in (shift.em, shift.bbse)]
            found[kind].append([shift.misfit_test.p_value, *held])
    return {kind: np.array(rows) for kind, rows in found.items()}
