"""Which examinations go to a reader: by the model's own doubt, and by how unlike the reference's an image is.

A plan is a threshold chosen on reference images that fitted nothing, and its worth is read at the site. One label's
doubt is how near its call is to being another one. An examination's is the number of wrong calls, or of missed
findings, that the calibrated probabilities expect of it: the first lowers the error of the rest most, the second
raises what is found. The outlier score is the one that the list of unusual images goes by. A reader is taken to be
right about all that is referred.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.audit.inputs import FEWEST_PEOPLE, AuditInputs, Side, people
from medvlm_probe.audit.outlying import Outlying
from medvlm_probe.metrics.baselines import NO_FINDING
from medvlm_probe.metrics.proportions import proportion
from medvlm_probe.shift.practice import ReferralPoint, choose_referral, doubt_of_calls, referral_at
from medvlm_probe.types import BoolArray, Estimate, FloatArray, IntArray, finite_or_none

LEAST_RECALL = 0.95
"""What model and reader together shall find where a label's plan is chosen, at the reference."""

SHARES = tuple(round(0.05 * k, 2) for k in range(11))
"""Of the reference's examinations, that plans of whole examinations refer."""

NAMED = 0.2
"""The plan that the sentence tells of, and that the share of referred examinations is watched by."""

CONFIDENCE, MISSES, OUTLIER = "confidence", "expected misses", "outlier score"
"""What a plan goes by; for whole examinations, confidence is the number of wrong calls expected."""


@dataclass(frozen=True)
class LabelReferral:
    """One label's plan.

    Attributes:
        plan: on the images that it was chosen on; None where none short of everything reaches the recall.
        at_site: the same plan at the site; None without labels there.
        referred: share of the site's images that it sends to a reader.
    """

    plan: ReferralPoint | None = None
    at_site: ReferralPoint | None = None
    referred: Estimate | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {
            "least_recall": LEAST_RECALL,
            "chosen_on_reference": point_json(self.plan),
            "at_site": point_json(self.at_site),
            "referred_at_site": self.referred.to_json() if self.referred else None,
        }


@dataclass(frozen=True)
class ReferralPlan:
    """A plan for whole examinations, with all findings' calls counted together.

    Attributes:
        by: `confidence`, `expected misses` or `outlier score`.
        share: of the reference's examinations that it refers.
        threshold: above which an examination goes to a reader; infinite refers nobody.
        referred: share of the site's.
        at_reference: recall, error and the like on the images that the threshold was chosen on.
        at_site: at the site; None without enough labels there.
    """

    by: str
    share: float
    threshold: float
    referred: Estimate
    at_reference: ReferralPoint
    at_site: ReferralPoint | None

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {
            "by": self.by,
            "share_at_reference": self.share,
            "threshold": finite_or_none(self.threshold),
            "referred_at_site": self.referred.to_json(),
            "at_reference": point_json(self.at_reference),
            "at_site": point_json(self.at_site),
        }


def point_json(point: ReferralPoint | None) -> dict[str, Any] | None:
    """Return a plan's numbers as JSON values; None where there is no plan."""
    if point is None:
        return None
    parts = ("referred", "recall", "specificity", "error", "team_recall")
    return {"threshold": finite_or_none(point.threshold), **{name: getattr(point, name).to_json() for name in parts}}


def label_referral(inputs: AuditInputs, column: int, outliers: Outlying | None) -> dict[str, LabelReferral]:
    """Return what reaches the recall for one label, by either doubt, and what it does at the site.

    The plan by confidence is chosen where the thresholds are, that by outlier score on the half of the reference that
    did not fit the score.
    """
    deployed, chosen_on, site = inputs.deployed, inputs.chosen_on, inputs.site
    if deployed is None or chosen_on.scores is None or site.scores is None:
        return {CONFIDENCE: LabelReferral(), OUTLIER: LabelReferral()}
    found = {}
    doubts = [_label_doubt(inputs, side, column) for side in (chosen_on, site)]
    found[CONFIDENCE] = _planned(inputs, column, chosen_on, doubts[0], doubts[1])
    known = outliers is not None and inputs.labels[column] in deployed.thresholds.values
    held = (outliers.reference_scores, outliers.site_scores) if outliers is not None and known else (None, None)
    found[OUTLIER] = _planned(inputs, column, inputs.reference, held[0], held[1])
    return found


def _label_doubt(inputs: AuditInputs, side: Side, column: int) -> FloatArray | None:
    deployed = inputs.deployed
    p = deployed.probabilities(side.scores) if deployed is not None and side.scores is not None else None
    if deployed is None or p is None or not 0 < deployed.cuts[column] < 1:
        return None
    return doubt_of_calls(p[:, column], float(deployed.cuts[column]))


def _planned(
    inputs: AuditInputs, column: int, chosen_on: Side, there: FloatArray | None, here: FloatArray | None
) -> LabelReferral:
    deployed, site = inputs.deployed, inputs.site
    if deployed is None or there is None or here is None or chosen_on.scores is None or site.scores is None:
        return LabelReferral()
    calls = [deployed.called(side.scores)[:, column] for side in (chosen_on, site) if side.scores is not None]
    y = chosen_on.targets[:, column]
    if people(chosen_on.groups[y == 1]) < FEWEST_PEOPLE:
        return LabelReferral()
    plan = choose_referral(y, calls[0], there, chosen_on.groups, least_recall=LEAST_RECALL)
    if plan is None:
        return LabelReferral()
    truth = site.targets[:, column]
    enough = min(people(site.groups[truth == kind]) for kind in (1, 0)) >= FEWEST_PEOPLE
    at_site = referral_at(truth, calls[1], here, site.groups, plan.threshold) if enough else None
    return LabelReferral(plan, at_site, proportion(np.asarray(here > plan.threshold), site.groups))


