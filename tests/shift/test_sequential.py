"""Sequential tests: p-values by their definition, fair bets, capital by hand, alarms that are rare and soon."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import integrate, stats

from medvlm_probe.errors import InputError
from medvlm_probe.shift.sequential import (
    JUMPS,
    N_BETS,
    Capital,
    bets,
    log_alarm,
    online_p_values,
    simulate_delays,
    uniforms_of,
)


def test_p_values_are_ranks_among_all_before(rng: np.random.Generator) -> None:
    scores, seen, u = rng.integers(0, 5, 40).astype(float), rng.integers(0, 5, 10).astype(float), rng.random(40)
    found = online_p_values(scores, seen, u)
    for k, score in enumerate(scores):
        earlier = np.concatenate([seen, scores[:k]])
        expected = ((earlier > score).sum() + u[k] * ((earlier == score).sum() + 1)) / (len(earlier) + 1)
        assert found[k] == pytest.approx(expected)
    assert online_p_values(np.array([9.0]), [], np.array([0.3])).tolist() == [0.3]


def test_p_values_are_uniform_with_ties(rng: np.random.Generator) -> None:
    scores = rng.integers(0, 3, 4_000).astype(float)
    assert stats.kstest(online_p_values(scores, [], 1 - rng.random(4_000)), "uniform").pvalue > 0.001


def test_bets_are_fair() -> None:
    for k in range(N_BETS):
        total = integrate.quad(lambda p, k=k: bets(np.array([p]))[0, k], 0, 1, points=[0.5], limit=200)[0]
        assert total == pytest.approx(1, abs=1e-6)
    assert (bets(np.array([0.2, 0.9])) >= 0).all()


def test_capital_is_that_of_a_bookkeeper(rng: np.random.Generator) -> None:
    p = rng.random(30) ** 2
    held = {(j, k): 1 / (len(JUMPS) * N_BETS) for j in range(len(JUMPS)) for k in range(N_BETS)}
    totals = []
    for one in p:
        for j, rate in enumerate(JUMPS):
            row = sum(held[j, k] for k in range(N_BETS))
            for k in range(N_BETS):
                kept = (1 - rate) * held[j, k] + rate * row / N_BETS
                held[j, k] = kept * bets(np.array([one]))[0, k]
        totals.append(math.log(sum(held.values())))
    capital, path = Capital.start().after(p)
    np.testing.assert_allclose(path, totals)
    assert capital.log_total == pytest.approx(totals[-1])
    assert capital.log_peak == pytest.approx(max(0.0, *totals))


def test_capital_goes_on_from_json_to_the_last_bit(rng: np.random.Generator) -> None:
    p = rng.random(50)
    whole, path = Capital.start().after(p)
    first, before = Capital.start().after(p[:20])
    again = Capital.from_json(json.loads(json.dumps(first.to_json())))
    second, after = again.after(p[20:])
    assert [*before, *after] == path.tolist()
    assert (second.log_total, second.log_peak) == (whole.log_total, whole.log_peak)
    assert (second.shares == whole.shares).all()
    with pytest.raises(InputError, match="state"):
        Capital.from_json(first.to_json() | {"shares": [[1.0]]})


def test_false_alarms_are_rare_and_changes_are_noticed() -> None:
    rng = np.random.default_rng(1)
    reference = rng.standard_normal(200)
    none = simulate_delays(reference, reference, change_at=199, length=200, alpha=0.2, rng=rng, n_streams=40)
    assert none.false_alarms <= 0.2
    small, large = (
        simulate_delays(reference, reference + s, change_at=100, length=400, alpha=0.05, rng=rng, n_streams=15)
        for s in (0.7, 2.0)
    )
    assert large.detected == 1
    assert large.median < small.median
    assert large.median <= large.upper
    assert small.to_json()["n_streams"] == 15
    with pytest.raises(InputError, match="at least 4"):
        simulate_delays(reference[:3], reference, change_at=0, length=5, alpha=0.05, rng=rng)


def test_alarms_and_uniforms() -> None:
    assert math.exp(log_alarm(0.05)) == pytest.approx(20)
    assert math.exp(log_alarm(0.05, 2)) == pytest.approx(40)
    with pytest.raises(InputError, match="alpha"):
        log_alarm(1.0)
    u = uniforms_of([f"image {k}" for k in range(3_000)], 0)
    assert stats.kstest(u, "uniform").pvalue > 0.001
    assert (u != uniforms_of([f"image {k}" for k in range(3_000)], 1)).all()
