"""The evidence that a share lies above a limit: against an integral, and its false alarms at any time."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate

from medvlm_probe.errors import InputError
from medvlm_probe.shift.share_sequence import log_share_capital


def test_capital_is_the_mean_likelihood_ratio_above_the_limit() -> None:
    above, limit = np.array([True, False, True, True, False, False, True]), 0.2
    found = log_share_capital(above, limit)
    for n in range(1, len(above) + 1):
        s = int(above[:n].sum())

        def ratio(q: float, s: int = s, n: int = n) -> float:
            return q**s * (1 - q) ** (n - s) / (limit**s * (1 - limit) ** (n - s))

        expected = integrate.quad(ratio, limit, 1)[0] / (1 - limit)
        assert found[n - 1] == pytest.approx(np.log(expected), rel=1e-6)
    with pytest.raises(InputError, match="between 0 and 1"):
        log_share_capital(above, 1.0)


@pytest.mark.parametrize("share", [0.1, 0.2])
def test_it_is_rarely_ever_wrong_however_often_one_looks(share: float) -> None:
    rng = np.random.default_rng(0)
    streams = rng.random((400, 2_000)) < share
    ever = [log_share_capital(stream, 0.2).max() >= np.log(20) for stream in streams]
    assert np.mean(ever) <= 0.05


def test_it_notices_a_larger_share() -> None:
    stream = np.random.default_rng(1).random(2_000) < 0.35
    assert np.flatnonzero(log_share_capital(stream, 0.2) >= np.log(20))[0] < 300
