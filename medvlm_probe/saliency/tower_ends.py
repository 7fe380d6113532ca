"""What an image tower does above its last layer with places: from tokens, or a single one, to an embedding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.nn import functional

from medvlm_probe.errors import ModelError
from medvlm_probe.models.contract import SaliencyLayer
from medvlm_probe.saliency.layers import module_of, resolve_layer, transformer_blocks

if TYPE_CHECKING:
    from medvlm_probe.models.contract import VisionLanguageModel


@dataclass(frozen=True, eq=False)
class TowerEnd:
    """The end of an image tower.

    Attributes:
        layer: the last layer whose output has places, and how that becomes maps.
        pool: from tokens (M, T, D) of that layer to embeddings (M, E): their mean, or what an attention pool makes of
            them, normalised and projected as the tower does it. A token alone (T = 1) is its own pool.
        attends: whether the pool is an attention pool.
        n_dropped: how many of the layer's first tokens (class token, registers) an attention pool is not given.
    """

    layer: SaliencyLayer
    pool: Callable[[Tensor], Tensor]
    attends: bool = False
    n_dropped: int = 0


def tower_end(model: VisionLanguageModel) -> TowerEnd:
    """Return the end of a model's image tower.

    Raises:
        ModelError: the tower is of a kind whose end is not known.
    """
    module: Any = module_of(model)
    own = model.saliency_layer()
    path, blocks = transformer_blocks(model)
    last = resolve_layer(model, f"{path}.{len(blocks) - 1}") if blocks else own
    for find in (_timm, _open_clip, _clip, _medclip):
        found = find(module, last)
        if found is not None:
            return found
    raise ModelError(
        f"How the image tower of {model.name} ends is not known (its maps are taken at '{own.name}'), so no part of it "
        "can be projected alone. Choose grad-cam, occlusion or integrated-gradients."
    )


def _timm(module: Any, last: SaliencyLayer) -> TowerEnd | None:
    trunk = getattr(getattr(module, "visual", None), "trunk", None)
    if trunk is None:
        return None
    head = module.visual.head
    if hasattr(trunk, "blocks") and hasattr(trunk, "fc_norm"):
        attention_pool = getattr(trunk, "attn_pool", None)
        if attention_pool is None:
            return TowerEnd(last, lambda tokens: head(trunk.head(trunk.fc_norm(trunk.norm(tokens.mean(dim=1))))))
        return TowerEnd(
            last,
            lambda tokens: head(trunk.head(trunk.fc_norm(attention_pool(trunk.norm(tokens))))),
            attends=True,
            n_dropped=0 if trunk.pool_include_prefix else trunk.num_prefix_tokens,
        )
    if type(trunk).__name__ == "ResNet":
        return TowerEnd(last, lambda places: head(trunk.forward_head(places.transpose(1, 2).unsqueeze(-1))))
    return None


def _open_clip(module: Any, last: SaliencyLayer) -> TowerEnd | None:
    visual: Any = getattr(module, "visual", None)
    kind = type(visual).__name__
    if kind == "VisionTransformer" and visual.attn_pool is None:
        return TowerEnd(last, lambda tokens: visual.ln_post(tokens.mean(dim=1)) @ visual.proj)
    if kind == "ModifiedResNet":
        # A place alone in an attention pool gets all the attention: what is left are the value's two projections.
        return TowerEnd(last, lambda places: visual.attnpool.c_proj(visual.attnpool.v_proj(places.mean(dim=1))))
    return None


def _clip(module: Any, last: SaliencyLayer) -> TowerEnd | None:
    if not hasattr(module, "visual_projection"):
        return None
    norm, project = module.vision_model.post_layernorm, module.visual_projection
    return TowerEnd(last, lambda tokens: project(norm(tokens.mean(dim=1))))


def _medclip(module: Any, last: SaliencyLayer) -> TowerEnd | None:
    tower = getattr(module, "vision_model", None)
    if tower is None or "model" not in dict(tower.named_children()):
        return None
    if "projection_head" in tower:
        return TowerEnd(last, lambda tokens: tower["projection_head"](tokens.mean(dim=1)))
    weight = tower["model"].fc.weight
    return TowerEnd(last, lambda places: functional.linear(places.mean(dim=1), weight))
