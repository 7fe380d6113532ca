"""Which of a policy's triggers a monitor can see met: its own alarms, and a share of outliers above the policy's level.

Both may be looked at after every batch: each has a chance of at most its own error rate of ever being met wrongly. All
other triggers need an audit. So does a level that an audit set: it was measured with that audit's scores and split.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from medvlm_probe.audit.monitor import Monitor
from medvlm_probe.audit.outlying import EXPECTED
from medvlm_probe.audit.policy import Policy
from medvlm_probe.audit.trigger_rules import Trigger
from medvlm_probe.shift.outliers import choose_threshold
from medvlm_probe.shift.share_sequence import log_share_capital
from medvlm_probe.types import FloatArray, finite_or_none

TEST = "outliers"


@dataclass(frozen=True)
class SeenTrigger:
    """One trigger as a monitor sees it.

    Attributes:
        when: as the policy gives it.
        action: `stop` or `retrain`.
        met: None where a monitor cannot tell.
        met_after: patients until it was met first; None where it is not.
        value: share of patients beyond the reference's 95 % quantile; None for alarms.
        reason: what it rests on, in one sentence.
    """

    when: str
    action: str
    met: bool | None
    met_after: int | None
    value: float | None
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return vars(self)


def seen_triggers(policy: Policy, monitored: Monitor) -> tuple[SeenTrigger, ...]:
    """Return every trigger of a policy as the batches counted so far show it."""
    return tuple(_seen(trigger, monitored) for trigger in policy.triggers)


def _seen(trigger: Trigger, monitored: Monitor) -> SeenTrigger:
    rule = trigger.holds
    if rule is None:
        after = monitored.alarm_after(trigger.alarm)
        alpha = float(monitored.settings["alpha"])
        reason = f"Without a change, any alarm is ever given with a chance of at most {alpha:g}."
        return SeenTrigger(trigger.text, trigger.action, after is not None, after, None, reason)
    if rule.subject == "outlier_share" and not trigger.from_audit and 0 < rule.limit < 1:
        return _share(trigger, rule.limit, 1 - rule.confidence, monitored)
    why = "its level is this audit's" if trigger.from_audit else "a monitor does not measure it"
    return SeenTrigger(trigger.text, trigger.action, None, None, None, f"Needs a new audit: {why}.")


def _share(trigger: Trigger, limit: float, alpha: float, monitored: Monitor) -> SeenTrigger:
    reference = np.array(monitored.records[0]["reference"][TEST], dtype=np.float64)
    line = _line(reference, int(monitored.settings["seed"]))
    if not math.isfinite(line):
        few = "The reference has no scores, or too few, to say what few of its images exceed."
        return SeenTrigger(trigger.text, trigger.action, None, None, None, few)
    scores = np.array([score for batch in monitored.batches for score in batch["tests"][TEST]["scores"]])
    above = scores > line
    met = np.flatnonzero(log_share_capital(above, limit) >= -math.log(alpha))
    reason = (
        f"Share of {len(scores):,} patients beyond what {100 * EXPECTED:g} % of the reference's exceed; met wrongly at "
        f"any time with a chance of at most {alpha:.2g}."
    )
    value = float(above.mean()) if len(scores) else math.nan
    after = int(met[0]) + 1 if len(met) else None
    return SeenTrigger(trigger.text, trigger.action, after is not None, after, finite_or_none(value), reason)


def _line(reference: FloatArray, seed: int) -> float:
    if not len(reference):
        return math.inf
    rng = np.random.default_rng(seed)
    return choose_threshold(reference, np.arange(len(reference)), share=EXPECTED, rng=rng).value
