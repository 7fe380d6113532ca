"""Captum's methods on the pixels themselves: occlusion, integrated gradients and the input's gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from medvlm_probe.errors import InputError
from medvlm_probe.saliency.methods import BatchMaps
from medvlm_probe.saliency.recorded_pass import AboveLayer, RecordedPass, record_pass

if TYPE_CHECKING:
    from medvlm_probe.models.contract import VisionLanguageModel
    from medvlm_probe.saliency.targets import Target

N_STEPS = 32
STEPS_AT_ONCE = 64


class _Logits(nn.Module):
    """Pixels to logits."""

    def __init__(self, model: VisionLanguageModel, target: Target) -> None:
        super().__init__()
        self.encode, self.target = model.encode_images, target

    def forward(self, pixels: Tensor) -> Tensor:
        return self.target.logits(self.encode(pixels))


def occlusion(
    model: VisionLanguageModel, pixels: Tensor, target: Target, layer: str | None, window: int | None = None
) -> BatchMaps:
    """Return how much each logit falls when a square is covered: a grid of squares without overlap.

    The cover is 0 after the model's own normalisation, the mean grey of its training images.

    Args:
        window: the square's side in the view's pixels, a divisor of it; None takes a cell of the tower's grid.

    Raises:
        InputError: a window that does not divide the view.

    Source: Zeiler and Fergus 2014.
    """
    from captum.attr import Occlusion

    side = model.image_size
    size = _window(model, pixels, target) if window is None else window
    if size < 1 or side % size:
        raise InputError(f"An occlusion window of {size} pixels does not divide the view of {side}. Give a divisor.")
    logits = _Logits(model, target)
    square = (3, size, size)
    with torch.no_grad():
        # Without a target, Captum gives a map for each image's every logit in turn.
        found = Occlusion(logits).attribute(pixels, square, strides=square)
        shape = (len(pixels), len(target.labels), side // size, side // size)
        maps = found[:, 0, ::size, ::size].reshape(shape)
        return BatchMaps(maps, logits(pixels), "")


def integrated_gradients(
    model: VisionLanguageModel, pixels: Tensor, target: Target, layer: str | None, n_steps: int = N_STEPS
) -> BatchMaps:
    """Return each pixel's share in the logit less that of an evenly grey image, its channels summed.

    Args:
        n_steps: points on the straight line from the grey image to this one.

    Source: Sundararajan, Taly and Yan 2017.
    """
    from captum.attr import IntegratedGradients

    logits = _Logits(model, target)
    captum = IntegratedGradients(logits)
    maps = [
        captum.attribute(pixels, target=column, n_steps=n_steps, internal_batch_size=STEPS_AT_ONCE).sum(dim=1)
        for column in range(len(target.labels))
    ]
    with torch.no_grad():
        return BatchMaps(torch.stack(maps, dim=1), logits(pixels), "")


def input_gradient(model: VisionLanguageModel, pixels: Tensor, target: Target, layer: str | None) -> BatchMaps:
    """Return how each logit changes with each pixel, signed, its channels summed.

    Source: Simonyan, Vedaldi and Zisserman 2014 (there the absolute value).
    """
    from captum.attr import Saliency

    leaf = pixels.detach().clone().requires_grad_()
    embeddings = model.encode_images(leaf)
    recorded = RecordedPass(leaf, _as_they_are, embeddings, target.logits(embeddings))
    captum = Saliency(AboveLayer(recorded))
    maps = [captum.attribute(leaf, target=column, abs=False).sum(dim=1) for column in range(len(target.labels))]
    return BatchMaps(torch.stack(maps, dim=1), recorded.logits, "")


def _as_they_are(pixels: Tensor) -> Tensor:
    return pixels


def _window(model: VisionLanguageModel, pixels: Tensor, target: Target) -> int:
    """Return the side of one cell of the tower's own grid."""
    cells = record_pass(model, pixels[:1], target, model.saliency_layer()).maps.shape[-1]
    return model.image_size // cells
