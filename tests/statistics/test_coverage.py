"""Intervals that call themselves reliable cover the truth; those of other tools' kind do not."""

from __future__ import annotations

import numpy as np
import pytest
from coverage_simulation import (
    COMPARISON,
    COSTLY,
    DESIGNS,
    FAST,
    Design,
    auroc_of_sorted,
    auroc_without_groups,
    average_precision_of_sorted,
)
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score

from medvlm_probe.metrics.intervals import leave_one_out
from medvlm_probe.metrics.proportions import proportion_bounds

CLAIM = 0.92
"""An interval that calls itself reliable covers at least this share, nominal being .95."""


def assert_covers(name: str, design: Design, n_simulations: int) -> None:
    """Fail where coverage among intervals that call themselves reliable is significantly (p < .001) below the claim."""
    result = (FAST | COSTLY)[name](design, n_simulations, np.random.default_rng(0))
    n_claimed, n_covered = int(result.reliable.sum()), int(result.covered[result.reliable].sum())
    assert stats.binom.cdf(n_covered, n_claimed, CLAIM) >= 0.001, f"{n_covered} of {n_claimed} cover"


@pytest.mark.parametrize("design", DESIGNS, ids=str)
@pytest.mark.parametrize("name", FAST)
def test_interval_covers_where_it_claims_to(name: str, design: Design) -> None:
    costly = name.startswith("macro") or (name.startswith("average precision") and design.positives == 200)
    n_simulations = 60 if costly else 300
    assert_covers(name, design, n_simulations)


@pytest.mark.slow
@pytest.mark.parametrize("design", [d for d in DESIGNS if d.positives in (50, 200) and d.correlation], ids=str)
@pytest.mark.parametrize("name", COSTLY)
def test_costly_interval_covers_where_it_claims_to(name: str, design: Design) -> None:
    assert_covers(name, design, 60)


@pytest.mark.parametrize("name", COSTLY)
def test_costly_interval_covers_in_one_design(name: str) -> None:
    assert_covers(name, Design(50, 0.5, varying=True), 40)


@pytest.mark.parametrize("name", ["AUROC .85: BCa bootstrap", "AUROC .85: studentised bootstrap, logit"])
@pytest.mark.parametrize("positives", [3, 10])
def test_bootstrap_of_few_positives_calls_itself_unreliable(name: str, positives: int) -> None:
    result = COSTLY[name](Design(positives, 0.0, varying=True), 2, np.random.default_rng(0))
    assert not result.reliable.any()


@pytest.mark.parametrize("counts", [[10] * 5, [10] * 20, [1, 1, 1, 2, 1, 12] * 3, [25, *[1] * 25]], ids=str)
@pytest.mark.parametrize("correlation", [0.2, 0.5])
@pytest.mark.parametrize("share", [0.5, 0.8, 0.95])
def test_proportion_covers_for_very_unequal_and_for_few_large_groups(
    counts: list[int], correlation: float, share: float
) -> None:
    rng = np.random.default_rng(0)
    odds = (1 - correlation) / correlation
    found = rng.binomial(counts, rng.beta(share * odds, (1 - share) * odds, size=(1000, len(counts))))
    low, high = proportion_bounds(found, np.array(counts))
    assert np.mean((low <= share) & (share <= high)) > 0.935


def test_percentile_bootstrap_of_three_positives_covers_half_at_most() -> None:
    result = COMPARISON["recall .80: percentile bootstrap (for comparison)"](
        Design(3, 0.0, varying=True), 400, np.random.default_rng(0)
    )
    assert result.covered.mean() < 0.55


@pytest.mark.parametrize("varying", [False, True])
def test_simulated_leave_one_out_values_agree_with_weights_and_with_scikit_learn(varying: bool) -> None:
    design = Design(10, 0.5, varying)
    scores = design.scores(3, np.random.default_rng(0))
    values, without = auroc_without_groups(scores, design.labels, design.groups)
    for row, s in enumerate(scores):
        order = np.argsort(s)
        auroc = auroc_of_sorted(design.labels[order])
        precision = average_precision_of_sorted(design.labels[order])
        everything = np.ones((1, len(s)))
        assert values[row] == pytest.approx(roc_auc_score(design.labels, s))
        assert auroc(everything)[0] == pytest.approx(values[row])
        assert precision(everything)[0] == pytest.approx(average_precision_score(design.labels, s))
        np.testing.assert_allclose(leave_one_out(auroc, design.groups[order]), without[row])
        kept = design.groups != 4
        assert without[row, 4] == pytest.approx(roc_auc_score(design.labels[kept], s[kept]))
