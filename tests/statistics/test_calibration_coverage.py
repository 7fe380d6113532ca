"""Intervals of calibration metrics cover the truth where they claim to; debiased values are nearer it than plain."""

from __future__ import annotations

import numpy as np
import pytest
from calibration_simulation import CHANCES, CONFIDENCES, LAYOUTS, Answers, covered, estimates, truths
from scipy import stats

from medvlm_probe.metrics.calibration import multilabel_calibration
from medvlm_probe.metrics.calibration_estimates import interval_estimates, null_replicates
from medvlm_probe.metrics.calibration_problem import plain_values, problem_of
from medvlm_probe.metrics.permutation import null_band
from medvlm_probe.types import Estimate

CLAIM = 0.92
"""An interval that calls itself reliable covers at least this share, nominal being .95."""

BINNED = ("ece", "ace", "mce")
SCORES = ("brier", "nll", "calibration_in_the_large", "overconfidence", "sure_errors", "risk_coverage")
KERNELS = ("ece_kde", "smooth_ece")
SPREAD = [
    (confidences, list(CHANCES)[(row + column) % len(CHANCES)], *layout)
    for row, confidences in enumerate(CONFIDENCES)
    for column, layout in enumerate(LAYOUTS)
]
"""Every confidence with every layout and every truth, once each; `analyses/interval_coverage.py` runs all of them."""
SPREAD_OF_KERNELS = [
    (("top label", "rare label")[(row + column) % 2], chances, *layout)
    for row, chances in enumerate(("calibrated", "over-confident", "under-confident"))
    for column, layout in enumerate([(50, 0.5), (200, 0.0), (2000, 0.5)])
]


def assert_covers(found: list[Estimate], truth: float, name: str) -> None:
    """Fail where coverage among intervals that call themselves reliable is significantly (p < .001) below the claim."""
    claimed = np.array([e.reliable and np.isfinite(e.value) for e in found])
    hits = int(covered(found, truth)[claimed].sum())
    assert stats.binom.cdf(hits, int(claimed.sum()), CLAIM) >= 0.001, f"{name}: {hits} of {claimed.sum()} cover"


@pytest.mark.slow
@pytest.mark.parametrize(("confidences", "chances", "n", "correlation"), SPREAD)
def test_intervals_cover_across_designs(confidences: str, chances: str, n: int, correlation: float) -> None:
    design = Answers(confidences, chances, n, correlation)
    for name, found in estimates(design, BINNED + SCORES, 40, np.random.default_rng(n)).items():
        assert_covers(found, truths(confidences, chances)[name], f"{name}, {design}")


@pytest.mark.slow
@pytest.mark.parametrize(("confidences", "chances", "n", "correlation"), SPREAD_OF_KERNELS)
def test_kernel_intervals_cover_where_they_claim_to(confidences: str, chances: str, n: int, correlation: float) -> None:
    design = Answers(confidences, chances, n, correlation)
    for name, found in estimates(design, KERNELS, 12, np.random.default_rng(n)).items():
        assert_covers(found, truths(confidences, chances)[name], f"{name}, {design}")


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["ece", "ace"])
@pytest.mark.parametrize("chances", ["calibrated", "over-confident"])
def test_groups_of_ten_images_are_covered_or_called_unreliable(metric: str, chances: str) -> None:
    for n in (100, 300, 1000):
        design = Answers("top label", chances, n, 0.5, group_size=10)
        found = estimates(design, (metric,), 80, np.random.default_rng(n))[metric]
        assert all(e.reliable == (n > 100) for e in found)
        assert_covers(found, truths("top label", chances)[metric], f"{metric}, {design}")


@pytest.mark.parametrize("chances", ["calibrated", "under-confident"])
def test_debiased_values_are_nearer_the_truth(chances: str) -> None:
    truth = truths("probability", chances)["ece"]
    design = Answers("probability", chances, 200, 0.0)
    rng = np.random.default_rng(0)
    debiased = np.mean([e.value for e in estimates(design, ("ece",), 60, rng)["ece"]])
    plain = []
    for _ in range(60):
        confidence, outcome = design.draw(rng)
        plain.append(plain_values(problem_of(confidence, outcome.astype(float), metrics=("ece",)))["ece"])
    assert abs(debiased - truth) < abs(np.mean(plain) - truth) / 2


@pytest.mark.parametrize("correlation", [0.0, 0.5])
def test_band_holds_a_calibrated_models_value(correlation: float) -> None:
    design = Answers("probability", "calibrated", 200, correlation)
    rng = np.random.default_rng(0)
    metrics = ("ece", "ace", "brier", "overconfidence")
    inside = []
    for _ in range(150):
        confidence, outcome = design.draw(rng)
        problem = problem_of(confidence, outcome.astype(float), design.groups, metrics=metrics)
        bands = [null_band(column) for column in null_replicates(problem, rng, 199).T]
        values = plain_values(problem).values()
        inside.append([band.low <= value <= band.high for band, value in zip(bands, values, strict=True)])
    assert (stats.binom.cdf(np.sum(inside, axis=0), 150, CLAIM) >= 0.001).all()


def drawn_classes(n: int, sharpen: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (n, 4) that are too sharp by a power, and classes drawn from the true ones."""
    true = rng.dirichlet(np.full(4, 0.8), size=n)
    shown = true**sharpen
    return shown / shown.sum(axis=1, keepdims=True), (true.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1).clip(max=3)


@pytest.mark.parametrize("sharpen", [1.0, 1.6])
@pytest.mark.parametrize("n", [60, 600])
def test_classwise_error_covers(n: int, sharpen: float) -> None:
    rng = np.random.default_rng(0)
    truth = plain_values(problem_of(*drawn_classes(300_000, sharpen, rng), metrics=("classwise_ece",)))["classwise_ece"]
    truth = 0.0 if sharpen == 1 else truth
    found = []
    for _ in range(40):
        problem = problem_of(*drawn_classes(n, sharpen, rng), metrics=("classwise_ece",))
        found.append(interval_estimates(problem, rng)["classwise_ece"])
    assert_covers(found, truth, "classwise_ece")


@pytest.mark.parametrize("chances", ["calibrated", "over-confident"])
def test_means_over_labels_and_pooled_values_cover(chances: str) -> None:
    truth = truths("probability", chances)
    metrics = ("ece", "brier", "nll", "overconfidence")
    design = Answers("probability", chances, 200, 0.5)
    rng = np.random.default_rng(0)
    macro: dict[str, list[Estimate]] = {name: [] for name in metrics}
    pooled: dict[str, list[Estimate]] = {name: [] for name in metrics}
    for _ in range(25):
        columns = [design.draw(rng) for _ in range(3)]
        p = np.stack([c for c, _ in columns], axis=1)
        y = np.stack([outcome for _, outcome in columns], axis=1).astype(float)
        y[rng.random(y.shape) < 0.2] = np.nan
        found = multilabel_calibration(p, y, design.groups, label_names="abc", rng=rng, n_replicates=9, metrics=metrics)
        for name in metrics:
            macro[name].append(found.macro[name].estimate)
            pooled[name].append(found.pooled[name].estimate)
    for name in metrics:
        assert_covers(macro[name], truth[name], f"macro {name}")
        assert_covers(pooled[name], truth[name], f"pooled {name}")
