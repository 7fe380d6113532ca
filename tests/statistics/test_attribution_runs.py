"""Why a site moved, over many runs with a known cause: how often it is named, and whether shares' intervals hold.

The full size is `analyses/acquisition_attribution.py`.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from medvlm_probe.shift.attribution import Attribution, attribute_shift

DIMENSIONS, PATIENTS, RUNS = 16, 100, 10
_WORLD = np.random.default_rng(3)
FINDINGS = 0.7 * _WORLD.standard_normal((5, DIMENSIONS))
WAYS = np.linalg.qr(_WORLD.standard_normal((DIMENSIONS, DIMENSIONS)))[0][:6]


def patients(n: int, prevalence: float, rng: np.random.Generator) -> np.ndarray:
    """Patients with five findings, one image each."""
    own = (rng.random((n, 5)) < prevalence) @ FINDINGS + 0.4 * rng.standard_normal((n, DIMENSIONS))
    return np.r_[5.0, np.zeros(DIMENSIONS - 1)] + own


def runs(moved: float, prevalence: float) -> list[Attribution]:
    """The site lies `moved` along the third way, which is tried at .8 and 1.5 but not at 1.2."""
    found = []
    for seed in range(RUNS):
        rng = np.random.default_rng([17, seed])
        reference = patients(PATIENTS, 0.15, rng)
        site = patients(PATIENTS, prevalence, rng) + moved * WAYS[2]
        tried = {f"t{k}/v1@{step:g}": reference + step * WAYS[k] for k in range(6) for step in (0.8, 1.5)}
        found.append(attribute_shift(reference, site, tried, rng=rng, n_splits=5, n_controls=12))
    return found


def test_causes_are_named() -> None:
    nothing, moved, others = runs(0.0, 0.15), runs(1.2, 0.15), runs(0.0, 0.6)
    quiet = ("no distance", "not these transforms", "not enough evidence")
    assert sum(entry.verdict in quiet for entry in nothing) >= RUNS - 1
    verdicts = Counter(entry.verdict for entry in moved)
    assert verdicts["acquisition"] >= RUNS - 2
    assert verdicts["other patients"] == 0
    assert all(max(entry.families, key=lambda name: entry.families[name]) == "t2" for entry in moved)
    verdicts = Counter(entry.verdict for entry in others)
    assert verdicts["other patients"] >= RUNS - 2
    assert not any(verdict.startswith("acquisition") for verdict in verdicts)


def test_shares_of_a_given_transform_hold_the_truth() -> None:
    rng = np.random.default_rng(8)
    reference, site = patients(1_500, 0.15, rng), patients(1_500, 0.3, rng) + 0.9 * WAYS[2]
    name = "t2/v1@0.6"
    options = {"n_splits": 1, "n_controls": 1}
    truth = attribute_shift(reference, site, {name: reference + 0.6 * WAYS[2]}, rng=rng, **options).transforms[0].share
    assert truth.high - truth.low < 0.2
    held = 0
    for _ in range(60):
        few, there = patients(50, 0.15, rng), patients(50, 0.3, rng) + 0.9 * WAYS[2]
        share = attribute_shift(few, there, {name: few + 0.6 * WAYS[2]}, rng=rng, **options).transforms[0].share
        held += share.low <= truth.value <= share.high
    assert held >= 52
