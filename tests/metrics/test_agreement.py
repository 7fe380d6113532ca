"""Agreement of two label sources against scikit-learn, and its intervals by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import cohen_kappa_score, f1_score, recall_score

from medvlm_probe.errors import InputError
from medvlm_probe.metrics.agreement import cohens_kappa, label_agreement


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 8)), min_size=2, max_size=60))
@settings(max_examples=80, deadline=None)
def test_estimates_are_scikit_learns(rows: list[tuple[bool, bool, int]]) -> None:
    a, b, groups = (np.array(part) for part in zip(*rows, strict=True))
    found = label_agreement(a.astype(float), b.astype(float), groups)
    one_kind = (a.all() and b.all()) or not (a.any() or b.any())
    if one_kind:
        assert np.isnan(found.kappa.value)
    else:
        assert found.kappa.value == pytest.approx(cohen_kappa_score(a, b))
        assert found.kappa.low <= found.kappa.value <= found.kappa.high
    assert found.agreement.value == pytest.approx(np.mean(a == b))
    if (a | b).any():
        assert found.positive_agreement.value == pytest.approx(f1_score(a, b))
        assert found.positive_agreement.value == pytest.approx(f1_score(b, a))
    if b.any():
        assert found.a_of_b.value == pytest.approx(recall_score(b, a))
    if a.any():
        assert found.b_of_a.value == pytest.approx(recall_score(a, b))
    assert found.n_both + found.n_only_a + found.n_only_b + found.n_neither == len(rows)


def test_unknown_images_are_left_out_and_counted() -> None:
    found = label_agreement([1, 0, np.nan, 1], [1, 1, 1, np.nan], np.arange(4))
    assert (found.n_both, found.n_only_b, found.n_unknown) == (1, 1, 2)
    assert found.agreement.n == 2


def test_the_two_directions_mirror_each_other() -> None:
    rng = np.random.default_rng(0)
    a, b, groups = rng.random(200) < 0.3, rng.random(200) < 0.2, np.arange(200) // 2
    one, other = label_agreement(a, b, groups), label_agreement(b, a, groups)
    assert one.kappa.value == other.kappa.value
    assert one.kappa.low == pytest.approx(other.kappa.low)
    assert one.a_of_b == other.b_of_a


def test_perfect_agreement_has_an_interval_with_width() -> None:
    labels = np.arange(100) < 20
    found = cohens_kappa(labels, labels, np.arange(100))
    assert found.value == 1
    assert 0.7 < found.low < 0.99
    assert found.high == pytest.approx(1)


def test_shapes_must_fit() -> None:
    with pytest.raises(InputError, match="alike"):
        label_agreement([1, 0], [1, 0, 1], np.arange(2))


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("positives", [10, 50, 200])
@pytest.mark.parametrize("errors", [(0.9, 0.99), (0.7, 0.97), (0.98, 0.999)], ids=str)
def test_interval_of_kappa_covers_where_it_claims_to(positives: int, size: int, errors: tuple[float, float]) -> None:
    rng = np.random.default_rng(positives + size)
    se, sp = errors
    prevalence = 0.1
    p = prevalence * se + (1 - prevalence) * (1 - sp)
    by_chance = p * prevalence + (1 - p) * (1 - prevalence)
    truth = (prevalence * se + (1 - prevalence) * sp - by_chance) / (1 - by_chance)
    n_groups = round(positives / prevalence) // size
    groups = np.repeat(np.arange(n_groups), size)

    def uniforms() -> np.ndarray:
        own = rng.normal(size=len(groups))
        return stats.norm.cdf(own if size == 1 else (own + rng.normal(size=n_groups)[groups]) / np.sqrt(2))

    covered = []
    for _ in range(120):
        present = uniforms() < prevalence
        draws = uniforms()
        found = cohens_kappa(np.where(present, draws < se, draws >= sp), present, groups)
        if found.reliable:
            covered.append(found.low <= truth <= found.high)
    assert stats.binom.cdf(sum(covered), len(covered), 0.92) >= 0.001, f"{sum(covered)} of {len(covered)}"
