"""Is a share above a limit? Evidence from a stream of patients that may be looked at as often as one likes.

A bet that the share is larger than the limit, spread evenly over all shares above it, grows without bound if it is, and
is worth no more than its stake on average if it is not: the chance that it ever reaches 1 / alpha is at most alpha.

Source: Ville 1939; Robbins 1970 (mixtures); Howard, Ramdas, McAuliffe and Sekhon 2021 (the beta-binomial mixture).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import special

from medvlm_probe.errors import InputError
from medvlm_probe.types import BoolArray


def log_share_capital(above: BoolArray, limit: float) -> NDArray[np.float64]:
    """Return the logarithm of what one unit has become after each patient, (n,).

    The mean over q uniform on [limit, 1] of q^s (1 - q)^(n - s) / (limit^s (1 - limit)^(n - s)), s of n patients being
    above: a supermartingale under any share up to the limit, patients being independent.

    Args:
        above: in the order of arrival, one a patient, (n,).
        limit: in (0, 1).

    Raises:
        InputError: a limit outside (0, 1).
    """
    if not 0 < limit < 1:
        raise InputError(f"A limit of {limit:g}: expected a share between 0 and 1.")
    n = np.arange(1, len(above) + 1, dtype=np.float64)
    s = np.cumsum(np.asarray(above, dtype=np.float64))
    beyond = special.betainc(n - s + 1, s + 1, 1 - limit)  # of the Beta(s + 1, n - s + 1) distribution above the limit
    with np.errstate(divide="ignore"):
        mixture = special.betaln(s + 1, n - s + 1) + np.log(beyond) - math.log1p(-limit)
    found: NDArray[np.float64] = mixture - s * math.log(limit) - (n - s) * math.log1p(-limit)
    return found
