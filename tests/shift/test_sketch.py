"""Sketches: sums against a loop over patients, shards against the whole, what an export hides, what two tell."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import integrate, stats

from medvlm_probe.errors import InputError
from medvlm_probe.metrics.calibration import expected_calibration_error
from medvlm_probe.shift.gaussian_mechanism import gaussian_noise
from medvlm_probe.shift.mmd import median_bandwidth, mmd_test
from medvlm_probe.shift.random_features import RandomFeatures
from medvlm_probe.shift.sketch import ARRAYS, Sketch, merge_sketches, sketch, with_folds
from medvlm_probe.shift.sketch_cells import Cells, label_cells, outlier_cells, run_ends, stand_ins, tenths_of
from medvlm_probe.shift.sketch_comparison import compare_sketches
from medvlm_probe.shift.sketch_distance import (
    shrunk_covariance,
    sketch_distance,
    sketch_moments,
    sketch_outlier_scores,
    tail_of_weighted_chi_squares,
)
from medvlm_probe.shift.sketch_export import export_sketch, hidden_cells, sensitivities
from medvlm_probe.shift.sketch_plan import OUTLIER_EDGES, TENTHS, SketchPlan, fold_counts, folds_of, walls_of
from medvlm_probe.shift.two_samples import site_permutations, two_samples

D, LABELS = 12, ("edema", "fracture")
PLAN = SketchPlan(RandomFeatures(D, 0.9, 64), "model", "f" * 64, "radiology", LABELS, (0.4, 0.5), ("energy",))


class Images:
    """Images of patients with one to three each; labels not known here and there."""

    def __init__(self, n_patients: int, seed: int, *, shift: float = 0.0, name: str = "p") -> None:
        rng = np.random.default_rng(seed)
        codes = np.repeat(np.arange(n_patients), rng.integers(1, 4, n_patients))
        n = len(codes)
        self.vectors = rng.standard_normal((n, D)) + 1 + shift * np.eye(D)[0]
        self.patients = np.array([f"{name} {code}" for code in codes])
        self.p = rng.random((n, len(LABELS)))
        self.y = (rng.random(self.p.shape) < self.p).astype(float)
        self.y[rng.random(self.p.shape) < 0.2] = np.nan
        self.energy = rng.standard_normal(n) + shift

    def sketch(self, rows: Any = slice(None), plan: SketchPlan = PLAN, **options: Any) -> Sketch:
        return sketch(
            plan,
            self.vectors[rows],
            self.patients[rows].tolist(),
            probabilities=self.p[rows],
            labels=self.y[rows],
            outlier_scores={"energy": self.energy[rows]},
            **options,
        )


@pytest.fixture(scope="module")
def images() -> Images:
    return Images(700, 0)


@pytest.fixture(scope="module")
def site() -> Images:
    return Images(500, 1, shift=0.7, name="s")


def test_sums_are_those_of_a_loop_over_patients(images: Images) -> None:
    found = images.sketch()
    sums = {name: np.zeros_like(array) for name, array in found.arrays().items()}
    units = images.vectors / np.linalg.norm(images.vectors, axis=1, keepdims=True)
    features = PLAN.features(units)
    for patient in np.unique(images.patients):
        rows = np.flatnonzero(images.patients == patient)
        fold = folds_of([patient], PLAN.n_folds)[0]
        mean = features[rows].mean(axis=0)
        sums["fold_patients"][fold] += 1
        sums["fold_features"][fold] += mean
        sums["fold_lengths"][fold] += mean @ mean
        sums["embedding"] += units[rows].mean(axis=0)
        outer = np.mean([np.outer(u, u) for u in units[rows]], axis=0)
        sums["products"] += outer[np.tril_indices(D)]
        for k, threshold in enumerate(PLAN.thresholds):
            called = set()
            for row in rows:
                p, y = images.p[row, k], images.y[row, k]
                value = 2 if np.isnan(y) else 0 if y == 1 else 1
                cell = value, int(np.sum(walls_of(threshold) <= p))
                sums["label_weights"][k][cell] += 1 / len(rows)
                sums["label_confidence"][k][cell] += p / len(rows)
                sums["calls"][k, value, int(p >= threshold)] += 1 / len(rows)
                called.add((value, int(p >= threshold)))
            for cell in called:
                sums["call_patients"][k][cell] += 1
            known = rows[~np.isnan(images.y[rows, k])]
            if len(known):
                away = images.p[known, k] - images.y[known, k]
                r, b = away.mean(), (away**2).mean()
                sums["residuals"][k] += [1, r, r * r, b, b * b]
        bins = [int(np.sum(images.energy[row] >= OUTLIER_EDGES)) for row in rows]
        for position in bins:
            sums["outlier_weights"][0, position] += 1 / len(rows)
    sums["images"][0] = len(images.p)
    for name in ARRAYS:
        np.testing.assert_allclose(found.arrays()[name], sums[name], rtol=0, atol=1e-9, err_msg=name)


def test_shards_merge_to_the_whole(images: Images) -> None:
    whole = images.sketch()
    shard = folds_of([f"shard {name}" for name in images.patients], 3)
    merged = merge_sketches([images.sketch(shard == k) for k in range(3)])
    for name in ARRAYS:
        np.testing.assert_allclose(merged.arrays()[name], whole.arrays()[name], rtol=1e-9, atol=1e-9, err_msg=name)
    with pytest.raises(InputError, match="features"):
        merge_sketches([whole, images.sketch(plan=replace(PLAN, features=RandomFeatures(D, 0.8, 64)))])
    with pytest.raises(InputError, match="exported"):
        merge_sketches([whole, export_sketch(whole)])


def test_few_patients_have_fewer_folds(images: Images) -> None:
    few = images.sketch(slice(0, 60))
    assert len(few.fold_patients) < PLAN.n_folds
    assert few.fold_patients.min() >= 3
    whole = images.sketch()
    merged = merge_sketches([few, images.sketch(slice(60, None))])
    expected = with_folds(whole, len(few.fold_patients))
    # A patient's images are next to each other, so at most one patient is in both shards.
    assert np.abs(merged.fold_patients - expected.fold_patients).sum() <= 1
    with pytest.raises(InputError, match="at least 3"):
        images.sketch(slice(0, 2))
    assert fold_counts(20) == (20, 10, 5, 1)


def test_mmd_is_that_of_the_exact_test() -> None:
    errors = []
    for shift in (0.0, 0.3, 1.0, 2.0):
        first, second = Images(150, 2), Images(130, 3, shift=shift, name="s")
        samples = two_samples(first.vectors, second.vectors, first.patients, second.patients)
        rng = np.random.default_rng(0)
        exact = mmd_test(samples, site_permutations(samples.of_site, 1, rng), np.random.default_rng(4)).statistic
        bandwidth = median_bandwidth(samples.points, samples.groups, np.random.default_rng(4))
        plan = replace(PLAN, features=RandomFeatures(D, bandwidth, 4_096))
        value = sketch_distance(first.sketch(plan=plan), second.sketch(plan=plan)).mmd.value
        assert abs(value - exact) < 2e-3
        if exact >= 0.02:
            errors.append(abs(value / exact - 1))
    assert errors
    assert max(errors) < 0.05


def test_features_give_the_kernel_and_tell_of_other_frequencies(rng: np.random.Generator) -> None:
    features = RandomFeatures(D, 0.8, 8_192, seed=3)
    x = rng.standard_normal((6, D))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    squares = ((x[:, None] - x) ** 2).sum(axis=2)
    np.testing.assert_allclose(features(x) @ features(x).T, np.exp(-squares / (2 * 0.8**2)), atol=0.02)
    assert RandomFeatures.from_json(features.to_json()) == features
    with pytest.raises(InputError, match="NumPy"):
        RandomFeatures.from_json(features.to_json() | {"seed": 4})


def test_the_tail_is_that_of_weighted_chi_squares(rng: np.random.Generator) -> None:
    weights = np.arange(1, 40) ** -1.0
    weights /= weights.sum()
    residuals = rng.standard_normal((800, len(weights))) * np.sqrt(weights)
    products = residuals @ residuals.T
    drawn = (rng.standard_normal((50_000, len(weights))) ** 2) @ weights
    for share in (0.5, 0.1, 0.05):
        value = float(np.quantile(drawn, 1 - share))
        assert tail_of_weighted_chi_squares(value, 1.0, products, 800) == pytest.approx(share, rel=0.25)


def test_moments_and_outlier_scores(images: Images) -> None:
    one_each = np.unique(images.patients, return_index=True)[1]
    found = images.sketch(one_each)
    units = images.vectors[one_each] / np.linalg.norm(images.vectors[one_each], axis=1, keepdims=True)
    mean, covariance = sketch_moments(found)
    np.testing.assert_allclose(mean, units.mean(axis=0))
    np.testing.assert_allclose(covariance, np.cov(units.T), atol=1e-12)
    inverse = np.linalg.inv(shrunk_covariance(covariance, len(units)))
    expected = np.einsum("nd,de,ne->n", units - mean, inverse, units - mean)
    np.testing.assert_allclose(sketch_outlier_scores(found, images.vectors[one_each]), expected, rtol=1e-8)


def test_two_sketches_tell_what_the_images_would(images: Images, site: Images) -> None:
    rows = [np.unique(side.patients, return_index=True)[1] for side in (images, site)]
    found = compare_sketches(images.sketch(rows[0]), site.sketch(rows[1]))
    p, y = images.p[rows[0]], images.y[rows[0]]
    for k, label in enumerate(found.labels):
        known = ~np.isnan(y[:, k])
        positive, called = y[known, k] == 1, p[known, k] >= PLAN.thresholds[k]
        assert label.reference_prevalence.value == pytest.approx(positive.mean())
        assert label.recall.value == pytest.approx(called[positive].mean())
        assert label.specificity.value == pytest.approx((~called[~positive]).mean())
        assert label.reference_ece == pytest.approx(expected_calibration_error(p[known, k], y[known, k]))
        away = p[known, k] - y[known, k]
        low, high = stats.t.interval(0.95, len(away) - 1, away.mean(), stats.sem(away))
        assert (label.reference_overconfidence.low, label.reference_overconfidence.high) == pytest.approx((low, high))
        q = (site.p[rows[1]][:, k] >= PLAN.thresholds[k]).mean()
        h, f = label.recall.value, 1 - label.specificity.value
        assert label.bbse.value == pytest.approx(np.clip((q - f) / (h - f), 0, 1))
        assert label.bbse.low <= label.bbse.value <= label.bbse.high
    (outliers,) = found.outliers
    first, second = images.energy[rows[0]], site.energy[rows[1]]
    pairs = (second[:, None] > first).mean()
    assert outliers.auroc == pytest.approx(pairs, abs=0.01)
    assert outliers.reference[1] == pytest.approx(np.median(first), abs=0.05)
    assert found.distance.test is not None
    assert found.distance.test.p_value < 0.01
    assert found.distance.mmd.low > 0
    assert found.to_json()["n_patients"] == [700, 500]


def test_an_export_hides_small_cells_and_little_else(images: Images, site: Images) -> None:
    working = images.sketch()
    found = export_sketch(working)
    assert found.fold_patients.min() >= 10
    before, after = (compare_sketches(a, site.sketch()) for a in (working, found))
    assert after.distance.mmd.value == pytest.approx(before.distance.mmd.value, abs=1e-5)
    assert after.labels[0].bbse.value == pytest.approx(before.labels[0].bbse.value, abs=1e-5)
    with pytest.raises(InputError, match="already"):
        export_sketch(found)
    with pytest.raises(InputError, match="fewer than 10"):
        export_sketch(images.sketch(slice(0, 9)))


def test_bins_are_told_in_runs_of_ten_patients() -> None:
    few = Images(240, 4)
    working = few.sketch()
    found = export_sketch(working)
    for k, threshold in enumerate(PLAN.thresholds):
        bins = np.searchsorted(walls_of(threshold), few.p[:, k], side="right")
        for value in range(3):
            held = [few.y[:, k] == 1, few.y[:, k] == 0, np.isnan(few.y[:, k])][value]
            cells, exact = label_cells(found, k, value), label_cells(working, k, value)
            assert cells is not None
            assert exact is not None
            assert len(cells.ends) < len(exact.ends)
            of_image = np.searchsorted(cells.ends, bins[held])
            people = [len(set(few.patients[held][of_image == cell])) for cell in range(len(cells.ends))]
            assert min(people) >= 10
            np.testing.assert_allclose(cells.weights, exact.joined(cells.ends).weights, rtol=1e-6)
            np.testing.assert_allclose(cells.confidence, exact.joined(cells.ends).confidence, rtol=1e-6)
            # What is told below the threshold is what the calls tell.
            below = cells.weights[cells.ends < np.searchsorted(walls_of(threshold), threshold, side="right")]
            assert below.sum() == pytest.approx(working.calls[k, value, 0], rel=1e-6)
    cells = outlier_cells(found, 0)
    assert cells is not None
    assert cells.weights.min() >= 10
    np.testing.assert_array_equal(run_ends(np.array([4, 5, 3, 20, 0, 9, 2, 3])), [2, 3, 7])
    np.testing.assert_array_equal(run_ends(np.array([4.0, 5.0])), [1])


def test_stand_ins_are_the_patients_as_coarse_as_told(images: Images) -> None:
    rows = np.unique(images.patients, return_index=True)[1]
    p, y = images.p[rows, 0], images.y[rows, 0]
    working = images.sketch(rows)
    found = stand_ins(working, 0, most=10_000)
    assert found is not None
    for kind in (0, 1):
        told = np.sort(found.centres[found.cell[found.present == kind]])
        np.testing.assert_allclose(told, np.sort(p[y == kind]), atol=0.02)
        np.testing.assert_allclose(np.sort(found.snapped(p[y == kind])), told, atol=1e-12)
    assert found.tied_pairs < 0.03
    fewer = stand_ins(working, 0, most=70)
    assert fewer is not None
    assert abs(len(fewer.cell) - 0.1 * len(found.cell)) <= 1
    assert fewer.present.mean() == pytest.approx(found.present.mean(), abs=0.02)
    exported = stand_ins(export_sketch(working), 0, most=10_000)
    assert exported is not None
    assert exported.present.sum() == found.present.sum()
    assert 10 <= len(exported.centres) < len(found.centres)
    means = [side.centres[side.cell].mean() for side in (found, exported)]
    assert means[0] == pytest.approx(means[1], abs=1e-4)
    unknown = replace(working, label_weights=np.full_like(working.label_weights, np.nan))
    assert stand_ins(unknown, 0, most=10_000) is None
    two = np.array([np.searchsorted(walls_of(0.4), 0.25), len(walls_of(0.4))])
    np.testing.assert_array_equal(
        tenths_of(Cells(two, np.ones(2), np.array([0.1, 0.7])), 0.4), np.searchsorted(TENTHS, [0.1, 0.7], side="right")
    )


def test_what_is_hidden_cannot_be_had_from_the_total() -> None:
    rng = np.random.default_rng(0)
    rows = rng.poisson(rng.choice([0, 1, 12, 50], (300, 6)))
    hidden = hidden_cells(rows, rows)
    assert hidden[rows < 10].all()
    left = np.where(hidden, rows, 0).sum(axis=1)
    assert ((left == 0) | (left >= 10) | hidden.all(axis=1)).all()
    np.testing.assert_array_equal(hidden_cells(np.array([3, 30, 20]), np.array([3, 30, 20])), [True, False, True])


def test_a_patient_changes_no_array_more_than_stated(images: Images) -> None:
    bounds = sensitivities(images.sketch())
    for seed in range(5):
        extra = Images(1, 100 + seed, name="new")
        extra.p[:] = np.array([[0.0, 1.0], [1.0, 0.0]])[seed % 2]
        extra.y[:] = 1 - np.round(extra.p)
        both = sketch(
            PLAN,
            np.concatenate([images.vectors, extra.vectors]),
            [*images.patients, *extra.patients],
            probabilities=np.concatenate([images.p, extra.p]),
            labels=np.concatenate([images.y, extra.y]),
            outlier_scores={"energy": np.concatenate([images.energy, extra.energy])},
        )
        before = images.sketch().arrays()
        for name, bound in bounds.items():
            assert np.linalg.norm(both.arrays()[name] - before[name]) <= bound + 1e-9, name
    assert set(bounds) | {"call_patients", "images"} == set(ARRAYS)


@pytest.mark.parametrize(("epsilon", "delta"), [(0.5, 1e-5), (1.0, 1e-6), (8.0, 1e-3)])
def test_noise_is_the_least_that_is_private(epsilon: float, delta: float) -> None:
    noise = gaussian_noise(epsilon, delta)

    def excess(sd: float) -> float:
        def gap(x: float) -> float:
            return max(stats.norm.pdf(x, 1, sd) - np.exp(epsilon) * stats.norm.pdf(x, 0, sd), 0.0)

        crossing = epsilon * sd**2 + 0.5
        return float(integrate.quad(gap, crossing, crossing + 12 * sd, epsabs=1e-14)[0])

    assert excess(noise) <= delta * (1 + 1e-6)
    assert excess(noise * 0.999) > delta


def test_noise_is_declared_and_taken_off(images: Images, site: Images) -> None:
    rng = np.random.default_rng(5)
    working, other = images.sketch(), site.sketch()
    exact = compare_sketches(working, other)
    values = []
    for _ in range(30):
        found = export_sketch(working, epsilon=20, delta=1e-5, rng=rng)
        values.append(sketch_distance(found, other).mmd.value)
    assert found.privacy == {"epsilon": 20, "delta": 1e-5}
    assert set(found.noise) == set(sensitivities(working))
    assert np.isnan(found.call_patients).all()
    for k in range(len(LABELS)):
        cells = label_cells(found, k, 0)
        assert cells is not None
        assert cells.weights.sum() == pytest.approx(working.calls[k, 0].sum(), abs=8 * found.noise["label_weights"])
    assert np.isnan(found.images).all()
    error = np.std(values) / np.sqrt(len(values))
    assert abs(np.mean(values) - exact.distance.mmd.value) < 4 * error + 1e-3
    with pytest.raises(InputError, match="--like"):
        export_sketch(images.sketch(own_plan=True), epsilon=1, delta=1e-6, rng=rng)
    with pytest.raises(InputError, match="both"):
        export_sketch(working, epsilon=1)


def test_arrays_that_do_not_fit_are_refused(images: Images) -> None:
    with pytest.raises(InputError, match="dimensions"):
        sketch(PLAN, images.vectors[:, 1:], images.patients.tolist())
    with pytest.raises(InputError, match="Probabilities"):
        sketch(PLAN, images.vectors, images.patients.tolist(), outlier_scores={"energy": images.energy})
    with pytest.raises(InputError, match="energy"):
        sketch(PLAN, images.vectors, images.patients.tolist(), probabilities=images.p)
