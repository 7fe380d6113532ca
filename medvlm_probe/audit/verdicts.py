"""Verdicts: each rule of a policy held against the evidence, by the one-sided bounds of its estimate."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from medvlm_probe.audit.bounds import UNDEFINED, performance_bounds, rescaled
from medvlm_probe.audit.calibration import DEPLOYED, RAW, Calibration
from medvlm_probe.audit.data_shift import DataShift
from medvlm_probe.audit.inputs import FEWEST_PEOPLE, AuditInputs, people
from medvlm_probe.audit.outlying import LISTED, Outlying
from medvlm_probe.audit.policy import Policy
from medvlm_probe.audit.practice import Practice
from medvlm_probe.audit.referral import CONFIDENCE
from medvlm_probe.audit.rules import CALIBRATION, EACH, KNOWN_LABELS, PERFORMANCE, RARE, SETS, Rule
from medvlm_probe.audit.sketch_answers import SketchShift
from medvlm_probe.errors import unknown_name
from medvlm_probe.metrics.baselines import NO_FINDING
from medvlm_probe.metrics.proportions import proportion
from medvlm_probe.types import Estimate, finite_or_none

Outcome = Literal["pass", "fail", "not enough evidence"]

RARE_BELOW = 0.05
"""A label is rare where its prevalence at the reference is below this."""


@dataclass(frozen=True)
class Explanation:
    """What a heat-map study found of a label: `pass`, `fail` or another outcome, on so many people with a region."""

    outcome: str
    n_people: int


@dataclass(frozen=True)
class Verdict:
    """One rule's verdict.

    Attributes:
        rule: its words; for a set of labels those of one label.
        verdict: see DESIGN's rule 10.
        bounds: the value with the one-sided bounds at `confidence`; None where nothing is known or may be shown.
        confidence: of each bound.
        n_people: that carry the rule; None below ten.
        planned: people that the evidence was planned with.
        reason: why, in one sentence.
        because: why the rule is in the policy.
        label: that it is about, "" for none.
    """

    rule: str
    verdict: Outcome
    bounds: Estimate | None
    confidence: float
    n_people: int | None
    planned: int
    reason: str
    because: str
    label: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values; `low` and `high` are one-sided bounds."""
        found = self.bounds
        return {
            "rule": self.rule,
            "verdict": self.verdict,
            "value": finite_or_none(found.value) if found else None,
            "low": finite_or_none(found.low) if found else None,
            "high": finite_or_none(found.high) if found else None,
            "n_groups": self.n_people,
            "planned": self.planned,
            "confidence": self.confidence,
            "label": self.label or None,
            "reason": self.reason,
            "because": self.because,
            "method": found.method if found else None,
        }


@dataclass(frozen=True)
class JudgedOn:
    """What rules are held against; None where a question was not answered.

    Attributes:
        explanations: label to what a heat-map study found; None where no study was given.
        skipped: question to why it was not answered.
    """

    inputs: AuditInputs
    shift: DataShift | SketchShift | None
    outliers: Outlying | None
    calibration: Calibration | None
    explanations: Mapping[str, Explanation] | None
    skipped: Mapping[str, str]
    practice: Practice | None = None


def check_labels(policy: Policy, labels: Sequence[str]) -> None:
    """Refuse a policy that names a label which neither the audit nor CheXpert knows (UnknownNameError)."""
    known = {*labels, *KNOWN_LABELS, *SETS, ""}
    turned_round = [trigger.holds for trigger in policy.triggers if trigger.holds is not None]
    for rule in (*policy.rules, *turned_round):
        if rule.subject != "shift" and rule.of not in known:
            raise unknown_name("label in the policy", rule.of, known - {""})


def judge(policy: Policy, on: JudgedOn) -> tuple[Verdict, ...]:
    """Return every rule's verdict, in the policy's order; a rule about a set of labels gives one for each."""
    return tuple(verdict for rule in policy.rules for one in expanded(rule, on) for verdict in [_judged(one, on)])


