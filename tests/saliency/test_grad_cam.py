"""Grad-CAM against Captum on the whole model, against pytorch-grad-cam, and the layers that say nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam
from pytorch_grad_cam import GradCAM
from tiny_towers import LABELS, TOWERS, pixels_for, target_for, tower
from torch import Tensor, nn

from medvlm_probe.errors import InputError, ModelError, UnknownNameError
from medvlm_probe.saliency.grad_cam import saliency_maps
from medvlm_probe.saliency.methods.class_activation import layers_that_work
from medvlm_probe.saliency.targets import Target


class Whole(nn.Module):
    """A whole model as a classifier, its saliency layer followed by maps that go back into tokens."""

    def __init__(self, model: Any, target: Target) -> None:
        super().__init__()
        self.model, self.target, self.layer = model, target, model.saliency_layer()
        self.maps = nn.Identity()

    def forward(self, pixels: Tensor) -> Tensor:
        def through_maps(_: nn.Module, __: Any, output: Tensor) -> Tensor:
            places = self.layer.to_maps(torch.arange(output[0].numel()).reshape(output[:1].shape)).flatten()
            maps = self.maps(self.layer.to_maps(output))
            return output.flatten(1).index_copy(1, places, maps.flatten(1)).reshape(output.shape)

        handle = self.layer.module.register_forward_hook(through_maps)
        try:
            return self.target.logits(self.model.encode_images(pixels))
        finally:
            handle.remove()


def largest_difference(ours: Any, theirs: Any) -> float:
    """Return the largest difference relative to the largest value."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


