"""Where a model's square view lies on the original image: resize, crop and padding, undone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.errors import InputError, ModelError

if TYPE_CHECKING:
    from medvlm_probe.models.contract import VisionLanguageModel


@dataclass(frozen=True)
class PixelGeometry:
    """How one original image becomes the model's view: along each axis, `view = original * scale + offset`.

    Coordinates are continuous, with pixel i covering [i, i + 1), x to the right and y downward.

    Attributes:
        width, height: of the original image.
        side: of the model's square view.
        scale: (x, y).
        offset: (x, y), in the view's pixels; below 0 where the original was cropped, above 0 where it was padded.
    """

    width: int
    height: int
    side: int
    scale: tuple[float, float]
    offset: tuple[float, float]

    def to_model(self, x: float, y: float) -> tuple[float, float]:
        """Return a point of the original in the view's pixels; outside 0 to `side` where the model never sees it."""
        return x * self.scale[0] + self.offset[0], y * self.scale[1] + self.offset[1]

    def to_original_point(self, x: float, y: float) -> tuple[float, float]:
        """Return a point of the view in the original's pixels; outside the image where the view is padding."""
        return (x - self.offset[0]) / self.scale[0], (y - self.offset[1]) / self.scale[1]

    def to_original(self, values: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return a map (h, w) over the whole view on the original's pixels, (height, width) float32, bilinear.

        Each value of the map belongs to the middle of its cell. NaN where the model never saw the original.

        Raises:
            InputError: the map has another number of axes.
        """
        if values.ndim != 2:
            raise InputError(f"A map of shape {values.shape} given; expected (h, w), one image and label at a time.")
        rows = self._weights(self.height, values.shape[0], axis=1)
        columns = self._weights(self.width, values.shape[1], axis=0)
        mapped: NDArray[np.float32] = rows @ np.asarray(values, dtype=np.float32) @ columns.T
        return mapped

    def _weights(self, n_pixels: int, n_cells: int, axis: int) -> NDArray[np.float32]:
        """Return (n_pixels, n_cells): how much each cell counts at each of the original's pixels; NaN rows unseen."""
        view = (np.arange(n_pixels) + 0.5) * self.scale[axis] + self.offset[axis]
        place = np.clip(view * n_cells / self.side - 0.5, 0, n_cells - 1)
        left = np.minimum(place.astype(int), max(n_cells - 2, 0))
        weights = np.zeros((n_pixels, n_cells), dtype=np.float32)
        pixel = np.arange(n_pixels)
        weights[pixel, left] = 1 - (place - left)
        weights[pixel, np.minimum(left + 1, n_cells - 1)] += place - left
        weights[(view < 0) | (view > self.side)] = np.nan
        return weights


def geometry_of(model: VisionLanguageModel, size: tuple[int, int]) -> PixelGeometry:
    """Return where an image of this size (width, height) lies in a model's view, from the model's own transform.

    Raises:
        ModelError: the model's transform has a step whose geometry is not known.
    """
    geometry = getattr(getattr(model, "transform", None), "geometry", None)
    steps = getattr(geometry, "transforms", [geometry])
    frame = _Frame(size, (1.0, 1.0), (0.0, 0.0))
    for step in steps:
        name = f"{type(step).__module__.partition('.')[0]}.{type(step).__name__}"
        if name not in STEPS:
            raise ModelError(
                f"The image transform of {model.name} has the step {name}, whose geometry is not known: maps cannot be "
                f"drawn on the original image. Known: {', '.join(STEPS)}."
            )
        frame = STEPS[name](frame, step)
    side = model.image_size
    if frame.size != (side, side):
        raise ModelError(
            f"The image transform of {model.name} gives {frame.size[0]} x {frame.size[1]} pixels, not {side} x {side}."
        )
    return PixelGeometry(*size, side, frame.scale, frame.offset)


@dataclass(frozen=True)
class _Frame:
    """An image on its way: its size (width, height), and how it comes from the original."""

    size: tuple[int, int]
    scale: tuple[float, float]
    offset: tuple[float, float]

    def resized(self, size: tuple[int, int]) -> _Frame:
        by = (size[0] / self.size[0], size[1] / self.size[1])
        scale = (self.scale[0] * by[0], self.scale[1] * by[1])
        return _Frame(size, scale, (self.offset[0] * by[0], self.offset[1] * by[1]))

    def moved(self, size: tuple[int, int], left: int, top: int) -> _Frame:
        """Return the frame of a canvas of this size, on which the image's own corner lies at (left, top)."""
        return _Frame(size, self.scale, (self.offset[0] + left, self.offset[1] + top))


def _run_resize(frame: _Frame, step: Any) -> _Frame:
    """Run the step itself on a blank image: only it knows how it rounds."""
    from PIL import Image

    return frame.resized(step(Image.new("L", frame.size)).size)


def _centre_crop(frame: _Frame, step: Any) -> _Frame:
    """torchvision's and open_clip's: pad what is too short, the smaller half first, then cut with Python's rounding."""
    height, width = step.size
    left, top = max(width - frame.size[0], 0) // 2, max(height - frame.size[1], 0) // 2
    padded = (max(frame.size[0], width), max(frame.size[1], height))
    cut_left, cut_top = round((padded[0] - width) / 2), round((padded[1] - height) / 2)
    return frame.moved((width, height), left - cut_left, top - cut_top)


def _clip_processor(frame: _Frame, step: Any) -> _Frame:
    settings = step.settings
    height, width = settings.crop
    if settings.shortest_edge is None:
        return frame.resized((width, height))
    short, long = min(frame.size), int(settings.shortest_edge * max(frame.size) / min(frame.size))
    size = (settings.shortest_edge, long) if frame.size[0] == short else (long, settings.shortest_edge)
    return frame.resized(size).moved((width, height), -((size[0] - width) // 2), -((size[1] - height) // 2))


def _pad_to_square(frame: _Frame, step: Any) -> _Frame:
    square = max(step.side, *frame.size)
    left, top = (square - frame.size[0]) // 2, (square - frame.size[1]) // 2
    return frame.moved((square, square), left, top).resized((step.side, step.side))


STEPS: dict[str, Callable[[_Frame, Any], _Frame]] = {
    "torchvision.Resize": _run_resize,
    "open_clip.ResizeKeepRatio": _run_resize,
    "torchvision.CenterCrop": _centre_crop,
    "open_clip.CenterCropOrPad": _centre_crop,
    "medvlm_probe.ResizeAndCrop": _clip_processor,
    "medvlm_probe.PadToSquare": _pad_to_square,
}
"""What each step of a transform does to an image's frame: open_clip's, CLIPImageProcessor's and MedCLIP's."""
