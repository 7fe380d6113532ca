"""Why a site moved: the MMD against a double loop, shares and choices against hand-made shifts, and the verdicts."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from medvlm_probe.errors import InputError
from medvlm_probe.shift.attribution import Attribution, Parts, attribute_shift, verdict_of
from medvlm_probe.shift.attribution_pairs import promising_pairs
from medvlm_probe.shift.attribution_sums import (
    Sample,
    discrepancies,
    family_of,
    half_of,
    kernel_means,
    squared_mmd,
    without_own,
)
from medvlm_probe.shift.mmd import mmd_test
from medvlm_probe.shift.two_samples import site_permutations, two_samples
from medvlm_probe.types import Estimate

DIMENSIONS = 24
_WORLD = np.random.default_rng(5)
FINDINGS = _WORLD.standard_normal((6, DIMENSIONS)) * 0.6
DIRECTIONS = _WORLD.standard_normal((8, DIMENSIONS))
DIRECTIONS /= np.linalg.norm(DIRECTIONS, axis=1, keepdims=True)
CENTRE = np.r_[4.0, np.zeros(DIMENSIONS - 1)]


def patients(n: int, prevalence: float, rng: np.random.Generator, *, images: int = 1) -> np.ndarray:
    """Embeddings of patients with six findings, one row an image; the images of a patient lie close together."""
    own = (rng.random((n, 6)) < prevalence) @ FINDINGS + 0.4 * rng.standard_normal((n, DIMENSIONS))
    return CENTRE + np.repeat(own, images, axis=0) + 0.1 * rng.standard_normal((n * images, DIMENSIONS))


def transforms(vectors: np.ndarray) -> dict[str, np.ndarray]:
    """Eight ways to be moved, at three levels each."""
    return {f"t{k}/v1@{step:g}": vectors + 0.45 * step * DIRECTIONS[k] for k in range(8) for step in (1, 2, 3)}


def attributed(seed: int, *, moved: float, prevalence: float, n: int = 90, images: int = 1) -> Attribution:
    rng = np.random.default_rng(seed)
    reference = patients(n, 0.15, rng, images=images)
    site = patients(n, prevalence, rng, images=images) + moved * DIRECTIONS[3]
    groups = [f"{side} {k}" for side in "rs" for k in np.repeat(np.arange(n), images)]
    return attribute_shift(
        reference,
        site,
        transforms(reference),
        reference_groups=groups[: n * images],
        site_groups=groups[n * images :],
        rng=rng,
        n_splits=6,
        n_controls=20,
    )


def _loop(
    x: np.ndarray, gx: np.ndarray, y: np.ndarray, gy: np.ndarray, width: float, a: np.ndarray, b: np.ndarray
) -> float:
    """The weighted squared MMD by the definition: every pair of images, weighted by its patients."""

    def mean(p: np.ndarray, gp: np.ndarray, q: np.ndarray, gq: np.ndarray, wp: np.ndarray, wq: np.ndarray) -> float:
        above = below = 0.0
        for i, j in itertools.product(range(len(p)), range(len(q))):
            if p is q and gp[i] == gq[j]:
                continue
            weight = wp[gp[i]] / (gp == gp[i]).sum() * wq[gq[j]] / (gq == gq[j]).sum()
            above += weight * np.exp(-((p[i] - q[j]) ** 2).sum() / (2 * width**2))
            below += weight
        return above / below

    return mean(x, gx, x, gx, a, a) + mean(y, gy, y, gy, b, b) - 2 * mean(x, gx, y, gy, a, b)


def test_weighted_mmd_and_every_leave_one_out_by_hand(rng: np.random.Generator) -> None:
    x, y = rng.standard_normal((9, 3)).astype(np.float32), rng.standard_normal((7, 3)).astype(np.float32) + 0.5
    gx, gy = np.array([0, 0, 1, 2, 2, 2, 3, 4, 5]), np.array([0, 1, 1, 2, 3, 4, 4])
    first, second = Sample(x, gx), Sample(y, gy)
    kernels = (
        without_own(kernel_means(first, first, 1.3)),
        without_own(kernel_means(second, second, 1.3)),
        kernel_means(first, second, 1.3),
    )
    a, b = rng.random((6, 2)), rng.random((5, 2))
    a[2, 1] = b[0, 1] = 0.0
    found = discrepancies(*kernels, a, b)
    assert squared_mmd(*kernels, a, b) == pytest.approx(found.value, abs=1e-12)
    for m in range(2):
        assert found.value[m] == pytest.approx(_loop(x, gx, y, gy, 1.3, a[:, m], b[:, m]), abs=1e-6)
        for g in range(6):
            left = np.where(np.arange(6) == g, 0.0, a[:, m])
            assert found.without_reference[g, m] == pytest.approx(_loop(x, gx, y, gy, 1.3, left, b[:, m]), abs=1e-6)
        for h in range(5):
            left = np.where(np.arange(5) == h, 0.0, b[:, m])
            assert found.without_site[h, m] == pytest.approx(_loop(x, gx, y, gy, 1.3, a[:, m], left), abs=1e-6)


def test_the_distance_is_that_of_the_two_sample_test(rng: np.random.Generator) -> None:
    reference, site = patients(40, 0.15, rng, images=2), patients(30, 0.6, rng)
    groups = np.repeat(np.arange(40), 2)
    found = attribute_shift(
        reference, site, {"t/v1@1": reference}, reference_groups=groups, site_groups=100 + np.arange(30), rng=rng
    )
    samples = two_samples(reference, site, groups, 100 + np.arange(30))
    test = mmd_test(samples, site_permutations(samples.of_site, 9, rng), np.random.default_rng(0))
    assert found.distance.value == pytest.approx(test.statistic, rel=0.1)
    (entry,) = found.transforms
    assert entry.distance == found.distance
    assert (entry.share.value, found.parts.best.value) == pytest.approx((0.0, 0.0), abs=1e-12)


def test_halves(rng: np.random.Generator) -> None:
    members = np.ones((11, 3))
    members[:4, 1] = 0
    halves = half_of(members, rng)
    assert (halves <= members).all()
    assert halves.sum(axis=0).tolist() == [5, 3, 5]
    assert (halves[:, 0] != halves[:, 2]).any()


def test_an_injected_transform_is_found_and_named() -> None:
    found = [attributed(seed, moved=0.9, prevalence=0.15) for seed in range(4)]
    assert [entry.verdict for entry in found] == ["acquisition"] * 4
    for entry in found:
        assert entry.best == "t3/v1@2"
        assert max(entry.families, key=lambda family: entry.families[family]) == "t3"
        assert entry.parts.best.low > max(entry.chance, 0.4)
        assert entry.best_of_each()[0].name == entry.best
        assert len(entry.best_of_each()) == 8
        assert len(entry.transforms) == 24


def test_another_case_mix_is_not_called_acquisition() -> None:
    found = [attributed(seed, moved=0.0, prevalence=0.5) for seed in range(4)]
    assert [entry.verdict for entry in found] == ["other patients"] * 4
    assert all(entry.parts.transform_adds.low < 0 < entry.parts.mix_adds.low for entry in found)


def test_both_and_neither() -> None:
    both = attributed(2, moved=1.2, prevalence=0.4)
    assert both.verdict == "acquisition and other patients"
    assert both.parts.both.value > max(both.parts.best.value, both.parts.mix.value)
    assert attributed(3, moved=0.0, prevalence=0.15).verdict == "no distance"
    rng = np.random.default_rng(1)
    reference, site = patients(90, 0.15, rng), patients(90, 0.15, rng)
    aside = np.r_[np.zeros(DIMENSIONS - 1), 3.0]
    assert attribute_shift(reference, site + aside, transforms(reference), rng=rng).verdict == "not these transforms"


def test_patients_count_once_and_seeds_decide() -> None:
    one, again = (attributed(7, moved=0.9, prevalence=0.15, images=3, n=40) for _ in range(2))
    assert one == again
    assert one.distance.n_groups == 80
    assert one.distance.n == 240
    assert one.best.startswith("t3")


def test_chance_is_what_the_search_finds_in_the_reference_itself() -> None:
    entry = attributed(11, moved=0.9, prevalence=0.15)
    assert -1 < entry.chance < 0.4 < entry.parts.best.value


def test_the_pair_behind_a_site_is_promising_and_named_only_where_it_adds() -> None:
    rng = np.random.default_rng(4)
    reference, site = patients(90, 0.15, rng), patients(90, 0.15, rng)
    tried = transforms(reference)
    twice = site + 0.9 * DIRECTIONS[3] + 0.45 * DIRECTIONS[6]
    pairs = promising_pairs(reference, twice, tried, rng=rng)
    assert pairs[0] == ("t3/v1@2", "t6/v1@1")
    assert len({frozenset(map(family_of, pair)) for pair in pairs}) == len(pairs)
    assert promising_pairs(reference, twice, tried, rng=rng, n_pairs=1) == pairs[:1]
    offered = tried | {"+".join(pair): tried[pair[0]] + tried[pair[1]] - reference for pair in pairs}
    found = attribute_shift(reference, twice, offered, rng=np.random.default_rng(0), n_splits=6, n_controls=20)
    assert found.best == "t3/v1@2+t6/v1@1"
    assert found.families["t3 + t6"] > 0.9
    assert found.pair_adds is not None
    assert found.pair_adds.low > 0.05
    alone = attribute_shift(reference, twice, tried, rng=np.random.default_rng(0), n_splits=6, n_controls=20)
    assert alone.pair_adds is None
    assert found.parts.best.value > alone.parts.best.value + 0.05
    # Where one transform is the cause, pairs that hold it lie as close, and are not named.
    once = site + 0.9 * DIRECTIONS[3]
    found, alone = (
        attribute_shift(reference, once, given, rng=np.random.default_rng(0), n_splits=6, n_controls=20)
        for given in (offered, tried)
    )
    assert found.best == alone.best == "t3/v1@2"
    assert (found.parts, found.families) == (alone.parts, alone.families)
    assert found.pair_adds is not None
    assert found.pair_adds.low < 0.05
    assert "t3/v1@2+t6/v1@1" in [entry.name for entry in found.transforms]
    # A pair that would be farther away than one of its two is not worth a pass.
    assert promising_pairs(reference, reference + 0.001 * rng.standard_normal(reference.shape), tried, rng=rng) == ()


def test_families() -> None:
    assert family_of("resolution/v1@96") == "resolution"
    assert family_of("resolution/v1@96+jpeg/v1@25") == "resolution + jpeg"


def _around(value: float, half: float) -> Estimate:
    return Estimate(value, value - half, value + half, 10, 10, "")


@pytest.mark.parametrize(
    ("best", "mix", "adds", "mix_adds", "verdict"),
    [
        (0.6, 0.1, 0.5, 0.0, "acquisition"),
        (0.6, 0.5, 0.3, 0.3, "acquisition and other patients"),
        (0.6, 0.4, 0.3, 0.0, "not enough evidence"),
        (0.7, 0.4, 0.3, 0.0, "acquisition"),
        (0.8, 0.7, 0.3, 0.0, "acquisition"),
        (0.6, 0.7, 0.0, 0.2, "other patients"),
        (0.45, 0.42, 0.0, 0.2, "not enough evidence"),
        (0.0, 0.0, 0.0, 0.0, "not these transforms"),
        (0.6, 0.6, 0.0, 0.0, "not enough evidence"),
    ],
)
def test_verdicts(best: float, mix: float, adds: float, mix_adds: float, verdict: str) -> None:
    estimates = [_around(value, 0.05) for value in (best, mix, 0.8, adds, mix_adds, best - mix)]
    assert verdict_of(_around(0.1, 0.05), Parts(*estimates), 0.02) == verdict
    assert verdict_of(_around(0.04, 0.05), Parts(*estimates), 0.02) == "no distance"


def test_what_is_refused(rng: np.random.Generator) -> None:
    reference, site = patients(30, 0.2, rng), patients(30, 0.2, rng)
    with pytest.raises(InputError, match="at least 20"):
        attribute_shift(reference, site[:12], transforms(reference), rng=rng)
    with pytest.raises(InputError, match="do not fit the reference"):
        attribute_shift(reference, site, {"t/v1@1": reference[:-1]}, rng=rng)
    with pytest.raises(InputError, match="No transform"):
        attribute_shift(reference, site, {}, rng=rng)
