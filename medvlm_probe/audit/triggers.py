"""When must use be stopped, or the model retrained: what to watch after going live, and the levels that this audit set.

A level is the policy's own number, or the bound that this audit measured on this site; where it measured nothing, or
on fewer people than planned, no level is set, and none is borrowed from the reference.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from medvlm_probe.audit.inputs import FEWEST_PEOPLE
from medvlm_probe.audit.outlying import EXPECTED
from medvlm_probe.audit.policy import Policy
from medvlm_probe.audit.referral import CONFIDENCE, NAMED
from medvlm_probe.audit.rules import CALIBRATION, PERFORMANCE, Rule
from medvlm_probe.audit.trigger_rules import Trigger
from medvlm_probe.audit.verdicts import JudgedOn, decide, evidence_for, expanded
from medvlm_probe.errors import InputError
from medvlm_probe.types import Estimate, finite_or_none

State = Literal["met", "not met", "set", "not set", "cannot be told", "watched"]

MONITOR, NEW_AUDIT, LABELLED_AUDIT = "monitor", "a new audit", "a new audit with labels"


@dataclass(frozen=True)
class Watched:
    """One trigger, ready to be watched.

    Attributes:
        when: what must not happen, in words, with the level in them where it has one.
        action: `stop` or `retrain`.
        subject: what is watched, of `rules.SUBJECTS`, or `alarm`.
        of: a label, a shift measure or a test of the monitor; "" for none.
        level: that it is met beyond; None where none is set, and for alarms.
        level_from: `policy`, or `this audit`; "" where none is set.
        watched_by: `monitor`, `a new audit`, or `a new audit with labels`.
        today: the value at the site with its one-sided bounds; None where nothing is known or may be shown.
        n_people: that carry it; None below ten.
        planned: people that are needed.
        state: `met`, `not met` or `cannot be told` for the policy's own levels; `set` or `not set` for those of this
            audit; `watched` for alarms.
        reason: why, in one sentence.
        because: why the trigger is in the policy.
    """

    when: str
    action: str
    subject: str
    of: str
    level: float | None
    level_from: str
    watched_by: str
    today: Estimate | None
    n_people: int | None
    planned: int | None
    state: State
    reason: str
    because: str

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values; `low` and `high` are one-sided bounds."""
        today = self.today
        numbers = {end: finite_or_none(getattr(today, end)) if today else None for end in ("value", "low", "high")}
        fields = {name: value for name, value in vars(self).items() if name not in ("today", "n_people")}
        return {**fields, "of": self.of or None, **numbers, "n_groups": self.n_people}


@dataclass(frozen=True)
class Triggers:
    """Every trigger of a policy.

    Attributes:
        watched: in the policy's order; a trigger about a set of labels stands once for each.
        outlier_score: the score behind `outlier share`, and the level of it that 5 % of new reference images exceed.
        doubt: the doubt that a fifth of the reference's examinations exceed, behind `referred share`; None without.
    """

    watched: tuple[Watched, ...]
    outlier_score: tuple[str, float] | None
    doubt: float | None

    @property
    def sentence(self) -> str:
        """How many triggers can be watched, which are met already, and which could not be set."""
        ready = [entry for entry in self.watched if entry.state in ("met", "not met", "set", "watched")]
        n_stop = sum(entry.action == "stop" for entry in ready)
        start = (
            f"After going live, {_count(n_stop, 'trigger stops', 'triggers stop')} its use and "
            f"{_count(len(ready) - n_stop, 'calls', 'call')} for retraining."
        )
        met = [entry.when for entry in self.watched if entry.state == "met"]
        missing = [entry for entry in self.watched if entry.state in ("not set", "cannot be told")]
        parts = [
            f"Met already today: {'; '.join(met[:3])}{f', and {len(met) - 3} more' if len(met) > 3 else ''}."
            if met
            else "",
            f"{len(missing)} of {len(self.watched)} cannot be watched yet: this audit did not measure what they need."
            if missing
            else "",
        ]
        return " ".join(filter(None, (start, *parts)))

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        score = self.outlier_score
        return {
            "triggers": [entry.to_json() for entry in self.watched],
            "outlier_score": score[0] if score else None,
            "outlier_score_beyond": finite_or_none(score[1]) if score else None,
            "outlier_share_expected": EXPECTED,
            "referral_doubt_beyond": finite_or_none(self.doubt) if self.doubt is not None else None,
            "referral_share_at_reference": NAMED,
        }


