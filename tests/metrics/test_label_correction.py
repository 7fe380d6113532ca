"""Corrections for a labeler's errors against exact tables, linear programs and published cases."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from medvlm_probe.errors import InputError
from medvlm_probe.metrics.label_correction import (
    LabelerErrors,
    corrected_prevalence,
    corrected_recall,
    corrected_specificity,
    dependence_bounds,
    labeler_errors,
)


def errors_of(sensitivity: float, specificity: float, n: int = 1000) -> LabelerErrors:
    """A labeler measured on n positives and n negatives, each of its own patient."""
    reference = np.repeat([1.0, 0.0], n)
    labelled = np.r_[np.arange(n) < round(sensitivity * n), np.arange(n) >= round(specificity * n)].astype(float)
    return labeler_errors(reference, labelled, np.arange(2 * n))


def images(cells: dict[tuple[int, int], int]) -> tuple[np.ndarray, np.ndarray]:
    """Labelled and predicted, from counts by (labelled, predicted)."""
    rows = np.array([pair for pair, count in cells.items() for _ in range(count)], dtype=bool)
    return rows[:, 0], rows[:, 1]


def expected_cells(p: float, se: float, sp: float, recall: float, specificity: float, n: int) -> dict[tuple, int]:
    """Counts by (labelled, predicted) when labeler and model err independently."""
    cells = {}
    for label, call in itertools.product((1, 0), (1, 0)):
        present = (se if label else 1 - se) * (recall if call else 1 - recall)
        absent = (1 - sp if label else sp) * (1 - specificity if call else specificity)
        cells[label, call] = round(n * (p * present + (1 - p) * absent))
    return cells


def test_errors_are_counted_where_both_know() -> None:
    reference = [1, 1, 1, 1, 0, 0, 0, 0, 0, np.nan, 1]
    labelled = [1, 1, 1, 0, 0, 0, 0, 0, 1, 1, np.nan]
    found = labeler_errors(reference, labelled, np.arange(11))
    assert found.sensitivity.value == pytest.approx(3 / 4)
    assert found.specificity.value == pytest.approx(4 / 5)
    assert (found.sensitivity.n, found.specificity.n) == (4, 5)
    assert found.youden == pytest.approx(0.55)


def test_errors_count_groups_together() -> None:
    found = labeler_errors([1, 1, 1, 0], [1, 0, 1, 0], np.array([5, 5, 2, 5]))
    assert found.positives.tolist() == [1, 2]
    assert found.hits.tolist() == [1, 1]
    assert found.negatives.tolist() == [1]


@pytest.mark.parametrize(("sensitivity", "specificity"), [(0.5, 0.5), (0.3, 0.7), (0.1, 0.6)])
def test_labels_no_better_than_chance_are_refused(sensitivity: float, specificity: float) -> None:
    with pytest.raises(InputError, match="sum to 1 or less"):
        errors_of(sensitivity, specificity)


@pytest.mark.parametrize("reference", [[1, 1, 1], [0, 0, 0], [np.nan] * 3])
def test_a_reference_of_one_kind_is_refused(reference: list[float]) -> None:
    with pytest.raises(InputError, match="need both"):
        labeler_errors(reference, [1, 0, 1], np.arange(3))


def test_shapes_must_fit() -> None:
    with pytest.raises(InputError, match="alike"):
        labeler_errors([1, 0], [1, 0, 1], np.arange(3))
    with pytest.raises(InputError, match="alike"):
        corrected_recall(np.ones(3, bool), np.ones(2, bool), np.arange(3), errors_of(0.9, 0.9))


def test_prevalence_of_rogan_and_gladen() -> None:
    labelled = np.arange(1000) < 150
    found = corrected_prevalence(labelled, np.arange(1000), errors_of(0.8, 0.95))
    assert found.value == pytest.approx((0.15 + 0.95 - 1) / 0.75)
    assert found.low < found.value < found.high
    assert found.reliable


def test_prevalence_interval_is_lang_and_reiczigels() -> None:
    """The published formula, written out for one case with independent images."""
    n, n_se, n_sp = 1000, 200, 300
    se, sp, q = 0.85, 0.94, 0.2
    reference = np.repeat([1.0, 0.0], [n_se, n_sp])
    labelled = np.r_[np.arange(n_se) < 170, np.arange(n_sp) >= 282].astype(float)
    errors = labeler_errors(reference, labelled, np.arange(n_se + n_sp))
    found = corrected_prevalence(np.arange(n) < 200, np.arange(n), errors)
    z = 1.959963984540054
    q_ = (n * q + z**2 / 2) / (n + z**2)
    se_, sp_ = (n_se * se + 1) / (n_se + 2), (n_sp * sp + 1) / (n_sp + 2)
    p_ = (q_ + sp_ - 1) / (se_ + sp_ - 1)
    shift = 2 * z**2 * (p_ * se_ * (1 - se_) / (n_se + 2) - (1 - p_) * sp_ * (1 - sp_) / (n_sp + 2))
    variance = (
        q_ * (1 - q_) / (n + z**2) + p_**2 * se_ * (1 - se_) / (n_se + 2) + (1 - p_) ** 2 * sp_ * (1 - sp_) / (n_sp + 2)
    ) / (se_ + sp_ - 1) ** 2
    assert found.low == pytest.approx(p_ + shift - z * variance**0.5)
    assert found.high == pytest.approx(p_ + shift + z * variance**0.5)


def test_prevalence_stays_in_range_and_without_images_is_undefined() -> None:
    errors = errors_of(0.9, 0.8)
    none_labelled = corrected_prevalence(np.zeros(50, bool), np.arange(50), errors)
    assert none_labelled.value == 0
    assert none_labelled.low == 0
    assert corrected_prevalence(np.ones(50, bool), np.arange(50), errors).value == 1
    assert np.isnan(corrected_prevalence(np.zeros(0, bool), np.arange(0), errors).value)


def test_a_labeler_that_may_be_chance_makes_intervals_unreliable() -> None:
    errors = labeler_errors([1, 1, 0, 0, 0], [1, 0, 0, 0, 1], np.arange(5))
    labelled, predicted = np.arange(100) < 40, np.arange(100) < 30
    assert not corrected_prevalence(labelled, np.arange(100), errors).reliable
    assert not corrected_recall(labelled, predicted, np.arange(100), errors).corrected.reliable


@given(
    p=st.floats(0.1, 0.6),
    se=st.floats(0.6, 1.0),
    sp=st.floats(0.7, 1.0),
    recall=st.floats(0.05, 0.95),
    specificity=st.floats(0.05, 0.95),
)
@settings(max_examples=60, deadline=None)
def test_staquet_recovers_the_truth_of_exact_tables(
    p: float, se: float, sp: float, recall: float, specificity: float
) -> None:
    se, sp = round(se, 3), round(sp, 3)
    labelled, predicted = images(expected_cells(p, se, sp, recall, specificity, 20_000))
    errors, groups = errors_of(se, sp), np.arange(len(labelled))
    assert corrected_recall(labelled, predicted, groups, errors).corrected.value == pytest.approx(recall, abs=0.01)
    found = corrected_specificity(labelled, predicted, groups, errors)
    assert found.corrected.value == pytest.approx(specificity, abs=0.01)


def test_a_labeler_without_errors_changes_nothing() -> None:
    labelled, predicted = images({(1, 1): 30, (1, 0): 20, (0, 1): 10, (0, 0): 140})
    errors, groups = errors_of(1.0, 1.0), np.arange(200)
    recall = corrected_recall(labelled, predicted, groups, errors)
    specificity = corrected_specificity(labelled, predicted, groups, errors)
    assert recall.corrected.value == recall.apparent.value == pytest.approx(0.6)
    assert specificity.corrected.value == specificity.apparent.value == pytest.approx(14 / 15)
    assert recall.low_if_dependent == pytest.approx(recall.high_if_dependent) == pytest.approx(0.6)
    assert recall.corrected.low < recall.apparent.low + 0.02
    assert recall.corrected.high > recall.apparent.high - 0.02


def test_recall_is_undefined_where_false_positives_explain_all_labels() -> None:
    labelled, predicted = images({(1, 1): 2, (1, 0): 2, (0, 1): 10, (0, 0): 186})
    found = corrected_recall(labelled, predicted, np.arange(200), errors_of(0.9, 0.97))
    assert np.isnan(found.corrected.value)
    assert np.isnan(found.low_if_dependent)
    assert found.apparent.value == 0.5


def by_linear_program(
    labelled: np.ndarray, predicted: np.ndarray, se: float, sp: float
) -> tuple[tuple[float, float], tuple[float, float]]:
    """The least and greatest recall and specificity over all joint distributions that fit."""
    cells = list(itertools.product((0, 1), repeat=3))  # truth, labelled, predicted
    p = (labelled.mean() + sp - 1) / (se + sp - 1)
    rows, sides = [], []

    def fix(condition: object, value: float) -> None:
        rows.append([float(condition(*cell)) for cell in cells])  # type: ignore[operator]
        sides.append(value)

    for a, b in itertools.product((0, 1), repeat=2):
        fix(lambda _, label, call, a=a, b=b: label == a and call == b, np.mean((labelled == a) & (predicted == b)))
    fix(lambda d, label, _: d == 1 and label == 1, p * se)
    fix(lambda d, label, _: d == 0 and label == 0, (1 - p) * sp)
    fix(lambda d, _, __: d == 1, p)
    found = []
    for truth, call, size in ((1, 1, p), (0, 0, 1 - p)):
        goal = np.array([float(d == truth and t == call) for d, _, t in cells])
        ends = [linprog(sign * goal, A_eq=rows, b_eq=sides, bounds=(0, 1)) for sign in (1, -1)]
        found.append((ends[0].fun / size, -ends[1].fun / size) if ends[0].success else (np.nan, np.nan))
    return found[0], found[1]


@given(
    counts=st.lists(st.integers(0, 40), min_size=4, max_size=4),
    se=st.floats(0.55, 1.0),
    sp=st.floats(0.55, 1.0),
)
@settings(max_examples=80, deadline=None)
def test_bounds_of_dependence_are_those_of_a_linear_program(counts: list[int], se: float, sp: float) -> None:
    assume(sum(counts) > 0)
    labelled, predicted = images(dict(zip(((1, 1), (1, 0), (0, 1), (0, 0)), counts, strict=True)))
    p = (labelled.mean() + sp - 1) / (se + sp - 1)
    assume(0.02 < p < 0.98)
    exact = by_linear_program(labelled, predicted, se, sp)
    found = dependence_bounds(labelled, predicted, se, sp)
    np.testing.assert_allclose(found, exact, atol=1e-6)


def test_specificity_is_the_recall_of_what_is_absent() -> None:
    labelled, predicted = images({(1, 1): 40, (1, 0): 20, (0, 1): 30, (0, 0): 110})
    groups = np.arange(200)
    one = corrected_specificity(labelled, predicted, groups, errors_of(0.9, 0.8))
    other = corrected_recall(~labelled, ~predicted, groups, errors_of(0.8, 0.9))
    assert one.corrected.value == pytest.approx(other.corrected.value)
    assert one.corrected.low == pytest.approx(other.corrected.low)
    assert one.corrected.high == pytest.approx(other.corrected.high)
    assert one.low_if_dependent == pytest.approx(other.low_if_dependent)


def test_intervals_widen_with_fewer_images_and_with_a_less_known_labeler() -> None:
    labelled, predicted = images({(1, 1): 80, (1, 0): 40, (0, 1): 30, (0, 0): 450})
    groups = np.arange(600)

    def width(errors: LabelerErrors, part: slice = slice(None)) -> float:
        found = corrected_recall(labelled[part], predicted[part], groups[part], errors).corrected
        return found.high - found.low

    well_known = width(errors_of(0.9, 0.95))
    assert width(errors_of(0.9, 0.95, 40)) > 1.2 * well_known
    assert width(errors_of(0.9, 0.95), slice(None, None, 4)) > 1.5 * well_known


def test_groups_that_err_together_widen_the_interval() -> None:
    labelled, predicted = images({(1, 1): 80, (1, 0): 40, (0, 1): 40, (0, 0): 440})
    single = corrected_recall(labelled, predicted, np.arange(600), errors_of(0.9, 0.95)).corrected
    together = corrected_recall(labelled, predicted, np.arange(600) // 10, errors_of(0.9, 0.95)).corrected
    assert together.value == single.value
    assert together.high - together.low > 1.5 * (single.high - single.low)
    assert together.n_groups == 60


def test_few_positives_are_called_unreliable() -> None:
    labelled, predicted = images({(1, 1): 5, (1, 0): 3, (0, 1): 10, (0, 0): 100})
    assert not corrected_recall(labelled, predicted, np.arange(118), errors_of(0.9, 0.99)).corrected.reliable


def test_errors_made_together_are_found_where_counts_refute_independence() -> None:
    """A model that sees what the labeler sees, right or wrong, agrees with it more than any truth could make it."""
    rng = np.random.default_rng(0)
    present = rng.random(4000) < 0.35
    labelled = np.where(present, rng.random(4000) < 0.97, rng.random(4000) < 0.55)
    predicted = labelled ^ (rng.random(4000) < 0.1)
    errors = labeler_errors(present[:2000].astype(float), labelled[:2000].astype(float), np.arange(2000))
    recall = corrected_recall(labelled[2000:], predicted[2000:], np.arange(2000), errors)
    specificity = corrected_specificity(labelled[2000:], predicted[2000:], np.arange(2000), errors)
    assert recall.independence_refuted
    assert specificity.independence_refuted
    assert not recall.corrected.reliable
    assert "refute" in specificity.corrected.method
    truth = predicted[2000:][present[2000:]].mean()
    assert recall.low_if_dependent <= truth <= recall.high_if_dependent


def test_independent_errors_are_seldom_called_refuted() -> None:
    rng = np.random.default_rng(1)
    refuted = 0
    for _ in range(60):
        present = rng.random(1200) < 0.2
        labelled = np.where(present, rng.random(1200) < 0.9, rng.random(1200) < 0.05)
        predicted = np.where(present, rng.random(1200) < 0.97, rng.random(1200) < 0.03)
        errors = labeler_errors(present[:600].astype(float), labelled[:600].astype(float), np.arange(600))
        refuted += corrected_recall(labelled[600:], predicted[600:], np.arange(600), errors).independence_refuted
    assert refuted <= 5
