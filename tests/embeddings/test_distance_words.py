"""The plain sentences: each verdict where it belongs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from medvlm_probe.embeddings.distance_words import distance_sentences, label_sentence
from medvlm_probe.embeddings.distances import DistanceAnalysis, analyse_distances


def analysis(shift: float, n_positive: int = 40, n: int = 160) -> DistanceAnalysis:
    rng = np.random.default_rng(3)
    label = (np.arange(n) < n_positive).astype(np.float32)
    vectors = rng.normal(size=(n, 8)) + shift * label[:, None]
    sites = np.where(np.arange(n) % 2, "a", "b")
    return analyse_distances(
        vectors, label[:, None], labels=("edema",), groups=np.arange(n), sites=sites, n_permutations=499
    )


def sentence(found: DistanceAnalysis) -> str:
    return distance_sentences(found, {"edema": "Edema"}, "patients")[0]


def test_a_separated_label_is_not_chance() -> None:
    text = sentence(analysis(shift=2.0))
    assert "not chance" in text
    assert "25 % of all" in text


def test_a_label_without_a_place_could_be_chance() -> None:
    assert "could be chance" in sentence(analysis(shift=0.0))


@pytest.mark.parametrize("shift", [0.0, 5.0])
def test_too_few_positives_get_no_verdict(shift: float) -> None:
    text = sentence(analysis(shift, n_positive=6))
    assert "6 positive images, too few" in text
    assert "chance" not in text


@pytest.mark.parametrize("n_positive", [0, 160])
def test_one_class_alone_has_nothing_to_compare(n_positive: int) -> None:
    assert "nothing to compare" in sentence(analysis(0.0, n_positive=n_positive))


def test_a_site_that_differs_alone_is_named() -> None:
    found = analysis(shift=0.0)
    entry = found.by_site["a"][0]
    apart = replace(entry, energy_distance=replace(entry.energy_distance, p_adjusted=0.01))
    text = sentence(replace(found, by_site=found.by_site | {"a": (apart,)}))
    assert text.endswith("Taken alone, a difference shows at a (p = 0.01).")


def test_a_slight_separation_is_called_slight() -> None:
    entry = analysis(shift=2.0).pooled[0]
    slight = replace(entry, ratio=replace(entry.ratio, value=1.01, low=1.0, high=1.02))
    assert "slight" in label_sentence(slight, "Edema", "patients")
    assert "slight" not in label_sentence(entry, "Edema", "patients")
