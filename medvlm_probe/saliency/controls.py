"""What tells a saliency map from noise: another label's map, a nonsense label's, those of randomised weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.saliency.grad_cam import SaliencyMaps
from medvlm_probe.saliency.targets import Target
from medvlm_probe.types import Estimate, FloatArray, IntArray

if TYPE_CHECKING:
    from torch import Tensor

    from medvlm_probe.models.contract import VisionLanguageModel

CONTROLS = {
    "wrong_label": "another label of the same target",
    "nonsense": "a label that no radiograph shows",
    "random_weights": "the label itself, through the model with its image tower's weights shuffled",
}
"""The controls, by the names that files carry."""

ControlOutcome = Literal["pass", "fail", "not enough evidence", "similarities only"]


@dataclass(frozen=True)
class ControlVerdict:
    """Whether maps follow the label.

    Attributes:
        outcome: `similarities only` where nothing says where the finding is: then no map can pass.
        difference: localisation by the own label less that by a wrong one, on the same images; with its two-sided 95 %
            interval. NaN without regions.
        low, high: one-sided 95 % bounds of the difference, which the verdict is read from.
    """

    outcome: ControlOutcome
    difference: Estimate
    low: float
    high: float


def control_maps(
    model: VisionLanguageModel,
    pixels: Tensor,
    target: Target,
    label: str,
    *,
    seed: int = 0,
    method: str = "grad-cam",
    layer: str | None = None,
) -> dict[str, SaliencyMaps]:
    """Return the controls' maps of images for one label, by the names of `CONTROLS`; each has one label."""
    raise NotImplementedError


def map_similarity(
    maps: NDArray[np.floating], others: NDArray[np.floating]
) -> dict[Literal["spearman", "ssim"], NDArray[np.float64]]:
    """Return how alike maps (N, h, w) are, image by image: `spearman` and `ssim`, each (N,), 1 for equal maps."""
    raise NotImplementedError


def control_verdict(own: FloatArray | None, wrong: FloatArray | None, groups: IntArray) -> ControlVerdict:
    """Return the verdict from each image's localisation by the own label and by a wrong one, (n,), larger is better.

    None in place of the two where no regions are known.
    """
    raise NotImplementedError
