"""class_distances against scikit-learn, its properties, its edges, its precision and its memory."""

from __future__ import annotations

import json
import math
import tracemalloc
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import pairwise_distances, silhouette_samples

from medvlm_probe.errors import InputError
from medvlm_probe.metrics.pairwise import distance_blocks, effective_dimensions, points_of
from medvlm_probe.metrics.separability import ClassDistances, class_distances
from medvlm_probe.types import Estimate

NAMES = (
    "intra_positive",
    "intra_negative",
    "inter",
    "ratio",
    "energy_distance_estimate",
    "neighbour_purity",
    "silhouette",
)


def values_of(entry: ClassDistances) -> np.ndarray:
    estimates = [getattr(entry, name) for name in NAMES] + [entry.centroids.between]
    return np.array([x for e in estimates for x in (e.value, e.low, e.high)])


def sample(seed: int, n: int = 60, d: int = 8) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, n // 2, n)
    labels = (rng.random((n, 2)) < (0.3, 0.6)).astype(float)
    labels[rng.random((n, 2)) < 0.1] = np.nan
    embeddings = rng.normal(size=(n, d)) + np.nan_to_num(labels[:, :1])
    return embeddings, labels, groups


def test_against_scikit_learn(rng: np.random.Generator) -> None:
    labels = (rng.random(200) < 0.3).astype(int)
    embeddings = rng.normal(size=(200, 16)) + 0.5 * labels[:, None]
    (entry,) = class_distances(embeddings, labels)
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    distances = pairwise_distances(unit)
    p, n = distances[labels == 1][:, labels == 1], distances[labels == 0][:, labels == 0]
    assert entry.intra_positive.value == pytest.approx(p.sum() / (p.size - len(p)), rel=1e-6)
    assert entry.intra_negative.value == pytest.approx(n.sum() / (n.size - len(n)), rel=1e-6)
    assert entry.inter.value == pytest.approx(distances[labels == 1][:, labels == 0].mean(), rel=1e-6)
    assert entry.silhouette.value == pytest.approx(
        silhouette_samples(embeddings, labels, metric="cosine")[labels == 1].mean(), rel=1e-5
    )


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), space=st.sampled_from(["l2", "raw"]))
def test_order_of_rows_does_not_matter(seed: int, space: str) -> None:
    embeddings, labels, groups = sample(seed)
    order = np.random.default_rng(seed).permutation(len(groups))
    before = class_distances(embeddings, labels, groups, space=space)
    after = class_distances(embeddings[order], labels[order], groups[order], space=space)
    for a, b in zip(before, after, strict=True):
        np.testing.assert_allclose(values_of(a), values_of(b), rtol=2e-4, atol=2e-5)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), factor=st.sampled_from([0.25, 3.0, 1e3, 1e-6]))
def test_scaling(seed: int, factor: float) -> None:
    embeddings, labels, groups = sample(seed)
    before = class_distances(embeddings, labels, groups, space="raw")[0]
    after = class_distances(factor * embeddings, labels, groups, space="raw")[0]
    for name in ("intra_positive", "intra_negative", "inter"):
        for bound in ("value", "low", "high"):
            assert getattr(getattr(after, name), bound) == pytest.approx(
                factor * getattr(getattr(before, name), bound), rel=1e-5
            )
    assert after.ratio.value == pytest.approx(before.ratio.value, rel=1e-5)
    assert after.neighbour_purity.value == before.neighbour_purity.value

    each = np.random.default_rng(seed).uniform(0.1, 10, size=(len(groups), 1))
    before, after = (class_distances(x, labels, groups)[0] for x in (embeddings, each * embeddings))
    np.testing.assert_allclose(values_of(before), values_of(after), rtol=2e-4, atol=2e-5)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_a_copy_within_its_group_forms_no_pair_with_its_original(seed: int) -> None:
    """Copying every image of a group gives that group's pairs twice the weight, and nothing a distance of 0."""
    embeddings, labels, groups = sample(seed)
    rows = np.arange(len(groups))
    copied = np.concatenate([rows, np.flatnonzero(groups == groups[0])])
    before = class_distances(embeddings, labels, groups, space="raw")[0]
    after = class_distances(embeddings[copied], labels[copied], groups[copied], space="raw")[0]
    assert after.n_groups == before.n_groups
    label = labels[copied, 0]
    distances = pairwise_distances(embeddings[copied])
    across = groups[copied][:, None] != groups[copied]
    pairs = across & (label[:, None] == 1) & (label == 0)
    assert after.inter.value == pytest.approx(distances[pairs].mean(), rel=1e-5)

    everyone = np.concatenate([rows, rows])
    doubled = class_distances(embeddings[everyone], labels[everyone], groups[everyone], space="raw")[0]
    for name in ("intra_positive", "intra_negative", "inter", "ratio", "energy_distance_estimate", "silhouette"):
        one, two = getattr(before, name), getattr(doubled, name)
        assert two.value == pytest.approx(one.value, rel=1e-4, abs=1e-5)
        assert (two.low, two.high) == pytest.approx((one.low, one.high), rel=1e-4, abs=1e-5, nan_ok=True)


