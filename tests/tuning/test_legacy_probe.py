"""The published linear probe: against a plain loop over its recipe."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from medvlm_probe.errors import InputError
from medvlm_probe.tuning.legacy_probe import LEAST_GAIN, PATIENCE, fit_legacy_probe, legacy_head

LABELS = ("edema", "fracture", "no_finding")


def study(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(scale=3, size=(n, 12)).astype(np.float32)
    y = np.column_stack([x[:, 0] > 2, x[:, 1] > 3, np.zeros(n)]).astype(float)
    y[:, 2] = y[:, :2].sum(axis=1) == 0
    y[rng.random(y.shape) < 0.1] = np.nan
    return x, y


def test_it_is_the_recipe() -> None:
    (x, y), (held_x, held_y) = study(60, 0), study(30, 1)
    found = fit_legacy_probe(x, y, held_x, held_y, LABELS, seed=7)

    def plain(labels: np.ndarray) -> torch.Tensor:
        known = np.nan_to_num(labels, nan=0.0)
        known[known.sum(axis=1) == 0, 2] = 1
        return torch.tensor(known, dtype=torch.float32)

    layer = legacy_head(12, 3, 7)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=1e-4, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)
    losses, weights = [], []
    for epoch in range(10):
        order = np.random.default_rng([7, epoch]).permutation(60)
        for start in (0, 24, 48):
            part = order[start : start + 24]
            optimizer.zero_grad()
            functional.binary_cross_entropy_with_logits(layer(torch.tensor(x[part])), plain(y)[part]).backward()
            optimizer.step()
        schedule.step()
        with torch.no_grad():
            held_out = layer(torch.tensor(held_x))
            losses.append(functional.binary_cross_entropy_with_logits(held_out, plain(held_y)).item())
        weights.append(layer.weight.detach().double().numpy().copy())
    np.testing.assert_allclose(found.validation_loss, losses, rtol=1e-5)
    np.testing.assert_allclose(found.head.weight, weights[found.best_epoch - 1], atol=1e-6)
    best = 0
    for epoch in range(1, 10):
        best = epoch if losses[epoch] < losses[best] - LEAST_GAIN else best
    assert found.best_epoch == best + 1
    assert (found.head.space, found.head.kind) == ("raw", "linear_probe_legacy")


def test_it_stops_when_nothing_gets_better() -> None:
    x, opposite = np.zeros((60, 12), dtype=np.float32), np.tile([0.0, 0.0, 1.0], (60, 1))
    # Held-out labels that contradict what is learnt: the first epoch stays the best.
    found = fit_legacy_probe(x, 1 - opposite, x, opposite, LABELS)
    assert found.best_epoch == 1
    assert len(found.validation_loss) == 1 + PATIENCE
    assert min(found.validation_loss) > found.validation_loss[0] - LEAST_GAIN


def test_equal_seeds_give_equal_bytes_and_no_generator_is_touched() -> None:
    x, y = study(40, 2)
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    heads = [fit_legacy_probe(x, y, x, y, LABELS, seed=3).head for _ in range(2)]
    assert heads[0].weight.tobytes() == heads[1].weight.tobytes()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert heads[0].weight.tobytes() != fit_legacy_probe(x, y, x, y, LABELS, seed=4).head.weight.tobytes()


def test_shapes_that_do_not_fit_are_told() -> None:
    x, y = study(10, 0)
    with pytest.raises(InputError, match="do not fit 3 labels"):
        fit_legacy_probe(x, y[:, :2], x, y, LABELS)
    with pytest.raises(InputError, match="do not fit 3 labels"):
        fit_legacy_probe(x, y, x[:0], y[:0], LABELS)