@pytest.mark.parametrize("name", TOWERS)
def test_one_pass_equals_captum_on_the_whole_model(name: str) -> None:
    model, pixels = tower(name), pixels_for(tower(name), 2)
    target = target_for(model)
    whole = Whole(model, target)
    plain = LayerGradCam(whole, whole.maps)
    expected = torch.cat([plain.attribute(pixels, target=k) for k in range(len(LABELS))], dim=1).detach()
    found = saliency_maps(model, pixels, target)
    assert largest_difference(found.values, expected) < 1e-5
    assert found.values.min() < 0 < found.values.max()
    with torch.no_grad():
        np.testing.assert_allclose(found.logits, target.logits(model.encode_images(pixels)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", TOWERS)
def test_agrees_with_pytorch_grad_cam(name: str) -> None:
    model, pixels = tower(name), pixels_for(tower(name), 2)
    target, layer = target_for(model), model.saliency_layer()
    whole = Whole(model, target)
    found = saliency_maps(model, pixels, target)
    for column in range(len(LABELS)):
        theirs = grad_cam_before_relu(model, target, layer, pixels, column)
        assert largest_difference(found.values[:, column], theirs) < 1e-5
    assert not whole.maps._forward_hooks


def grad_cam_before_relu(model: Any, target: Target, layer: Any, pixels: Tensor, column: int) -> np.ndarray:
    """Return pytorch-grad-cam's own map, (n, h, w), before it cuts, scales and enlarges."""

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = model.module

        def forward(self, batch: Tensor) -> Tensor:
            return target.logits(model.encode_images(batch))

    cam = GradCAM(Classifier(), [layer.module], reshape_transform=lambda output: layer.to_maps(output))
    outputs = cam.activations_and_grads(pixels.clone().requires_grad_())
    outputs[:, column].sum().backward()
    recorded = cam.activations_and_grads
    activations, gradients = recorded.activations[0].numpy(), recorded.gradients[0].numpy()
    found = cam.get_cam_image(pixels, layer.module, [], activations, gradients)
    recorded.release()
    return found


def test_captum_alone_averages_over_channels_of_a_vit() -> None:
    """Captum's own pitfall: of tokens (N, T, D) it takes T for channels and gives (N, 1, D), no map at all."""
    model = tower("timm ViT, class token")
    block = model.module.visual.trunk.blocks[-1].norm1
    whole = Whole(model, target_for(model))
    pixels = pixels_for(model, 1).requires_grad_()
    assert LayerGradCam(whole, block).attribute(pixels, target=0).shape == (1, 1, 64)
    assert saliency_maps(model, pixels.detach(), whole.target).values.shape == (1, 3, 10, 10)


@pytest.mark.parametrize("place", ["", ".attn.proj", ".norm2", ".mlp"])
def test_layers_above_the_last_attention_are_refused(place: str) -> None:
    model = tower("timm ViT, class token")
    name = f"visual.trunk.blocks.5{place}"
    with pytest.raises(ModelError, match=r"exactly zero at every patch.*work: visual\.trunk\.blocks\.5\.norm1, vis"):
        saliency_maps(model, pixels_for(model, 1), target_for(model), layer=name)
    assert saliency_maps(model, pixels_for(model, 1), target_for(model), layer="visual.trunk.blocks.4").values.any()


@pytest.mark.parametrize("name", TOWERS)
def test_named_layers_have_gradients(name: str) -> None:
    model, pixels = tower(name), pixels_for(tower(name), 1)
    names = layers_that_work(model, pixels, target_for(model), most=3)
    assert names[0] == model.saliency_layer().name
    for layer in names:
        found = saliency_maps(model, pixels, target_for(model), layer=layer)
        assert found.layer == layer
        assert found.values.shape[:2] == (1, 3)
        assert np.abs(found.values).max() > 0


def test_a_logit_that_ignores_the_image_is_refused() -> None:
    model = tower("timm ResNet")
    target = replace(target_for(model), logits=lambda e: torch.stack([e.sum(1), 0 * e.sum(1), e[:, 0]], 1))
    with pytest.raises(ModelError, match=r"'fracture' .* does not change with the image"):
        saliency_maps(model, pixels_for(model, 2), target)


def test_batches_labels_and_inference_mode_change_nothing() -> None:
    model, pixels = tower("open_clip ViT"), pixels_for(tower("open_clip ViT"), 5)
    target = target_for(model)
    found = saliency_maps(model, pixels, target)
    with torch.inference_mode():
        parts = saliency_maps(model, pixels * 1, target, labels=["opacity", "edema"], batch_size=2)
    assert parts.labels == ("opacity", "edema")
    np.testing.assert_allclose(parts.values, found.values[:, [2, 0]], rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(parts.logits, found.logits[:, [2, 0]], rtol=1e-4)
    assert found.values.dtype == parts.logits.dtype == np.float32
    assert not any(module._forward_hooks for module in model.module.modules())
    assert all(parameter.grad is None for parameter in model.module.parameters())


def test_unknown_names_get_a_hint() -> None:
    model, pixels = tower("timm ResNet"), pixels_for(tower("timm ResNet"), 1)
    target = target_for(model)
    with pytest.raises(UnknownNameError, match=r"Unknown saliency method 'gradcam'\. Did you mean grad-cam"):
        saliency_maps(model, pixels, target, method="gradcam")
    with pytest.raises(UnknownNameError, match=r"Unknown label 'edem'\. Did you mean edema"):
        saliency_maps(model, pixels, target, labels=["edem"])
    with pytest.raises(UnknownNameError, match=r"Unknown layer 'visual\.trunk\.layer5'\. Did you mean"):
        saliency_maps(model, pixels, target, layer="visual.trunk.layer5")
    with pytest.raises(UnknownNameError, match="Unknown option of grad-cam 'window'"):
        saliency_maps(model, pixels, target, window=3)
    with pytest.raises(InputError, match="Occlusion takes no layer"):
        saliency_maps(model, pixels, target, method="occlusion", layer="visual.trunk.layer4")


def test_layers_without_a_place_in_the_image_are_refused() -> None:
    model = tower("timm ViT, class token")
    with pytest.raises(ModelError, match=r"shape \(1, 64\), which has no known place"):
        saliency_maps(model, pixels_for(model, 1), target_for(model), layer="visual.trunk.fc_norm")
    native = tower("open_clip ViT")
    with pytest.raises(ModelError, match="0 times; maps need exactly one"):
        saliency_maps(
            native, pixels_for(native, 1), target_for(native), layer="visual.transformer.resblocks.0.attn.out_proj"
        )
