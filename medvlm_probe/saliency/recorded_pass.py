"""One forward pass that serves all labels: a layer's output as maps, and the logits above it, remembered for Captum."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from medvlm_probe.errors import ModelError

if TYPE_CHECKING:
    from medvlm_probe.models.contract import SaliencyLayer, VisionLanguageModel
    from medvlm_probe.saliency.targets import Target


@dataclass(eq=False)
class RecordedPass:
    """A pass whose graph begins at a layer's output.

    Attributes:
        output: the layer's output as the tower makes it; the graph's leaf.
        to_maps: from such an output, or a gradient of its shape, to maps (N, D, h, w).
        embeddings: (N, E), as the model gives them.
        logits: (N, L), of the target.
        largest_gradient: (N,), the largest entry of the last gradient of maps; None before there was one.
    """

    output: Tensor
    to_maps: Callable[[Tensor], Tensor]
    embeddings: Tensor
    logits: Tensor
    largest_gradient: Tensor | None = field(default=None)

    @property
    def maps(self) -> Tensor:
        """(N, D, h, w), without a graph."""
        return self.to_maps(self.output.detach())


def record_pass(model: VisionLanguageModel, pixels: Tensor, target: Target, layer: SaliencyLayer) -> RecordedPass:
    """Run images through the whole tower once and keep the graph from a layer upward.

    Raises:
        ModelError: the pass does not go through the layer exactly once, or its output is no tensor.
    """
    seen: list[Tensor] = []

    def cut(_: nn.Module, __: Any, output: Any) -> Any:
        first = output[0] if isinstance(output, tuple) else output
        if not isinstance(first, Tensor):
            raise ModelError(f"The output of layer '{layer.name}' is no tensor. Choose another layer.")
        seen.append(first.detach().requires_grad_())
        # A clone, because what follows may work in place, which a leaf does not allow.
        goes_on = seen[-1].clone()
        return (goes_on, *output[1:]) if isinstance(output, tuple) else goes_on

    handle = layer.module.register_forward_hook(cut)
    try:
        with torch.inference_mode(False), torch.enable_grad():
            embeddings = model.encode_images(pixels)
            logits = target.logits(embeddings)
    finally:
        handle.remove()
    if len(seen) != 1:
        raise ModelError(
            f"A pass goes through layer '{layer.name}' {len(seen)} times; maps need exactly one. Choose another layer, "
            f"as '{model.saliency_layer().name}'."
        )
    return RecordedPass(seen[0], layer.to_maps, embeddings, logits)


class AboveLayer(nn.Module):
    """Everything above a layer as a module of maps (N, D, h, w) to logits (N, L), for the maps of one recorded pass.

    Value and gradient are the tower's own, computed once: Captum asks for the forward pass anew with every label, and
    would otherwise pay for it.
    """

    def __init__(self, recorded: RecordedPass) -> None:
        super().__init__()
        self.layer = nn.Identity()
        self.recorded = recorded

    def forward(self, maps: Tensor) -> Tensor:
        """Return the recorded logits, with the gradient that they have at the maps."""
        logits: Tensor = _Remembered.apply(self.layer(maps), self.recorded)
        return logits


class _Remembered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor, recorded: RecordedPass) -> Tensor:
        ctx.recorded = recorded
        return recorded.logits.detach().clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        # Maps are a choice of the output's entries, so their gradient is the same choice of the output's gradient.
        recorded: RecordedPass = ctx.recorded
        (gradient,) = torch.autograd.grad(recorded.logits, recorded.output, gradients[0], retain_graph=True)
        at_maps = recorded.to_maps(gradient)
        recorded.largest_gradient = at_maps.flatten(1).abs().amax(dim=1)
        return at_maps, None
