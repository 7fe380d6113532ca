"""The embedded default as a cohort: its table, its images, its options."""

from __future__ import annotations

import numpy as np
import pytest

from medvlm_probe.cohort.catalog import load_cohort
from medvlm_probe.cohort.cohort import Cohort
from medvlm_probe.cohort.labels import CHEXPERT_LABELS
from medvlm_probe.cohort.phantom import draw, sample_cases
from medvlm_probe.cohort.phantom_source import phantom_options
from medvlm_probe.errors import InputError, UnknownNameError


@pytest.fixture(scope="module")
def default() -> Cohort:
    return load_cohort()


def test_the_default(default: Cohort) -> None:
    counts = {site: int((default.sites() == site).sum()) for site in sorted(set(default.sites()))}
    assert counts == {"community": 200, "inverted_archive": 200, "low_dose": 200, "portable": 200, "reference": 600}
    assert default.labels == CHEXPERT_LABELS
    assert default.absent == ()
    assert default.extra == ()
    assert default.group_kind == "patient"
    assert not default.table["image"].duplicated().any()
    assert default.source.recipe == "phantom/v1"
    assert default.card.name == "phantom"


def test_patients_are_split_not_images(default: Cohort) -> None:
    assert set(default.splits()) == {"calib", "test"}
    assert default.table.groupby("patient")["split"].nunique().max() == 1
    assert 0.4 < (default.splits() == "test").mean() < 0.6
    larger = load_cohort("phantom:n=700,sites=reference")
    both = default.table.merge(larger.table, on="image")
    assert len(both) == 600
    assert (both["split_x"] == both["split_y"]).all()


def test_images_are_those_of_the_generator(default: Cohort) -> None:
    test = default.select_split("test")
    case = next(
        case for case in sample_cases("reference", 600, 0, "iu_xray") if case.patient == test.table["patient"][0]
    )
    image, key = test.source.read_with_key(0)
    assert (image.mode, image.size) == ("L", (224, 224))
    np.testing.assert_array_equal(np.asarray(image), draw(case, 224).pixels)
    assert key == test.source.content_key(0)
    assert [test.table[label][0] for label in CHEXPERT_LABELS] == [case.labels[label] for label in CHEXPERT_LABELS]


def test_content_keys_are_different_and_depend_on_size(default: Cohort) -> None:
    keys = {default.source.content_key(row) for row in range(len(default))}
    assert len(keys) == len(default)
    larger = load_cohort("phantom:size=256")
    assert larger.source.content_key(0) not in keys
    assert larger.fingerprint != default.fingerprint
    assert larger.source.read(0).size == (256, 256)


def test_the_fingerprint_is_the_same_each_time(default: Cohort) -> None:
    assert load_cohort("phantom").fingerprint == default.fingerprint
    assert load_cohort("phantom:seed=1").fingerprint != default.fingerprint


def test_options() -> None:
    cohort = load_cohort("phantom:prevalence=balanced,sites=reference+portable,n=30,seed=5")
    assert len(cohort) == 60
    assert set(cohort.sites()) == {"reference", "portable"}
    balanced = load_cohort("phantom:prevalence=balanced,sites=reference,n=300").targets().mean(axis=0)
    tailed = load_cohort("phantom:sites=reference,n=300").targets().mean(axis=0)
    assert balanced[1:].min() > tailed[1:].min()


@pytest.mark.parametrize(
    ("text", "error", "what"),
    [
        ("prevalance=balanced", UnknownNameError, "Did you mean prevalence"),
        ("prevalence=balance", UnknownNameError, "Did you mean balanced"),
        ("sites=referense", UnknownNameError, "Did you mean reference"),
        ("balanced", UnknownNameError, "Unknown phantom option 'balanced'"),
        ("n=0", InputError, "n=0: expected a whole number from 1"),
        ("n=ten", InputError, "n=ten"),
        ("seed=-1", InputError, "seed=-1"),
        ("size=31", InputError, "from 32 to 1,024"),
        ("size=1025", InputError, "from 32 to 1,024"),
    ],
)
def test_options_that_are_none(text: str, error: type[Exception], what: str) -> None:
    with pytest.raises(error, match=what):
        phantom_options(text)


@pytest.mark.parametrize("size", [32, 1024])
def test_the_sizes_that_are_offered_can_be_drawn(size: int) -> None:
    cohort = load_cohort(f"phantom:sites=reference,n=1,size={size}")
    assert cohort.source.read(0).size == (size, size)


def test_an_image_folder_makes_no_sense_here(tmp_path: object) -> None:
    with pytest.raises(InputError, match="draws its images"):
        load_cohort("phantom", image_root=tmp_path)  # type: ignore[arg-type]
