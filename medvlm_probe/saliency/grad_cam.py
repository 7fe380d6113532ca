"""Saliency maps of images for labels: one call for Grad-CAM and the other methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.errors import InputError, unknown_name
from medvlm_probe.saliency.layers import module_of
from medvlm_probe.saliency.methods import method_named
from medvlm_probe.saliency.targets import Target

if TYPE_CHECKING:
    from torch import Tensor

    from medvlm_probe.models.contract import VisionLanguageModel

BATCH_SIZE = 16


@dataclass(frozen=True, eq=False)
class SaliencyMaps:
    """Maps of N images for L labels, signed: positive where the image speaks for the label. Nothing is rescaled.

    Attributes:
        values: (N, L, h, w) float32, on the tower's grid of patches, or pixel by pixel, as the method gives them. They
            cover the whole square that the model sees.
        labels: L names.
        method: of `METHODS`.
        layer: where in the tower they were taken; empty for methods without a layer.
        logits: (N, L) float32, what the target says of each image.
    """

    values: NDArray[np.float32]
    labels: tuple[str, ...]
    method: str
    layer: str
    logits: NDArray[np.float32]


def saliency_maps(
    model: VisionLanguageModel,
    pixels: Tensor,
    target: Target,
    *,
    labels: Sequence[str] | None = None,
    method: str = "grad-cam",
    layer: str | None = None,
    batch_size: int = BATCH_SIZE,
    **options: Any,
) -> SaliencyMaps:
    """Return maps of preprocessed images.

    Args:
        model: any model of the contract with a `module`.
        pixels: (N, 3, H, W), as `model.preprocess` gives them.
        target: whose logits are explained.
        labels: those wanted, in this order; None takes all of the target's.
        method: of `METHODS`.
        layer: the path of a layer within the model's module, in place of the model's own choice.
        batch_size: how many images go through the tower at once.
        options: of the method.

    Raises:
        UnknownNameError: no such method, label, layer or option.
        InputError: a layer for a method that takes none.
        ModelError: the method cannot be had on this tower, or the layer's gradients are all zero.
    """
    import torch

    chosen = method_named(method)
    if layer is not None and not chosen.takes_layer:
        raise InputError(f"{chosen.title} takes no layer; leave it out, or choose grad-cam.")
    for option in options:
        if option not in chosen.options:
            raise unknown_name(f"option of {method}", option, chosen.options)
    wanted = target if labels is None else target.select(labels)
    function = chosen.load()
    device = next(module_of(model).parameters()).device
    maps, logits, place = [], [], ""
    with torch.inference_mode(False):
        for batch in torch.split(pixels, batch_size):
            found = function(model, batch.to(device), wanted, layer, **options)
            maps.append(found.maps.detach().float().cpu().numpy())
            logits.append(found.logits.detach().float().cpu().numpy())
            place = found.layer
    return SaliencyMaps(np.concatenate(maps), wanted.labels, method, place, np.concatenate(logits))
