"""The jackknife over groups of statistics that compare two classes, of which one may be rare."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.metrics.resampling import jackknife_interval
from medvlm_probe.types import BoolArray, Estimate, FloatArray, IntArray

MIN_GROUPS = 10
"""Below so many groups of the rarest class an interval is marked unreliable (simulated: see tests/statistics)."""


def rarer_class(label: FloatArray, groups: IntArray) -> tuple[NDArray[np.int64], BoolArray]:
    """Return the groups with a known label (G,), and which of them hold the class that fewer groups hold, (G,).

    Args:
        label: 1, 0 or NaN, (n,).
        groups: codes, (n,).
    """
    n_codes = int(groups.max(initial=-1)) + 1
    positive = np.bincount(groups[label == 1], minlength=n_codes) > 0
    negative = np.bincount(groups[label == 0], minlength=n_codes) > 0
    rarer = positive if positive.sum() <= negative.sum() else negative
    units = np.flatnonzero(positive | negative)
    return units, rarer[units]


def class_jackknife(
    value: float,
    leave_one_out: FloatArray,
    strata: IntArray | BoolArray,
    *,
    n: int,
    fewest: int,
    method: str = "group jackknife",
    log: bool = False,
    offset: float | None = None,
) -> Estimate:
    """Return a 95 % t interval from the values that leaving out one group (or fold of groups) at a time gives.

    The plain jackknife takes three positive groups among 200 for a sample of 203. So the groups that hold the rarer
    class are a stratum of their own: each stratum has its variance, (G_s - 1) / G_s times the sum of squared deviations
    from its own mean, and Satterthwaite's degrees of freedom weigh them. A stratum of one unit is pooled with the
    others. Unreliable under `MIN_GROUPS` groups of the rarest class, and where `jackknife_interval` says so.

    Args:
        value: the statistic on all groups.
        leave_one_out: the statistic without each of them, (G,).
        strata: the stratum of each, (G,).
        n: images behind the value.
        fewest: groups of the rarest class.
        method: how tables name the interval.
        log: build the interval on the logarithm.
        offset: build it on sqrt(value + offset). For a squared distance freed from its bias, that bias as `offset`
            makes the root's variance nearly constant, as for a noncentral chi-squared variable; on the plain scale an
            estimate that comes out low has too narrow an interval.
    """
    values = np.asarray(leave_one_out, dtype=np.float64)
    forward, backward = _scale(np.append(values, value), log, offset)
    centre = float(forward(value))
    scaled, df = _pooled(centre, forward(values), strata)
    estimate = jackknife_interval(centre, scaled, n=n, method=method, degrees_of_freedom=df, min_groups=0)
    return replace(
        estimate,
        value=float(value),
        low=backward(estimate.low),
        high=backward(estimate.high),
        reliable=estimate.reliable and fewest >= MIN_GROUPS,
    )


def _scale(
    everything: FloatArray, log: bool, offset: float | None
) -> tuple[Callable[[Any], Any], Callable[[float], float]]:
    """Return the map to the interval's scale and back: the plain scale where a value lies outside the map's range."""
    if log and (everything > 0).all():
        return np.log, math.exp
    if offset is not None and (everything + offset > 0).all():
        return lambda x: np.sqrt(x + offset), lambda y: y if math.isnan(y) else max(0.0, y) ** 2 - offset
    return lambda x: x, float


def _pooled(
    centre: float, values: NDArray[np.float64], strata: IntArray | BoolArray
) -> tuple[NDArray[np.float64], float | None]:
    """Return leave-one-out values whose plain jackknife gives the sum of the strata's variances, and that sum's df."""
    parts = [np.flatnonzero(strata == stratum) for stratum in np.unique(strata)]
    if min((len(part) for part in parts), default=0) < 2:
        parts = [np.arange(len(values))]
    n_units = len(values)
    if n_units < 2 or not np.isfinite(values).all():
        return values, None
    scaled = np.empty(n_units)
    variances, weighted = 0.0, 0.0
    for part in parts:
        deviations = values[part] - values[part].mean()
        shrink = (len(part) - 1) / len(part)
        variance = shrink * float(deviations @ deviations)
        variances += variance
        weighted += variance**2 / (len(part) - 1)
        scaled[part] = centre + deviations * math.sqrt(shrink * n_units / (n_units - 1))
    return scaled, variances**2 / weighted if weighted > 0 else None
