"""Grad-CAM through Captum's LayerGradCam, for all labels from one forward pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from medvlm_probe.errors import ModelError
from medvlm_probe.saliency.layers import candidate_layers, resolve_layer
from medvlm_probe.saliency.methods import BatchMaps
from medvlm_probe.saliency.recorded_pass import AboveLayer, record_pass

if TYPE_CHECKING:
    from medvlm_probe.models.contract import VisionLanguageModel
    from medvlm_probe.saliency.targets import Target

LAYERS_NAMED = 4


def grad_cam(model: VisionLanguageModel, pixels: Tensor, target: Target, layer: str | None) -> BatchMaps:
    """Return the gradient-weighted sum of a layer's channels, signed (no ReLU), on the layer's grid.

    Each channel's weight is its gradient's mean over the grid. Of tokens, those without a place in the image count
    neither as gradient nor as activation.

    Raises:
        ModelError: a map's gradients are all zero.

    Source: Selvaraju et al. 2017, "Grad-CAM", equations 1 and 2 without the ReLU.
    """
    from captum.attr import LayerGradCam

    place = resolve_layer(model, layer)
    recorded = record_pass(model, pixels, target, place)
    above = AboveLayer(recorded)
    captum = LayerGradCam(above, above.layer)
    maps = []
    for column, label in enumerate(target.labels):
        maps.append(captum.attribute(recorded.maps, target=column))
        largest = recorded.largest_gradient
        if largest is not None and not bool((largest > 0).all()):
            raise ModelError(_why_zero(model, pixels[largest.argmin()][None], target, label, place.name))
    return BatchMaps(torch.cat(maps, dim=1), recorded.logits, place.name)


def layers_that_work(model: VisionLanguageModel, pixels: Tensor, target: Target, most: int = LAYERS_NAMED) -> list[str]:
    """Return the first layers of the tower, from the top down, whose gradients are not all zero for some pixels."""
    found = []
    for name in candidate_layers(model):
        if _reaches(model, pixels, target, name):
            found.append(name)
        if len(found) == most:
            break
    return found


def _reaches(model: VisionLanguageModel, pixels: Tensor, target: Target, name: str) -> bool:
    """Return whether a layer has maps whose gradients are not all zero."""
    try:
        recorded = record_pass(model, pixels, target, resolve_layer(model, name))
        (gradient,) = torch.autograd.grad(recorded.logits.sum(), recorded.output)
        return bool(recorded.to_maps(gradient).abs().max() > 0)
    except ModelError:  # an output without a place in the image
        return False


def _why_zero(model: VisionLanguageModel, pixels: Tensor, target: Target, label: str, layer: str) -> str:
    """Return why a label's gradients are zero, and what to do."""
    one = target.select([label])
    embeddings = model.encode_images(pixels).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(one.logits(embeddings).sum(), embeddings)
    if not bool(gradient.abs().max() > 0):
        return (
            f"The logit of '{label}' ({target.name}) does not change with the image's embedding: no map explains it. "
            "Leave the label out."
        )
    works = layers_that_work(model, pixels, one)
    advice = f"Layers that work: {', '.join(works)}." if works else "No layer of the tower works."
    return (
        f"At layer '{layer}' the gradients of '{label}' are exactly zero at every patch: nothing of the patches goes "
        f"on to the embedding from there, as above the last attention of a tower with a class token. {advice}"
    )