def referral_plans(inputs: AuditInputs, outliers: Outlying | None) -> tuple[ReferralPlan, ...]:
    """Return the plans for whole examinations, by either doubt and every share; none without thresholds.

    Every call on every finding with a threshold counts once: recall is that of findings, error that of calls.
    """
    deployed, columns = inputs.deployed, _called_findings(inputs)
    if deployed is None or not columns:
        return ()
    there, here = (
        _Calls.of(side, deployed.called(side.scores), columns)
        for side in (inputs.reference, inputs.site)
        if side.scores is not None
    )
    return tuple(
        _plan(by, share, doubts, there, here, inputs)
        for by, doubts in _doubts(inputs, columns, outliers)
        for share in SHARES
    )


@dataclass(frozen=True, eq=False)
class _Calls:
    """Every known (image, finding) of a side: its image, truth, call and patient, (k,)."""

    image: NDArray[np.int64]
    truth: NDArray[np.float64]
    called: BoolArray
    groups: IntArray

    @classmethod
    def of(cls, side: Side, called: BoolArray, columns: list[int]) -> _Calls:
        y = side.targets[:, columns]
        image, finding = np.nonzero(~np.isnan(y))
        return cls(image, y[image, finding], called[:, columns][image, finding], side.groups[image])

    def at(self, doubt: FloatArray, threshold: float) -> ReferralPoint | None:
        """Return a plan's numbers; None under ten people with a finding or without one."""
        if min(people(self.groups[self.truth == kind]) for kind in (1, 0)) < FEWEST_PEOPLE:
            return None
        return referral_at(self.truth, self.called, doubt[self.image], self.groups, threshold)


def _called_findings(inputs: AuditInputs) -> list[int]:
    deployed = inputs.deployed
    if deployed is None or inputs.reference.scores is None or inputs.site.scores is None:
        return []
    return [k for k, label in enumerate(inputs.labels) if label != NO_FINDING and label in deployed.thresholds.values]


def _doubts(
    inputs: AuditInputs, columns: list[int], outliers: Outlying | None
) -> Iterator[tuple[str, tuple[FloatArray, FloatArray]]]:
    """Yield each doubt of the reference's compared half and of the site, an entry an image."""
    expected = [_expected(inputs, side, columns) for side in (inputs.reference, inputs.site)]
    there, here = expected
    if there is not None and here is not None:
        yield CONFIDENCE, (there[0], here[0])
        yield MISSES, (there[1], here[1])
    if outliers is not None:
        yield OUTLIER, (outliers.reference_scores, outliers.site_scores)


def _expected(inputs: AuditInputs, side: Side, columns: list[int]) -> tuple[FloatArray, FloatArray] | None:
    """Return the wrong calls, and the missed findings, that each image's probabilities expect, (n,) each."""
    deployed = inputs.deployed
    p = deployed.probabilities(side.scores) if deployed is not None and side.scores is not None else None
    if deployed is None or side.scores is None or p is None:
        return None
    called, p = deployed.called(side.scores)[:, columns], p[:, columns]
    missed = np.where(called, 0.0, p)
    return (missed + np.where(called, 1 - p, 0.0)).sum(axis=1), missed.sum(axis=1)


def _plan(
    by: str,
    share: float,
    doubts: tuple[FloatArray, FloatArray],
    there: _Calls,
    here: _Calls,
    inputs: AuditInputs,
) -> ReferralPlan:
    threshold = float(np.quantile(doubts[0], 1 - share, method="inverted_cdf")) if share > 0 else math.inf
    at_reference = referral_at(there.truth, there.called, doubts[0][there.image], there.groups, threshold)
    return ReferralPlan(
        by,
        share,
        threshold,
        proportion(np.asarray(doubts[1] > threshold), inputs.site.groups),
        at_reference,
        here.at(doubts[1], threshold),
    )


def referral_sentence(plans: tuple[ReferralPlan, ...]) -> str:
    """Say what the plan that gains most at the reference brings at the site, beside chance; "" without labels there."""
    alone = {plan.by: plan for plan in plans if plan.share == 0}
    named = [plan for plan in plans if plan.share == NAMED]
    if not named:
        return ""
    best = max(named, key=lambda plan: _gain(plan.at_reference, alone[plan.by].at_reference))
    here, start = best.at_site, alone[best.by].at_site
    if here is None or start is None:
        return ""
    found, before, share = (e.value for e in (here.team_recall, start.team_recall, best.referred))
    chance = before + share * (1 - before)
    compared = "no more than" if found <= chance else "against"
    return (
        f"Referring a fifth of the reference's examinations gains most there by {best.by}; the same plan sends "
        f"{100 * share:.0f} % of those here to a reader, and {100 * found:.0f} % of findings are found, {compared} "
        f"{100 * chance:.0f} % if as many were drawn at random ({100 * before:.0f} % without a reader)."
    )


def _gain(point: ReferralPoint, alone: ReferralPoint) -> float:
    """Return the share of findings found beyond what as many examinations drawn at random would bring."""
    chance = alone.team_recall.value + point.referred.value * (1 - alone.team_recall.value)
    return float(np.nan_to_num(point.team_recall.value - chance, nan=-1.0))
