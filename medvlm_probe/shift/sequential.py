"""Has a stream of patients changed? A test whose false-alarm rate holds however long, and however often, one looks.

Each new patient is ranked among all seen so far. As long as patients are exchangeable, the ranks are independent and
uniform (conformal p-values), and no strategy of betting on them gains: capital is a martingale, and the chance that it
ever reaches 1 / alpha is at most alpha.

Source: Vovk, Gammerman and Shafer 2005 (conformal test martingales); Ville 1939; Vovk et al. 2021 and Vovk, Petej,
Nouretdinov, Ahlberg, Carlsson and Gammerman 2021, "Retrain or not retrain" (jumpers); Fedorova et al. 2012.
"""

from __future__ import annotations

import bisect
import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.errors import InputError
from medvlm_probe.types import FloatArray, finite_or_none

Array = NDArray[np.float64]

POWERS = (0.2, 0.5)
"""Exponents k of the bets k p^(k - 1) on small p-values, and on large ones by 1 - p."""

SLOPES = (-1.0, 1.0)
"""Slopes e of the bets 1 + e (p - 1/2)."""

JUMPS = (1e-3, 1e-2)
"""Shares of the capital that is dealt anew over all bets at each patient; the capital starts in equal parts."""

N_BETS = 1 + 2 * len(POWERS) + len(SLOPES)
"""One of them bets nothing: capital waits there for a change that comes late."""


def bets(p_values: FloatArray) -> Array:
    """Return what one unit staked on each strategy becomes, (..., n, K); each averages 1 over p uniform on [0, 1].

    Args:
        p_values: in (0, 1), (..., n).
    """
    p = np.asarray(p_values, dtype=np.float64)
    columns = [np.ones_like(p)]
    columns += [k * side ** (k - 1) for side in (p, 1 - p) for k in POWERS]
    columns += [1 + e * (p - 0.5) for e in SLOPES]
    return np.stack(columns, axis=-1)