def expanded(rule: Rule, on: JudgedOn) -> list[Rule]:
    """Return the rule, or one for each label of the set that it is about; the rule itself where the set is empty."""
    if rule.subject == "explanation" and not rule.of:
        labels = list(on.explanations or {})
    elif rule.of in SETS:
        labels = _labels_of(rule.of, on.inputs)
    else:
        return [rule]
    words = "explanation({}) usable" if rule.subject == "explanation" else rule.text.replace("\u2265", ">=")
    return [replace(rule, of=label, text=_renamed(words, rule, label)) for label in labels] or [rule]


def decide(rule: Rule, bounds: Estimate, n_people: int) -> tuple[Outcome, str]:
    """Return a verdict and its reason from one-sided bounds.

    Args:
        rule: with its limit.
        bounds: the value with one-sided bounds.
        n_people: that carry it; fewer than planned never pass.
    """
    if n_people < FEWEST_PEOPLE:
        return "not enough evidence", "Fewer than 10 people carry it."
    if not all(math.isfinite(x) for x in (bounds.value, bounds.low, bounds.high)):
        return "not enough evidence", "It could not be computed at the site."
    if not bounds.reliable:
        return "not enough evidence", "Its interval is unreliable at this size."
    good = bounds.low >= rule.limit if rule.at_least else bounds.high <= rule.limit
    bad = bounds.high < rule.limit if rule.at_least else bounds.low > rule.limit
    sure = f"with {100 * rule.confidence:g} % confidence"
    if bad:
        side, bound = ("at most", bounds.high) if rule.at_least else ("at least", bounds.low)
        return "fail", f"It is {side} {bound:.3f} {sure}."
    if good and n_people < rule.planned:
        return (
            "not enough evidence",
            f"The bound would do, but {n_people} people carry it and {rule.planned} are planned.",
        )
    if good:
        side, bound = ("at least", bounds.low) if rule.at_least else ("at most", bounds.high)
        return "pass", f"It is {side} {bound:.3f} {sure}."
    return "not enough evidence", f"Its bounds, {bounds.low:.3f} and {bounds.high:.3f}, lie on both sides of the limit."


def _judged(rule: Rule, on: JudgedOn) -> Verdict:
    if rule.subject == "explanation":
        return _explained(rule, on)
    if rule.of in SETS:
        return _unknown(rule, f"No label of the audit is one of the {rule.of.replace('_', ' ')}.")
    label = "" if rule.subject == "shift" else rule.of
    if label and label not in on.inputs.labels:
        return _unknown(rule, "The audit has no such label: the reference or the prompts lack it.", label)
    bounds, n_people, why_not = evidence_for(rule, on)
    if why_not:
        return _unknown(rule, why_not, label)
    verdict, reason = decide(rule, bounds, n_people)
    if verdict == "pass" and rule.subject == "outlier_share" and on.outliers and on.outliers.listed_by != LISTED:
        by = on.outliers.listed_by.replace("_", " ")
        verdict = "not enough evidence"
        reason = f"The bound would do by {by}, which sees less than scores fitted on the reference's vectors."
    hidden = n_people < FEWEST_PEOPLE
    return Verdict(
        rule.text,
        verdict,
        None if hidden else bounds,
        rule.confidence,
        None if hidden else n_people,
        rule.planned,
        reason,
        rule.because,
        label,
    )


