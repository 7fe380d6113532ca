"""Light augmentation of radiographs: small turns, shifts, zooms, contrast and brightness. Nothing is ever mirrored.

A mirrored chest has its heart on the wrong side, so no flip is among them, nor crops that may lose a lesion.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

TURN_DEGREES, SHIFT, ZOOM, CONTRAST, BRIGHTNESS = 5.0, 0.03, 0.05, 0.1, 0.1


def augmented(pixels: Tensor, keys: Sequence[Sequence[int]]) -> Tensor:
    """Return (N, 3, H, W) pixels changed a little, each by a generator of its own, so that the order does not matter.

    Turns up to 5 degrees, shifts up to 3 % of the side, zooms up to 5 %, contrast and brightness (in units of the
    normalised pixels) up to 10 %. What comes in from outside repeats the border.

    Args:
        pixels: normalised images.
        keys: each image's seed, a list of whole numbers (seed, epoch, row).
    """
    import torch
    from torch.nn import functional

    drawn = np.stack([np.random.default_rng(list(key)).uniform(-1, 1, size=6) for key in keys])
    angle = np.deg2rad(TURN_DEGREES) * drawn[:, 0]
    scale = 1 + ZOOM * drawn[:, 1]
    turn = np.empty((len(drawn), 2, 3))
    turn[:, 0] = np.stack([np.cos(angle) * scale, -np.sin(angle) * scale, 2 * SHIFT * drawn[:, 2]], axis=1)
    turn[:, 1] = np.stack([np.sin(angle) * scale, np.cos(angle) * scale, 2 * SHIFT * drawn[:, 3]], axis=1)
    grid = functional.affine_grid(torch.from_numpy(turn).to(pixels), list(pixels.shape), align_corners=False)
    moved = functional.grid_sample(pixels, grid, padding_mode="border", align_corners=False)
    contrast, brightness = (torch.from_numpy(drawn[:, k]).to(pixels)[:, None, None, None] for k in (4, 5))
    return moved * (1 + CONTRAST * contrast) + BRIGHTNESS * brightness
