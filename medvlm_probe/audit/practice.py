"""What happens in practice: findings missed and false alarms per 1,000 examinations, and a plan of referral."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medvlm_probe.audit.inputs import FEWEST_PEOPLE, AuditInputs, people
from medvlm_probe.audit.label_frequency import LabelFrequencies, true_prevalence
from medvlm_probe.audit.outlying import Outlying
from medvlm_probe.audit.performance_by_site import Performance
from medvlm_probe.audit.referral import (
    CONFIDENCE,
    NAMED,
    OUTLIER,
    LabelReferral,
    ReferralPlan,
    label_referral,
    referral_plans,
    referral_sentence,
)
from medvlm_probe.errors import InputError
from medvlm_probe.metrics.baselines import NO_FINDING
from medvlm_probe.metrics.proportions import proportion
from medvlm_probe.shift.practice import PerThousand, per_thousand
from medvlm_probe.types import Estimate, finite_or_none


@dataclass(frozen=True)
class LabelPractice:
    """One label in practice.

    Attributes:
        label: its name.
        numbers: per 1,000 examinations at the site's prevalence.
        errors_from, prevalence_from: `site labels`, `reference`, or `estimated` without labels: where numbers are from.
        referral: by `confidence` and by `outlier score`, the plan for this label.
    """

    label: str
    numbers: PerThousand
    errors_from: str
    prevalence_from: str
    referral: Mapping[str, LabelReferral]

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {
            "label": self.label,
            "missed": self.numbers.missed.to_json(),
            "false_alarms": self.numbers.false_alarms.to_json(),
            "called": finite_or_none(self.numbers.called),
            "prevalence": self.numbers.prevalence.to_json(),
            "errors_from": self.errors_from,
            "prevalence_from": self.prevalence_from,
            "referral": self.referral[CONFIDENCE].to_json(),
            "referral_by_outlier_score": self.referral[OUTLIER].to_json(),
        }


@dataclass(frozen=True)
class Practice:
    """Every label in practice, and what plans for whole examinations would bring."""

    labels: tuple[LabelPractice, ...]
    plans: tuple[ReferralPlan, ...] = ()

    def plan(self, by: str) -> ReferralPlan | None:
        """Return the plan that the share of referred examinations is watched by."""
        return next((plan for plan in self.plans if plan.by == by and plan.share == NAMED), None)

    def sentence(self, words: Mapping[str, str]) -> str:
        """Which finding would be missed most."""
        known = [e for e in self.labels if math.isfinite(e.numbers.missed.value)]
        if not known:
            return "Numbers per 1,000 examinations cannot be told: neither the site nor the reference gives them."
        worst = max(known, key=lambda e: e.numbers.missed.value)
        missed, alarms = worst.numbers.missed, worst.numbers.false_alarms
        text = (
            f"Of 1,000 examinations, {missed.value:.0f} [{missed.low:.0f}, {missed.high:.0f}] would have "
            f"{words.get(worst.label, worst.label).lower()} missed and {alarms.value:.0f} a false alarm"
        )
        if worst.errors_from == "reference":
            text += ", if recall and specificity are the reference's, for the site's labels do not tell"
        return " ".join(filter(None, (f"{text}.", referral_sentence(self.plans))))

    def to_json(self) -> dict[str, Any]:
        """Return every label's numbers as JSON."""
        return {
            "labels": [entry.to_json() for entry in self.labels],
            "referral_of_examinations": [plan.to_json() for plan in self.plans],
        }


def examine_practice(
    inputs: AuditInputs,
    performance: Performance | None,
    frequencies: LabelFrequencies | None,
    *,
    believed: bool = True,
    outliers: Outlying | None = None,
) -> Practice:
    """Return every label's numbers; what the site's labels do not tell is taken from the reference, and says so.

    Args:
        inputs: of the audit.
        performance: of the site; None where its labels tell nothing.
        frequencies: estimated without labels.
        outliers: the scores that referral may go by; None refers by confidence alone.
        believed: False where such estimates are not to be relied on; the reference's prevalence then stands in.

    Raises:
        InputError: no thresholds: the reference has no labels.
    """
    deployed = inputs.deployed
    if deployed is None or inputs.chosen_on.scores is None or inputs.site.scores is None:
        raise InputError("No thresholds: the reference has no labels to choose them on.")
    estimated = {e.label: e.shift for e in frequencies.labels} if frequencies else {}
    found = []
    for k, label in enumerate(inputs.labels):
        if label == NO_FINDING:
            continue
        recall, specificity, errors_from = _errors(inputs, performance, label)
        if recall is None or specificity is None:
            continue
        prevalence, prevalence_from = true_prevalence(inputs, k), "site labels"
        if prevalence is None:
            shift = estimated.get(label)
            if shift is None:
                continue
            usable = believed and shift.verdict == "usable"
            prevalence, prevalence_from = (shift.em, "estimated") if usable else (shift.reference, "reference")
        numbers = per_thousand(recall, specificity, prevalence)
        found.append(LabelPractice(label, numbers, errors_from, prevalence_from, label_referral(inputs, k, outliers)))
    if not found:
        raise InputError("No label has a recall and a prevalence that can be told.")
    return Practice(tuple(found), referral_plans(inputs, outliers))


def _errors(
    inputs: AuditInputs, performance: Performance | None, label: str
) -> tuple[Estimate | None, Estimate | None, str]:
    if performance is not None:
        cell = performance.whole("site")[label]
        recall, specificity = cell.estimate("recall"), cell.estimate("specificity")
        if recall is not None and specificity is not None:
            return recall, specificity, "site labels"
    side, k = inputs.reference, inputs.column(label)
    if inputs.deployed is None or side.scores is None or label not in inputs.deployed.thresholds.values:
        return None, None, ""
    y, called = side.targets[:, k], inputs.deployed.called(side.scores)[:, k]
    if min(people(side.groups[y == kind]) for kind in (1, 0)) < FEWEST_PEOPLE:
        return None, None, ""
    return (
        proportion(called[y == 1], side.groups[y == 1]),
        proportion(~called[y == 0], side.groups[y == 0]),
        "reference",
    )
