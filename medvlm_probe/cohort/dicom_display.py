"""From the stored values of a DICOM image to grey levels: modality LUT, VOI LUT or window, padding and polarity."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from medvlm_probe.cohort import grey_levels
from medvlm_probe.cohort.dicom_header import DicomHeader, first_item, numbers, text, value_of
from medvlm_probe.errors import ImageError

Values = NDArray[np.float64]
Counts = Callable[[], NDArray[np.int64]]

_LEAST_LEVELS = 16
_MOST_OF_THE_PIXELS = (0.5, 99.5)
_WINDOW_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")


@dataclass(frozen=True)
class Rendering:
    """How stored values become grey levels.

    Attributes:
        window: which window, 1 or 2; 0 shows the full range that the stored bits allow.
        percentiles: the ends, 0 to 100, that values are stretched between, in place of a window; None takes the window.
    """

    window: int = 1
    percentiles: tuple[float, float] | None = None


DEFAULT_RENDERING = Rendering()


def grey_table(header: DicomHeader, rendering: Rendering, counts: Counts) -> NDArray[np.uint8]:
    """Return what grey each cell is shown as: one entry for each of the 2^allocated values that a cell can have.

    Args:
        header: of a MONOCHROME1 or MONOCHROME2 image.
        rendering: window, full range or percentiles.
        counts: returns how many of the image's pixels have each cell value; called only where that decides something.

    Raises:
        ImageError: `corrupt` tables or factors, or `no_window` (see the recipe).
    """
    bits = header.bits_stored
    stored = np.arange(2**bits, dtype=np.int64)
    of_cell = (np.arange(2**header.bits_allocated) >> (header.high_bit + 1 - bits)) & (2**bits - 1)
    if header.signed:
        stored[2 ** (bits - 1) :] -= 2**bits
    values = _modality_values(header, stored.astype(np.float64))
    padding = _padding(header, stored)

    def pixels() -> NDArray[np.int64]:
        of_stored = np.bincount(of_cell, weights=counts(), minlength=2**bits).astype(np.int64)
        of_stored[padding] = 0
        return of_stored

    greys = grey_levels.to_bytes(_shown(header, values, rendering, pixels))
    if header.photometric == "MONOCHROME1" or text(header.attributes, "PresentationLUTShape") == "INVERSE":
        greys = 255 - greys
    greys[padding] = 0
    of_cells: NDArray[np.uint8] = greys[of_cell]
    return of_cells


def _modality_values(header: DicomHeader, stored: Values) -> Values:
    table = first_item(header.attributes, "ModalityLUTSequence")
    if table is not None:
        first, entries = _look_up_table(table, header.big_endian, signed=header.signed)
        return entries[np.clip(stored - first, 0, len(entries) - 1).astype(np.int64)]
    slope = (numbers(header.attributes, "RescaleSlope") or [1.0])[0]
    intercept = (numbers(header.attributes, "RescaleIntercept") or [0.0])[0]
    if slope == 0:
        raise ImageError("corrupt", "The DICOM header's RescaleSlope is 0.")
    return stored * slope + intercept


def _shown(header: DicomHeader, values: Values, rendering: Rendering, pixels: Counts) -> Values:
    """Return each value's place between black (0) and white (1)."""
    if rendering.percentiles is not None:
        return grey_levels.linear(values, *grey_levels.percentile_ends(values, pixels(), rendering.percentiles))
    full = grey_levels.linear(values, float(values.min()), float(values.max()))
    if rendering.window == 0:
        return full
    table = first_item(header.attributes, "VOILUTSequence")
    windows = _windows(header.attributes)
    if rendering.window <= len(windows) and (table is None or rendering.window > 1):
        return _windowed(values, *windows[rendering.window - 1], text(header.attributes, "VOILUTFunction") or "LINEAR")
    if table is not None:
        return _through_table(values, table, header.big_endian)
    if windows:
        return _windowed(values, *windows[0], text(header.attributes, "VOILUTFunction") or "LINEAR")
    if header.bits_stored > 8:
        low, high = grey_levels.percentile_ends(full, pixels(), _MOST_OF_THE_PIXELS)
        levels = (high - low) * 255
        if levels < _LEAST_LEVELS:
            raise ImageError(
                "no_window",
                f"The DICOM file has no window, and 99% of its pixels lie within {levels:.0f} of 255 grey levels of "
                f"its {header.bits_stored} bits. Write 'recipe: dicom/v1:percentile-0.5-99.5' into the data card.",
            )
    return full


