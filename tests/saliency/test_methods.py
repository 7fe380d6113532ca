"""The other methods, each against its definition written out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_towers import LABELS, TOWERS, pixels_for, target_for, tower
from torch import Tensor

from medvlm_probe.errors import InputError, ModelError
from medvlm_probe.saliency.attention_maps import RecordedAttention
from medvlm_probe.saliency.grad_cam import saliency_maps
from medvlm_probe.saliency.methods import METHODS
from medvlm_probe.saliency.targets import Target

TRANSFORMERS = ("timm ViT, class token", "timm ViT, mean", "open_clip ViT", "CLIP folder")
NO_TRANSFORMERS = ("open_clip ResNet", "timm ResNet", "MedCLIP Swin")


def linear_target(model: Any) -> Target:
    weight = torch.randn(len(LABELS), model.embedding_dim, generator=torch.Generator().manual_seed(2))
    return replace(target_for(model), logits=lambda embeddings: embeddings @ weight.T)


def attention_step_by_step(model: Any, pixels: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Return a timm tower's attention weights and block outputs, by its own unfused code, with a graph."""
    trunk = model.module.visual.trunk
    weights, outputs, handles = [], [], []
    for block in trunk.blocks:
        handles.append(block.attn.attn_drop.register_forward_hook(lambda _, __, output: weights.append(output)))
        handles.append(block.register_forward_hook(lambda _, __, output: outputs.append(output)))
        block.attn.fused_attn = False
    try:
        model.encode_images(pixels.clone().requires_grad_())
    finally:
        for block in trunk.blocks:
            block.attn.fused_attn = True
        for handle in handles:
            handle.remove()
    return weights, outputs


@pytest.mark.parametrize("name", [*TRANSFORMERS, "timm ViT, attention pool"])
def test_recorded_attention_changes_no_embedding(name: str) -> None:
    model, pixels = tower(name), pixels_for(tower(name), 2)
    with torch.no_grad():
        expected = model.encode_images(pixels)
        with RecordedAttention() as attention:
            torch.testing.assert_close(model.encode_images(pixels), expected, rtol=1e-4, atol=1e-5)
    for weights in attention.weights:
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(weights.shape[:-1]))


