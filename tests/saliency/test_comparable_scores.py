"""Scores on one scale against a brute-force count, and which images get maps."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from medvlm_probe.cohort.catalog import load_cohort
from medvlm_probe.cohort.regions import regions_of
from medvlm_probe.errors import InputError
from medvlm_probe.saliency.comparable_scores import FEWEST_NEGATIVES, comparable_scores, outcome_of
from medvlm_probe.saliency.image_choice import choose_images, in_selection, reference_images


def test_percentiles_count_the_other_negatives_below_and_half_of_ties(rng: np.random.Generator) -> None:
    n = 80
    logits = np.round(rng.normal(size=(n, 2)), 1)
    targets = rng.choice([0.0, 0.0, 1.0, np.nan], size=(n, 2))
    reference = rng.random(n) < 0.8
    found = comparable_scores(logits, targets, reference)
    assert found.scales == ("percentile", "percentile")
    for label in range(2):
        negatives = [row for row in range(n) if reference[row] and targets[row, label] == 0]
        assert found.n_negatives[label] == len(negatives)
        for row in range(n):
            others = [logits[other, label] for other in negatives if other != row]
            below = sum(value < logits[row, label] for value in others)
            ties = sum(value == logits[row, label] for value in others)
            assert found.values[row, label] == pytest.approx((below + ties / 2) / len(others))


def test_percentiles_do_not_change_with_a_setting_s_own_scale(rng: np.random.Generator) -> None:
    logits, targets = rng.normal(size=(60, 1)), np.zeros((60, 1))
    everything = np.ones(60, dtype=bool)
    first = comparable_scores(logits, targets, everything).values
    np.testing.assert_allclose(comparable_scores(np.exp(3 * logits) - 7, targets, everything).values, first)


def test_few_negatives_leave_the_logistic_function() -> None:
    logits = np.linspace(-3, 3, FEWEST_NEGATIVES)[:, None]
    targets = np.zeros_like(logits)
    targets[0] = 1
    found = comparable_scores(logits, targets, np.ones(len(logits), dtype=bool))
    assert found.scales == ("probability",)
    np.testing.assert_allclose(found.values, expit(logits))


@pytest.mark.parametrize(
    ("share", "outcome"), [(1.0, "found"), (0.9, "found"), (0.89, "unsure"), (0.5, "unsure"), (0.4, "missed")]
)
def test_outcomes(share: float, outcome: str) -> None:
    assert outcome_of(share) == outcome


def test_images_with_a_region_are_chosen_by_label_whatever_the_other_labels() -> None:
    cohort = load_cohort("phantom:n=40,size=32")
    regions = regions_of(cohort)
    assert regions is not None
    chosen = choose_images(cohort, ["cardiomegaly", "lung_opacity"], regions, 5, seed=1)
    images = cohort.table["image"].to_numpy()
    for label, rows in chosen.items():
        assert 1 <= len(rows) <= 5
        assert all(label in regions.labels_of[image] for image in images[rows])
    alone = choose_images(cohort, ["lung_opacity"], regions, 5, seed=1)
    assert alone["lung_opacity"].tolist() == chosen["lung_opacity"].tolist()
    # Without regions the positives are sampled, by the same draw where all positives have a region.
    positives = choose_images(cohort, ["lung_opacity"], None, None, seed=1)["lung_opacity"]
    assert (cohort.targets(["lung_opacity"])[positives, 0] == 1).all()
    assert positives[:5].tolist() == alone["lung_opacity"].tolist()


def test_a_label_of_no_image_is_refused() -> None:
    cohort = load_cohort("phantom:n=4,sites=reference,size=32")
    none = cohort.select(cohort.targets(["pneumothorax"])[:, 0] == 0)
    with pytest.raises(InputError, match="has a region of or is labelled with pneumothorax"):
        choose_images(none, ["pneumothorax"], None, 5, seed=0)


def test_rows_move_with_a_selection_and_references_are_drawn_once() -> None:
    kept = np.array([2, 5, 7, 9])
    moved = in_selection({"a": np.array([9, 3, 2]), "b": np.array([4])}, kept)
    assert moved["a"].tolist() == [3, 0]
    assert moved["b"].tolist() == []
    drawn = reference_images(50, 20, seed=0)
    assert len(np.unique(drawn)) == 20
    assert (np.diff(drawn) > 0).all()
    assert len(reference_images(5, 20, seed=0)) == 5
