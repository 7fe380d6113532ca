"""Histograms, percentile ends and table look-ups, against numpy."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from medvlm_probe.cohort.grey_levels import histogram, linear, look_up, percentile_ends, to_bytes


@given(st.lists(st.integers(0, 30), min_size=1, max_size=60), st.floats(0, 50), st.floats(50, 100))
def test_percentile_ends_are_numpys_inverse_of_the_distribution(cells: list[int], low: float, high: float) -> None:
    values = np.random.default_rng(0).permutation(31) * 2.5 - 7
    counts = histogram(np.array(cells, dtype=np.uint8), 31)
    expected = np.percentile(values[cells], (low, high), method="inverted_cdf")
    np.testing.assert_array_equal(percentile_ends(values, counts, (low, high)), expected)


def test_no_pixels_have_no_percentiles() -> None:
    assert percentile_ends(np.array([3.0, -1.0]), np.array([0, 0]), (2, 98)) == (-1, -1)


def test_blocks_make_no_difference() -> None:
    cells = np.random.default_rng(1).integers(0, 65536, (700, 501)).astype(np.uint16)
    table = np.random.default_rng(2).integers(0, 256, 65536, dtype=np.uint8)
    np.testing.assert_array_equal(look_up(table, cells), table[cells])
    np.testing.assert_array_equal(look_up(table, cells[::2, ::3]), table[cells[::2, ::3]])
    np.testing.assert_array_equal(histogram(cells, 65536), np.bincount(cells.ravel(), minlength=65536))


def test_a_straight_line_between_the_ends() -> None:
    values = np.array([-5.0, 0, 1, 2, 4, 9])
    np.testing.assert_array_equal(linear(values, 0, 4), [0, 0, 0.25, 0.5, 1, 1])
    np.testing.assert_array_equal(linear(values, 2, 2), [0, 0, 0, 0, 1, 1])
    np.testing.assert_array_equal(to_bytes(np.array([0, 0.5 / 255, 0.5, 1])), [0, 1, 128, 255])