def test_recorded_attention_is_that_of_the_libraries() -> None:
    model, pixels = tower("timm ViT, class token"), pixels_for(tower("timm ViT, class token"), 2)
    with RecordedAttention() as attention:
        model.encode_images(pixels)
    for ours, theirs in zip(attention.weights, attention_step_by_step(model, pixels)[0], strict=True):
        torch.testing.assert_close(ours, theirs.detach(), rtol=1e-4, atol=1e-6)
    native = tower("open_clip ViT").module.visual.transformer.resblocks[0].attn
    tokens = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(0))
    with RecordedAttention() as attention:
        output = native(tokens, tokens, tokens, need_weights=False)[0]
    expected, weights = native(tokens, tokens, tokens, need_weights=True, average_attn_weights=False)
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(attention.weights[0], weights, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("pool", ["class token", "mean"])
def test_rollout_by_its_definition(pool: str) -> None:
    model = tower(f"timm ViT, {pool}")
    pixels = pixels_for(model, 2)
    found = saliency_maps(model, pixels, target_for(model), method="attention-rollout")
    for image, maps in enumerate(found.values):
        flow = np.eye(101)
        for weights in attention_step_by_step(model, pixels)[0]:
            mean = weights[image].detach().double().numpy().mean(axis=0)
            mixed = mean + np.eye(101)
            flow = mixed / mixed.sum(axis=1, keepdims=True) @ flow
        row = flow[0] if pool == "class token" else flow[1:].mean(axis=0)
        for label_map in maps:
            np.testing.assert_allclose(label_map, row[1:].reshape(10, 10), rtol=1e-4)
    assert not METHODS["attention-rollout"].by_label


def test_legrad_by_its_definition() -> None:
    model = tower("timm ViT, class token")
    trunk, head, pixels = model.module.visual.trunk, model.module.visual.head, pixels_for(model, 2)
    target = target_for(model)
    weights, outputs = attention_step_by_step(model, pixels)
    expected = np.zeros((2, 3, 10, 10))
    for attention, tokens in zip(weights[-3:], outputs[-3:], strict=True):
        logits = target.logits(head(trunk.norm(tokens.mean(dim=1))))
        for image in range(2):
            for column in range(3):
                gradient = torch.autograd.grad(logits[image, column], attention, retain_graph=True)[0][image]
                positive = gradient.clamp(min=0).double().numpy()
                expected[image, column] += positive.mean(axis=(0, 1))[1:].reshape(10, 10)
    found = saliency_maps(model, pixels, target, method="legrad", first_block=-3)
    np.testing.assert_allclose(found.values, expected, rtol=1e-3, atol=1e-6 * expected.max())


def test_legrad_of_an_attention_pool() -> None:
    model = tower("timm ViT, attention pool")
    trunk, target, pixels = model.module.visual.trunk, target_for(model), pixels_for(model, 2)
    _, outputs = attention_step_by_step(model, pixels)
    pool = trunk.attn_pool
    patches = trunk.norm(outputs[-1].detach())[:, 1:]
    query = pool.q(pool.latent).reshape(1, 1, pool.num_heads, -1).transpose(1, 2)
    key, value = pool.kv(patches).reshape(2, 100, 2, pool.num_heads, -1).permute(2, 0, 3, 1, 4)
    weights = (query @ key.transpose(-2, -1) * pool.scale).softmax(dim=-1).detach().requires_grad_()
    pooled = pool.proj((weights @ value).transpose(1, 2).reshape(2, 1, -1))
    embeddings = trunk.head(trunk.fc_norm((pooled + pool.mlp(pool.norm(pooled)))[:, 0]))
    torch.testing.assert_close(embeddings, model.encode_images(pixels), rtol=1e-4, atol=1e-5)
    (gradient,) = torch.autograd.grad(target.logits(embeddings)[:, 1].sum(), weights)
    expected = gradient.clamp(min=0).mean(dim=1).reshape(2, 10, 10)
    found = saliency_maps(model, pixels, target, method="legrad", first_block=-1)
    np.testing.assert_allclose(found.values[:, 1], expected, rtol=1e-3, atol=1e-7)
    rollout = saliency_maps(model, pixels, target, method="attention-rollout")
    assert 0 < rollout.values[:, 0].sum(axis=(1, 2)).min() <= rollout.values[:, 0].sum(axis=(1, 2)).max() < 1


@pytest.mark.parametrize("name", ["MedCLIP Swin", "timm ResNet"])
def test_patch_text_averages_to_the_logit_where_the_tower_averages(name: str) -> None:
    model, pixels = tower(name), pixels_for(tower(name), 2)
    found = saliency_maps(model, pixels, linear_target(model), method="patch-text")
    np.testing.assert_allclose(found.values.mean(axis=(2, 3)), found.logits, rtol=1e-3, atol=1e-4)


def test_patch_text_projects_each_token_as_the_class_token() -> None:
    model, pixels = tower("timm ViT, class token"), pixels_for(tower("timm ViT, class token"), 1)
    trunk, target = model.module.visual.trunk, target_for(model)
    with torch.no_grad():
        tokens = model.module.visual.head(trunk.forward_features(pixels))[0]
        torch.testing.assert_close(tokens[:1], model.encode_images(pixels), rtol=1e-4, atol=1e-5)
        expected = target.logits(tokens[1:]).T.reshape(3, 10, 10)
    found = saliency_maps(model, pixels, target, method="patch-text")
    np.testing.assert_allclose(found.values[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", TOWERS)
def test_patch_text_is_had_on_every_tower(name: str) -> None:
    model, pixels = tower(name), pixels_for(tower(name), 1)
    expected = saliency_maps(model, pixels, target_for(model)).values.shape
    assert saliency_maps(model, pixels, target_for(model), method="patch-text").values.shape == expected


def test_occlusion_by_its_definition() -> None:
    model, pixels = tower("open_clip ViT"), pixels_for(tower("open_clip ViT"), 2)
    target = target_for(model)
    found = saliency_maps(model, pixels, target, method="occlusion")
    assert found.values.shape == (2, 3, 6, 6)
    for row, column in [(0, 0), (2, 5)]:
        covered = pixels.clone()
        covered[:, :, row * 8 : row * 8 + 8, column * 8 : column * 8 + 8] = 0
        with torch.no_grad():
            fall = target.logits(model.encode_images(pixels)) - target.logits(model.encode_images(covered))
        np.testing.assert_allclose(found.values[:, :, row, column], fall, rtol=1e-3, atol=1e-4)
    with pytest.raises(InputError, match="window of 7 pixels does not divide the view of 48"):
        saliency_maps(model, pixels, target, method="occlusion", window=7)


def test_integrated_gradients_share_out_the_whole_difference() -> None:
    model, pixels = tower("CLIP folder"), pixels_for(tower("CLIP folder"), 2)
    target = target_for(model)
    found = saliency_maps(model, pixels, target, method="integrated-gradients", n_steps=128)
    with torch.no_grad():
        difference = target.logits(model.encode_images(pixels)) - target.logits(model.encode_images(0 * pixels))
    np.testing.assert_allclose(found.values.sum(axis=(2, 3)), difference, atol=0.02 * float(difference.abs().max()))


@pytest.mark.parametrize("name", ["open_clip ViT", "CLIP folder"])
def test_input_gradient_is_the_slope(name: str) -> None:
    model, pixels = tower(name), pixels_for(tower(name), 1)
    target = target_for(model)
    found = saliency_maps(model, pixels, target, method="input-gradient")
    shift = torch.randn(pixels.shape[-2:], generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        ends = [target.logits(model.encode_images(pixels + step * shift)) for step in (1e-3, -1e-3)]
    slopes = (found.values[0] * shift.numpy()).sum(axis=(1, 2))
    np.testing.assert_allclose(slopes, ((ends[0] - ends[1]) / 2e-3)[0], rtol=0.02, atol=0.02)


@pytest.mark.parametrize("name", NO_TRANSFORMERS)
@pytest.mark.parametrize("method", ["attention-rollout", "legrad"])
def test_what_a_tower_cannot_give_is_refused(name: str, method: str) -> None:
    model, pixels = tower(name), pixels_for(tower(name), 1)
    with pytest.raises(ModelError, match="not made of plain transformer blocks"):
        saliency_maps(model, pixels, target_for(model), method=method)


def test_legrad_names_the_blocks_it_can_begin_at() -> None:
    model = tower("open_clip ViT")
    with pytest.raises(InputError, match="cannot begin at block 3; the image tower has 3 blocks"):
        saliency_maps(model, pixels_for(model, 1), target_for(model), method="legrad", first_block=3)
