"""The losses: the released code's values and gradients, the formulas read anew in numpy, and finite differences."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medvlm_probe.errors import InputError
from medvlm_probe.tuning import losses as module
from medvlm_probe.tuning.losses import (
    LOSSES,
    angular_separation,
    brier,
    cross_entropy,
    dca,
    focal,
    label_smoothing,
    logitnorm,
    mbls,
    mdca,
    mmce,
    orthogonality,
    penalty,
    smac,
    zs_norm,
)

VALUE_TOLERANCE = {"mmce": 1e-5, "dca": 5e-7, "mdca": 5e-7, "smac": 5e-7}
ZERO_SHOT = ("penalty", "zs_norm")
NAMES = (
    *("cross_entropy", "focal", "label_smoothing", "dca", "mdca", "mmce", "smac", "mbls", "logitnorm", "brier"),
    *ZERO_SHOT,
)


def batch(
    seed: int = 0, n: int = 12, k: int = 4, scale: float = 2.0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    logits, zero_shot = (torch.from_numpy(rng.normal(scale=scale, size=(n, k))) for _ in range(2))
    return logits, torch.from_numpy(rng.integers(k, size=n)), zero_shot


def features(seed: int = 0, k: int = 4, d: int = 7) -> torch.Tensor:
    rows = np.random.default_rng(seed).normal(size=(k, d))
    return torch.from_numpy(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def called(name: str, logits: torch.Tensor, labels: torch.Tensor, zero_shot: torch.Tensor, **options: Any) -> Any:
    others = (zero_shot,) if name in ZERO_SHOT else ()
    return getattr(module, name)(logits, labels, *others, **options)


def released_options(name: str, given: dict[str, float]) -> dict[str, float]:
    return {
        "focal": {"gamma": given["gamma"]},
        "label_smoothing": {"alpha": given["alpha"]},
        "smac": {"alpha": given["alpha"]},
        "mbls": {"margin": given["margin"], "alpha": given["mbls_alpha"]},
        "logitnorm": {"temperature": given["t"]},
    }.get(name, {})


def test_values_and_gradients_are_the_released_codes(shared_dir: Path) -> None:
    cases = json.loads((shared_dir / "vectors" / "losses.json").read_text())["losses"]
    assert len(cases) >= 8
    for case in cases:
        logits = torch.tensor(case["logits"], dtype=torch.float64)
        zero_shot = torch.tensor(case["zero_shot_logits"], dtype=torch.float64)
        labels, text = torch.tensor(case["labels"]), torch.tensor(case["text_features"], dtype=torch.float64)
        for name, value in case["values"].items():
            variable = (text if name == "angular_separation" else logits).clone().requires_grad_()
            if name == "angular_separation":
                loss = angular_separation(variable)
            else:
                loss = called(name, variable, labels, zero_shot, **released_options(name, case["params"]))
            loss.backward()
            assert abs(loss.item() - value) <= VALUE_TOLERANCE.get(name, 1e-9), name
            difference = variable.grad - torch.tensor(case["gradients"][name], dtype=torch.float64)
            assert difference.abs().max() <= (1e-4 if name == "mmce" else 1e-7), name


def by_formula(name: str, z: np.ndarray, y: np.ndarray, s: np.ndarray, o: dict[str, Any]) -> float:
    """Loops over the published formulas."""
    n, k = z.shape
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    nll = [-np.log(p[i, y[i]]) for i in range(n)]
    frequency = [np.mean(y == c) for c in range(k)]
    confidence, right = p.max(axis=1), p.argmax(axis=1) == y
    if name == "cross_entropy":
        return float(np.mean(nll))
    if name == "focal":
        return float(np.mean([(1 - p[i, y[i]]) ** o["gamma"] * nll[i] for i in range(n)]))
    if name == "label_smoothing":
        a = o["alpha"]
        return float(
            np.mean([-sum((1 - a if c == y[i] else a / (k - 1)) * np.log(p[i, c]) for c in range(k)) for i in range(n)])
        )
    if name == "dca":
        return float(abs(confidence.mean() - right.mean()))
    if name in ("mdca", "smac"):
        a = o.get("alpha", 0.0)
        return float(
            sum(abs(p[:, c].mean() - ((1 - a) * frequency[c] + a * (1 - frequency[c]) / (k - 1))) for c in range(k)) / k
        )
    if name == "mmce":
        total, m, w = 0.0, int(right.sum()), int((~right).sum())
        for i in range(n):
            for j in range(n):
                kernel = np.exp(-abs(confidence[i] - confidence[j]) / o["bandwidth"])
                a, b = ((1 - confidence[q]) / m if right[q] else -confidence[q] / w for q in (i, j))
                total += a * b * kernel
        return float(np.sqrt(total + 1e-10))
    if name == "mbls":
        excess = [max(z[i].max() - z[i, c] - o["margin"], 0) for i in range(n) for c in range(k)]
        return float(np.mean(nll) + o["alpha"] * np.mean(excess))
    if name == "logitnorm":
        scaled = z / (np.sqrt((z**2).sum(axis=1, keepdims=True)) + 1e-7) / o["temperature"]
        return by_formula("cross_entropy", scaled, y, s, {})
    if name == "brier":
        return float(np.mean([sum((p[i, c] - (c == y[i])) ** 2 for c in range(k)) for i in range(n)]))
    if name == "penalty":
        return float(
            np.mean([max(z[i, c] - s[i].max(), 0) + max(s[i].min() - z[i, c], 0) for i in range(n) for c in range(k)])
        )
    stretched = np.array([(r - r.min()) / (r.max() - r.min()) * np.ptp(t) + t.min() for r, t in zip(z, s, strict=True)])
    return by_formula("cross_entropy", stretched, y, s, {})


OPTIONS: dict[str, list[dict[str, Any]]] = {
    "focal": [{"gamma": 1.0}, {"gamma": 2.5}],
    "label_smoothing": [{"alpha": 0.05}, {"alpha": 0.4}],
    "smac": [{"alpha": 0.05}, {"alpha": 0.4}],
    "mmce": [{"bandwidth": 0.4, "legacy": False}, {"bandwidth": 0.1, "legacy": False}],
    "mbls": [{"margin": 1.0, "alpha": 0.1}, {"margin": 0.2, "alpha": 0.7}],
    "logitnorm": [{"temperature": 1.0}, {"temperature": 0.3}],
}
CASES = [(name, options) for name in NAMES for options in OPTIONS.get(name, [{}])]


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
@pytest.mark.parametrize("k", [2, 5])
def test_value_is_the_published_formula(name: str, options: dict[str, Any], k: int) -> None:
    logits, labels, zero_shot = batch(1, k=k)
    expected = by_formula(name, logits.numpy(), labels.numpy(), zero_shot.numpy(), options)
    assert called(name, logits, labels, zero_shot, **options).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("name", "options"), [*CASES, ("mmce", {})], ids=str)
def test_gradient_is_that_of_finite_differences(name: str, options: dict[str, Any]) -> None:
    logits, labels, zero_shot = batch(2)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: called(name, z, labels, zero_shot, **options), (logits,))


@pytest.mark.parametrize("term", [angular_separation, orthogonality])
def test_terms_of_text_features_are_their_formulas_with_finite_difference_gradients(term: Any) -> None:
    t = features()
    cosines = [float(a @ b) for i, a in enumerate(t) for j, b in enumerate(t) if i != j]
    expected = np.mean(cosines) if term is angular_separation else np.sum(np.square(cosines))
    assert term(t).item() == pytest.approx(expected, abs=1e-12)
    assert torch.autograd.gradcheck(term, (t.requires_grad_(),))


@given(st.integers(0, 1000), st.sampled_from([2, 3, 5]), st.floats(0, 0.99))
@settings(max_examples=30, deadline=None)
def test_smac_is_mdca_whatever_alpha_where_classes_are_balanced(seed: int, k: int, alpha: float) -> None:
    logits, _, _ = batch(seed, n=4 * k, k=k)
    labels = torch.arange(4 * k) % k
    assert smac(logits, labels, alpha=alpha).item() == pytest.approx(mdca(logits, labels).item(), abs=1e-12)


def test_smac_differs_from_mdca_where_they_are_not() -> None:
    logits, _, _ = batch(n=12, k=3)
    labels = torch.zeros(12, dtype=torch.int64)
    assert abs(smac(logits, labels, alpha=0.1).item() - mdca(logits, labels).item()) > 0.01


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_losses_do_not_depend_on_the_order_of_the_batch_nor_on_a_shift_of_all_logits(seed: int) -> None:
    logits, labels, zero_shot = batch(seed)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(labels)))
    for name in NAMES:
        value = called(name, logits, labels, zero_shot).item()
        assert called(name, logits[order], labels[order], zero_shot[order]).item() == pytest.approx(value, abs=1e-10)
        if name not in ("penalty", "logitnorm"):
            assert called(name, logits + 3, labels, zero_shot).item() == pytest.approx(value, abs=1e-8)


def test_options_at_their_neutral_value_give_the_cross_entropy() -> None:
    logits, labels, _ = batch(3)
    plain = cross_entropy(logits, labels).item()
    assert focal(logits, labels, gamma=0.0).item() == pytest.approx(plain)
    assert label_smoothing(logits, labels, alpha=0.0).item() == pytest.approx(plain)
    assert mbls(logits, labels, alpha=0.0).item() == pytest.approx(plain)
    assert mbls(logits, labels, margin=1e6).item() == pytest.approx(plain)
    alpha = 0.1
    torchs = torch.nn.functional.cross_entropy(logits, labels, label_smoothing=alpha * 4 / 3)
    assert label_smoothing(logits, labels, alpha=alpha).item() == pytest.approx(torchs.item())


def test_mmce_is_zero_with_zero_gradient_where_all_is_right_or_all_wrong() -> None:
    logits, _, _ = batch(4)
    for labels in (logits.argmax(dim=1), (logits.argmax(dim=1) + 1) % 4):
        z = logits.clone().requires_grad_()
        loss = mmce(z, labels)
        loss.backward()
        assert loss.item() == 0
        assert z.grad is not None
        assert (z.grad == 0).all()


def test_logitnorm_of_two_classes_cannot_be_surer_than_its_bound() -> None:
    sure = torch.tensor([[50.0, -50.0]], dtype=torch.float64)
    assert torch.exp(-logitnorm(sure, torch.tensor([0]))).item() == pytest.approx(0.8044, abs=1e-4)
    nine = torch.full((1, 9), -1.0, dtype=torch.float64)
    nine[0, 0] = 8.0
    assert torch.exp(-logitnorm(nine, torch.tensor([0]))).item() == pytest.approx(0.265, abs=1e-3)


def test_angular_separation_reaches_its_least_value_at_a_simplex() -> None:
    corners = torch.eye(4, dtype=torch.float64) - 0.25
    corners = corners / corners.norm(dim=1, keepdim=True)
    assert angular_separation(corners).item() == pytest.approx(-1 / 3)
    assert orthogonality(torch.eye(4, dtype=torch.float64)).item() == 0
    assert orthogonality(corners).item() > 0.1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(name: str, dtype: torch.dtype) -> None:
    logits, labels, zero_shot = batch(5)
    half = logits.to(dtype)
    got = called(name, half.requires_grad_(), labels, zero_shot.to(dtype))
    expected = called(name, half.detach().float(), labels, zero_shot.to(dtype).float())
    assert got.dtype == torch.float32
    assert got.item() == pytest.approx(expected.item(), rel=1e-6)


def test_extreme_logits_give_finite_values_and_gradients() -> None:
    logits = torch.tensor([[800.0, -800.0], [-800.0, 800.0]], requires_grad=True)
    zero_shot = torch.tensor([[1.0, -1.0], [2.0, 2.0]])
    for name in NAMES:
        z = logits.detach().clone().requires_grad_()
        loss = called(name, z, torch.tensor([0, 0]), zero_shot)
        loss.backward()
        assert torch.isfinite(loss), name
        assert torch.isfinite(z.grad).all(), name


@pytest.mark.parametrize(
    "call",
    [
        lambda z, y: focal(z, y, gamma=0.5),
        lambda z, y: focal(z, y, gamma=-1),
        lambda z, y: label_smoothing(z, y, alpha=1.0),
        lambda z, y: smac(z, y, alpha=-0.1),
        lambda z, y: mbls(z, y, margin=-1),
        lambda z, y: logitnorm(z, y, temperature=0),
        lambda z, y: mmce(z, y, bandwidth=0),
        lambda z, y: cross_entropy(z, y[:-1]),
        lambda z, y: cross_entropy(z[:, :1], y * 0),
        lambda z, y: dca(z, y.double()),
        lambda z, y: brier(z[:0], y[:0]),
        lambda z, y: penalty(z, y, z[:, :2]),
        lambda z, y: zs_norm(z, y, z[1:]),
        lambda z, y: angular_separation(z),
        lambda z, y: orthogonality(features()[:1]),
    ],
)
def test_what_does_not_fit_is_refused(call: Any) -> None:
    logits, labels, _ = batch()
    with pytest.raises(InputError):
        call(logits, labels)


def test_every_registered_loss_is_a_function_of_this_module() -> None:
    assert {kind.compute.__name__ for kind in LOSSES.values()} == {*NAMES, "angular_separation", "orthogonality"}
