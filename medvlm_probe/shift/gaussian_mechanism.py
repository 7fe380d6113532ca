"""The noise that hides whether any one patient is in a sum: the analytic Gaussian mechanism.

Source: Balle and Wang 2018, "Improving the Gaussian mechanism for differential privacy".
"""

from __future__ import annotations

import math

from scipy import optimize, special

from medvlm_probe.errors import InputError


def reached_delta(noise: float, epsilon: float) -> float:
    """Return the least delta at which a standard deviation of noise gives epsilon, for a sensitivity of 1.

    Phi(1 / (2 s) - e s) - exp(e) Phi(-1 / (2 s) - e s), exact (theorem 8).

    Args:
        noise: standard deviation s, above 0.
        epsilon: e, above 0.
    """
    first = special.ndtr(1 / (2 * noise) - epsilon * noise)
    second = math.exp(epsilon + float(special.log_ndtr(-1 / (2 * noise) - epsilon * noise)))
    return float(first) - second


def gaussian_noise(epsilon: float, delta: float) -> float:
    """Return the least standard deviation that makes a sum of sensitivity 1 (L2) epsilon-delta private.

    Args:
        epsilon: above 0 and at most 50.
        delta: in (0, 1); far below 1 / patients.

    Raises:
        InputError: numbers out of range.
    """
    if not (0 < epsilon <= 50 and 0 < delta < 1):
        raise InputError(f"epsilon {epsilon:g} and delta {delta:g}: expected 0 < epsilon <= 50 and 0 < delta < 1.")
    low, high = 1e-3, 1.0
    while reached_delta(high, epsilon) > delta:
        high *= 2
    found = optimize.brentq(lambda s: reached_delta(s, epsilon) - delta, low, high, xtol=1e-9)
    # A step up: the root may be met from below, where delta is a little larger.
    return float(found) * (1 + 1e-6)
