"""Numbers per 1,000 examinations by simulation, referral by counting."""

from __future__ import annotations

import math

import numpy as np
import pytest

from medvlm_probe.errors import InputError
from medvlm_probe.metrics.proportions import proportion
from medvlm_probe.shift.practice import choose_referral, doubt_of_calls, per_thousand, referral_at, referral_curve

LABEL = np.array([1.0, 1, 1, 1, 0, 0, 0, 0, 0, 0, np.nan])
CALLED = np.array([True, True, True, False, False, False, False, False, True, True, True])
DOUBT = np.array([0.1, 0.2, 0.9, 0.8, 0.1, 0.2, 0.3, 0.4, 0.95, 0.5, 1.0])
GROUPS = np.arange(11)


def test_missed_findings_and_false_alarms_by_hand() -> None:
    recall = proportion(np.arange(50) < 40, np.arange(50))
    specificity = proportion(np.arange(200) < 180, np.arange(200))
    found = per_thousand(recall, specificity, 0.1)
    assert found.missed.value == pytest.approx(20)
    assert found.false_alarms.value == pytest.approx(90)
    assert found.called == pytest.approx(80 + 90)
    assert found.missed.low == pytest.approx(100 * (1 - recall.high))  # a known prevalence adds no error
    assert found.missed.high == pytest.approx(100 * (1 - recall.low))
    uncertain = per_thousand(recall, specificity, proportion(np.arange(100) < 10, np.arange(100)))
    assert uncertain.missed.high - uncertain.missed.low > found.missed.high - found.missed.low
    none = per_thousand(proportion(np.zeros(0, bool), np.zeros(0, int)), specificity, 0.1)
    assert math.isnan(none.missed.value)
    assert math.isnan(none.missed.high)
    with pytest.raises(InputError):
        per_thousand(recall, specificity, 1.3)


@pytest.mark.parametrize(("recall", "prevalence"), [(0.8, 0.1), (1.0, 0.05), (0.6, 0.4)])
def test_intervals_per_thousand_cover(recall: float, prevalence: float) -> None:
    rng = np.random.default_rng(0)
    held = np.zeros(2)
    for _ in range(150):
        estimates = (
            proportion(rng.random(n) < p, np.arange(n)) for n, p in ((60, recall), (150, 0.9), (200, prevalence))
        )
        found = per_thousand(*estimates)
        truth = 1000 * prevalence * (1 - recall), 1000 * (1 - prevalence) * 0.1
        held += [e.low <= t <= e.high for e, t in zip((found.missed, found.false_alarms), truth, strict=True)]
    assert (held >= 136).all()


def test_what_the_rest_looks_like_by_counting() -> None:
    point = referral_at(LABEL, CALLED, DOUBT, GROUPS, 0.5)
    assert point.referred.value == 0.3
    assert point.recall.value == 1.0
    assert point.specificity.value == 4 / 5
    assert point.error.value == 1 / 7
    assert point.team_recall.value == 1.0
    nobody = referral_at(LABEL, CALLED, DOUBT, GROUPS, math.inf)
    assert (nobody.referred.value, nobody.recall.value, nobody.error.value) == (0, 0.75, 0.3)
    curve = referral_curve(LABEL, CALLED, DOUBT, GROUPS, shares=(0.0, 0.3, 0.5))
    assert [p.referred.value for p in curve] == [0, 0.3, 0.5]
    assert curve[1] == referral_at(LABEL, CALLED, DOUBT, GROUPS, curve[1].threshold)


def test_a_plan_refers_no_more_than_it_must() -> None:
    chosen = choose_referral(LABEL, CALLED, DOUBT, GROUPS, least_recall=1.0)
    assert chosen is not None
    assert chosen.threshold == 0.5
    assert chosen.team_recall.value == 1
    by_error = choose_referral(LABEL, CALLED, DOUBT, GROUPS, most_error=0.0)
    assert by_error is not None
    assert by_error.threshold == 0.4
    already = choose_referral(LABEL, CALLED, DOUBT, GROUPS, least_recall=0.7)
    assert already is not None
    assert already.threshold == math.inf
    assert choose_referral((~CALLED).astype(float), CALLED, DOUBT, GROUPS, most_error=0.5) is None
    with pytest.raises(InputError, match="least_recall"):
        choose_referral(LABEL, CALLED, DOUBT, GROUPS)


def test_doubt_is_greatest_at_the_threshold() -> None:
    assert doubt_of_calls([0.2, 0.1, 0.0, 0.6, 1.0], 0.2) == pytest.approx([1, 0.5, 0, 0.5, 0])
    with pytest.raises(InputError):
        doubt_of_calls([0.2], 1.0)
