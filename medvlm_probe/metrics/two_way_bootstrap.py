"""Means over crossed draws and groups: the two-way bootstrap's standard errors, and what is concluded from them.

Every few-shot draw is measured on the same patients. Other draws and other patients would both change a result, so both
are resampled, each by itself: the "pigeonhole" bootstrap of Owen 2007 (McCullagh 2000 has the proof that no bootstrap
of crossed arrays is exact; this one errs towards wide intervals). Intervals are the value plus and minus a Student
quantile of its standard error, since calibration errors of replicates are biased upwards: their spread counts, not
where they lie.

Source: Owen 2007, "The pigeonhole bootstrap", Annals of Applied Statistics 1; McCullagh 2000, "Resampling and
exchangeable arrays", Bernoulli 6; Satterthwaite 1946 for the degrees of freedom.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from medvlm_probe.errors import InputError
from medvlm_probe.metrics.bootstrap import MAX_UNDEFINED
from medvlm_probe.types import Estimate, FloatArray

MIN_DRAWS = 5
"""Below so many draws (but for one, where draws do not vary) intervals are marked unreliable."""

MIN_GROUPS = 40
"""The same of groups, for means of bounded terms: accuracy, AUROC, Brier."""

MIN_GROUPS_SKEWED = 300
"""The same for calibration errors, whose bias differs between methods, and for log likelihoods, whose tails are heavy:
at 20 draws they cover 92 % of the time with 100 groups, 95 % with 300 (`analyses/two_way_coverage.py`)."""

POWER = 0.8
"""Of the smallest detectable difference."""

METHOD = "two-way bootstrap"


@dataclass(frozen=True, eq=False)
class TwoWayWeights:
    """How often each draw, (B, D), and each group, (B, G), is drawn in each of B replicates."""

    draws: NDArray[np.float64]
    groups: NDArray[np.float64]


def two_way_weights(n_draws: int, n_groups: int, n_resamples: int, rng: np.random.Generator) -> TwoWayWeights:
    """Return weights of both ways, drawn independently of each other.

    Args:
        n_draws: D.
        n_groups: G.
        n_resamples: B.
        rng: draws them.
    """

    def counts(n: int) -> NDArray[np.float64]:
        return rng.multinomial(n, np.full(n, 1 / n), size=n_resamples).astype(np.float64)

    return TwoWayWeights(counts(n_draws), counts(n_groups))


@dataclass(frozen=True, eq=False)
class TwoWaySample:
    """A metric of every draw, and of the mean over draws under resampling.

    Attributes:
        values: of each draw, (D,); (1,) for what does not depend on the draw.
        both: the mean over draws when draws and groups are resampled, (B,).
        groups_alone: the same when groups alone are, (B,).
        n_groups: G.
    """

    values: NDArray[np.float64]
    both: NDArray[np.float64]
    groups_alone: NDArray[np.float64]
    n_groups: int

    @property
    def mean(self) -> float:
        """The mean over draws; NaN where a draw's is undefined."""
        return float(self.values.mean())

    @property
    def deviation(self) -> float:
        """The standard deviation over draws on these very images; 0 for what does not depend on the draw."""
        return float(self.values.std(ddof=1)) if len(self.values) > 1 else 0.0

    def less(self, other: TwoWaySample) -> TwoWaySample:
        """Return the paired difference to another metric or method under the same weights.

        Raises:
            InputError: other numbers of draws (but for 1), replicates or groups.
        """
        sizes = {len(part.values) for part in (self, other)} - {1}
        if len(sizes) > 1 or len(self.both) != len(other.both) or self.n_groups != other.n_groups:
            raise InputError("Only samples of the same draws, replicates and groups can be compared.")
        return TwoWaySample(
            np.asarray(self.values - other.values),
            np.asarray(self.both - other.both),
            np.asarray(self.groups_alone - other.groups_alone),
            self.n_groups,
        )


def two_way_sample(values: FloatArray, replicates: FloatArray, weights: TwoWayWeights) -> TwoWaySample:
    """Return a metric's sample.

    Args:
        values: of each draw, (D,), or (1,) for what does not depend on the draw.
        replicates: each draw's under `weights.groups`, (D, B) or (1, B); NaN where undefined.
        weights: D draws, G groups, B replicates.

    Raises:
        InputError: shapes that do not fit.
    """
    n_replicates, n_draws = weights.draws.shape
    if len(values) not in (1, n_draws) or replicates.shape != (len(values), n_replicates):
        raise InputError(
            f"{len(values)} values and replicates of shape {replicates.shape} do not fit {n_draws} draws in "
            f"{n_replicates} replicates."
        )
    alone = replicates.mean(axis=0)
    both = alone if len(values) == 1 else np.einsum("bd,db->b", weights.draws, replicates) / n_draws
    return TwoWaySample(np.asarray(values, dtype=np.float64), both, alone, weights.groups.shape[1])


