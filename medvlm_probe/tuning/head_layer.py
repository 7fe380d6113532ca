"""The head as a layer that is trained: linear on standardised embeddings, folded into plain weights at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from medvlm_probe.tuning.heads import in_space
from medvlm_probe.tuning.legacy_probe import legacy_head

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medvlm_probe.metrics.pairwise import Space
    from medvlm_probe.tuning.heads import LinearHead
    from medvlm_probe.types import FloatArray


class HeadLayer(nn.Module):
    """Embeddings (N, D) as the tower gives them to logits (N, L).

    Standardised inputs let one learning rate fit all dimensions. Mean and deviation are constants.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, linear: nn.Linear, mean: FloatArray, scale: FloatArray, space: Space) -> None:
        super().__init__()
        self.linear, self.space = linear, space
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32))

    def forward(self, embeddings: Tensor) -> Tensor:
        """Return the logits, float32."""
        vectors = embeddings.float()
        vectors = functional.normalize(vectors, dim=1) if self.space == "l2" else vectors
        logits: Tensor = self.linear((vectors - self.mean) * self.scale)
        return logits

    def plain(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return weights (L, D) and biases (L,) for embeddings in the layer's space, not standardised."""
        weight = self.linear.weight.detach().cpu().double().numpy() * self.scale.cpu().double().numpy()
        bias = self.linear.bias.detach().cpu().double().numpy() - weight @ self.mean.cpu().double().numpy()
        return weight, bias


def from_probe(head: LinearHead, embeddings: FloatArray) -> HeadLayer:
    """Return the layer that gives a linear probe's logits; standardised by these training embeddings (n, D).

    Beginning at the probe keeps the tower's features from being distorted by a head that knows nothing yet.
    Source: Kumar et al. 2022, "Fine-tuning can distort pretrained features and underperform out-of-distribution".
    """
    vectors = in_space(embeddings, head.space)
    mean, deviation = vectors.mean(axis=0), vectors.std(axis=0)
    varies = deviation > 1e-6 * deviation.max()
    deviation = np.where(varies, deviation, 1.0)
    n_labels, n_inputs = head.weight.shape
    linear = legacy_head(n_inputs, n_labels, seed=0)
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(head.weight * deviation))
        linear.bias.copy_(torch.from_numpy(head.bias + head.weight @ mean))
    return HeadLayer(linear, mean, 1 / deviation, head.space)


def from_nothing(n_inputs: int, n_labels: int, seed: int) -> HeadLayer:
    """Return the published study's head: Xavier-uniform weights on raw embeddings, not standardised."""
    return HeadLayer(legacy_head(n_inputs, n_labels, seed), np.zeros(n_inputs), np.ones(n_inputs), "raw")
