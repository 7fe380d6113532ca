"""Acquisition transforms of shape: blur, resolution, aspect, marker, collimation, rotation."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

FRAME = 224
"""The shorter side, in pixels, of the picture that lengths in pixels refer to."""

_MARKER_GREY, _MARKER_INSET = 245, 0.05


def blur(image: Image, level: float, key: str) -> Image:
    """Return the image under a Gaussian of standard deviation `level`, in pixels of the frame."""
    from PIL import Image as Images
    from scipy import ndimage

    grey = np.asarray(image, dtype=np.float32)
    smooth = ndimage.gaussian_filter(grey, level * min(image.size) / FRAME, mode="nearest", truncate=3.0)
    return Images.fromarray(np.rint(smooth).astype(np.uint8))


def resolution(image: Image, level: float, key: str) -> Image:
    """Return the image shrunk to a short side of `level` pixels and enlarged again; smaller images stay as they are."""
    from PIL.Image import Resampling

    ratio = level / min(image.size)
    if ratio >= 1:
        return image
    small = (max(1, round(image.width * ratio)), max(1, round(image.height * ratio)))
    return image.resize(small, Resampling.BICUBIC).resize(image.size, Resampling.BICUBIC)


def aspect(image: Image, level: float, key: str) -> Image:
    """Return the image with its width to height changed by the factor `level`, cut to its centre at the old size.

    Nothing is added: above 1 the picture is stretched sideways and loses its left and right ends, below 1 upwards.
    Squashing a film of 4:5 to a square is 1.25 and undone by 0.8, but for what is cut.
    """
    from PIL.Image import Resampling

    width, height = image.size
    wide, high = (width / level, float(height)) if level > 1 else (float(width), height * level)
    left, top = (width - wide) / 2, (height - high) / 2
    return image.resize(image.size, Resampling.BICUBIC, box=(left, top, left + wide, top + high))


def marker(image: Image, level: float, key: str) -> Image:
    """Return the image with a bright letter L, as high as `level` % of the short side, in its upper right corner."""
    from PIL import ImageDraw

    marked = image.copy()
    side = min(image.size)
    high = max(2, round(side * level / 100))
    wide, stroke = max(1, round(high * 0.6)), max(1, round(high * 0.18))
    inset = round(side * _MARKER_INSET)
    left, top = image.width - inset - wide, inset
    draw = ImageDraw.Draw(marked)
    draw.rectangle((left, top, left + stroke - 1, top + high - 1), fill=_MARKER_GREY)
    draw.rectangle((left, top + high - stroke, left + wide - 1, top + high - 1), fill=_MARKER_GREY)
    return marked


def collimation(image: Image, level: float, key: str) -> Image:
    """Return the image with `level` % of its width black at left and right, and of its height at top and bottom."""
    from PIL import Image as Images

    across, down = round(image.width * level / 100), round(image.height * level / 100)
    shut = Images.new(image.mode, image.size)
    open_part = (across, down, image.width - across, image.height - down)
    shut.paste(image.crop(open_part), open_part[:2])
    return shut


def rotation(image: Image, level: float, key: str) -> Image:
    """Return the image turned by `level` degrees about its centre, to the side that its content key says.

    What turns in from outside repeats the picture's edge, so that no black corner gives the turn away.
    """
    from PIL import Image as Images
    from PIL.Image import Resampling

    degrees = level if hashlib.sha256(f"rotation {key}".encode()).digest()[0] < 128 else -level
    width, height = image.size
    margin = int(np.ceil(np.hypot(width, height) / 2)) - min(width, height) // 2 + 1
    padded = Images.fromarray(np.pad(np.asarray(image), margin, mode="edge"))
    turned = padded.rotate(degrees, Resampling.BICUBIC)
    return turned.crop((margin, margin, margin + width, margin + height))
