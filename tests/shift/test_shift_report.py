"""The family of tests: who takes part, what is shared, and what a reader gets; nearest reference images."""

from __future__ import annotations

import json

import numpy as np
import pytest

from medvlm_probe.errors import InputError, UnknownNameError
from medvlm_probe.metrics.permutation import holm
from medvlm_probe.shift import shift_tests
from medvlm_probe.shift.nearest_reference import most_unusual
from medvlm_probe.shift.two_samples import mean_by_group, site_permutations, two_samples
from medvlm_probe.types import FloatArray


def vectors(n: int, seed: int, shift: float = 0.0) -> FloatArray:
    return np.random.default_rng(seed).normal(size=(n, 6)) + np.eye(6)[0] * (1 + shift)


def report(shift: float, seed: int = 0, tests: tuple[str, ...] = tuple(shift_tests.TESTS)) -> shift_tests.ShiftReport:
    patients = np.arange(120) // 2
    return shift_tests.test_shift(
        vectors(120, 1),
        vectors(90, 2, shift),
        patients,
        patients[:90] + 1000,
        tests=tests,
        n_permutations=99,
        rng=np.random.default_rng(seed),
    )


def test_a_clear_shift_is_found_by_every_test() -> None:
    found = report(3.0)
    assert [test.test for test in found.tests] == list(shift_tests.TESTS)
    # The linear-time form has 22 terms here: too few for p = .01, not for an effect above its null.
    assert all(test.p_value == 0.01 for test in found.tests if test.test != "mmd_linear")
    assert all(test.statistic > test.null[1] for test in found.tests)
    assert found.n_images == (120, 90)
    assert found.n_groups == (60, 45)


def test_the_family_is_corrected_and_reads_as_json() -> None:
    found = report(0.3)
    p = np.array([test.p_value for test in found.tests])
    assert [test.p_adjusted for test in found.tests] == holm(p).tolist()
    data = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert data["n_shared_groups"] == 0
    assert set(data["tests"][0]["effect"]) == {"value", "low", "high", "n", "n_groups", "method"}
    assert len(data["tests"][0]["null"]) == 3


def test_a_seed_gives_the_same_numbers_whatever_is_asked_for() -> None:
    alone, other = report(0.3, tests=("energy",)).tests[0], report(0.3, tests=("frechet", "mmd", "energy")).tests[2]
    assert (alone.statistic, alone.p_value, alone.null) == (other.statistic, other.p_value, other.null)
    assert report(0.3, seed=1, tests=("energy",)).tests[0].null != alone.null


def test_patients_in_both_samples_are_left_out_and_counted(rng: np.random.Generator) -> None:
    first, second = np.array(["a", "b", "c", "d", "x", "x"]), np.array(["x", "p", "q", "r", "p"])
    samples = two_samples(vectors(6, 0), vectors(5, 1), first, second)
    assert (samples.n_shared_groups, samples.n_left_out) == (1, 3)
    assert samples.n_groups == (4, 3)
    assert sorted(samples.rows.tolist()) == [0, 1, 2, 3, 7, 8, 9, 10]
    assert samples.image_of_site.sum() == 4
    found = shift_tests.test_shift(
        vectors(6, 0), vectors(5, 1), first, second, tests=("mmd",), n_permutations=20, rng=rng
    )
    assert (found.n_shared_groups, found.n_left_out) == (1, 3)


def test_images_without_patients_are_their_own() -> None:
    samples = two_samples(vectors(5, 0), vectors(4, 1), None, np.arange(4))
    assert samples.n_groups == (5, 4)
    assert samples.n_shared_groups == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"site": vectors(4, 1)[:, :3]}, "one model"),
        ({"site_groups": ["a"] * 4}, "at least 3"),
        ({"reference_groups": ["a"] * 3}, "do not fit the 6 images of the reference"),
        ({"site": np.full((4, 6), np.nan)}, "not finite"),
        ({"site": np.zeros((4, 6))}, "zero vectors"),
        ({"n_permutations": 0}, "permutations"),
    ],
)
def test_what_cannot_be_compared_is_refused(change: dict[str, object], message: str) -> None:
    given: dict[str, object] = {"reference": vectors(6, 0), "site": vectors(4, 1), "rng": np.random.default_rng(0)}
    with pytest.raises(InputError, match=message):
        shift_tests.test_shift(**(given | change))  # type: ignore[arg-type]


def test_an_unknown_test_is_named(rng: np.random.Generator) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean energy"):
        shift_tests.test_shift(vectors(6, 0), vectors(4, 1), tests=("enrgy",), rng=rng)


def test_permutations_move_whole_groups_and_keep_their_number(rng: np.random.Generator) -> None:
    of_site = np.arange(37) < 11
    permutations = site_permutations(of_site, 700, rng)
    masks = np.concatenate(list(permutations.blocks(64)))
    assert masks.shape == (700, 37)
    assert (masks.sum(axis=1) == 11).all()
    assert np.abs(masks.mean(axis=0) - 11 / 37).max() < 0.08
    np.testing.assert_array_equal(np.concatenate(list(permutations.blocks(700))), masks)


def test_a_p_value_that_is_clearly_large_stops_early(rng: np.random.Generator) -> None:
    x = vectors(40, 0)
    found = shift_tests.test_shift(x, x[::-1] + 1e-9, tests=("mmd",), n_permutations=5000, rng=rng).tests[0]
    assert found.n_permutations < 1000
    assert found.p_value > 0.5


def test_means_by_group(rng: np.random.Generator) -> None:
    groups = np.repeat(np.arange(5), [1, 3, 2, 4, 1])
    values = rng.normal(size=(11, 2))
    expected = [values[groups == g].mean(axis=0) for g in range(5)]
    np.testing.assert_allclose(mean_by_group(values, groups), expected)


def test_nearest_reference_images_by_loops(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medvlm_probe.shift.nearest_reference._ROWS", 7)
    monkeypatch.setattr("medvlm_probe.shift.nearest_reference._COLUMNS", 11)
    reference, site = rng.normal(size=(60, 4)), rng.normal(size=(30, 4))
    first, second = rng.integers(0, 12, 60), rng.integers(6, 18, 30)
    found = most_unusual(reference, site, first, second, n_images=10, n_neighbours=3)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (reference, site)]
    cosines = unit[1] @ unit[0].T
    cosines[second[:, None] == first] = -np.inf
    order = np.argsort(-cosines, axis=1)[:, :3]
    nearest = np.take_along_axis(cosines, order, axis=1)
    images = np.argsort(nearest[:, 2])[:10]
    np.testing.assert_array_equal(found.images, images)
    np.testing.assert_array_equal(found.neighbours, order[images])
    np.testing.assert_allclose(found.cosines, nearest[images], atol=1e-6)


def test_fewer_neighbours_than_asked_for_are_marked() -> None:
    found = most_unusual(np.eye(3)[:2], np.eye(3)[1:], ["a", "b"], ["b", "c"], n_images=5, n_neighbours=4)
    by_image = dict(zip(found.images.tolist(), found.neighbours.tolist(), strict=True))
    assert by_image == {0: [0, -1, -1, -1], 1: [0, 1, -1, -1]}
    assert np.isnan(found.cosines[:, 2:]).all()
