"""A sweep's results as tidy tables and JSON: estimates, paired differences with Holm's correction, draws, cosines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from medvlm_probe.metrics.permutation import holm
from medvlm_probe.metrics.two_way_bootstrap import (
    MIN_GROUPS,
    MIN_GROUPS_SKEWED,
    Difference,
    TwoWaySample,
    not_worse,
    two_way_difference,
    two_way_estimate,
)
from medvlm_probe.tuning.calibration_sweep import ZERO_SHOT
from medvlm_probe.tuning.calibration_sweep_measures import COMPARED, ERRORS, MACRO, POOLED, Measured, SweepResult
from medvlm_probe.types import Estimate, finite_or_none

REFERENCES = (ZERO_SHOT, "temperature@split", "temperature@shots", "ls", "ce")
"""What every method is compared with, where it is among them."""

MARGIN = 0.01
"""By how much accuracy (AUROC) may fall short of cross entropy's: one point."""

BOUNDS: Mapping[str, tuple[float, float]] = {
    **dict.fromkeys(("accuracy", "auroc", "ece", "ace", "mce", "ece_kde"), (0.0, 1.0)),
    **dict.fromkeys(("brier", "nll"), (0.0, np.inf)),
    **dict.fromkeys(("overconfidence", "calibration_in_the_large"), (-1.0, 1.0)),
}


@dataclass(frozen=True)
class Compared:
    """A method's paired difference to another in one metric, and its p-value after Holm's correction over methods."""

    method: str
    against: str
    scope: str
    metric: str
    difference: Difference
    p_adjusted: float

    def to_json(self) -> dict[str, Any]:
        """Return the estimate with its p-values."""
        return {
            **self.difference.estimate.to_json(),
            "p_value": finite_or_none(self.difference.p_value),
            "p_adjusted": finite_or_none(self.p_adjusted),
            "smallest_detectable": finite_or_none(self.difference.smallest_detectable),
        }


def least_groups(metric: str) -> int:
    """Return from how many groups on a metric's interval covers as it should."""
    return MIN_GROUPS_SKEWED if metric in (*ERRORS, "nll") else MIN_GROUPS


def estimate(result: SweepResult, method: Measured, scope: str, metric: str) -> Estimate:
    """Return the mean over draws of a metric with its interval."""
    return two_way_estimate(
        method.scopes[scope][metric], result.n_images, bounds=BOUNDS[metric], min_groups=least_groups(metric)
    )


def comparisons(result: SweepResult, *, scopes: Sequence[str] | None = None) -> list[Compared]:
    """Return every method's differences to each of `REFERENCES` that is among the methods.

    Holm's correction is over methods, for each reference, scope and metric by itself.

    Args:
        result: of `measure_sweep`.
        scopes: those wanted; None for all.
    """
    found = []
    for against in REFERENCES:
        base = result.named(against)
        if base is None:
            continue
        others = [method for method in result.methods if method is not base]
        for scope in scopes or list(base.scopes):
            for metric in [name for name in COMPARED if name in base.scopes[scope]]:
                found += _family(result, base, others, scope, metric)
    return found


def _family(result: SweepResult, base: Measured, others: Sequence[Measured], scope: str, metric: str) -> list[Compared]:
    tested = [
        two_way_difference(
            _less(method, base, scope, metric), result.n_images, family=len(others), min_groups=least_groups(metric)
        )
        for method in others
    ]
    adjusted = holm(np.array([difference.p_value for difference in tested]))
    return [
        Compared(method.name, base.name, scope, metric, difference, float(p))
        for method, difference, p in zip(others, tested, adjusted, strict=True)
    ]


def _less(method: Measured, base: Measured, scope: str, metric: str) -> TwoWaySample:
    return method.scopes[scope][metric].less(base.scopes[scope][metric])


def not_worse_than_cross_entropy(result: SweepResult) -> dict[str, str]:
    """Return whether each method's accuracy (several labels: mean AUROC) is within a point of cross entropy's.

    Empty without `ce` among the methods, or without an AUROC.
    """
    base, (scope, metric) = result.named("ce"), result.main
    if base is None or metric not in base.scopes[scope]:
        return {}
    return {
        method.name: not_worse(_less(method, base, scope, metric), MARGIN)
        for method in result.methods
        if method is not base
    }


def estimate_table(results: Sequence[SweepResult]) -> pd.DataFrame:
    """Return a row a site, method, scope and metric: mean, deviation over draws, interval, and what it cost."""
    return pd.DataFrame(
        {
            "site": result.site,
            "method": method.name,
            "scope": scope,
            "metric": metric,
            "value": found.value,
            "deviation": samples[metric].deviation,
            "low": found.low,
            "high": found.high,
            "reliable": found.reliable,
            "n": found.n,
            "n_groups": found.n_groups,
            "n_draws": len(samples[metric].values),
            "labels_used": method.outcome.labels_used,
            "parameters": method.outcome.n_parameters,
            "steps": method.outcome.n_steps,
        }
        for result in results
        for method in result.methods
        for scope, samples in method.scopes.items()
        for metric in samples
        for found in [estimate(result, method, scope, metric)]
    )