@dataclass(frozen=True, eq=False)
class Capital:
    """What has become of one unit.

    Attributes:
        log_total: natural logarithm of the capital.
        shares: of it in each strategy (columns) at each rate of jumps (rows), summing to 1, (J, K).
        log_peak: the largest `log_total` so far, at least 0.
    """

    log_total: float
    shares: Array
    log_peak: float

    @classmethod
    def start(cls) -> Capital:
        """Return one unit, in equal parts."""
        return cls(0.0, np.full((len(JUMPS), N_BETS), 1 / (len(JUMPS) * N_BETS)), 0.0)

    def after(self, p_values: FloatArray) -> tuple[Capital, Array]:
        """Return the capital after betting on p-values (n,), and its logarithm after each of them, (n,)."""
        shares, gains = _grown(self.shares, p_values)
        # Added up one by one from the start, so that batches end where their whole does, to the last bit.
        path = np.add.accumulate(np.concatenate([[self.log_total], gains]))[1:]
        total = float(path[-1]) if len(path) else self.log_total
        return Capital(total, shares, max(self.log_peak, float(path.max(initial=0.0)))), path

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values, which give the same capital back to the last bit."""
        return {"log_total": self.log_total, "shares": self.shares.tolist(), "log_peak": self.log_peak}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Capital:
        """Return the capital that `to_json` told of; raises InputError."""
        shares = np.asarray(value["shares"], dtype=np.float64)
        if shares.shape != (len(JUMPS), N_BETS):
            raise InputError(f"Shares of shape {shares.shape}: expected {(len(JUMPS), N_BETS)}. Start a new state.")
        return cls(float(value["log_total"]), shares, float(value["log_peak"]))


def _grown(shares: Array, p_values: FloatArray) -> tuple[Array, Array]:
    """Return the shares (..., J, K) after p-values (..., n), and the logarithm of each gain, (..., n)."""
    rates = np.array(JUMPS)[:, None]
    log_gains: Array = np.empty(np.shape(p_values))
    gains = bets(p_values)
    for position in range(p_values.shape[-1]):
        shares = (1 - rates) * shares + rates * shares.sum(axis=-1, keepdims=True) / N_BETS
        shares = shares * gains[..., position, None, :]
        total = shares.sum(axis=(-2, -1))
        shares = shares / total[..., None, None]
        log_gains[..., position] = np.log(total)
    return shares, log_gains


def online_p_values(scores: FloatArray, seen: Iterable[float], uniforms: FloatArray) -> Array:
    """Return each score's p-value among all seen before it and itself, in (0, 1), (n,); small for large scores.

    p = (#{earlier > score} + u (1 + #{earlier = score})) / (1 + #earlier): uniform and independent of one another as
    long as all scores are exchangeable, those in `seen` too.

    Args:
        scores: in the order of arrival, one a patient, larger = more outlying, (n,).
        seen: scores before the first.
        uniforms: independent of everything else, in (0, 1), (n,); they part ties.
    """
    ordered = sorted(float(score) for score in seen)
    found = np.empty(len(scores))
    for position, (score, u) in enumerate(zip(scores.tolist(), uniforms.tolist(), strict=True)):
        low, high = bisect.bisect_left(ordered, score), bisect.bisect_right(ordered, score)
        found[position] = (len(ordered) - high + u * (1 + high - low)) / (len(ordered) + 1)
        ordered.insert(high, score)
    return found


def log_alarm(alpha: float, n_tests: int = 1) -> float:
    """Return the logarithm of the capital at which one of several tests gives the alarm: n_tests / alpha (Ville).

    Args:
        alpha: in (0, 1): the chance that any of them ever gives a false one.
        n_tests: that run side by side.
    """
    if not 0 < alpha < 1 or n_tests < 1:
        raise InputError(f"alpha {alpha:g} and {n_tests} tests: expected alpha between 0 and 1, and at least one test.")
    return math.log(n_tests / alpha)


@dataclass(frozen=True)
class Delays:
    """How many patients a change takes to be noticed, by simulation.

    Attributes:
        n_streams: simulated.
        false_alarms: share of streams with an alarm before the change, in [0, 1].
        detected: share of the others with an alarm after it, within the stream.
        median, upper: patients from the change to the alarm, the median and the 90 % quantile over the streams without
            a false alarm; infinite where so many do not notice it.
    """

    n_streams: int
    false_alarms: float
    detected: float
    median: float
    upper: float

    def to_json(self) -> dict[str, float | int | None]:
        """Return the fields as JSON values; a delay beyond the stream is None."""
        return {
            "n_streams": self.n_streams,
            "false_alarms": self.false_alarms,
            "detected": finite_or_none(self.detected),
            "median": finite_or_none(self.median),
            "upper": finite_or_none(self.upper),
        }


def simulate_delays(
    reference: FloatArray,
    changed: FloatArray,
    *,
    change_at: int,
    length: int,
    alpha: float,
    rng: np.random.Generator,
    n_streams: int = 200,
    n_tests: int = 1,
) -> Delays:
    """Return how soon a change from one pool of scores to another is noticed, in streams drawn from both.

    Everything is drawn with replacement, so that all before the change is exchangeable: as many reference patients as
    there are have been seen before a stream; its patients come from the reference up to the change, then from the
    changed ones.

    Args:
        reference: scores of reference patients, (n,), at least 4.
        changed: scores of patients after the change, (m,).
        change_at: patients before it.
        length: patients of a stream.
        alpha: see `log_alarm`.
        rng: draws the streams.
        n_streams: how many.
        n_tests: that share alpha.
    """
    if len(reference) < 4 or not len(changed) or not 0 <= change_at < length:
        raise InputError(
            f"{len(reference)} and {len(changed)} scores, a change at {change_at} of {length}: expected at least 4 "
            "reference patients, one after the change, and a change within the stream."
        )
    line = log_alarm(alpha, n_tests)
    p_values = np.empty((n_streams, length))
    for k in range(n_streams):
        seen = rng.choice(reference, len(reference))
        stream = np.concatenate([rng.choice(reference, change_at), rng.choice(changed, length - change_at)])
        p_values[k] = online_p_values(stream, seen, 1 - rng.random(length))
    before, delays = 0, []
    for path in np.cumsum(_grown(Capital.start().shares, p_values)[1], axis=1):
        alarms = np.flatnonzero(path >= line)
        if len(alarms) and alarms[0] < change_at:
            before += 1
        else:
            delays.append(float(alarms[0] - change_at + 1) if len(alarms) else math.inf)
    kept = np.array(delays)
    return Delays(
        n_streams=n_streams,
        false_alarms=before / n_streams,
        detected=float(np.isfinite(kept).mean()) if len(kept) else math.nan,
        median=_quantile(kept, 0.5),
        upper=_quantile(kept, 0.9),
    )


def _quantile(values: Array, share: float) -> float:
    """Return the least value that at least a share of values does not exceed; infinite ones do not spoil it."""
    return float(np.sort(values)[math.ceil(share * len(values)) - 1]) if len(values) else math.nan


def uniforms_of(names: Sequence[str], seed: int) -> Array:
    """Return a number in (0, 1) for each name, (n,): the same wherever it is met, and as good as random."""
    digests = (hashlib.sha256(f"{seed}\0{name}".encode()).digest() for name in names)
    return np.array([(int.from_bytes(digest[:6], "big") + 0.5) / 2**48 for digest in digests])