def examine_triggers(policy: Policy, on: JudgedOn) -> Triggers:
    """Return the policy's triggers with the levels and today's values that this audit's evidence gives.

    Raises:
        InputError: the policy has no triggers.
    """
    if not policy.triggers:
        raise InputError("The policy has no triggers: write [[trigger]] entries, or use the default policy.")
    watched = [entry for trigger in policy.triggers for entry in _watched(trigger, on)]
    plan = on.practice.plan(CONFIDENCE) if on.practice is not None else None
    score = (on.outliers.listed_by, on.outliers.threshold) if on.outliers is not None else None
    return Triggers(tuple(watched), score, plan.threshold if plan is not None else None)


def _watched(trigger: Trigger, on: JudgedOn) -> list[Watched]:
    rule = trigger.holds
    if rule is None:
        reason = "A sequential test: its rate of false alarms holds at every look."
        return [
            Watched(
                f"alarm by {trigger.alarm}", trigger.action, "alarm", trigger.alarm, None, "", MONITOR, None, None,
                None, "watched", reason, trigger.because,
            )
        ]  # fmt: skip
    return [_one(trigger, one, on) for one in expanded(rule, on)]


def _one(trigger: Trigger, rule: Rule, on: JudgedOn) -> Watched:
    bounds, n_people, reason = _measured(rule, on)
    shown = bounds if not reason and n_people >= FEWEST_PEOPLE else None
    state, level, said = _state(trigger, rule, bounds, n_people, reason)
    by_labels = rule.subject in (*PERFORMANCE, *CALIBRATION)
    return Watched(
        _words(rule, level),
        trigger.action,
        rule.subject,
        rule.of,
        level,
        "" if level is None else "this audit" if trigger.from_audit else "policy",
        LABELLED_AUDIT if by_labels else NEW_AUDIT,
        shown,
        n_people if n_people >= FEWEST_PEOPLE else None,
        rule.planned,
        state,
        said,
        trigger.because,
    )


def _measured(rule: Rule, on: JudgedOn) -> tuple[Estimate | None, int, str]:
    """Return what the audit knows of the site, the people behind it, and why it knows nothing."""
    label = "" if rule.subject == "shift" else rule.of
    if label and label not in on.inputs.labels:
        return None, 0, "The audit has no such label."
    bounds, n_people, reason = evidence_for(rule, on)
    return bounds, n_people, reason


def _state(
    trigger: Trigger, rule: Rule, bounds: Estimate | None, n_people: int, reason: str
) -> tuple[State, float | None, str]:
    """Return the state, the level and why."""
    if not trigger.from_audit:
        if bounds is None or reason or n_people < FEWEST_PEOPLE:
            return "cannot be told", rule.limit, reason or "Fewer than 10 people carry it."
        outcome, said = decide(replace(rule, planned=1), bounds, n_people)
        if outcome == "fail":
            return "met", rule.limit, said
        return ("not met", rule.limit, said) if outcome == "pass" else ("not met", rule.limit, "Not shown to be met.")
    bound = (bounds.low if rule.at_least else bounds.high) if bounds is not None else None
    if bounds is None or bound is None or reason or finite_or_none(bound) is None or not bounds.reliable:
        return "not set", None, reason or "Its interval is unreliable at this size."
    if n_people < rule.planned:
        people = f"{n_people}" if n_people >= FEWEST_PEOPLE else "Fewer than 10"
        return "not set", None, f"{people} people carry it here, and {rule.planned} are planned."
    return "set", bound, f"The bound measured here with {100 * rule.confidence:g} % confidence."


def _words(rule: Rule, level: float | None) -> str:
    """Return a trigger in words: `recall(cardiomegaly) below 0.712`."""
    side = "below" if rule.at_least else "above"
    number = "this audit's" if level is None else f"{level:.3f}".rstrip("0").rstrip(".")
    if level is not None and abs(level) < 0.0005:
        number = "0"
    if rule.subject == "shift":
        return f"shift beyond {number} by {rule.of}"
    of = f"({rule.of.replace('_', ' ')})" if rule.of else ""
    return f"{rule.subject.replace('_', ' ')}{of} {side} {number}"


def _count(n: int, one: str, several: str) -> str:
    return f"{n} {one if n == 1 else several}"