def evidence_for(rule: Rule, on: JudgedOn) -> tuple[Estimate, int, str]:
    """Return the value with one-sided bounds, the people that carry it, and why there is none."""
    inputs = on.inputs
    if rule.subject in PERFORMANCE:
        y = inputs.site.targets[:, inputs.column(rule.of)]
        if np.isnan(y).all():
            return UNDEFINED, 0, "The site has no labels of it; estimates without labels never pass a rule."
        if not (y == 0).any() and rule.subject in ("auroc", "average_precision", "specificity"):
            return UNDEFINED, 0, "The site has no absent examples of it: recall only."
        if inputs.deployed is None and rule.subject not in ("auroc", "average_precision"):
            return UNDEFINED, 0, "No threshold: the reference has no labels to choose it on."
        return *performance_bounds(inputs, rule.of, rule.subject, rule.confidence), ""
    if rule.subject in CALIBRATION:
        return _calibration(rule, on)
    if rule.subject == "shift":
        if on.shift is None:
            return UNDEFINED, 0, on.skipped.get("shift", "Shift was not examined.")
        test = next((test for test in on.shift.report.tests if test.test == rule.of), None)
        if test is None or (isinstance(on.shift, SketchShift) and math.isnan(test.effect.low)):
            return UNDEFINED, 0, f"A reference that is a sketch gives no interval of a shift by {rule.of}."
        return rescaled(test.effect, rule.confidence), min(on.shift.report.n_groups), ""
    if rule.subject == "referred_share":
        plan = on.practice.plan(CONFIDENCE) if on.practice is not None else None
        if plan is None:
            return UNDEFINED, 0, on.skipped.get("practice", "There is no plan of referral by confidence.")
        return rescaled(plan.referred, rule.confidence), plan.referred.n_groups, ""
    if on.outliers is None:
        return UNDEFINED, 0, on.skipped.get("outliers", "Outliers were not examined.")
    beyond = on.outliers.site_scores > on.outliers.threshold
    found = proportion(beyond, inputs.site.groups, level=2 * rule.confidence - 1)
    return found, people(inputs.site.groups), ""


def _calibration(rule: Rule, on: JudgedOn) -> tuple[Estimate, int, str]:
    if on.calibration is None:
        return UNDEFINED, 0, on.skipped.get("calibration", "Calibration was not examined.")
    row = on.calibration.of("site", DEPLOYED) or on.calibration.of("site", RAW)
    if row is None:
        return UNDEFINED, 0, "The site's labels do not tell: none is known of ten people with and ten without it."
    found = row.label(rule.of) if rule.of else row.pooled
    if found is None:
        return UNDEFINED, 0, "The site does not know the label of ten people with and ten without it."
    estimate = found[rule.subject].estimate
    return rescaled(estimate, rule.confidence), estimate.n_groups, ""


def _explained(rule: Rule, on: JudgedOn) -> Verdict:
    if on.explanations is None:
        return _unknown(
            rule, "No heat-map study was given: run 'grad-cam' on images with regions, and name its folder.", rule.of
        )
    found = on.explanations.get(rule.of)
    if found is None:
        return _unknown(rule, "The heat-map study says nothing of it.", rule.of)
    words = {"pass": "The maps follow the label.", "fail": "A wrong label's maps are as good: they do not follow it."}
    outcome: Outcome = "not enough evidence"
    reason = words.get(found.outcome, "The study had too few regions, or similarities only.")
    if found.outcome == "fail":
        outcome = "fail"
    elif found.outcome == "pass" and found.n_people >= rule.planned:
        outcome = "pass"
    elif found.outcome == "pass":
        reason = f"The maps follow the label on {found.n_people} images, and {rule.planned} are planned."
    shown = found.n_people if found.n_people >= FEWEST_PEOPLE else None
    return Verdict(rule.text, outcome, None, rule.confidence, shown, rule.planned, reason, rule.because, rule.of)


def _unknown(rule: Rule, reason: str, label: str = "") -> Verdict:
    return Verdict(
        rule.text, "not enough evidence", None, rule.confidence, None, rule.planned, reason, rule.because, label
    )


def _labels_of(name: str, inputs: AuditInputs) -> list[str]:
    findings = [label for label in inputs.labels if label != NO_FINDING]
    if name == EACH:
        return findings
    y = inputs.whole_reference.targets
    return [
        label
        for label in findings
        if name == RARE and 0 < np.nan_to_num(np.nanmean(y[:, inputs.column(label)] == 1)) < RARE_BELOW
    ]


def _renamed(words: str, rule: Rule, label: str) -> str:
    name = label.replace("_", " ")
    if rule.subject == "explanation":
        return words.format(name)
    head, _, tail = words.partition("(")
    return f"{head}({name}){tail.partition(')')[2]}"