def comparison_table(results: Sequence[SweepResult]) -> pd.DataFrame:
    """Return a row a site, method, reference, scope and metric: the paired difference and its test."""
    return pd.DataFrame(
        {
            "site": result.site,
            "method": found.method,
            "against": found.against,
            "scope": found.scope,
            "metric": found.metric,
            "value": found.difference.estimate.value,
            "low": found.difference.estimate.low,
            "high": found.difference.estimate.high,
            "reliable": found.difference.estimate.reliable,
            "p_value": found.difference.p_value,
            "p_adjusted": found.p_adjusted,
            "smallest_detectable": found.difference.smallest_detectable,
        }
        for result in results
        for found in comparisons(result)
    )


def draw_table(results: Sequence[SweepResult]) -> pd.DataFrame:
    """Return a row a site, method, draw, scope and metric; draw -1 for what does not depend on it."""
    return pd.DataFrame(
        {
            "site": result.site,
            "method": method.name,
            "draw": number if len(sample.values) > 1 else -1,
            "scope": scope,
            "metric": metric,
            "value": value,
        }
        for result in results
        for method in result.methods
        for scope, samples in method.scopes.items()
        for metric, sample in samples.items()
        for number, value in enumerate(sample.values.tolist())
    )


def cosine_table(result: SweepResult) -> pd.DataFrame:
    """Return a row a method and draw: the mean cosine between texts beside the (pooled) ECE; methods with prompts of
    their own alone."""
    return pd.DataFrame(
        {"method": method.name, "draw": number, "cosine": cosine, "ece": ece}
        for method in result.methods
        if not method.outcome.method.post_hoc
        for number, (cosine, ece) in enumerate(
            zip(method.cosines.tolist(), method.scopes[POOLED]["ece"].values.tolist(), strict=True)
        )
    )


def cosine_correlations(result: SweepResult) -> dict[str, float | int | None]:
    """Return how cosines between texts and ECE go together: Spearman's correlation over methods' means and over draws
    within a method (ranks within each, pooled); None with fewer than three methods, or where nothing varies."""
    table = cosine_table(result)
    means = table.groupby("method", sort=False)[["cosine", "ece"]].mean()
    several = table[table.groupby("method")["draw"].transform("size") > 2]
    ranks = several.groupby("method")[["cosine", "ece"]].rank()
    within = ranks - ranks.groupby(several["method"]).transform("mean")
    return {
        "over_methods": _correlation(means.rank()) if len(means) > 2 else None,
        "n_methods": len(means),
        "within_methods": _correlation(within) if len(within) else None,
    }


def _correlation(pairs: pd.DataFrame) -> float | None:
    x, y = pairs["cosine"].to_numpy(float), pairs["ece"].to_numpy(float)
    if not (np.ptp(x) > 0 and np.ptp(y) > 0):
        return None
    return finite_or_none(float(np.corrcoef(x, y)[0, 1]))


def alike(result: SweepResult) -> list[tuple[str, str]]:
    """Return pairs of methods whose texts' features are the same in every draw, to rounding."""
    tuned = [method for method in result.methods if method.outcome.method.loss is not None]
    return [
        (one.name, other.name)
        for number, one in enumerate(tuned)
        for other in tuned[number + 1 :]
        if np.allclose(one.outcome.features, other.outcome.features, atol=1e-5)
    ]


def sweep_json(result: SweepResult) -> dict[str, Any]:
    """Return the `methods` of `calibration --json` and what compares them."""
    head = [scope for scope in (POOLED, MACRO) if scope in result.methods[0].scopes]
    compared = comparisons(result, scopes=head)
    verdicts = not_worse_than_cross_entropy(result)
    return {
        "site": result.site or None,
        "n_images": result.n_images,
        "n_groups": result.n_groups,
        "n_draws": result.n_draws,
        "methods": [_method_json(result, method, compared, verdicts.get(method.name)) for method in result.methods],
        "text_cosine_and_ece": cosine_correlations(result),
        "alike": [list(pair) for pair in alike(result)],
    }


def _method_json(
    result: SweepResult, method: Measured, compared: Sequence[Compared], verdict: str | None
) -> dict[str, Any]:
    def scope_json(scope: str) -> dict[str, Any]:
        return {
            metric: estimate(result, method, scope, metric).to_json() | {"deviation": finite_or_none(sample.deviation)}
            for metric, sample in method.scopes[scope].items()
        }

    mine = [found for found in compared if found.method == method.name]
    differences: dict[str, dict[str, dict[str, Any]]] = {}
    for found in mine:
        differences.setdefault(found.against, {}).setdefault(found.scope, {})[found.metric] = found.to_json()
    outcome = method.outcome
    return {
        "method": method.name,
        "labels_used": outcome.labels_used,
        "n_parameters": outcome.n_parameters,
        "steps": outcome.n_steps,
        **scope_json(POOLED),
        "ece_if_calibrated": {"low": finite_or_none(method.band.low), "high": finite_or_none(method.band.high)},
        "macro": scope_json(MACRO) if MACRO in method.scopes else {},
        "per_label": [{"label": label, **scope_json(label)} for label in method.scopes if label not in (POOLED, MACRO)],
        "text_cosine": finite_or_none(float(method.cosines.mean())),
        "differences": differences,
        "not_worse_than_ce": verdict,
        "notes": list(outcome.notes),
    }
