"""What moved: how frequent findings are, how images look, both, or nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.audit.inputs import FEWEST_PEOPLE, AuditInputs, Side, people
from medvlm_probe.errors import InputError
from medvlm_probe.metrics.baselines import NO_FINDING
from medvlm_probe.metrics.classification import any_present
from medvlm_probe.metrics.proportions import proportion
from medvlm_probe.shift.identification import ShiftIdentification, identify_shift
from medvlm_probe.types import Estimate

_SENTENCES = {
    "none": "Neither the frequency of findings nor the look of the images is shown to have moved.",
    "prevalence": "The frequency of findings moved ({reference} at the reference, {site} here by its scores), and that "
    "explains the distance: images look alike otherwise.",
    "covariate": "The look of the images moved. Whether the frequency of findings moved too cannot be told from the "
    "images alone.",
    "both": "Both moved: the look of the images, and the frequency of findings ({reference} at the reference, {shape} "
    "here by the shape of the scores).",
}


@dataclass(frozen=True)
class WhatMoved:
    """The identification for any finding against none; `truth` is the frequency by the site's labels, if they tell."""

    found: ShiftIdentification
    truth: Estimate | None

    @property
    def look_moved(self) -> bool:
        """Whether images look different, so that estimates which take only frequencies to have moved may be wrong."""
        return self.found.shift in ("covariate", "both")

    @property
    def sentence(self) -> str:
        """What moved, in one sentence."""
        f = self.found
        said = _SENTENCES[f.shift].format(
            reference=f"{100 * f.reference_prevalence.value:.0f} %",
            site=f"{100 * f.site_prevalence.value:.0f} %",
            shape=f"{100 * f.shape_prevalence.value:.0f} %",
        )
        if self.truth is None:
            return said
        t = self.truth
        known = f"By the site's own labels {100 * t.value:.0f} % [{100 * t.low:.0f}, {100 * t.high:.0f}] have a finding"
        wrong = f.shift in ("prevalence", "both") and not _agree(f, t)
        return f"{said} {known}" + (", so the estimate from scores is not to be believed." if wrong else ".")

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values; undefined numbers are None."""
        f = self.found
        return {
            "sentence": self.sentence,
            "shift": f.shift,
            "truth": self.truth.to_json() if self.truth else None,
            "reference_prevalence": f.reference_prevalence.to_json(),
            "site_prevalence": f.site_prevalence.to_json(),
            "shape_prevalence": f.shape_prevalence.to_json(),
            "overall": f.overall.to_json(),
            "prevalence": f.prevalence.to_json(),
            "remaining": f.remaining.to_json(),
            "effective_share": f.effective_share,
        }


def _agree(found: ShiftIdentification, truth: Estimate) -> bool:
    """Return whether the estimate that is told and the truth may be the same."""
    told = found.shape_prevalence if found.shift == "both" else found.site_prevalence
    return told.low <= truth.high and truth.low <= told.high


def any_finding(inputs: AuditInputs, side: Side) -> NDArray[np.float64]:
    """Return 1 where an image has any finding, 0 where it has none, else NaN, (n,)."""
    y = side.targets
    if NO_FINDING in inputs.labels:
        return 1 - y[:, inputs.column(NO_FINDING)]
    return np.asarray(any_present(y), dtype=np.float64)


def identify(inputs: AuditInputs) -> WhatMoved:
    """Return what moved. Raises InputError where the reference has no labels of both kinds, or too few people."""
    y = any_finding(inputs, inputs.whole_reference) if inputs.labels else np.array([])
    if not {0.0, 1.0} <= set(y[~np.isnan(y)].tolist()):
        raise InputError("The reference has no labels of both kinds: images with a finding and images without any.")
    first, second = inputs.whole_reference, inputs.site
    found = identify_shift(y, first.vectors, second.vectors, first.groups, second.groups, rng=inputs.rng("what moved"))
    truth = any_finding(inputs, second)
    known = ~np.isnan(truth)
    enough = min(people(second.groups[truth == kind]) for kind in (1, 0)) >= FEWEST_PEOPLE
    return WhatMoved(found, proportion(truth[known] == 1, second.groups[known]) if enough else None)
