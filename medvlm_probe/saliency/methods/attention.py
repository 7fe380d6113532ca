"""Methods that read a transformer's attention: rollout, and LeGrad's gradients at the attention maps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from medvlm_probe.errors import InputError, ModelError
from medvlm_probe.saliency.attention_maps import RecordedAttention
from medvlm_probe.saliency.layers import resolve_layer, transformer_blocks
from medvlm_probe.saliency.methods import BatchMaps
from medvlm_probe.saliency.recorded_pass import record_pass
from medvlm_probe.saliency.tower_ends import TowerEnd, tower_end

if TYPE_CHECKING:
    from medvlm_probe.models.contract import VisionLanguageModel
    from medvlm_probe.saliency.targets import Target

INSTEAD = "Choose grad-cam, occlusion or integrated-gradients."


def attention_rollout(model: VisionLanguageModel, pixels: Tensor, target: Target, layer: str | None) -> BatchMaps:
    """Return where the attention of all blocks together flows from, the same map for every label; not negative.

    Each block counts half for its attention (the mean over heads) and half for its residual path. The rows of what
    reaches the embedding are read: the class token's, the mean over tokens, or an attention pool's.

    Raises:
        ModelError: the tower is no transformer, or attends within windows.

    Source: Abnar and Zuidema 2020, "Quantifying attention flow in transformers".
    """
    path, blocks = _blocks(model)
    last = resolve_layer(model, f"{path}.{len(blocks) - 1}")
    with RecordedAttention() as attention:
        recorded = record_pass(model, pixels, target, last)
    weights = [part.detach().mean(dim=1) for part in attention.weights]
    n_tokens = recorded.output.shape[1]
    _require_whole(model, weights, len(blocks), (len(pixels), n_tokens, n_tokens))
    identity = torch.eye(n_tokens, device=recorded.output.device)
    flow = identity.expand(len(pixels), -1, -1)
    for block in weights[: len(blocks)]:
        flow = (block + identity) / 2 @ flow
    if len(weights) > len(blocks):
        pool = weights[-1].mean(dim=1)
        reached = functional.pad(pool, (n_tokens - pool.shape[1], 0))
    else:
        (gradient,) = torch.autograd.grad(recorded.logits.sum(), recorded.output)
        reached = (gradient.abs().amax(dim=-1) > 0).float()
        reached = reached / reached.sum(dim=1, keepdim=True)
    tokens = (reached.unsqueeze(1) @ flow).transpose(1, 2)
    maps = recorded.to_maps(tokens).expand(-1, len(target.labels), -1, -1)
    return BatchMaps(maps, recorded.logits, path)


def legrad(
    model: VisionLanguageModel, pixels: Tensor, target: Target, layer: str | None, first_block: int = -2
) -> BatchMaps:
    """Return positive gradients of each block's own logit at its attention, the mean over heads and queries, summed.

    A block's own logit is the target's of its output, put through the tower's end: the tokens' mean, normalised and
    projected, as in the authors' code; or the attention pool, whose attention is then read in place of the block's,
    after the tower's last norm (which the authors' code leaves out). Nothing is rescaled, and no map of an empty text
    is cut off.

    Args:
        first_block: the first block counted, from the last where negative; the authors' -2 is the last two.

    Raises:
        InputError: the tower has no such block.
        ModelError: the tower is no transformer, attends within windows, or its end is not known.

    Source: Bousselham, Boggust, Chaybouti, Strobelt and Kuehne 2024, "LeGrad".
    """
    path, blocks = _blocks(model)
    if not -len(blocks) <= first_block < len(blocks):
        raise InputError(f"LeGrad cannot begin at block {first_block}; the image tower has {len(blocks)} blocks.")
    first, end = range(len(blocks))[first_block], tower_end(model)
    with torch.enable_grad(), RecordedAttention() as attention:
        outputs = _block_outputs(model, pixels, blocks, first)
    n_tokens = outputs[-1].shape[1]
    _require_whole(model, attention.weights, len(blocks), (len(pixels), n_tokens, n_tokens))
    own = list(zip(outputs, attention.weights[first : len(blocks)], strict=True))
    maps = torch.stack([_positive_gradients(end, target, output, weights) for output, weights in own]).sum(dim=0)
    with torch.no_grad():
        return BatchMaps(maps, target.logits(model.encode_images(pixels)), path)


def _blocks(model: VisionLanguageModel) -> tuple[str, list[nn.Module]]:
    path, blocks = transformer_blocks(model)
    if not blocks:
        raise ModelError(f"The image tower of {model.name} is not made of plain transformer blocks. {INSTEAD}")
    return path, blocks


def _require_whole(model: VisionLanguageModel, weights: list[Tensor], n_blocks: int, shape: tuple[int, ...]) -> None:
    """Refuse attention that is not one weight for each pair of tokens in each block."""
    whole = [part.shape[0] == shape[0] and part.shape[-2:] == shape[1:] for part in weights[:n_blocks]]
    if len(whole) < n_blocks or not all(whole):
        raise ModelError(f"The blocks of {model.name} do not attend from every token to every other. {INSTEAD}")


def _block_outputs(model: VisionLanguageModel, pixels: Tensor, blocks: list[nn.Module], first: int) -> list[Tensor]:
    """Return the tokens after each block from the first on, in a graph that begins before that block."""
    outputs: list[Tensor] = []

    def begin(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (inputs[0].detach().requires_grad_(), *inputs[1:])

    def keep(_: nn.Module, __: Any, output: Any) -> None:
        outputs.append(output[0] if isinstance(output, tuple) else output)

    handles = [blocks[first].register_forward_pre_hook(begin)]
    handles += [block.register_forward_hook(keep) for block in blocks[first:]]
    try:
        model.encode_images(pixels)
    finally:
        for handle in handles:
            handle.remove()
    return outputs


def _positive_gradients(end: TowerEnd, target: Target, output: Tensor, weights: Tensor) -> Tensor:
    """Return (N, L, h, w) of one block's output (N, T, D) and its attention (N, heads, T, T)."""
    with torch.enable_grad():
        if end.attends:
            with RecordedAttention() as pool:
                logits = target.logits(end.pool(output[:, end.n_dropped :]))
            weights = pool.weights[0]
        else:
            logits = target.logits(end.pool(output))
        maps = []
        for column in range(len(target.labels)):
            (gradient,) = torch.autograd.grad(logits[:, column].sum(), weights, retain_graph=True)
            keys = gradient.clamp(min=0).mean(dim=(1, 2))
            tokens = functional.pad(keys, (output.shape[1] - keys.shape[1], 0))
            maps.append(end.layer.to_maps(tokens.unsqueeze(-1)))
    return torch.cat(maps, dim=1)
