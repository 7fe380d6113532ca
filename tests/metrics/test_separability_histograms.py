"""Histograms of distances against numpy on the whole matrix."""

from __future__ import annotations

import numpy as np
import pytest

from medvlm_probe.errors import InputError
from medvlm_probe.metrics.separability import distance_histograms


@pytest.mark.parametrize("space", ["l2", "raw"])
@pytest.mark.parametrize("block_size", [9, 512])
def test_against_numpy(space: str, block_size: int) -> None:
    rng = np.random.default_rng(0)
    embeddings, groups = rng.normal(size=(70, 4)) * 50, rng.integers(0, 40, 70)
    labels = (rng.random((70, 2)) < 0.4).astype(float)
    labels[rng.random(labels.shape) < 0.1] = np.nan
    points = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True) if space == "l2" else embeddings
    distances = np.linalg.norm(points[:, None] - points, axis=2)
    i, j = np.triu_indices(70, 1)
    found = distance_histograms(
        embeddings, labels, groups, space=space, bins=20, block_size=block_size, label_names=("a", "b")
    )
    assert [h.label for h in found] == ["a", "b"]
    for k, histogram in enumerate(found):
        y = labels[:, k]
        across = groups[i] != groups[j]
        kinds = {
            "intra_positive": across & (y[i] == 1) & (y[j] == 1),
            "intra_negative": across & (y[i] == 0) & (y[j] == 0),
            "inter": across & (y[i] + y[j] == 1),
        }
        assert 15 <= len(histogram.edges) - 1 <= 20
        for kind, chosen in kinds.items():
            expected = np.histogram(distances[i, j][chosen], histogram.edges)[0]
            assert histogram.counts[kind].sum() == expected.sum() == chosen.sum()
            assert np.abs(histogram.counts[kind] - expected).max() <= 1  # a distance on an edge, in float32
            assert (histogram.density[kind] * np.diff(histogram.edges)).sum() == pytest.approx(1)


def test_edges_span_the_distances(rng: np.random.Generator) -> None:
    embeddings = rng.normal(size=(50, 300))
    (histogram,) = distance_histograms(embeddings, rng.integers(0, 2, 50), bins=40)
    assert histogram.counts["inter"][[0, -1]].sum() + histogram.counts["intra_negative"][[0, -1]].sum() > 0
    assert histogram.edges[0] > 1
    assert histogram.edges[-1] < 2


def test_no_pairs_and_bad_bins(rng: np.random.Generator) -> None:
    (histogram,) = distance_histograms(rng.normal(size=(4, 3)), [1, 1, 0, 0], [7, 7, 7, 7])
    assert all(counts.sum() == 0 for counts in histogram.counts.values())
    assert all(np.isfinite(density).all() for density in histogram.density.values())
    with pytest.raises(InputError, match="0 bins"):
        distance_histograms(rng.normal(size=(4, 3)), [1, 1, 0, 0], bins=0)
