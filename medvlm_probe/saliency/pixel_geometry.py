"""Where a model's square view lies on the original image: resize, crop and padding, undone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from medvlm_probe.models.contract import VisionLanguageModel


@dataclass(frozen=True)
class PixelGeometry:
    """How pixels of one original image become pixels of the model's view, along each axis `model = original * scale + offset`.

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
        """Return a map (h, w) over the whole view on the original's pixels, (height, width), bilinear.

        Each value belongs to the middle of its cell; NaN where the model never saw the original.
        """
        raise NotImplementedError


def geometry_of(model: VisionLanguageModel, size: tuple[int, int]) -> PixelGeometry:
    """Return where an image of this size (width, height) lies in a model's view, from the model's own transform.

    Raises:
        ModelError: the model's transform has a step whose geometry is not known.
    """
    raise NotImplementedError
