"""What prompts are worth before and after tuning: how often they are right, and how well they know it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from medvlm_probe.errors import InputError
from medvlm_probe.metrics.calibration_estimates import CalibrationEstimate, calibration_estimates
from medvlm_probe.metrics.macro import macro_rank_estimates
from medvlm_probe.metrics.proportions import proportion
from medvlm_probe.types import Estimate, Scores

if TYPE_CHECKING:
    from medvlm_probe.cohort.cohort import Cohort


@dataclass(frozen=True)
class Worth:
    """What probabilities show on images.

    Attributes:
        metric: `accuracy` where exactly one label is right, else `macro_auroc`.
        value: of the metric, larger better.
        ece: expected calibration error, of the top label or pooled over all entries, smaller better.
        overconfidence: mean confidence of the answers less the share of right ones; below 0 is under-confident.
    """

    metric: str
    value: Estimate
    ece: CalibrationEstimate
    overconfidence: CalibrationEstimate

    def to_json(self) -> dict[str, Any]:
        """Return the estimates by name."""
        return {
            self.metric: self.value.to_json(),
            "ece": self.ece.to_json(),
            "overconfidence": self.overconfidence.to_json(),
        }


def worth_of(scores: Scores, cohort: Cohort, *, seed: int = 0) -> Worth:
    """Return what probabilities are worth on a cohort's labels.

    Args:
        scores: probabilities, a row an image of the cohort, in its order.
        cohort: a card of `single_label` makes the labels classes; images without exactly one are left out.
        seed: of bands and noise.

    Raises:
        InputError: scores of another kind, or images without any known label.
    """
    if scores.kind != "probability":
        raise InputError(f"Scores of kind '{scores.kind}': calibration needs probabilities.")
    targets, groups, rng = cohort.targets(scores.labels), cohort.groups(), np.random.default_rng(seed)
    if cohort.card.task == "single_label":
        one = (targets == 1).sum(axis=1) == 1
        truth, p, groups = targets[one].argmax(axis=1), scores.values[one], groups[one]
        if not len(truth):
            raise InputError("None of the images shown has a known label.")
        right = proportion(p.argmax(axis=1) == truth, groups)
        found = calibration_estimates(p, truth, groups, rng=rng, metrics=("ece", "overconfidence"))
        return Worth("accuracy", right, found["ece"], found["overconfidence"])
    ranked = macro_rank_estimates(targets, scores.values, groups)["auroc"]
    pooled = calibration_estimates(
        scores.values.ravel(),
        targets.ravel(),
        np.repeat(groups, len(scores.labels)),
        rng=rng,
        metrics=("ece", "overconfidence"),
    )
    return Worth("macro_auroc", ranked, pooled["ece"], pooled["overconfidence"])
