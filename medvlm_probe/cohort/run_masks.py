"""Masks as runs of pixels: from run lengths as data sets write them, from polygons, from pixels, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.errors import InputError


@dataclass(frozen=True, eq=False)
class RunMask:
    """A mask that keeps a few numbers a row instead of every pixel.

    Attributes:
        bounds: first pixel and the one after the last of each run, in row-major order of the image, (r, 2), sorted,
            none empty, none touching the next.
        height, width: of the image.
    """

    bounds: NDArray[np.int64]
    height: int
    width: int

    def pixels(self) -> NDArray[np.bool_]:
        """Return the mask, (height, width)."""
        steps = np.zeros(self.height * self.width + 1, dtype=np.int8)
        steps[self.bounds[:, 0]] = 1
        steps[self.bounds[:, 1]] = -1
        return np.cumsum(steps[:-1], dtype=np.int8).view(np.bool_).reshape(self.height, self.width)

    @property
    def area(self) -> int:
        """How many pixels are inside."""
        return int((self.bounds[:, 1] - self.bounds[:, 0]).sum())

    def resized(self, height: int, width: int) -> RunMask:
        """Return the mask at another size: each pixel takes that of the pixel below its centre."""
        if (height, width) == (self.height, self.width):
            return self
        rows = ((np.arange(height) + 0.5) * self.height / height).astype(np.int64)
        columns = ((np.arange(width) + 0.5) * self.width / width).astype(np.int64)
        return runs_of_pixels(self.pixels()[np.ix_(rows, columns)])


def runs_of_pixels(pixels: NDArray[np.bool_]) -> RunMask:
    """Return the runs of a mask (height, width)."""
    height, width = pixels.shape
    flat = np.concatenate([[False], pixels.ravel(), [False]])
    return RunMask(np.flatnonzero(flat[1:] != flat[:-1]).reshape(-1, 2), height, width)


def union(masks: Sequence[RunMask]) -> RunMask:
    """Return the pixels that any of the masks has; all are of one size, and there is at least one."""
    height, width = masks[0].height, masks[0].width
    return RunMask(_merged(np.concatenate([mask.bounds for mask in masks])), height, width)


def runs_of_polygon(points: NDArray[np.float64], height: int, width: int) -> RunMask:
    """Return the pixels whose centres lie inside a polygon (even-odd rule), cut off at the image's edges.

    Args:
        points: corners x, y in pixels from the top left corner of the image, (p, 2), the last joined to the first.
        height, width: of the image.
    """
    start, end = points, np.roll(points, -1, axis=0)
    upper, lower = np.minimum(start[:, 1], end[:, 1]), np.maximum(start[:, 1], end[:, 1])
    first = np.clip(np.ceil(upper - 0.5), 0, height).astype(np.int64)
    last = np.clip(np.ceil(lower - 0.5), 0, height).astype(np.int64)
    counts = last - first
    edge = np.repeat(np.arange(len(points)), counts)
    row = first[edge] + np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts)
    slope = (end[edge, 0] - start[edge, 0]) / (end[edge, 1] - start[edge, 1])
    x = start[edge, 0] + (row + 0.5 - start[edge, 1]) * slope
    order = np.lexsort((x, row))
    column = np.clip(np.ceil(x[order] - 0.5), 0, width).astype(np.int64)
    bounds = (row[order] * width + column).reshape(-1, 2)
    return RunMask(_merged(bounds), height, width)


def runs_of_counts(counts: NDArray[np.int64], height: int, width: int) -> RunMask:
    """Return the mask of COCO's run lengths: outside and inside in turn, down the columns, from the left.

    Raises:
        InputError: lengths below 0, or that do not add up to the image.
    """
    if (counts < 0).any() or counts.sum() != height * width:
        raise InputError(f"its runs cover {int(counts.sum()):,} pixels, not the {height * width:,} of its image")
    ends = np.cumsum(counts)
    return _down_columns(np.column_stack([ends[:-1:2], ends[1::2]]), height, width)


def runs_of_pairs(numbers: NDArray[np.int64], height: int, width: int, *, relative: bool) -> RunMask:
    """Return the mask of pairs of start and length, down the columns, from the left.

    Args:
        numbers: start and length of each run, (2 r,). Absolute starts count pixels from 1 (Kaggle's usual form);
            relative ones count the pixels since the end of the run before, the first from 0 (SIIM-ACR's).
        height, width: of the image.
        relative: which of the two.

    Raises:
        InputError: an odd number of them, a length below 1, runs that overlap or that leave the image.
    """
    if len(numbers) % 2:
        raise InputError("its runs are no pairs of start and length")
    start, length = numbers[::2], numbers[1::2]
    start = np.cumsum(start + np.concatenate([[0], length[:-1]])) if relative else start - 1
    end = start + length
    order = np.argsort(start, kind="stable")
    if (length < 1).any() or (start < 0).any() or (end[order][:-1] > start[order][1:]).any():
        raise InputError("its runs have a length below 1 or overlap; is it the other form of run lengths?")
    if len(end) and end.max() > height * width:
        raise InputError(f"its runs leave an image of {width} x {height} pixels; is it of another size?")
    return _down_columns(np.column_stack([start, end])[order], height, width)


def counts_of_text(text: str) -> NDArray[np.int64]:
    """Return the run lengths that COCO's compressed text holds.

    Six bits a character (from "0" on): five of the number, lowest first, and whether more follow; numbers are signed,
    and from the third on they are differences to the one two before (maskApi.c of the COCO API).

    Raises:
        InputError: another character, or a text that ends within a number.
    """
    counts: list[int] = []
    number, shift = 0, 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise InputError("its run lengths are no text that COCO's tools write")
        number |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            number -= 1 << shift
        counts.append(number + (counts[-2] if len(counts) > 2 else 0))
        number, shift = 0, 0
    if shift:
        raise InputError("its run lengths end within a number")
    return np.array(counts, dtype=np.int64)


def _down_columns(bounds: NDArray[np.int64], height: int, width: int) -> RunMask:
    turned = RunMask(_merged(bounds), width, height)
    return runs_of_pixels(turned.pixels().T)


def _merged(bounds: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return runs sorted, without empty ones, those that overlap or touch made one."""
    bounds = bounds[bounds[:, 1] > bounds[:, 0]]
    bounds = bounds[np.argsort(bounds[:, 0], kind="stable")]
    if not len(bounds):
        return bounds
    reach = np.maximum.accumulate(bounds[:, 1])
    new = np.concatenate([[True], bounds[1:, 0] > reach[:-1]])
    last = np.concatenate([new[1:], [True]])
    return np.column_stack([bounds[new, 0], reach[last]])