def mean_of(samples: list[TwoWaySample]) -> TwoWaySample:
    """Return the mean of several metrics of one method, such as of labels."""
    return TwoWaySample(
        np.mean([sample.values for sample in samples], axis=0),
        np.mean([sample.both for sample in samples], axis=0),
        np.mean([sample.groups_alone for sample in samples], axis=0),
        samples[0].n_groups,
    )


@dataclass(frozen=True)
class Spread:
    """The standard error of a mean over draws and its degrees of freedom; both NaN where undefined.

    The bootstrap's variance leaves out the share 1/D of the draws' own and 1/G of the groups'; they are put back.
    Degrees of freedom are Satterthwaite's, of the draws' D - 1 and the groups' G - 1.
    """

    error: float
    freedom: float


def spread_of(sample: TwoWaySample) -> Spread:
    """Return how far a mean would vary with other draws and groups."""
    defined = ~np.isnan(sample.both)
    n_draws, n_groups = len(sample.values), sample.n_groups
    if defined.sum() < 2 or n_groups < 2 or math.isnan(sample.mean):
        return Spread(math.nan, math.nan)
    of_draws = sample.deviation**2 / n_draws
    of_groups = float(np.nanvar(sample.groups_alone, ddof=1)) * n_groups / (n_groups - 1)
    variance = float(sample.both[defined].var(ddof=1)) + of_draws / n_draws + of_groups / n_groups
    if variance == 0:
        return Spread(0.0, float(n_groups - 1))
    parts = of_groups**2 / (n_groups - 1) + (of_draws**2 / (n_draws - 1) if n_draws > 1 else 0.0)
    freedom = (of_draws + of_groups) ** 2 / parts if parts > 0 else float(n_groups - 1)
    return Spread(math.sqrt(variance), freedom)


def two_way_estimate(
    sample: TwoWaySample, n: int, *, bounds: tuple[float, float] | None = None, min_groups: int = MIN_GROUPS
) -> Estimate:
    """Return the mean over draws with its 95 % interval.

    Args:
        sample: of a metric, or of a paired difference.
        n: images.
        bounds: of what is possible; the interval is cut there.
        min_groups: below so many the interval is marked unreliable.
    """
    spread = spread_of(sample)
    reach = spread.error * float(special.stdtrit(spread.freedom, 0.975)) if math.isfinite(spread.error) else math.nan
    low, high = sample.mean - reach, sample.mean + reach
    if bounds is not None and math.isfinite(reach):
        low, high = max(low, bounds[0]), min(high, bounds[1])
    n_draws, undefined = len(sample.values), float(np.isnan(sample.both).mean())
    reliable = (n_draws == 1 or n_draws >= MIN_DRAWS) and sample.n_groups >= min_groups and undefined <= MAX_UNDEFINED
    return Estimate(sample.mean, low, high, n, sample.n_groups, METHOD, reliable)


@dataclass(frozen=True)
class Difference:
    """A paired difference of means over draws.

    Attributes:
        estimate: with its 95 % interval.
        p_value: two-sided; 1 where both are the same in every draw, NaN where undefined.
        smallest_detectable: the true difference that so many draws and groups would find with a probability of .8, at
            Holm's first (strictest) step for the size of the family: (t of 1 - .05 / (2 m) + t of .8) standard errors.
    """

    estimate: Estimate
    p_value: float
    smallest_detectable: float


def two_way_difference(sample: TwoWaySample, n: int, *, family: int = 1, min_groups: int = MIN_GROUPS) -> Difference:
    """Return what a paired difference shows.

    Args:
        sample: from `TwoWaySample.less`.
        n: images.
        family: m, how many differences are tested together.
        min_groups: as in `two_way_estimate`.
    """
    spread, estimate = spread_of(sample), two_way_estimate(sample, n, min_groups=min_groups)
    if not math.isfinite(spread.error):
        return Difference(estimate, math.nan, math.nan)
    if spread.error == 0:
        return Difference(estimate, 1.0 if sample.mean == 0 else 0.0, 0.0)
    p_value = 2 * float(special.stdtr(spread.freedom, -abs(sample.mean) / spread.error))
    reach = sum(float(special.stdtrit(spread.freedom, share)) for share in (1 - 0.025 / family, POWER))
    return Difference(estimate, p_value, reach * spread.error)


def not_worse(sample: TwoWaySample, margin: float) -> str:
    """Return whether a difference (larger better) is not below -margin: `pass`, `fail` or `not enough evidence`.

    By one-sided 95 % bounds: `pass` where the lower one is above -margin, `fail` where the upper one is below.
    """
    spread = spread_of(sample)
    if not math.isfinite(spread.error):
        return "not enough evidence"
    reach = spread.error * float(special.stdtrit(spread.freedom, 0.95))
    if sample.mean - reach > -margin:
        return "pass"
    return "fail" if sample.mean + reach < -margin else "not enough evidence"
