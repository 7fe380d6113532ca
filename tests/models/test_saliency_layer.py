"""Layers for class activation maps: right places, right order of patches, gradients that are not zero."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from medvlm_probe.errors import ModelError
from medvlm_probe.models import load_model
from medvlm_probe.models.open_clip_adapter import OpenClipModel, build_module, wrap_module
from medvlm_probe.models.open_clip_vision import tokens_to_maps

TEXT = {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
TOWERS = {
    "timm ViT, class token": (
        {"timm_model_name": "test_vit", "timm_pool": "", "image_size": 160},
        10,
        "blocks.5.norm1",
    ),
    "timm ViT, mean": ({"timm_model_name": "test_vit", "timm_pool": "avg", "image_size": 160}, 10, "blocks.5.norm1"),
    "timm ViT, registers": ({"timm_model_name": "test_vit3", "timm_pool": "", "image_size": 160}, 10, "norm1"),
    "open_clip ViT": (
        {"image_size": 48, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
        6,
        "resblocks.1.ln_1",
    ),
    "open_clip ResNet": ({"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "head_width": 16}, 2, "visual.layer4"),
    "timm ResNet": ({"timm_model_name": "test_resnet", "timm_pool": "avg", "image_size": 160}, 5, "layer4"),
    "timm ConvNeXt": ({"timm_model_name": "test_convnext", "timm_pool": "avg", "image_size": 160}, 5, "stages"),
}


def build(vision: dict[str, object]) -> OpenClipModel:
    from open_clip.tokenizer import SimpleTokenizer

    cfg = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": TEXT}
    torch.manual_seed(0)
    return wrap_module("tiny", build_module(cfg, "tiny"), cfg, SimpleTokenizer(context_length=8))


def record(model: OpenClipModel, module: torch.nn.Module, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Return a layer's output for a batch, and the gradient of the summed embeddings there."""
    seen: list[Tensor] = []

    def keep(_: torch.nn.Module, __: tuple[Tensor, ...], output: Tensor) -> None:
        output.retain_grad()
        seen.append(output)

    handle = module.register_forward_hook(keep)
    direction = torch.linspace(-1, 1, model.embedding_dim)
    (model.encode_images(pixels.requires_grad_()) * direction).sum().backward()
    handle.remove()
    assert seen[0].grad is not None
    return seen[0].detach(), seen[0].grad


@pytest.mark.parametrize("tower", TOWERS)
def test_maps_have_a_place_and_a_gradient(tower: str) -> None:
    vision, side, name = TOWERS[tower]
    model = build(vision)
    layer = model.saliency_layer()
    assert name in layer.name
    assert model.module.get_submodule(layer.name) is layer.module
    pixels = torch.randn(2, 3, model.image_size, model.image_size, generator=torch.Generator().manual_seed(0))
    output, gradient = record(model, layer.module, pixels)
    maps, map_gradients = layer.to_maps(output), layer.to_maps(gradient)
    assert maps.shape[0] == 2
    assert maps.shape[2:] == (side, side)
    assert float(map_gradients.flatten(1).abs().max(dim=1).values.min()) > 0


@pytest.mark.parametrize("tower", ["timm ViT, class token", "open_clip ViT"])
def test_a_changed_patch_changes_the_map_at_its_place(tower: str) -> None:
    model = build(TOWERS[tower][0])
    layer = model.saliency_layer()
    size, side = model.image_size, TOWERS[tower][1]
    patch, row, column = size // side, 1, side - 2
    pixels = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    changed = pixels.clone()
    changed[:, :, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch] += 3.0
    before, after = (layer.to_maps(record(model, layer.module, batch)[0]) for batch in (pixels, changed))
    difference = (after - before).norm(dim=1)[0]
    assert divmod(int(difference.argmax()), side) == (row, column)


def test_later_layers_have_no_gradient_under_class_token_pooling() -> None:
    """Why the layer is `norm1` of the last block: at its `norm2` and output the patches' gradients are zero."""
    model = build(TOWERS["timm ViT, class token"][0])
    block = model.module.visual.trunk.blocks[-1]
    pixels = torch.randn(1, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    for module in (block, block.norm2, model.module.visual.trunk.norm):
        assert float(record(model, module, pixels)[1][:, 1:].abs().max()) == 0.0
    assert float(record(model, block.norm1, pixels)[1][:, 1:].abs().max()) > 0.0


def test_biomedclip_bundle_has_a_layer(biomedclip_bundle: Path) -> None:
    assert load_model(f"local:{biomedclip_bundle}").saliency_layer().name == "visual.trunk.blocks.5.norm1"


def test_tokens_keep_rows_and_columns() -> None:
    tokens = torch.arange(2 * (3 + 6) * 4).reshape(2, 9, 4)
    maps = tokens_to_maps((2, 3), n_prefix=3)(tokens)
    assert maps.shape == (2, 4, 2, 3)
    for n, d, row, column in [(0, 0, 0, 0), (1, 3, 1, 2), (0, 2, 1, 0), (1, 1, 0, 2)]:
        assert maps[n, d, row, column] == tokens[n, 3 + row * 3 + column, d]


def test_towers_without_a_known_layout_are_refused(make_native: Callable[..., OpenClipModel]) -> None:
    model = make_native()
    model.module.visual = torch.nn.Identity()
    with pytest.raises(ModelError, match="Identity has no layer"):
        model.saliency_layer()
