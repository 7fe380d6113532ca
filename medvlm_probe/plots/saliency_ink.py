"""How a signed map is laid over a radiograph: colours, contours, hatching of what was never seen, the colour bar."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.errors import InputError
from medvlm_probe.plots.style import INK, MARGIN_MM, bare, number, text_width, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from medvlm_probe.plots.style import Page
    from medvlm_probe.types import FloatArray

Pixels = NDArray[np.uint8]
FOR, AGAINST = (0.76, 0.075, 0.135), (0.76, -0.06, -0.12)
"""The two ends of the scale in Oklab, equally light: orange speaks for the label, blue against it."""

REGION = "#FFE34D"

LARGEST_SHOWN = 420
"""Longest side of a panel in pixels: what a third of a journal's column holds at 300 dots per inch."""

BAR_MM = 11.0
CONTOURS_AT = (1 / 3, 2 / 3)
_OPAQUE = 0.75
_FROM_OKLAB = np.array(
    [[1.0, 0.3963377774, 0.2158037573], [1.0, -0.1055613458, -0.0638541728], [1.0, -0.0894841775, -1.2914855480]]
)
_TO_LINEAR = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)


def coloured(grey: NDArray[np.floating], values: NDArray[np.floating], limit: float) -> NDArray[np.float64]:
    """Return grey pixels with a signed map over them as sRGB, (h, w, 3) in [0, 1].

    At 0 the radiograph is as it was; towards +limit and -limit it goes over to orange and to blue in equal steps of
    Oklab, in which equal steps look equal (Ottosson 2020, "A perceptual color space for image processing").

    Args:
        grey: sRGB lightness in [0, 1], (h, w).
        values: the map, (h, w); NaN stays grey.
        limit: above 0.
    """
    share = np.clip(np.nan_to_num(values) / limit, -1, 1)
    weight = (_OPAQUE * np.abs(share))[..., None]
    ends = np.where(share[..., None] >= 0, FOR, AGAINST)
    below = np.zeros((*grey.shape, 3))
    below[..., 0] = np.cbrt(np.where(grey <= 0.04045, grey / 12.92, ((grey + 0.055) / 1.055) ** 2.4))
    mixed = (1 - weight) * below + weight * ends
    linear: NDArray[np.float64] = np.clip((mixed @ _FROM_OKLAB.T) ** 3 @ _TO_LINEAR.T, 0, 1)
    return np.asarray(np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055))


