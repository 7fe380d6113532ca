"""Permutations of groups, p-values, families and null bands against enumeration and brute force."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medvlm_probe.errors import InputError
from medvlm_probe.metrics import resampling
from medvlm_probe.metrics.resampling import (
    group_label_permutations,
    group_permutations,
    holm,
    null_band,
    permutation_blocks,
    permutation_p_value,
    plan_exchange,
    sequential_p_value,
)

ROWS = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 2)), min_size=1, max_size=40)


def test_everything_that_resampling_offers_exists() -> None:
    assert all(hasattr(resampling, name) for name in resampling.__all__)


@given(ROWS, st.integers(0, 5))
def test_label_vectors_move_whole_among_groups_of_equal_size_in_a_stratum(
    rows: list[tuple[int, int]], seed: int
) -> None:
    groups, strata = np.array([g for g, _ in rows]), np.array([s for _, s in rows])
    moved = group_permutations(groups, n_permutations=20, rng=np.random.default_rng(seed), strata=strata)
    kept_groups, kept_strata = groups[moved.kept], strata[moved.kept]
    assert moved.index.dtype == np.int32
    assert (np.diff(moved.kept) > 0).all()
    assert moved.n_thinned == len(rows) - len(moved.kept)
    for index in moved.index:
        np.testing.assert_array_equal(np.sort(index), np.arange(len(moved.kept)))
        np.testing.assert_array_equal(kept_strata[index], kept_strata)
        for g in np.unique(kept_groups):
            source = index[kept_groups == g]
            [origin] = np.unique(kept_groups[source])
            np.testing.assert_array_equal(source, np.flatnonzero(kept_groups == origin))  # whole, and in order


@given(ROWS)
def test_every_group_keeps_an_image_and_at_most_one_size_of_a_stratum_has_no_partner(
    rows: list[tuple[int, int]],
) -> None:
    groups, strata = np.array([g for g, _ in rows]), np.array([s for _, s in rows])
    plan = plan_exchange(groups, rng=np.random.default_rng(0), strata=strata)
    assert set(groups[plan.kept]) == set(groups)
    alone = 0
    for s in np.unique(strata):
        sizes = np.unique(groups[plan.kept][strata[plan.kept] == s], return_counts=True)[1]
        lone_sizes = [size for size in sizes if (sizes == size).sum() == 1]
        assert len(lone_sizes) <= 1
        assert not lone_sizes or lone_sizes[0] == sizes.min()
        alone += len(lone_sizes)
    assert plan.n_exchangeable_groups == len(set(groups)) - alone


def test_a_lone_large_group_among_pairs_is_thinned_to_a_random_pair() -> None:
    groups = np.array([0, 0, 1, 1, 2, 2, 2, 2, 2])
    chosen = {
        tuple(group_permutations(groups, n_permutations=1, rng=np.random.default_rng(seed)).kept[4:])
        for seed in range(200)
    }
    assert chosen == set(itertools.combinations(range(4, 9), 2))


def test_thinning_goes_down_step_by_step() -> None:
    groups = np.repeat(np.arange(5), [1, 2, 4, 7, 7])
    plan = plan_exchange(groups, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(np.unique(groups[plan.kept], return_counts=True)[1], [1, 2, 2, 7, 7])
    assert (plan.n_thinned, plan.n_exchangeable_groups) == (2, 4)


def test_a_group_in_two_strata_keeps_the_rows_of_the_larger_part() -> None:
    groups, strata = np.array([0, 0, 0, 1, 1, 2, 2]), np.array([0, 0, 1, 0, 0, 1, 1])
    plan = plan_exchange(groups, rng=np.random.default_rng(0), strata=strata)
    np.testing.assert_array_equal(plan.kept, [0, 1, 3, 4, 5, 6])


def test_all_exchanges_are_equally_likely() -> None:
    groups = np.array([4, 4, 7, 7, 9, 9, 1])
    index = group_permutations(groups, n_permutations=6000, rng=np.random.default_rng(0)).index
    seen, counts = np.unique(index, axis=0, return_counts=True)
    assert len(seen) == 6
    assert (abs(counts - 1000) < 130).all()
    assert (index[:, 6] == 6).all()


def test_blocks_of_any_size_give_the_same_permutations() -> None:
    groups = np.repeat(np.arange(30), np.resize([1, 2, 3, 3], 30))
    whole = group_permutations(groups, n_permutations=50, rng=np.random.default_rng(5)).index
    for block_size in (1, 7, 50):
        rng = np.random.default_rng(5)
        plan = plan_exchange(groups, rng=rng)
        blocks = list(permutation_blocks(plan, n_permutations=50, rng=rng, block_size=block_size))
        assert max(len(b) for b in blocks) == block_size
        np.testing.assert_array_equal(np.concatenate(blocks), whole)


def test_no_permutations_and_no_rows_are_empty() -> None:
    rng = np.random.default_rng(0)
    assert group_permutations(np.array([1, 1, 2]), n_permutations=0, rng=rng).index.shape == (0, 2)
    assert group_permutations(np.array([], dtype=int), n_permutations=3, rng=rng).index.shape == (3, 0)
    with pytest.raises(InputError, match="one of each per row"):
        group_permutations(np.array([1, 2]), n_permutations=3, rng=rng, strata=np.array([1]))


def test_site_labels_move_among_whole_groups_of_any_size_within_strata() -> None:
    rng = np.random.default_rng(0)
    groups = np.array([3, 3, 3, 8, 5, 5, 6, 9])
    sites = np.array([1, 1, 1, 0, 1, 1, 0, 0])
    strata = np.array([0, 0, 0, 0, 0, 0, 1, 1])
    moved = group_label_permutations(sites, groups, n_permutations=600, rng=rng, strata=strata)
    np.testing.assert_array_equal(moved.labels, [1, 1, 0, 0, 0])
    np.testing.assert_array_equal(moved.labels[moved.row_group], sites)
    by_group = moved.labels[moved.index]
    assert (by_group[:, 2] == 0).all()
    seen, counts = np.unique(by_group, axis=0, return_counts=True)
    assert len(seen) == 3
    assert (abs(counts - 200) < 60).all()


def test_site_labels_go_on_with_the_same_generator() -> None:
    sites, groups = np.arange(10) % 2, np.arange(10)
    whole = group_label_permutations(sites, groups, n_permutations=10, rng=np.random.default_rng(0)).index
    rng = np.random.default_rng(0)
    parts = [group_label_permutations(sites, groups, n_permutations=5, rng=rng).index for _ in range(2)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_a_group_with_two_sites_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="Group 7 has rows of more than one label"):
        group_label_permutations(
            np.array([0, 0, 1]), np.array([3, 7, 7]), n_permutations=3, rng=np.random.default_rng(0)
        )


def test_p_value_of_all_permutations_counts_the_observed_one() -> None:
    null = np.arange(99.0)
    assert permutation_p_value(99.0, null) == 0.01
    assert permutation_p_value(-1.0, null) == 1.0
    assert permutation_p_value(94.0, null) == pytest.approx(6 / 100)
    assert permutation_p_value(4.0, null, "less") == pytest.approx(6 / 100)
    assert permutation_p_value(4.0, null, "two-sided") == pytest.approx(12 / 100)
    assert permutation_p_value(49.0, null, "two-sided") == 1.0


def test_p_value_counts_ties_up_to_rounding_and_undefined_values() -> None:
    assert permutation_p_value(0.3, np.full(9, 0.1 + 0.2 - 1e-12)) == 1.0
    assert permutation_p_value(0.3, np.full(9, 0.2)) == pytest.approx(0.1)
    assert permutation_p_value(0.3, np.array([np.nan, 0.1, 0.1])) == pytest.approx(0.5)
    assert math.isnan(permutation_p_value(math.nan, np.zeros(9)))


def test_sequential_p_value_stops_and_agrees_with_the_full_one() -> None:
    null = np.random.default_rng(0).standard_normal(9999)
    p, drawn = sequential_p_value(0.0, np.split(null[:9990], 10), n_exceedances=20)
    assert drawn < 100
    assert p == 20 / drawn
    assert (null[:drawn] >= 0).sum() == 20
    p, drawn = sequential_p_value(3.5, [null], n_exceedances=20)
    assert drawn == 9999
    assert p == permutation_p_value(3.5, null)
    assert math.isnan(sequential_p_value(math.nan, [null])[0])


@given(st.lists(st.one_of(st.floats(0, 1), st.just(math.nan)), max_size=10))
def test_holm_is_its_definition(p_values: list[float]) -> None:
    adjusted = holm(np.array(p_values))
    known = [p for p in p_values if not math.isnan(p)]
    for p, a in zip(p_values, adjusted, strict=True):
        if math.isnan(p):
            assert math.isnan(a)
        else:
            steps = [(len(known) - sum(q < r for q in known)) * r for r in known if r <= p]
            assert a == pytest.approx(min(1.0, max(steps)))


def test_null_band_holds_a_new_draw_with_its_probability() -> None:
    assert null_band(np.arange(1.0, 40.0)).low == 1
    assert null_band(np.arange(1.0, 40.0)).high == 39
    rng = np.random.default_rng(0)
    inside = []
    for _ in range(3000):
        draws = rng.standard_normal(80)
        band = null_band(draws[1:], level=0.9)
        inside.append(band.low <= draws[0] <= band.high)
    assert 0.885 <= np.mean(inside) <= 0.915


def test_null_band_leaves_out_undefined_replicates() -> None:
    band = null_band(np.array([np.nan, 1.0, 3.0, 2.0]))
    assert (band.low, band.median, band.high, band.n_replicates) == (1, 2, 3, 3)
    assert math.isnan(null_band(np.array([np.nan])).low)
