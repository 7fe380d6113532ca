"""Calibration of many images by cells of confidence, held against the same metrics with every image by itself."""

from __future__ import annotations

import numpy as np
import pytest

from medvlm_probe.metrics import calibration_forms, calibration_kernel, calibration_replicates
from medvlm_probe.metrics.calibration import (
    CalibrationEstimate,
    calibration_estimates,
    kde_calibration_error,
    multilabel_calibration,
)
from medvlm_probe.metrics.calibration_cells import N_CELLS, cells_of
from medvlm_probe.metrics.calibration_problem import problem_of
from medvlm_probe.metrics.calibration_replicates import outcome_statistic

SHAPES = {
    "spread": lambda rng, n: rng.beta(0.8, 1.5, n),
    "rare": lambda rng, n: rng.beta(0.05, 3, n),
    "two heaps": lambda rng, n: rng.beta(0.02, 0.02, n),
    "narrow": lambda rng, n: rng.beta(2_000, 2_000, n),
    "few values": lambda rng, n: rng.integers(0, 11, n) / 10,
    "one value": lambda _, n: np.full(n, 0.3),
}


def made(shape: str, n: int = 1_500) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    p = SHAPES[shape](rng, n)
    return p, (rng.random(n) < p**1.2).astype(float), np.arange(n) // 2


def by_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (calibration_kernel, calibration_forms, calibration_replicates):
        monkeypatch.setattr(module, "CELLS_ABOVE", 10)


@pytest.mark.parametrize("shape", SHAPES)
def test_cells_hold_every_image_once_and_part_at_edges(shape: str) -> None:
    p, y, _ = made(shape)
    edges = [0.1, 0.3, 0.5, 0.9]
    cells = cells_of(p, edges)
    assert cells.counts.sum() == len(p)
    assert (cells.counts > 0).all()
    assert len(cells) <= N_CELLS + len(edges)
    np.testing.assert_array_equal(np.bincount(cells.of), cells.counts)
    np.testing.assert_allclose(cells.sums(p), cells.mean * cells.counts, rtol=1e-12, atol=1e-300)
    np.testing.assert_array_equal(cells.of[cells.representative], np.arange(len(cells)))
    side = np.searchsorted(edges, p, side="right")
    assert (side == side[cells.representative][cells.of]).all()
    for k in np.flatnonzero(cells.tied)[:50]:
        assert np.ptp(p[cells.of == k]) == 0
    assert cells.sums(y).sum() == y.sum()


@pytest.mark.parametrize("shape", SHAPES)
def test_kernel_density_by_cells_is_the_exact_one(monkeypatch: pytest.MonkeyPatch, shape: str) -> None:
    p, y, _ = made(shape)
    exact = kde_calibration_error(p, y)
    by_cells(monkeypatch)
    assert kde_calibration_error(p, y) == pytest.approx(exact, abs=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_null_bands_by_cells_are_the_exact_ones(monkeypatch: pytest.MonkeyPatch, shape: str) -> None:
    problem = problem_of(*made(shape))
    uniforms = np.random.default_rng(1).random((60, len(problem.groups)))
    exact = outcome_statistic(problem)(uniforms)
    by_cells(monkeypatch)
    found = outcome_statistic(problem)(uniforms)
    for k, name in enumerate(problem.metrics):
        # The form at few points keeps the image itself in, one of hundreds here and of thousands where cells serve.
        within = 1e-3 if name == "ece_kde" else 1e-4
        np.testing.assert_allclose(found[:, k], exact[:, k], rtol=0, atol=within, err_msg=name)


def test_estimates_by_cells_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    p, y, groups = made("spread", 2_000)
    metrics = ("ece", "ece_kde", "brier", "nll", "sure_errors", "risk_coverage")

    def found_now() -> dict[str, CalibrationEstimate]:
        rng = np.random.default_rng(0)
        return calibration_estimates(p, y, groups, rng=rng, n_replicates=200, metrics=metrics)

    exact = found_now()
    by_cells(monkeypatch)
    found = found_now()
    for name, one in exact.items():
        other = found[name]
        for part in ("value", "low", "high"):
            assert getattr(other.estimate, part) == pytest.approx(getattr(one.estimate, part), abs=5e-4), name
        assert other.plain == pytest.approx(one.plain, abs=1e-5), name
        for part in ("low", "median", "high"):
            assert getattr(other.band, part) == pytest.approx(getattr(one.band, part), abs=5e-4), name


def test_several_labels_by_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    p = rng.beta(0.8, 3, (400, 3))
    y = np.where(rng.random(p.shape) < 0.1, np.nan, (rng.random(p.shape) < p).astype(float))
    groups = np.arange(400) // 2

    def pooled() -> tuple[float, float]:
        found = multilabel_calibration(
            p,
            y,
            groups,
            label_names=("a", "b", "c"),
            rng=np.random.default_rng(0),
            n_replicates=50,
            metrics=("ece_kde",),
        )
        return found.pooled["ece_kde"].plain, found.macro["ece_kde"].estimate.value

    exact = pooled()
    by_cells(monkeypatch)
    assert pooled() == pytest.approx(exact, abs=1e-3)
