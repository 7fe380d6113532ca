"""Which layer of an open_clip image tower a class activation map is taken from."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from medvlm_probe.errors import ModelError
from medvlm_probe.models.contract import SaliencyLayer

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def saliency_layer(module: torch.nn.Module) -> SaliencyLayer:
    """Return the saliency layer of an open_clip model's image tower.

    Transformers: the first normalisation of the last block. Later outputs are no use under class-token pooling, where
    only the class token reaches the embedding and every patch's gradient is exactly zero. Convolutional towers: the
    last stage.

    Raises:
        ModelError: the tower has no layer with a known spatial layout.
    """
    from open_clip.modified_resnet import ModifiedResNet
    from open_clip.timm_model import TimmModel
    from open_clip.transformer import VisionTransformer

    visual: Any = module.visual
    if isinstance(visual, VisionTransformer):
        last = len(visual.transformer.resblocks) - 1
        to_maps = tokens_to_maps(visual.grid_size, n_prefix=1)
        return _layer(module, f"visual.transformer.resblocks.{last}.ln_1", to_maps)
    if isinstance(visual, ModifiedResNet):
        return _layer(module, "visual.layer4", _identity)
    if isinstance(visual, TimmModel):
        return _timm_layer(module, visual.trunk)
    raise ModelError(f"Image tower {type(visual).__name__} has no layer with a known spatial layout.")


def tokens_to_maps(grid: tuple[int, int], n_prefix: int) -> Callable[[Tensor], Tensor]:
    """Return a function from tokens (N, n_prefix + h*w, D) to maps (N, D, h, w) for a grid of (h, w) patches."""

    def to_maps(tokens: Tensor) -> Tensor:
        patches = tokens[:, n_prefix:]
        return patches.transpose(1, 2).reshape(len(tokens), -1, *grid)

    return to_maps


def _timm_layer(module: torch.nn.Module, trunk: Any) -> SaliencyLayer:
    blocks = getattr(trunk, "blocks", None)
    if blocks is not None and hasattr(trunk, "num_prefix_tokens") and hasattr(blocks[-1], "norm1"):
        to_maps = tokens_to_maps(tuple(trunk.patch_embed.grid_size), trunk.num_prefix_tokens)
        return _layer(module, f"visual.trunk.blocks.{len(blocks) - 1}.norm1", to_maps)
    stages = getattr(trunk, "feature_info", None)
    if stages and not hasattr(trunk, "num_prefix_tokens"):
        last = stages[-1]
        return _layer(module, f"visual.trunk.{last['module']}", _channels_first(last["num_chs"]))
    raise ModelError(f"Image tower {type(trunk).__name__} has no layer with a known spatial layout.")


def _layer(module: torch.nn.Module, name: str, to_maps: Callable[[Tensor], Tensor]) -> SaliencyLayer:
    return SaliencyLayer(module=module.get_submodule(name), to_maps=to_maps, name=name)


def _identity(maps: Tensor) -> Tensor:
    return maps


def _channels_first(n_channels: int) -> Callable[[Tensor], Tensor]:
    """Return a function that brings (N, D, h, w) or, as in Swin towers, (N, h, w, D) to (N, D, h, w)."""

    def to_maps(maps: Tensor) -> Tensor:
        return maps if maps.shape[1] == n_channels else maps.permute(0, 3, 1, 2)

    return to_maps
