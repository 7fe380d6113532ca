"""Intervals from leaving out one group at a time (the group jackknife)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from scipy import special, stats

from medvlm_probe.types import Estimate, FloatArray

Transform = Literal["identity", "log", "logit"]

MIN_GROUPS = 10
"""Below so many groups a jackknife interval is marked unreliable."""


def jackknife_interval(
    value: float,
    leave_one_out: FloatArray,
    *,
    n: int,
    method: str = "group jackknife",
    transform: Transform = "identity",
    degrees_of_freedom: float | None = None,
    min_groups: int = MIN_GROUPS,
) -> Estimate:
    """Return a 95 % t interval from the values that leaving out one group at a time gives.

    The variance is (G - 1) / G times the sum of squared deviations of the leave-one-out values, on the transformed
    scale. Unreliable where there are under `min_groups` groups, where a leave-one-out value is undefined (no interval
    then), or where a value lies on the transform's edge (the interval is then on the plain scale).

    Args:
        value: the statistic on all groups.
        leave_one_out: the statistic without each group, (G,).
        n: images behind the value.
        method: how tables name the interval.
        transform: the scale on which the interval is symmetric; `log` keeps it positive, `logit` within (0, 1).
        degrees_of_freedom: of the t quantile; G - 1 by default.
        min_groups: fewest groups at which the interval counts as reliable.

    Source: Efron and Tibshirani 1993, chapter 11; Cameron and Miller 2015 (few clusters).
    """
    leave_one_out = np.asarray(leave_one_out, dtype=np.float64)
    n_groups = leave_one_out.size
    reliable = n_groups >= min_groups
    if n_groups < 2 or not math.isfinite(value) or not np.isfinite(leave_one_out).all():
        return Estimate(float(value), math.nan, math.nan, n, n_groups, method, reliable=False)

    everything = np.append(leave_one_out, value)
    at_edge = (transform == "log" and (everything <= 0).any()) or (
        transform == "logit" and ((everything <= 0) | (everything >= 1)).any()
    )
    scale: Transform = "identity" if at_edge else transform
    forward, backward = _TRANSFORMS[scale]
    deviations = forward(leave_one_out)
    deviations = deviations - deviations.mean()
    standard_error = math.sqrt((n_groups - 1) / n_groups * float(deviations @ deviations))
    df = n_groups - 1 if degrees_of_freedom is None else degrees_of_freedom
    half_width = float(stats.t.ppf(0.975, df)) * standard_error
    centre = float(forward(np.asarray(value, dtype=np.float64)))
    low, high = float(backward(centre - half_width)), float(backward(centre + half_width))
    return Estimate(float(value), low, high, n, n_groups, method, reliable=bool(reliable and not at_edge))


def _identity(x: Any) -> Any:
    return x


_TRANSFORMS: dict[Transform, tuple[Callable[[FloatArray], FloatArray], Callable[[float], float]]] = {
    "identity": (_identity, _identity),
    "log": (np.log, np.exp),
    "logit": (special.logit, special.expit),
}
