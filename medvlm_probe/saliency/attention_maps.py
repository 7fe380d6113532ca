"""The attention weights of a forward pass, whatever the library that computes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode


class RecordedAttention(TorchFunctionMode):
    """While it is on, attention is computed step by step, with the same result, and its weights are kept.

    timm and transformers call PyTorch's fused attention, open_clip's own towers `nn.MultiheadAttention`. Causal and
    masked attention is left alone.

    Attributes:
        weights: (N, heads, queries, keys) of each call in its order, rows summing to 1; part of the graph.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weights: list[Tensor] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run a function of PyTorch, attention in our own way."""
        given = dict(kwargs or {})
        if func is functional.scaled_dot_product_attention and not (given.get("is_causal") or _masked(args, given)):
            query, key, value = args[:3]
            return self._attend(query, key, value, given.get("scale"))
        if func is functional.multi_head_attention_forward and _plain_self_attention(args, given):
            return self._self_attention(*args[:13]), None
        return func(*args, **given)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
        factor = query.shape[-1] ** -0.5 if scale is None else scale
        self.weights.append((query @ key.transpose(-2, -1) * factor).softmax(dim=-1))
        return self.weights[-1] @ value

    def _self_attention(
        self, query: Tensor, _key: Tensor, _value: Tensor, _dim: int, n_heads: int, *rest: Any
    ) -> Tensor:
        """Return (T, N, D) of (T, N, D)."""
        weight, bias, *_, out_weight, out_bias = rest
        parts = functional.linear(query.transpose(0, 1), weight, bias).chunk(3, dim=-1)
        q, k, v = (part.reshape(*part.shape[:2], n_heads, -1).transpose(1, 2) for part in parts)
        attended = self._attend(q, k, v, None).transpose(1, 2).flatten(-2)
        return functional.linear(attended, out_weight, out_bias).transpose(0, 1)


def _masked(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    return kwargs.get("attn_mask") is not None or any(isinstance(arg, Tensor) for arg in args[3:])


def _plain_self_attention(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Return whether `multi_head_attention_forward` is called for self-attention by one matrix, without a mask."""
    query, key, value, _, _, weight, _, bias_k, bias_v, add_zero, *_ = args
    separate = kwargs.get("use_separate_proj_weight", False) or weight is None
    masks = (kwargs.get("attn_mask"), kwargs.get("key_padding_mask"), bias_k, bias_v)
    return query is key is value and not separate and not add_zero and all(mask is None for mask in masks)