@pytest.mark.parametrize("space", ["l2", "raw"])
def test_block_size_does_not_matter(space: str) -> None:
    embeddings, labels, groups = sample(1, n=150)
    whole = class_distances(embeddings, labels, groups, space=space)
    for block_size in (1, 7, 64, 149):
        parts = class_distances(embeddings, labels, groups, space=space, block_size=block_size)
        for a, b in zip(whole, parts, strict=True):
            np.testing.assert_allclose(values_of(a), values_of(b), rtol=2e-5, atol=2e-6)


def test_labels_do_not_feel_each_other() -> None:
    embeddings, labels, groups = sample(2)
    together = class_distances(embeddings, labels, groups)
    for k in range(2):
        (alone,) = class_distances(embeddings, labels[:, k], groups)
        np.testing.assert_allclose(values_of(alone), values_of(together[k]), rtol=1e-5, atol=1e-7)


def test_small_distance_that_the_gram_trick_loses() -> None:
    """Two unit vectors 9.7e-5 apart, which float32's |x|^2 + |y|^2 - 2 x.y takes for equal."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 512))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    near = x[0] + 9.7e-5 * x[1]
    embeddings = np.stack([x[0], near, x[1], -x[1]]).astype(np.float32)
    unit = embeddings.astype(np.float64) / np.linalg.norm(embeddings.astype(np.float64), axis=1, keepdims=True)
    truth = float(np.linalg.norm(unit[0] - unit[1]))
    assert 9e-5 < truth < 1e-4
    naive = np.float32(2) - np.float32(2) * (embeddings[0] @ embeddings[1])
    assert abs(math.sqrt(max(float(naive), 0.0)) - truth) > 0.1 * truth
    (entry,) = class_distances(embeddings, [1, 1, 0, 0])
    assert entry.intra_positive.value == pytest.approx(truth, rel=1e-6)


@pytest.mark.parametrize("spread", [1e-1, 1e-3, 1e-6])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_tight_clusters_keep_their_distances(spread: float, offset: float) -> None:
    """Whole blocks whose distances are small against the norms, beside far ones."""
    rng = np.random.default_rng(5)
    centres = rng.normal(size=(3, 32)) * 10 + offset
    points = np.repeat(centres, 40, axis=0) + spread * rng.normal(size=(120, 32))
    points[7] = points[3]
    truth = np.linalg.norm(points[:, None] - points, axis=2)
    prepared = points_of(points, "raw", np.arange(120))
    for block in distance_blocks(prepared, np.arange(120), block_size=50):
        block.clear_same_group()
        expected = truth[block.rows, block.columns]
        np.testing.assert_allclose(block.distances * prepared.unit, expected, rtol=2e-5, atol=0)


def test_effective_dimensions() -> None:
    rng = np.random.default_rng(0)
    on_a_line = np.outer(rng.normal(size=50), rng.normal(size=9))
    assert effective_dimensions(points_of(on_a_line, "raw", np.arange(50))) == pytest.approx(1, rel=1e-4)
    round_ = rng.normal(size=(5000, 6))
    assert effective_dimensions(points_of(round_, "raw", np.arange(5000))) == pytest.approx(6, rel=0.02)
    wide = rng.normal(size=(20, 300))
    covariance = np.cov(wide.T, bias=True)
    expected = np.trace(covariance) ** 2 / np.trace(covariance @ covariance)
    assert effective_dimensions(points_of(wide, "raw", np.arange(20))) == pytest.approx(expected, rel=1e-4)


def estimates(entry: ClassDistances) -> dict[str, Estimate]:
    found = {f.name: getattr(entry, f.name) for f in fields(entry) if isinstance(getattr(entry, f.name), Estimate)}
    return found | {"between": entry.centroids.between}


@pytest.mark.parametrize(
    ("labels", "groups"),
    [
        ([0, 0, 0, 0, 0, 0], [0, 1, 2, 3, 4, 5]),
        ([1, 1, 1, 1, 1, 1], [0, 1, 2, 3, 4, 5]),
        ([1, 0, 0, 0, 0, 0], [0, 1, 2, 3, 4, 5]),
        ([1, 1, 0, 0, 0, 0], [0, 0, 2, 3, 4, 5]),
        ([1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]),
        ([math.nan] * 6, [0, 1, 2, 3, 4, 5]),
    ],
)
def test_undefined_is_nan_not_an_exception(labels: list[float], groups: list[int], rng: np.random.Generator) -> None:
    embeddings = rng.normal(size=(6, 4))
    (entry,) = class_distances(embeddings, labels, groups, n_permutations=19, rng=rng)
    assert math.isnan(entry.ratio.value)
    assert math.isnan(entry.energy_distance.p_value)
    assert entry.too_few
    assert all(not e.reliable for e in estimates(entry).values() if math.isnan(e.low))
    text = json.dumps(entry.to_json(), allow_nan=False)
    assert json.loads(text)["ratio"]["value"] is None


def test_three_positives_are_marked(rng: np.random.Generator) -> None:
    labels = np.zeros(80)
    labels[:3] = 1
    (entry,) = class_distances(rng.normal(size=(80, 12)), labels)
    assert entry.too_few
    unreliable = {name for name, e in estimates(entry).items() if not e.reliable}
    assert unreliable == set(estimates(entry)) - {"intra_negative"}
    assert entry.intra_positive.to_json()["method"].endswith("interval unreliable")


def test_no_bound_of_unit_vectors_distances_lies_beyond_two() -> None:
    embeddings = np.random.default_rng(0).normal(size=(30, 2))
    labels = np.array([1.0] * 4 + [0.0] * 26)
    (unit,), (raw,) = class_distances(embeddings, labels), class_distances(10 * embeddings, labels, space="raw")
    assert unit.intra_positive.high == 2.0
    assert raw.intra_positive.high > 2.0


def test_contrasts_near_zero_in_a_plane_are_marked(rng: np.random.Generator) -> None:
    labels = np.repeat([0, 1], 60)
    (flat,) = class_distances(rng.normal(size=(120, 2)), labels, space="raw")
    assert not flat.energy_distance_estimate.low > 0
    assert not any(e.reliable for e in (flat.ratio, flat.energy_distance_estimate, flat.centroids.between))
    assert flat.inter.reliable
    (apart,) = class_distances(rng.normal(size=(120, 2)) + 2 * labels[:, None], labels, space="raw")
    assert apart.ratio.reliable
    (round_,) = class_distances(rng.normal(size=(120, 20)), labels, space="raw")
    assert round_.ratio.reliable


def test_what_is_refused(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(5, 3)), [1, 0, 1, 0, 0]
    spoilt = x.copy()
    spoilt[[1, 3], 0] = (np.nan, np.inf)
    with pytest.raises(InputError, match=r"not finite in rows 1, 3"):
        class_distances(spoilt, y)
    spoilt = x.copy()
    spoilt[2] = 0
    with pytest.raises(InputError, match=r"zero vectors in row 2"):
        class_distances(spoilt, y)
    assert math.isfinite(class_distances(spoilt, y, space="raw")[0].inter.value)
    assert math.isnan(class_distances(spoilt, y, space="raw")[0].silhouette.value)
    with pytest.raises(InputError, match=r"hold -1 in row 0 .*uncertainty policy"):
        class_distances(x, [-1, 0, 1, 0, 0])
    with pytest.raises(InputError, match=r"Labels of shape \(4,\) do not fit 5 embeddings"):
        class_distances(x, y[:4])
    with pytest.raises(InputError, match=r"Groups of shape \(2,\) do not fit 5"):
        class_distances(x, y, [0, 1])
    with pytest.raises(InputError, match=r"Embeddings of shape \(5,\)"):
        class_distances(x[:, 0], y)
    with pytest.raises(InputError, match="Space 'cosine' is not known"):
        class_distances(x, y, space="cosine")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="1 label names do not fit labels with 2 columns"):
        class_distances(x, np.zeros((5, 2)), label_names=["a"])
    with pytest.raises(InputError, match="0 neighbours"):
        class_distances(x, y, n_neighbors=0)


def test_memory_grows_with_n_not_with_its_square() -> None:
    rng = np.random.default_rng(0)
    n, d = 6000, 64
    embeddings = rng.normal(size=(n, d)).astype(np.float32)
    labels = (rng.random((n, 6)) < 0.2).astype(np.float32)
    groups = rng.integers(0, n // 2, n)
    class_distances(embeddings[:100], labels[:100], groups[:100])
    tracemalloc.start()
    class_distances(embeddings, labels, groups)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 24 * 2**20 < n * n * 4 / 4


def test_permutation_test_finds_what_is_there_and_counts_images(rng: np.random.Generator) -> None:
    groups = np.repeat(np.arange(60), 2)
    labels = np.stack([np.repeat(rng.random(60) < 0.4, 2), np.repeat(rng.random(60) < 0.4, 2)], axis=1).astype(float)
    embeddings = rng.normal(size=(120, 10)) + 0.8 * labels[:, :1]
    there, absent = class_distances(embeddings, labels, groups, n_permutations=499, rng=rng)
    assert there.energy_distance.p_value == pytest.approx(1 / 500)
    assert there.energy_distance.p_adjusted == pytest.approx(2 / 500)
    assert absent.energy_distance.p_value > 0.01
    assert (there.n_tested, there.n_not_tested) == (120, 0)
    few = class_distances(embeddings, labels, groups, n_permutations=99, max_permutation_images=50, rng=rng)[0]
    assert 40 <= few.n_tested <= 50
    assert few.n_tested + few.n_not_tested == 120
    assert few.energy_distance.statistic == there.energy_distance.statistic


def test_nothing_to_measure_is_refused() -> None:
    with pytest.raises(InputError, match="at least one of each"):
        class_distances(np.zeros((0, 3)), [])
    with pytest.raises(InputError, match=r"Labels of shape \(5, 0\)"):
        class_distances(np.ones((5, 3)), np.zeros((5, 0)))
