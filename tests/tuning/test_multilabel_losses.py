"""The losses for several labels: published formulas in plain numpy, finite differences, entries that are not known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from medvlm_probe.errors import InputError, UnknownNameError
from medvlm_probe.tuning.multilabel_losses import (
    LOSSES,
    asymmetric,
    binary_cross_entropy,
    loss_named,
    positive_weighted,
    positive_weights,
)

WEIGHT = torch.tensor([1.0, 3.0, 0.5, 20.0], dtype=torch.float64)
CASES = {
    "bce": {},
    "weighted-bce": {"positive_weight": WEIGHT},
    "asymmetric": {},
}


def batch(seed: int = 0, n: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits and labels with a few unknown ones, float64."""
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(scale=3, size=(n, 4)))
    labels = (rng.random((n, 4)) < 0.4).astype(float)
    labels[rng.random((n, 4)) < 0.2] = np.nan
    labels[0] = [1, 0, np.nan, 1]
    return logits, torch.from_numpy(labels)


def by_formula(name: str, logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the loss from a loop over the published formulas."""
    total, n = 0.0, 0
    for z_row, y_row in zip(logits, labels, strict=True):
        for k, (z, y) in enumerate(zip(z_row, y_row, strict=True)):
            if np.isnan(y):
                continue
            p = 1 / (1 + np.exp(-z))
            if name == "asymmetric":
                q = max(p - 0.05, 0.0)
                total += -(1 - p) * np.log(p) if y else -(q**4) * np.log(1 - q)
            elif name == "weighted-bce":
                total += -float(WEIGHT[k]) * np.log(p) if y else -np.log(1 - p)
            else:
                total += -np.log(p) if y else -np.log(1 - p)
            n += 1
    return total / n


@pytest.mark.parametrize("name", LOSSES)
def test_value_is_the_published_formula(name: str) -> None:
    logits, labels = batch()
    ours = loss_named(name)(logits, labels, **CASES[name]).item()
    assert ours == pytest.approx(by_formula(name, logits.numpy(), labels.numpy()), rel=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_gradient_is_that_of_finite_differences(name: str) -> None:
    logits, labels = batch(1)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: loss_named(name)(z, labels, **CASES[name]), (logits,), atol=1e-7)


@pytest.mark.parametrize("name", LOSSES)
def test_unknown_entries_do_not_matter_and_have_no_gradient(name: str) -> None:
    logits, labels = batch(2)
    unknown = labels.isnan()
    other = torch.where(unknown, torch.full_like(logits, 1e4), logits)
    logits.requires_grad_()
    loss = loss_named(name)(logits, labels, **CASES[name])
    assert loss.item() == loss_named(name)(other, labels, **CASES[name]).item()
    loss.backward()
    assert (logits.grad[unknown] == 0).all()
    assert (logits.grad[~unknown] != 0).any()
    nothing = loss_named(name)(logits, torch.full_like(labels, torch.nan), **CASES[name])
    assert nothing.item() == 0


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("value", [-200.0, 200.0])
def test_extreme_logits_stay_finite(name: str, value: float) -> None:
    logits = torch.full((2, 4), value, requires_grad=True)
    loss = loss_named(name)(logits, torch.tensor([[1.0] * 4, [0.0] * 4]), **CASES[name])
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


def test_without_unknown_labels_the_first_two_are_torchs_own() -> None:
    logits, labels = batch(3)
    labels = labels.nan_to_num(0)
    assert torch.allclose(
        binary_cross_entropy(logits, labels), functional.binary_cross_entropy_with_logits(logits, labels)
    )
    theirs = functional.binary_cross_entropy_with_logits(logits, labels, pos_weight=WEIGHT)
    assert torch.allclose(positive_weighted(logits, labels, positive_weight=WEIGHT), theirs)


def test_asymmetric_without_its_options_is_the_cross_entropy() -> None:
    logits, labels = batch(4)
    plain = asymmetric(logits, labels, gamma_positive=0, gamma_negative=0, margin=0)
    assert torch.allclose(plain, binary_cross_entropy(logits, labels))


def test_asymmetric_ignores_negatives_below_the_margin() -> None:
    logits = torch.tensor([[-4.0]], requires_grad=True)  # p = .018, below .05
    loss = asymmetric(logits, torch.zeros(1, 1))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.item() == 0


def test_positive_weights_balance_labels() -> None:
    targets = np.zeros((1000, 4))
    targets[:250, 0] = 1
    targets[:2, 1] = 1
    targets[:, 2] = np.nan
    targets[500:, 0] = np.nan
    assert positive_weights(targets).tolist() == [1.0, 100.0, 1.0, 1.0]


def test_wrong_names_and_numbers_are_told() -> None:
    logits, labels = batch()
    with pytest.raises(UnknownNameError, match="Did you mean asymmetric"):
        loss_named("assymetric")
    with pytest.raises(InputError, match="gammas"):
        asymmetric(logits, labels, gamma_negative=0.5)
    with pytest.raises(InputError, match="do not fit 4 labels"):
        positive_weighted(logits, labels, positive_weight=torch.ones(3))
    with pytest.raises(InputError, match="expected \\(N, L\\)"):
        binary_cross_entropy(logits[0], labels[0])
