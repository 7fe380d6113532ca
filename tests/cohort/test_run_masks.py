"""Masks as runs against pixels: polygons by point-in-polygon, unions, resizing, COCO's text."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.path import Path as Outline

from medvlm_probe.cohort.run_masks import (
    counts_of_text,
    runs_of_counts,
    runs_of_pairs,
    runs_of_pixels,
    runs_of_polygon,
    union,
)
from medvlm_probe.errors import InputError


def test_pixels_survive_runs(rng: np.random.Generator) -> None:
    for share in (0.0, 0.3, 0.9, 1.0):
        pixels = rng.random((7, 11)) < share
        runs = runs_of_pixels(pixels)
        np.testing.assert_array_equal(runs.pixels(), pixels)
        assert runs.area == pixels.sum()


def test_a_union_is_that_of_the_pixels(rng: np.random.Generator) -> None:
    masks = [rng.random((6, 9)) < 0.3 for _ in range(4)]
    joined = union([runs_of_pixels(mask) for mask in masks])
    np.testing.assert_array_equal(joined.pixels(), np.logical_or.reduce(masks))
    assert (joined.bounds[1:, 0] > joined.bounds[:-1, 1]).all()


@pytest.mark.parametrize("seed", range(5))
def test_polygons_hold_the_pixels_whose_centres_they_hold(seed: int) -> None:
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.random(9)) * 2 * np.pi
    radius = 4 + 14 * rng.random(9)
    corners = np.column_stack([15 + radius * np.cos(angles), 11 + radius * np.sin(angles)])  # leaves the image
    y, x = np.mgrid[:20, :30]
    centres = np.column_stack([x.ravel() + 0.5, y.ravel() + 0.5])
    expected = Outline(np.vstack([corners, corners[:1]])).contains_points(centres).reshape(20, 30)
    np.testing.assert_array_equal(runs_of_polygon(corners, 20, 30).pixels(), expected)


def test_masks_are_resized_by_the_pixel_below_each_centre(rng: np.random.Generator) -> None:
    pixels = rng.random((5, 4)) < 0.5
    large = np.kron(pixels, np.ones((3, 3), dtype=bool))
    np.testing.assert_array_equal(runs_of_pixels(large).resized(5, 4).pixels(), pixels)
    np.testing.assert_array_equal(runs_of_pixels(pixels).resized(15, 12).pixels(), large)


def test_coco_counts_run_down_the_columns(rng: np.random.Generator) -> None:
    pixels = rng.random((6, 5)) < 0.4
    flat = pixels.ravel(order="F")
    changes = np.flatnonzero(np.diff(np.concatenate([[False], flat, [False]]).astype(int)))
    counts = np.diff(np.concatenate([[0], changes, [30]]))
    np.testing.assert_array_equal(runs_of_counts(counts, 6, 5).pixels(), pixels)


def test_compressed_counts_are_those_of_the_coco_tools() -> None:
    # pycocotools.mask.encode of 48 x 64 pixels with rows 6 to 13 of columns 4 to 13 inside.
    assert counts_of_text("V68X100000000000000000jZ2").tolist() == [198, *[8, 40] * 9, 8, 2434]
    for text in ("f", "6\x7f", " "):
        with pytest.raises(InputError):
            counts_of_text(text)


@pytest.mark.parametrize(
    ("numbers", "relative", "said"),
    [
        ([1, 2, 3], False, "no pairs"),
        ([1, 0], False, "below 1"),
        ([0, 2], False, "below 1"),
        ([1, 5, 3, 2], False, "overlap"),
        ([29, 3], False, "leave an image of 5 x 6"),
        ([29, 3], True, "leave an image of 5 x 6"),
    ],
)
def test_runs_that_fit_no_image_are_refused(numbers: list[int], relative: bool, said: str) -> None:
    with pytest.raises(InputError, match=said):
        runs_of_pairs(np.array(numbers), 6, 5, relative=relative)