def _windows(attributes: Dataset) -> list[tuple[float, float]]:
    """Return centre and width of each window; a width that no window can have stands for none, as vendors write it."""
    pairs = zip(numbers(attributes, "WindowCenter"), numbers(attributes, "WindowWidth"), strict=False)
    least = 1 if text(attributes, "VOILUTFunction") in ("", "LINEAR") else 0
    return [(centre, width) for centre, width in pairs if width >= least and width > 0]


def _windowed(values: Values, centre: float, width: float, function: str) -> Values:
    if function not in _WINDOW_FUNCTIONS:
        raise ImageError("corrupt", f"The VOI LUT function is none of {', '.join(_WINDOW_FUNCTIONS)}.")
    if function == "SIGMOID":
        with np.errstate(over="ignore"):  # far below the window, where the grey level is 0
            return np.asarray(1 / (1 + np.exp(-4 * (values - centre) / width)))
    if function == "LINEAR":
        centre, width = centre - 0.5, width - 1
    return grey_levels.linear(values, centre - width / 2, centre + width / 2)


def _through_table(values: Values, item: Dataset, big_endian: bool) -> Values:
    first, entries = _look_up_table(item, big_endian, signed=bool(values.min() < 0))
    top = 2 ** int(entries.max()).bit_length() - 1
    if top == 0:
        raise ImageError("corrupt", "The VOI LUT shows every value as black.")
    mapped = entries[np.clip(np.rint(values) - first, 0, len(entries) - 1).astype(np.int64)]
    return np.asarray(mapped / top, dtype=np.float64)


def _look_up_table(item: Dataset, big_endian: bool, signed: bool) -> tuple[int, Values]:
    """Return the first value that a table maps, and its entries."""
    descriptor = numbers(item, "LUTDescriptor")
    if len(descriptor) != 3:
        raise ImageError("corrupt", "A look-up table of the DICOM header has no valid descriptor.")
    n, first = int(descriptor[0]) or 2**16, int(descriptor[1])
    if signed and first >= 2**15:
        first -= 2**16
    data = value_of(item, "LUTData")
    if isinstance(data, bytes):
        of_bytes = descriptor[2] <= 8 and len(data) <= n + 1
        words = np.dtype(">u2" if big_endian else "<u2")
        entries = np.frombuffer(data, np.uint8) if of_bytes else np.frombuffer(data[: len(data) // 2 * 2], words)
    else:
        entries = np.array(numbers(item, "LUTData"))
    if not 0 < n <= len(entries):
        raise ImageError("corrupt", "A look-up table of the DICOM header has fewer entries than it declares.")
    if entries.min() < 0 or entries.max() >= 2**16:
        raise ImageError("corrupt", "A look-up table of the DICOM header has entries that 16 bits do not hold.")
    return first, entries[:n].astype(np.float64)


def _padding(header: DicomHeader, stored: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which stored values are padding around the image."""
    given = [numbers(header.attributes, name)[:1] for name in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    if not given[0]:
        return np.zeros(stored.size, dtype=bool)
    cell = 2**header.bits_allocated
    ends = [int(value[0]) % cell for value in given if value]
    if header.signed:
        ends = [end - cell if end >= cell // 2 else end for end in ends]
    return np.asarray((stored >= min(ends)) & (stored <= max(ends)))
