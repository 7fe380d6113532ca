"""Every number of class_distances against loops over pairs of images, with unknown labels and mixed groups."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from medvlm_probe.metrics.separability import ClassDistances, class_distances

K = 5
N = 34


class Cohort:
    """A small cohort: groups of one to four images, labels that vary within groups, some of them unknown."""

    def __init__(self, seed: int, space: str, n: int = N) -> None:
        rng = np.random.default_rng(seed)
        self.space = space
        self.groups = np.sort(rng.integers(0, n // 2, n))[rng.permutation(n)]
        self.labels = (rng.random((n, 2)) < (0.35, 0.6)).astype(float)
        self.labels[rng.random((n, 2)) < 0.15] = np.nan
        self.embeddings = rng.normal(size=(n, 6)) + 3.0
        self.embeddings[self.labels[:, 0] == 1, 0] += 1.0
        if space == "l2":
            self.points = self.embeddings / np.linalg.norm(self.embeddings, axis=1, keepdims=True)
        else:
            self.points = self.embeddings

    def distance(self, i: int, j: int) -> float:
        return math.dist(self.points[i], self.points[j])

    def cosine_distance(self, i: int, j: int) -> float:
        x, y = self.embeddings[i], self.embeddings[j]
        return 1 - float(x @ y) / math.sqrt(float(x @ x) * float(y @ y))


Statistic = Callable[[Cohort, int, list[int]], float]


def rows_with(cohort: Cohort, label: int, value: int, rows: list[int]) -> list[int]:
    return [i for i in rows if cohort.labels[i, label] == value]


def mean_over_pairs(
    cohort: Cohort, first: list[int], second: list[int], distance: Callable[[int, int], float]
) -> float:
    found = [distance(i, j) for i in first for j in second if cohort.groups[i] != cohort.groups[j]]
    return sum(found) / len(found) if found else math.nan


def three_means(
    cohort: Cohort, label: int, rows: list[int], distance: Callable[[int, int], float]
) -> tuple[float, float, float]:
    p, n = rows_with(cohort, label, 1, rows), rows_with(cohort, label, 0, rows)
    return (
        mean_over_pairs(cohort, p, p, distance),
        mean_over_pairs(cohort, n, n, distance),
        mean_over_pairs(cohort, p, n, distance),
    )


def intra_positive(cohort: Cohort, label: int, rows: list[int]) -> float:
    return three_means(cohort, label, rows, cohort.distance)[0]


def intra_negative(cohort: Cohort, label: int, rows: list[int]) -> float:
    return three_means(cohort, label, rows, cohort.distance)[1]


def inter(cohort: Cohort, label: int, rows: list[int]) -> float:
    return three_means(cohort, label, rows, cohort.distance)[2]


def ratio(cohort: Cohort, label: int, rows: list[int]) -> float:
    p, n, b = three_means(cohort, label, rows, cohort.distance)
    return b / ((p + n) / 2)


def energy(cohort: Cohort, label: int, rows: list[int]) -> float:
    p, n, b = three_means(cohort, label, rows, cohort.distance)
    return 2 * b - p - n


def squared_between_centroids(cohort: Cohort, label: int, rows: list[int]) -> float:
    p, n, b = three_means(cohort, label, rows, lambda i, j: cohort.distance(i, j) ** 2)
    return b - p / 2 - n / 2


def purity(cohort: Cohort, label: int, rows: list[int]) -> float:
    hits = known = 0
    for i in rows_with(cohort, label, 1, rows):
        others = [j for j in rows if cohort.groups[j] != cohort.groups[i]]
        for j in sorted(others, key=lambda j: cohort.distance(i, j))[:K]:
            known += not math.isnan(cohort.labels[j, label])
            hits += cohort.labels[j, label] == 1
    return hits / known


def silhouette(cohort: Cohort, label: int, rows: list[int]) -> float:
    p, n = rows_with(cohort, label, 1, rows), rows_with(cohort, label, 0, rows)
    values = []
    for i in p:
        a = mean_over_pairs(cohort, [i], p, cohort.cosine_distance)
        b = mean_over_pairs(cohort, [i], n, cohort.cosine_distance)
        values.append((b - a) / max(a, b))
    return sum(values) / len(values)


def interval(
    cohort: Cohort, label: int, statistic: Statistic, scale: str, *, only: int | None = None, offset: float = 0.0
) -> tuple[float, float]:
    """The stratified group jackknife, each group left out and everything computed again."""
    forward, backward = {
        "plain": (lambda x: x, lambda y: y),
        "log": (math.log, math.exp),
        "root": (lambda x: math.sqrt(x + offset), lambda y: max(y, 0) ** 2 - offset),
    }[scale]
    rows = [i for i in range(len(cohort.labels)) if not math.isnan(cohort.labels[i, label])]
    holding = {v: {cohort.groups[i] for i in rows_with(cohort, label, v, rows)} for v in (1, 0)}
    if only is not None:
        strata = [sorted(holding[only])]
    else:
        rarer = holding[1] if len(holding[1]) <= len(holding[0]) else holding[0]
        strata = [sorted(rarer), sorted((holding[0] | holding[1]) - rarer)]
    everything = list(range(len(cohort.labels)))
    variances, dfs = [], []
    for stratum in strata:
        values = np.array(
            [
                forward(statistic(cohort, label, [i for i in everything if cohort.groups[i] != group]))
                for group in stratum
            ]
        )
        dfs.append(len(values) - 1)
        variances.append((len(values) - 1) / len(values) * ((values - values.mean()) ** 2).sum())
    total = sum(variances)
    df = total**2 / sum(v**2 / d for v, d in zip(variances, dfs, strict=True))
    centre = forward(statistic(cohort, label, everything))
    half = stats.t.ppf(0.975, df) * math.sqrt(total)
    return backward(centre - half), backward(centre + half)


@pytest.fixture(scope="module", params=["l2", "raw"])
def cohort(request: pytest.FixtureRequest) -> Cohort:
    return Cohort(3, request.param)


@pytest.fixture(scope="module")
def found(cohort: Cohort) -> tuple[ClassDistances, ...]:
    return class_distances(
        cohort.embeddings, cohort.labels, cohort.groups, space=cohort.space, n_neighbors=K, block_size=16
    )


@pytest.mark.parametrize("label", [0, 1])
def test_counts(cohort: Cohort, found: tuple[ClassDistances, ...], label: int) -> None:
    column = cohort.labels[:, label]
    entry = found[label]
    assert (entry.n_positive, entry.n_negative, entry.n_unknown) == (
        (column == 1).sum(),
        (column == 0).sum(),
        np.isnan(column).sum(),
    )
    assert entry.n_groups == len(set(cohort.groups[~np.isnan(column)]))
    assert entry.prevalence == pytest.approx(np.nanmean(column))
    assert entry.n_unknown > 0
    assert entry.intra_positive.n_groups == len(set(cohort.groups[column == 1]))


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize(
    ("name", "statistic"),
    [("intra_positive", intra_positive), ("intra_negative", intra_negative), ("inter", inter)],
)
def test_mean_distances(
    cohort: Cohort, found: tuple[ClassDistances, ...], label: int, name: str, statistic: Statistic
) -> None:
    estimate = getattr(found[label], name)
    assert estimate.value == pytest.approx(statistic(cohort, label, list(range(N))), rel=1e-6)
    only = {"intra_positive": 1, "intra_negative": 0}.get(name)
    expected = interval(cohort, label, statistic, "log", only=only)
    assert (estimate.low, estimate.high) == pytest.approx(expected, rel=1e-5)


def bias(cohort: Cohort, label: int, distance: Callable[[int, int], float]) -> float:
    """What the samples as they are add to the energy distance: mean distances over effective numbers of groups."""
    means = three_means(cohort, label, list(range(N)), distance)
    total = 0.0
    for value, mean in ((1, means[0]), (0, means[1])):
        rows = rows_with(cohort, label, value, list(range(N)))
        sizes = np.bincount(cohort.groups[rows])
        total += mean * (sizes**2).sum() / len(rows) ** 2
    return total


@pytest.mark.parametrize("label", [0, 1])
def test_ratio_and_energy_distance(cohort: Cohort, found: tuple[ClassDistances, ...], label: int) -> None:
    everything = list(range(N))
    entry = found[label]
    p, n, b = three_means(cohort, label, everything, cohort.distance)
    offset = bias(cohort, label, cohort.distance)
    assert entry.ratio.value == pytest.approx(b / ((p + n) / 2), rel=1e-6)
    assert entry.energy_distance.statistic == pytest.approx(2 * b - p - n, rel=1e-4, abs=1e-6)
    assert entry.energy_distance_estimate.value == entry.energy_distance.statistic
    assert entry.ratio.value - 1 == pytest.approx(entry.energy_distance.statistic / (p + n), rel=1e-4, abs=1e-6)
    expected = interval(cohort, label, energy, "root", offset=offset)
    assert (entry.energy_distance_estimate.low, entry.energy_distance_estimate.high) == pytest.approx(
        expected, rel=1e-3
    )
    expected = interval(cohort, label, ratio, "root", offset=offset / (p + n) - 1)
    assert (entry.ratio.low, entry.ratio.high) == pytest.approx(expected, rel=1e-4)
    assert math.isnan(entry.energy_distance.p_value)


@pytest.mark.parametrize("label", [0, 1])
def test_centroid_distances(cohort: Cohort, found: tuple[ClassDistances, ...], label: int) -> None:
    column = cohort.labels[:, label]
    centroids = {v: cohort.points[column == v].mean(axis=0) for v in (0, 1)}
    centroid = found[label].centroids
    assert centroid.between_plug_in == pytest.approx(float(np.linalg.norm(centroids[0] - centroids[1])), rel=1e-5)
    for spread, v in ((centroid.negative_spread, 0), (centroid.positive_spread, 1)):
        own = np.linalg.norm(cohort.points[column == v] - centroids[v], axis=1).mean()
        assert spread == pytest.approx(own, rel=1e-5)

    square = squared_between_centroids(cohort, label, list(range(N)))
    offset = bias(cohort, label, lambda i, j: cohort.distance(i, j) ** 2) / 2
    low, high = interval(cohort, label, squared_between_centroids, "root", offset=offset)
    roots = [math.sqrt(max(x, 0)) for x in (square, low, high)]
    estimate = centroid.between
    assert [estimate.value, estimate.low, estimate.high] == pytest.approx(roots, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("label", [0, 1])
def test_neighbour_purity(cohort: Cohort, found: tuple[ClassDistances, ...], label: int) -> None:
    estimate = found[label].neighbour_purity
    assert estimate.value == pytest.approx(purity(cohort, label, list(range(N))), abs=1e-12)
    low, high = interval(cohort, label, purity, "plain")
    assert (estimate.low, estimate.high) == pytest.approx((max(low, 0), min(high, 1)), rel=1e-9)


@pytest.mark.parametrize("label", [0, 1])
def test_silhouette(cohort: Cohort, found: tuple[ClassDistances, ...], label: int) -> None:
    estimate = found[label].silhouette
    assert estimate.value == pytest.approx(silhouette(cohort, label, list(range(N))), rel=1e-4, abs=1e-6)
    expected = interval(cohort, label, silhouette, "plain")
    assert (estimate.low, estimate.high) == pytest.approx(expected, rel=1e-3, abs=1e-5)
