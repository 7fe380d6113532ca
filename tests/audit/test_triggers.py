"""Triggers and plans of referral: what their words mean, where levels come from, and loops on small arrays."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medvlm_probe.audit.calibration import examine_calibration
from medvlm_probe.audit.data_shift import DataShift
from medvlm_probe.audit.inputs import AuditInputs
from medvlm_probe.audit.label_frequency import estimate_frequencies
from medvlm_probe.audit.outlying import examine_outliers
from medvlm_probe.audit.performance_by_site import examine_performance
from medvlm_probe.audit.policy import default_policy, parse_policy
from medvlm_probe.audit.practice import examine_practice
from medvlm_probe.audit.referral import CONFIDENCE, MISSES, OUTLIER, label_referral, referral_plans, referral_sentence
from medvlm_probe.audit.trigger_rules import parse_trigger
from medvlm_probe.audit.triggers import examine_triggers
from medvlm_probe.audit.verdicts import JudgedOn
from medvlm_probe.errors import InputError, UnknownNameError
from medvlm_probe.shift.nearest_reference import most_unusual
from medvlm_probe.shift.shift_tests import test_shift as shift_tests

from .two_hospitals import LABELS, hospital, inputs_of


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("outlier share > 0.20 with 95 % confidence", ("outlier_share", "", "<=", 0.2, False)),
        ("recall(Pleural Effusion) < 70 %", ("recall", "pleural_effusion", ">=", 0.7, False)),
        ("recall(each label) below this audit's", ("recall", "each_label", ">=", 0.0, True)),
        ("overconfidence above this audit\u2019s with 90 % confidence", ("overconfidence", "", "<=", 0.0, True)),
        ("shift beyond 0.05 by energy", ("shift", "energy", "<=", 0.05, False)),
        ("shift beyond this audit's by mmd", ("shift", "mmd", "<=", 0.0, True)),
        ("referred share above this audit's", ("referred_share", "", "<=", 0.0, True)),
    ],
)
def test_triggers_in_plain_words(text: str, expected: tuple[object, ...]) -> None:
    found = parse_trigger(text, "stop")
    assert found.holds is not None
    assert (found.holds.subject, found.holds.of, found.holds.operator, found.holds.limit, found.from_audit) == expected
    assert found.holds.confidence == (0.9 if "90" in text else 0.95)
    assert parse_trigger("Alarm by outliers", "retrain").alarm == "outliers"


@pytest.mark.parametrize(
    ("text", "do", "error", "words"),
    [
        ("be good", "stop", InputError, "is no trigger"),
        ("outlier share > 0.2", "pray", UnknownNameError, "stop"),
        ("outlier share < 0.2", "stop", InputError, "written with <="),
        ("recall(edema) above this audit's", "stop", InputError, "written with >="),
        ("recal(edema) < .5", "stop", UnknownNameError, "recall"),
        ("alarm by fire", "stop", UnknownNameError, "outliers"),
        ("outlier share > 2", "stop", InputError, "between 0 and 1"),
        ("outlier share(edema) > .2", "stop", InputError, "brackets"),
    ],
)
def test_what_is_no_trigger_is_refused(text: str, do: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        parse_trigger(text, do)


def test_a_policy_says_which_trigger_is_wrong() -> None:
    rule = "[[rule]]\nrule = 'overconfidence <= 0.2'\n"
    assert parse_policy(rule, "p").triggers == ()
    with pytest.raises(InputError, match="Trigger 1 of p: 'be good' is no trigger"):
        parse_policy(f"{rule}[[trigger]]\nwhen = 'be good'\ndo = 'stop'", "p")
    with pytest.raises(InputError, match="has no words: when"):
        parse_policy(f"{rule}[[trigger]]\ndo = 'stop'", "p")
    with pytest.raises(UnknownNameError, match="do"):
        parse_policy(f"{rule}[[trigger]]\nwhen = 'alarm by outliers'\ndoo = 'stop'", "p")
    with pytest.raises(InputError, match=r"\[\[trigger\]\]"):
        parse_policy(f"trigger = 1\n{rule}", "p")
    shipped = default_policy().triggers
    assert {trigger.action for trigger in shipped} == {"stop", "retrain"}
    assert all(trigger.because for trigger in shipped)


POLICY = parse_policy(
    "[[rule]]\nrule = 'overconfidence <= 0.9'\n"
    + "".join(
        f'[[trigger]]\nwhen = "{when}"\ndo = "{do}"\nplanned = {planned}\n'
        for when, do, planned in (
            ("alarm by outliers", "stop", 1),
            ("outlier share > 0.5", "stop", 50),
            ("outlier share > 0.0", "stop", 50),
            ("recall(cardiomegaly) below this audit's", "stop", 30),
            ("recall(edema) below this audit's", "stop", 500),
            ("recall(pneumothorax) below this audit's", "stop", 30),
            ("overconfidence above this audit's", "retrain", 100),
            ("referred share above this audit's", "retrain", 100),
            ("shift beyond this audit's by mmd", "retrain", 100),
        )
    ),
    "p",
)


def evidence(inputs: AuditInputs) -> JudgedOn:
    """Return what rules and triggers are held against; without labels at the site, what can be had."""
    labelled = not np.isnan(inputs.site.targets).all()
    outliers = examine_outliers(inputs)
    performance = examine_performance(inputs) if labelled else None
    frequencies = None if labelled else estimate_frequencies(inputs)
    practice = examine_practice(inputs, performance, frequencies, outliers=outliers)
    calibration = examine_calibration(inputs) if labelled else None
    sides = (inputs.whole_reference, inputs.site)
    vectors, groups = [side.vectors for side in sides], [side.groups for side in sides]
    report = shift_tests(*vectors, *groups, tests=["mmd"], n_permutations=49, rng=np.random.default_rng(0))
    shift = DataShift(report, (), most_unusual(*vectors, *groups))
    return JudgedOn(inputs, shift, outliers, calibration, None, {}, practice)


def test_levels_are_the_policys_or_what_this_audit_measured(tmp_path: Path) -> None:
    inputs = inputs_of(hospital(tmp_path / "a", 240, 0), hospital(tmp_path / "b", 160, 1, prefix="q"))
    on = evidence(inputs)
    found = examine_triggers(POLICY, on)
    alarm, far, near, recall, unplanned, unknown, over, referred, shift = found.watched
    assert (alarm.state, alarm.watched_by, alarm.level) == ("watched", "monitor", None)
    assert (far.state, far.level, far.level_from) == ("not met", 0.5, "policy")
    assert near.state == "met"
    measured = examine_performance(inputs).whole("site")["cardiomegaly"].estimate("recall")
    assert measured is not None
    assert recall.state == "set"
    assert recall.level is not None
    assert measured.low < recall.level < measured.value  # the one-sided bound
    assert recall.when == f"recall(cardiomegaly) below {recall.level:.3f}".rstrip("0")
    assert recall.watched_by == "a new audit with labels"
    assert (unplanned.state, unplanned.level) == ("not set", None)
    assert "500 are planned" in unplanned.reason
    assert (unknown.state, unknown.reason) == ("not set", "The audit has no such label.")
    assert over.state == referred.state == shift.state == "set"
    assert shift.today is not None
    assert shift.level == pytest.approx(shift.today.high)
    assert on.practice is not None
    plan = on.practice.plan(CONFIDENCE)
    assert plan is not None
    assert found.doubt == plan.threshold
    assert "Met already today: outlier share above 0." in found.sentence
    assert "2 of 9 cannot be watched yet" in found.sentence
    written = json.loads(json.dumps(found.to_json(), allow_nan=False))["triggers"]
    assert written[3]["level"] == recall.level
    assert written[4]["level"] is None


def test_without_labels_no_level_is_borrowed_from_the_reference(tmp_path: Path) -> None:
    site = hospital(tmp_path / "b", 120, 1, prefix="q", cardiomegaly=np.nan, edema=np.nan)
    found = examine_triggers(POLICY, evidence(inputs_of(hospital(tmp_path / "a", 200, 0), site)))
    states = {(entry.subject, entry.of): entry for entry in found.watched}
    for key in (("recall", "cardiomegaly"), ("overconfidence", "")):
        assert states[key].state == "not set"
        assert states[key].level is None
        assert states[key].today is None
    assert states["referred_share", ""].state == "set"


def test_plans_of_referral_against_a_loop(tmp_path: Path) -> None:
    inputs = inputs_of(hospital(tmp_path / "a", 300, 0), hospital(tmp_path / "b", 200, 1, prefix="q"))
    outliers = examine_outliers(inputs)
    plans = {(plan.by, plan.share): plan for plan in referral_plans(inputs, outliers)}
    assert {by for by, _ in plans} == {CONFIDENCE, MISSES, OUTLIER}
    deployed = inputs.deployed
    assert deployed is not None

    def doubts(side: object, by: str) -> np.ndarray:
        if by == OUTLIER:
            return outliers.site_scores if side is inputs.site else outliers.reference_scores
        probabilities, called = deployed.probabilities(side.scores), deployed.called(side.scores)  # type: ignore
        expected = np.zeros(len(probabilities))
        for row in range(len(probabilities)):
            for k in range(len(LABELS)):
                if not called[row, k]:
                    expected[row] += probabilities[row, k]
                elif by == CONFIDENCE:
                    expected[row] += 1 - probabilities[row, k]
        return expected

    called, y = deployed.called(inputs.site.scores), inputs.site.targets  # type: ignore[arg-type]
    for (by, share), plan in plans.items():
        there, here = doubts(inputs.reference, by), doubts(inputs.site, by)
        assert (there > plan.threshold).mean() <= share
        sent = here > plan.threshold
        assert plan.referred.value == pytest.approx(sent.mean())
        positives = [(row, k) for row, k in np.ndindex(y.shape) if y[row, k] == 1]
        found = np.mean([called[row, k] or sent[row] for row, k in positives])
        rest = [called[row, k] != (y[row, k] == 1) for row, k in np.ndindex(y.shape) if not sent[row]]
        assert plan.at_site is not None
        assert plan.at_site.team_recall.value == pytest.approx(found)
        assert plan.at_site.error.value == pytest.approx(np.mean(rest))
        if share == 0:
            assert not sent.any()
    assert "at random" in referral_sentence(tuple(plans.values()))


def test_a_labels_plan_by_outlier_score_is_chosen_where_the_score_was_not_fitted(tmp_path: Path) -> None:
    inputs = inputs_of(hospital(tmp_path / "a", 300, 0), hospital(tmp_path / "b", 200, 1, prefix="q"))
    outliers = examine_outliers(inputs)
    for k in range(len(LABELS)):
        referral = label_referral(inputs, k, outliers)
        plan = referral[OUTLIER].plan
        assert plan is not None
        assert plan.team_recall.n == int((inputs.reference.targets[:, k] == 1).sum())
        assert plan.team_recall.value >= 0.95
        assert plan.threshold in set(outliers.reference_scores.tolist())
        assert referral[CONFIDENCE].plan is not None
    bare = replace(inputs, deployed=None)
    assert referral_plans(bare, outliers) == ()
    with pytest.raises(InputError, match="thresholds"):
        examine_practice(bare, None, None)