def shrunk(array: NDArray[Any]) -> NDArray[np.float64]:
    """Return the means of blocks of a large array (H, W), at most `LARGEST_SHOWN` on its longest side."""
    values = array.astype(np.float64)
    step = -(-max(values.shape) // LARGEST_SHOWN)
    height, width = (side // step * step for side in values.shape)
    blocks = values[:height, :width].reshape(height // step, step, width // step, step)
    means: NDArray[np.float64] = blocks.mean(axis=(1, 3))
    return means


def scale_limit(maps: list[FloatArray]) -> float:
    """Return the end of a scale for maps: the 99.9th percentile of their absolute values; 1 where all are 0."""
    values = np.concatenate([np.abs(values[np.isfinite(values)]).ravel() for values in maps])
    limit = float(np.quantile(values, 0.999)) if values.size else 0.0
    return limit if limit > 0 else 1.0


def draw_image(axes: Axes, image: Pixels) -> None:
    """Draw a grey radiograph, black 0 and white 255."""
    axes.imshow(
        shrunk(image),
        cmap="gray",
        vmin=0,
        vmax=255,
        aspect="auto",
        interpolation="antialiased",
        extent=_extent(image.shape),
    )
    bare(axes)


def draw_map(axes: Axes, image: Pixels, values: FloatArray, limit: float) -> None:
    """Draw a radiograph under its map, with contours (solid for, dashed against), and hatching where the map is NaN."""
    if values.shape != image.shape:
        raise InputError(f"A map of shape {values.shape} does not fit an image of {image.shape}.")
    small, ground = shrunk(values), shrunk(image) / 255
    extent = _extent(image.shape)
    pixels = np.round(coloured(ground, small, limit) * 255).astype(np.uint8)
    axes.imshow(pixels, aspect="auto", interpolation="antialiased", extent=extent)
    columns, rows = _grid(small.shape, image.shape)
    unseen = np.isnan(small)
    level = np.where(unseen, 0.0, small) / limit
    for levels, line in ((CONTOURS_AT, "solid"), (tuple(-at for at in reversed(CONTOURS_AT)), (0, (2.5, 1.5)))):
        inside = [at for at in levels if level.min() < at < level.max()]
        for colour, line_width in (("#00000080", 1.1), ("white", 0.5)) if inside else ():
            axes.contour(columns, rows, level, inside, colors=colour, linewidths=line_width, linestyles=[line])
    if unseen.any():
        axes.contourf(columns, rows, unseen.astype(float), levels=[0.5, 1.5], colors=["#BDBDBD"])
        axes.contourf(columns, rows, unseen.astype(float), levels=[0.5, 1.5], colors="none", hatches=["////"])
    bare(axes)


def draw_region(axes: Axes, region: NDArray[np.bool_] | None) -> None:
    """Draw a region's outline on top: black within white, which shows on any tissue and in grey."""
    if region is None or not region.any():
        return
    small = np.pad(shrunk(region), 1)
    columns, rows = _grid(tuple(side - 2 for side in small.shape), region.shape, margin=1)
    for colour, line_width in (("black", 2.0), (REGION, 1.0)):
        axes.contour(columns, rows, small, levels=[0.5], colors=[colour], linewidths=line_width)


def draw_bar(page: Page, top: float, limit: float, words: str) -> None:
    """Draw the colour bar of a figure's maps across mid-grey, with its ends in the maps' own units, and `words`."""
    width = 62.0
    axes = page.axes(MARGIN_MM + 10.0, top + 1.0, width, 3.2)
    ramp = np.linspace(-1.0, 1.0, 512)
    strip = np.repeat(ramp[None], 8, axis=0)
    axes.imshow(coloured(np.full(strip.shape, 0.5), strip, 1.0), aspect="auto", extent=(-1, 1, 0, 1))
    for at in CONTOURS_AT:
        axes.axvline(at, color="white", linewidth=0.6)
        axes.axvline(-at, color="white", linewidth=0.6, linestyle=(0, (2.5, 1.5)))
    decimals = max(0, 2 - int(np.floor(np.log10(limit))))
    axes.set_yticks([])
    axes.set_xticks([-1, 0, 1])
    axes.set_xticklabels([number(-limit, decimals), "0", f"+{number(limit, decimals)}"])
    left = MARGIN_MM + 10.0 + width + 4.0 + text_width(f"+{number(limit, decimals)}") / 2
    lines = wrapped(words, page.width - MARGIN_MM - left, max_lines=3)
    page.lines(left, top + 2.0, lines, color=INK)


def range_words(values: FloatArray, limit: float) -> str:
    """Return the smallest and largest value of a map, with as many decimals as the scale needs."""
    decimals = max(0, 2 - int(np.floor(np.log10(limit))))
    return f"{number(float(np.nanmin(values)), decimals)} to {number(float(np.nanmax(values)), decimals)}"


def _extent(shape: tuple[int, ...]) -> tuple[float, float, float, float]:
    return (-0.5, shape[1] - 0.5, shape[0] - 0.5, -0.5)


def _grid(small: tuple[int, ...], whole: tuple[int, ...], margin: int = 0) -> tuple[FloatArray, FloatArray]:
    """Return where the columns and rows of a shrunken array lie in the pixels of the whole one."""
    steps = [whole[axis] / small[axis] for axis in (1, 0)]
    counts = [np.arange(-margin, small[axis] + margin) for axis in (1, 0)]
    columns, rows = ((count + 0.5) * step - 0.5 for count, step in zip(counts, steps, strict=True))
    return columns, rows
