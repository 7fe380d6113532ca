"""The BiomedCLIP study's linear probe: ten epochs of AdamW on plain cross-entropy, for comparison only.

Recipe (Sadman, Zulkernine and Kwan 2025, its notebook): Linear(D, L) with Xavier-uniform weights on unnormalised
embeddings, mean binary cross-entropy over all labels, AdamW (rate 1e-4, decay 1e-2), a cosine over 10 epochs stepped
once an epoch, batches of 24, best epoch by validation loss (least gain 1e-4), patience 5. Labels that are not 1
count as absent. Mixed precision is left out: it does not change a linear layer's minimum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from medvlm_probe.errors import InputError
from medvlm_probe.metrics.legacy_study import legacy_labels
from medvlm_probe.tuning.heads import LinearHead

if TYPE_CHECKING:
    import torch

    from medvlm_probe.types import FloatArray

EPOCHS, BATCH, PATIENCE, LEAST_GAIN = 10, 24, 5, 1e-4
RATE, DECAY = 1e-4, 1e-2


@dataclass(frozen=True, eq=False)
class LegacyProbe:
    """The head of the best epoch, that epoch (from 1), and each epoch's losses on training and validation images."""

    head: LinearHead
    best_epoch: int
    train_loss: tuple[float, ...]
    validation_loss: tuple[float, ...]


def fit_legacy_probe(
    embeddings: FloatArray,
    targets: FloatArray,
    validation_embeddings: FloatArray,
    validation_targets: FloatArray,
    labels: Sequence[str],
    *,
    seed: int = 42,
    model_fingerprint: str = "",
) -> LegacyProbe:
    """Return the study's probe; equal seeds and threads give equal bytes.

    Args:
        embeddings, targets: (n, D) as the model gives them, and (n, L) of 1, 0 or NaN; NaN counts as 0.
        validation_embeddings, validation_targets: the same of the images that decide when to stop.
        labels: L names.
        seed: of the weights and the order of the images.
        model_fingerprint: kept with the head.

    Raises:
        InputError: no images, or shapes that do not fit.
    """
    import torch
    from torch.nn import functional

    for given, known in ((embeddings, targets), (validation_embeddings, validation_targets)):
        n = len(given)
        if given.ndim != 2 or not n or known.shape != (n, len(labels)) or given.shape[1] != embeddings.shape[1]:
            raise InputError(f"Embeddings {given.shape} and targets {known.shape} do not fit {len(labels)} labels.")
    x, y = _tensors(embeddings, targets, labels)
    held_x, held_y = _tensors(validation_embeddings, validation_targets, labels)
    layer = legacy_head(x.shape[1], len(labels), seed)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=EPOCHS)
    best, best_loss, best_epoch = layer.state_dict(), float("inf"), 0
    losses: list[float] = []
    held_out: list[float] = []
    for epoch in range(EPOCHS):
        total = 0.0
        for batch in np.array_split(_order(len(x), seed, epoch), range(BATCH, len(x), BATCH)):
            loss = functional.binary_cross_entropy_with_logits(layer(x[batch]), y[batch])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            total += loss.item() * len(batch)
        schedule.step()
        losses.append(total / len(x))
        with torch.no_grad():
            held_out.append(functional.binary_cross_entropy_with_logits(layer(held_x), held_y).item())
        if held_out[-1] < best_loss - LEAST_GAIN:
            best = {name: value.clone() for name, value in layer.state_dict().items()}
            best_loss, best_epoch = held_out[-1], epoch
        elif epoch - best_epoch >= PATIENCE:
            break
    head = LinearHead(
        tuple(labels),
        best["weight"].double().numpy(),
        best["bias"].double().numpy(),
        "raw",
        "linear_probe_legacy",
        model_fingerprint,
        {"seed": seed, "best_epoch": best_epoch + 1, "validation_loss": held_out},
    )
    return LegacyProbe(head, best_epoch + 1, tuple(losses), tuple(held_out))


def legacy_head(n_inputs: int, n_labels: int, seed: int) -> torch.nn.Linear:
    """Return the study's layer: Xavier-uniform weights, torch's own bias, seeded without touching other generators."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layer = torch.nn.Linear(n_inputs, n_labels)
        torch.nn.init.xavier_uniform_(layer.weight)
    return layer


def _order(n: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(n)


def _tensors(x: FloatArray, y: FloatArray, labels: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    return torch.tensor(x, dtype=torch.float32), torch.tensor(legacy_labels(y, labels), dtype=torch.float32)
