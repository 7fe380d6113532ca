"""Acquisition transforms of grey values: curve, contrast, window, quantum noise, compression, inversion."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.cohort.acquisition_geometry import FRAME

if TYPE_CHECKING:
    from PIL.Image import Image

_LOG_RANGE = 3.0
"""Natural logarithm of the photon counts behind black over those behind white: about 20 to 1 in a chest film."""


def gamma(image: Image, level: float, key: str) -> Image:
    """Return greys g of [0, 1] as g ** level; above 1 is darker."""
    return _curve(image, lambda g: g**level)


def contrast(image: Image, level: float, key: str) -> Image:
    """Return greys stretched by `level` about the middle grey, as a window of 1 / level of the width would; clipped."""
    return _curve(image, lambda g: (g - 0.5) * level + 0.5)


def window(image: Image, level: float, key: str) -> Image:
    """Return greys under a window whose centre is moved up by `level` % of the range: above 0 is darker; clipped."""
    return _curve(image, lambda g: g - level / 100)


def noise(image: Image, level: float, key: str) -> Image:
    """Return the image with quantum noise of `level` photons behind black, counted on cells of 1/224 of the short side.

    Greys are taken as the logarithm of photon counts over a range of 20 to 1, bright where few photons arrive; the
    logarithm of N photons has the standard deviation 1 / sqrt(N). A cell's photons are shared by the pixels in it.
    """
    from PIL import Image as Images

    grey = np.asarray(image, dtype=np.float32) / 255
    cells = (FRAME / min(image.size)) ** 2
    spread = np.exp(grey * np.float32(_LOG_RANGE / 2)) / np.float32(_LOG_RANGE * np.sqrt(level * cells))
    field = _generator("noise", key).standard_normal(grey.shape, dtype=np.float32)
    return Images.fromarray(_to_bytes(grey + spread * field))


def jpeg(image: Image, level: float, key: str) -> Image:
    """Return the image as JPEG of this quality, 1 to 95, keeps it."""
    from PIL import Image as Images

    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=round(level))
    with Images.open(buffer) as kept:
        return kept.convert("L")


def inversion(image: Image, level: float, key: str) -> Image:
    """Return the negative of `level` % of the images, chosen by content key: those of 10 % are among those of 25 %."""
    from PIL import ImageChops

    chosen = _generator("inversion", key).random() * 100 < level
    return ImageChops.invert(image) if chosen else image


def _generator(name: str, key: str) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(hashlib.sha256(f"{name} {key}".encode()).digest()[:8], "little"))


def _curve(image: Image, curve: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> Image:
    return image.point(_to_bytes(curve(np.arange(256) / 255)).tolist())


def _to_bytes(grey: NDArray[np.floating]) -> NDArray[np.uint8]:
    levels: NDArray[np.uint8] = np.rint(np.clip(grey, 0, 1) * 255).astype(np.uint8)
    return levels
