"""A label's study on tiny models: controls, strata and faithfulness are those that its parts give by themselves."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tiny_towers import target_for, tower

from medvlm_probe.cohort.catalog import load_cohort
from medvlm_probe.cohort.cohort import Cohort
from medvlm_probe.cohort.regions import regions_of
from medvlm_probe.saliency.comparable_scores import ComparableScores
from medvlm_probe.saliency.faithfulness import deletion_and_insertion
from medvlm_probe.saliency.heat_map_strata import found_less_missed, outcomes_of, strata_of
from medvlm_probe.saliency.heat_map_study import LabelMaps, MapOptions, MapSetting, StudyImages, study_label
from medvlm_probe.saliency.heat_map_tables import LESS, curve_table, faithfulness_table, label_json, strata_table
from medvlm_probe.saliency.localization import measure_maps
from medvlm_probe.saliency.localization_estimates import difference_between

N_TAKEN_APART = 2


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    return load_cohort("phantom:prevalence=balanced,sites=reference+portable,n=40,size=48")


def scores_of(cohort: Cohort, values: np.ndarray) -> ComparableScores:
    scores = np.zeros((len(cohort), 1))
    scores[: len(values), 0] = values
    return ComparableScores(scores, ("percentile",), np.array([30]))


@pytest.fixture(scope="module")
def study(cohort: Cohort) -> tuple[LabelMaps, StudyImages, MapSetting]:
    model = tower("open_clip ViT")
    setting = MapSetting("zero-shot", "Zero-shot", model, target_for(model))
    images = StudyImages(cohort, regions_of(cohort))
    rows = np.flatnonzero(cohort.targets(["edema"])[:, 0] == 1)[:8]
    assert len(rows) == 8
    ranks = np.zeros(len(cohort))
    ranks[rows] = [0.95, 0.1, 0.2, 1.0, 0.7, 0.92, 0.3, 0.99]
    found = study_label(
        images,
        setting,
        "edema",
        rows,
        MapOptions(seed=3, faithfulness=N_TAKEN_APART),
        scores=scores_of(cohort, ranks),
    )
    return found, images, setting


def test_own_maps_and_controls_are_measured_as_they_are_alone(
    study: tuple[LabelMaps, StudyImages, MapSetting],
) -> None:
    found, images, setting = study
    masks = [images.region(row, "edema").mask(48, 48) for row in found.rows.tolist()]  # type: ignore[union-attr]
    for maps, place in ((found.maps, found.localization), *((c.maps, c.localization) for c in found.controls.values())):
        alone = measure_maps([images.on_original(setting.model, (48, 48), values) for values in maps], masks)
        assert place is not None
        for name, values in alone.values.items():
            np.testing.assert_array_equal(place.values[name], values)
    assert found.verdict.outcome in {"pass", "fail", "not enough evidence"}


def test_faithfulness_is_that_of_the_first_images(study: tuple[LabelMaps, StudyImages, MapSetting]) -> None:
    found, images, setting = study
    pixels = torch.stack([setting.model.preprocess(images.image(row)) for row in found.rows[:N_TAKEN_APART].tolist()])
    target = setting.target.select(["edema"])
    expected = deletion_and_insertion(
        lambda taken: target.logits(setting.model.encode_images(taken))[:, 0],
        pixels,
        found.maps[:N_TAKEN_APART],
        rng=np.random.default_rng([3, 2]),
    )
    assert found.faithfulness is not None
    np.testing.assert_allclose(found.faithfulness.deletion, expected.deletion, atol=1e-5)
    table = faithfulness_table([found]).set_index("measure")
    areas = expected.areas()
    assert table.loc["insertion_gain", "value"] == pytest.approx(
        (areas["insertion"] - areas["random_insertion"]).mean(), abs=1e-5
    )
    curves = curve_table([found]).groupby(["curve", "order"])["logit"]
    assert list(curves.get_group(("deletion", "random"))) == pytest.approx(expected.random_deletion.mean(axis=0))
    # The picture as it is begins one curve and ends the other.
    np.testing.assert_allclose(found.faithfulness.deletion[:, 0], found.logits[:N_TAKEN_APART], atol=1e-4)
    np.testing.assert_allclose(found.faithfulness.insertion[:, -1], found.logits[:N_TAKEN_APART], atol=1e-4)
    assert label_json(found)["faithfulness"]["n_images"] == N_TAKEN_APART


def test_what_is_found_stands_against_what_is_missed(
    study: tuple[LabelMaps, StudyImages, MapSetting], cohort: Cohort
) -> None:
    found, _, _ = study
    assert {(s.kind, s.name): s.n_images for s in found.strata if s.kind == "outcome"} == {
        ("outcome", "found"): 4,
        ("outcome", "missed"): 3,
    }
    assert found.localization is not None
    values = found.localization.values["average_precision"]
    table = strata_table([found])
    apart = table[(table["stratum"] == LESS) & (table["metric"] == "average_precision")].iloc[0]
    assert apart["value"] == pytest.approx(values[[0, 3, 5, 7]].mean() - values[[1, 2, 6]].mean())
    outcomes = outcomes_of(scores_of(cohort, np.array([0.95, 0.1, 0.6, 0.2])), np.arange(4))
    assert {name: np.flatnonzero(rows).tolist() for name, rows in outcomes.items()} == {
        "found": [0],
        "unsure": [2],
        "missed": [1, 3],
    }
    assert found_less_missed({"iou": np.ones(4)}, outcomes, np.arange(4)) == {}
    assert outcomes_of(None, np.arange(4)) == {}


def test_differences_between_strata_are_the_library_s(rng: np.random.Generator) -> None:
    values, groups = rng.uniform(0.1, 0.9, 40), np.arange(40) // 2
    outcomes = {"found": np.arange(40) < 15, "unsure": np.zeros(40, dtype=bool), "missed": np.arange(40) >= 15}
    found = found_less_missed({"iou": values}, outcomes, groups)["iou"]
    assert found == difference_between("iou", values, outcomes["found"], outcomes["missed"], groups)
    assert math.isfinite(found.low)


def test_strata_need_three_images_and_sites_need_company(study: tuple[LabelMaps, StudyImages, MapSetting]) -> None:
    found, _, _ = study
    assert found.localization is not None
    groups = np.arange(8)
    strata = strata_of(found.localization, np.array(["a"] * 5 + ["b", "b", ""]), groups, {})
    assert [(stratum.kind, stratum.name, stratum.n_images) for stratum in strata] == [("site", "a", 5)]
    assert strata_of(found.localization, np.array(["a"] * 8), groups, {}) == ()
    nine = found.localization.rows(np.array([0, 1, 2, 3, 4, 5, 6, 7, 0]))
    assert {s.name for s in strata_of(nine, np.array(["a"] * 9), np.arange(9), {})} <= {"small", "medium", "large"}
