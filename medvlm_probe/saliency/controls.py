"""What tells a saliency map from noise: another label's map, a nonsense label's, those of randomised weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.errors import InputError
from medvlm_probe.metrics.intervals import MIN_GROUPS
from medvlm_probe.saliency.grad_cam import SaliencyMaps, saliency_maps
from medvlm_probe.saliency.localization_estimates import difference_of_shares
from medvlm_probe.saliency.random_weights import cascade, with_random_weights
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

SSIM_WINDOW = 7
ONE_SIDED = 0.90
"""A two-sided level whose bounds are the one-sided 95 % ones."""
NO_FINDING = "no_finding"

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
    label: str | Sequence[str],
    *,
    seed: int = 0,
    method: str = "grad-cam",
    layer: str | None = None,
    randomised: VisionLanguageModel | None = None,
) -> dict[str, SaliencyMaps]:
    """Return the controls' maps of images for one label or several, by the names of `CONTROLS`.

    Each holds a map for each label asked for, in that order; its `labels` say what was mapped: the wrong label is one
    of the target's others, drawn with the seed (never "no finding" beside a finding where there is another). A target
    with a single label has no `wrong_label`. `randomised` is the model by `with_random_weights`, for whoever asks for
    several labels in turn; None makes it.

    Raises:
        UnknownNameError: no such method, label or layer.
        ModelError: as `saliency_maps`; or the target has no nonsense label.
    """
    labels = [label] if isinstance(label, str) else list(label)

    def maps(of: VisionLanguageModel, what: Target) -> SaliencyMaps:
        return saliency_maps(of, pixels, what, method=method, layer=layer)

    nonsense = maps(model, target.nonsense_target())
    found = {
        "nonsense": replace(
            nonsense,
            labels=nonsense.labels * len(labels),
            values=np.repeat(nonsense.values, len(labels), axis=1),
            logits=np.repeat(nonsense.logits, len(labels), axis=1),
        ),
        "random_weights": maps(randomised or with_random_weights(model, seed), target.select(labels)),
    }
    if len(target.labels) > 1:
        wrong = [wrong_label(target.labels, own, seed) for own in labels]
        found["wrong_label"] = maps(model, target.select(wrong))
    return {name: found[name] for name in CONTROLS if name in found}


def wrong_label(labels: Sequence[str], own: str, seed: int) -> str:
    """Return one of the other labels, "no_finding" only where there is no other.

    Each label has a draw of its own, or one label whose maps find nothing anyhow would make all others look good.
    """
    rng = np.random.default_rng([seed, crc32(own.encode())])
    others = [label for label in labels if label != own]
    findings = [label for label in others if label != NO_FINDING]
    return str(rng.choice(findings or others))


def cascade_maps(
    model: VisionLanguageModel,
    pixels: Tensor,
    target: Target,
    *,
    seed: int = 0,
    method: str = "grad-cam",
    layer: str | None = None,
) -> dict[str, SaliencyMaps]:
    """Return the target's maps with the image tower's weights shuffled ever further down, by the last part shuffled.

    Maps that stay alike on the way (`map_similarity`) do not depend on what the model learned.

    Source: Adebayo et al. 2018, "Sanity checks for saliency maps".
    """
    return {
        part: saliency_maps(shuffled, pixels, target, method=method, layer=layer)
        for part, shuffled in cascade(model, seed)
    }


def map_similarity(
    maps: NDArray[np.floating], others: NDArray[np.floating]
) -> dict[Literal["spearman", "ssim"], NDArray[np.float64]]:
    """Return how alike maps (N, h, w) are, image by image: `spearman` and `ssim`, each (N,) in [-1, 1].

    `spearman` is the rank correlation over the grid's cells. `ssim` is the mean structural similarity over windows of
    7 cells (or the whole of a smaller grid), each map divided by its largest absolute value, so that 1 means equal but
    for scale. NaN where a map is the same everywhere: it has no ranks, or no scale.

    Raises:
        InputError: the shapes differ or are not (N, h, w).

    Source: Wang et al. 2004 for SSIM (with an even window); the choice of the two, Adebayo et al. 2018.
    """
    if maps.ndim != 3 or maps.shape != others.shape:
        raise InputError(f"Maps of shapes {maps.shape} and {others.shape} given; expected (N, h, w) for both.")
    return {"spearman": _spearman(maps, others), "ssim": _ssim(_scaled(maps), _scaled(others))}


def control_verdict(own: FloatArray | None, wrong: FloatArray | None, groups: IntArray) -> ControlVerdict:
    """Return the verdict from each image's localisation by the own label and by a wrong one, (n,), larger is better.

    None in place of the two where no regions are known: then no map can pass. Nor does any with under 10 groups, whose
    few values say little of how the two sides go together.

    Args:
        own, wrong: the same measure in [0, 1] on the same images; NaN where undefined.
        groups: of those images, (n,).
    """
    if own is None or wrong is None or len(own) == 0:
        nothing = Estimate(math.nan, math.nan, math.nan, 0, 0, "no regions", reliable=False)
        return ControlVerdict("similarities only", nothing, math.nan, math.nan)
    defined = ~(np.isnan(own) | np.isnan(wrong))
    sides = own[defined], wrong[defined], np.asarray(groups)[defined]
    difference, one_sided = difference_of_shares(*sides), difference_of_shares(*sides, level=ONE_SIDED)
    outcome: ControlOutcome = "not enough evidence"
    enough = one_sided.reliable and one_sided.n_groups >= MIN_GROUPS
    if enough and one_sided.low > 0:
        outcome = "pass"
    elif enough and one_sided.high < 0:
        outcome = "fail"
    return ControlVerdict(outcome, difference, one_sided.low, one_sided.high)


def _spearman(maps: NDArray[np.floating], others: NDArray[np.floating]) -> NDArray[np.float64]:
    from scipy.stats import rankdata

    ranks = [rankdata(part.reshape(len(part), -1), axis=1) for part in (maps, others)]
    first, second = (part - part.mean(axis=1, keepdims=True) for part in ranks)
    spread = np.sqrt((first**2).sum(axis=1) * (second**2).sum(axis=1))
    return np.where(spread > 0, (first * second).sum(axis=1) / np.where(spread > 0, spread, 1.0), np.nan)


def _scaled(maps: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return each map divided by its largest absolute value; NaN where it is the same everywhere."""
    values = np.asarray(maps, dtype=np.float64)
    varies = np.ptp(values, axis=(1, 2), keepdims=True) > 0
    largest = np.abs(values).max(axis=(1, 2), keepdims=True)
    return np.where(varies, values / np.where(varies, largest, 1.0), np.nan)


def _ssim(maps: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    side = min(SSIM_WINDOW, *maps.shape[1:])

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        windows = np.lib.stride_tricks.sliding_window_view(values, (side, side), axis=(1, 2))
        return np.asarray(windows.mean(axis=(-2, -1)))

    first, second = mean(maps), mean(others)
    variances = mean(maps**2) - first**2 + mean(others**2) - second**2
    covariance = mean(maps * others) - first * second
    # Scaled maps lie in [-1, 1], a range of 2.
    small, large = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    similar = (2 * first * second + small) * (2 * covariance + large)
    return np.asarray((similar / ((first**2 + second**2 + small) * (variances + large))).mean(axis=(1, 2)))
