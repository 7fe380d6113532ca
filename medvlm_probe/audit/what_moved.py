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
from medvlm_probe.shift.identification import ShiftIdentification, identify_shift
from medvlm_probe.types import Estimate

_SENTENCES = {
    "none": "Neither the frequency of findings nor the look of the images is shown to have moved",
    "prevalence": "The frequency of findings moved ({reference} of images have any at the reference, {site} here), and "
    "that explains the distance: images look alike otherwise",
    "covariate": "The look of the images moved; that the frequency of findings moved too is not shown ({reference} of "
    "images have any at the reference, {site} here)",
    "both": "Both moved: the look of the images, and the frequency of findings ({reference} of images have any at the "
    "reference, {site} here)",
}

_FOUNDATIONS = {
    "none": ", by the model's scores alone.",
    "prevalence": ", by the model's scores alone.",
    "covariate": "; by the model's scores alone, and only if the new look moves them no further than the rest of the "
    "embedding.",
    "both": "; by the model's scores alone, and only if the new look moves them no further than the rest of the "
    "embedding.",
}


@dataclass(frozen=True)
class WhatMoved:
    """The identification for any finding against none."""

    found: ShiftIdentification

    @property
    def truth(self) -> Estimate | None:
        """The frequency by the site's labels, if they tell."""
        return self.found.site_prevalence if self.found.evidence == "labels" else None

    @property
    def look_moved(self) -> bool:
        """Whether images look different, so that estimates which take only frequencies to have moved may be wrong."""
        return self.found.shift in ("covariate", "both")

    @property
    def sentence(self) -> str:
        """What moved, and by which evidence; with the site's labels, also what scores alone would have told.

        A site's frequency by its scores is that which allows for the new look, where the look moved.
        """
        f = self.found
        told = f.prevalence_despite_move if self.truth is None and self.look_moved else f.site_prevalence
        said = _SENTENCES[f.shift].format(reference=f"{100 * f.reference_prevalence.value:.0f} %", site=_percent(told))
        if self.truth is None:
            return said + _FOUNDATIONS[f.shift]
        scores = f.prevalence_despite_move
        right = scores.low <= self.truth.high and self.truth.low <= scores.high
        judged = "agrees" if right else "is not to be believed here"
        return f"{said}, by the site's own labels; scores alone would have told {_percent(scores)}, which {judged}."

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values; undefined numbers are None."""
        f = self.found
        return {
            "sentence": self.sentence,
            "shift": f.shift,
            "evidence": f.evidence,
            "truth": self.truth.to_json() if self.truth else None,
            "reference_prevalence": f.reference_prevalence.to_json(),
            "site_prevalence": f.site_prevalence.to_json(),
            "prevalence_despite_move": f.prevalence_despite_move.to_json(),
            "look_moved_by": f.look_moved_by,
            "separation": f.separation,
            "overall": f.overall.to_json(),
            "prevalence": f.prevalence.to_json(),
            "remaining": f.remaining.to_json(),
            "despite_move": f.despite_move.to_json(),
            "effective_share": f.effective_share,
        }


def _percent(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.0f} % [{100 * estimate.low:.0f}, {100 * estimate.high:.0f}]"


def any_finding(inputs: AuditInputs, side: Side) -> NDArray[np.float64]:
    """Return 1 where an image has any finding, 0 where it has none, else NaN, (n,)."""
    y = side.targets
    if NO_FINDING in inputs.labels:
        return 1 - y[:, inputs.column(NO_FINDING)]
    return np.asarray(any_present(y), dtype=np.float64)


def identify(inputs: AuditInputs) -> WhatMoved:
    """Return what moved, by the site's labels where enough people with, and without, a finding are labelled.

    Raises InputError where the reference has no labels of both kinds, or too few people.
    """
    y = any_finding(inputs, inputs.whole_reference) if inputs.labels else np.array([])
    if not {0.0, 1.0} <= set(y[~np.isnan(y)].tolist()):
        raise InputError("The reference has no labels of both kinds: images with a finding and images without any.")
    first, second = inputs.whole_reference, inputs.site
    labels = any_finding(inputs, second)
    enough = min(people(second.groups[labels == kind]) for kind in (1, 0)) >= FEWEST_PEOPLE
    found = identify_shift(
        y,
        first.vectors,
        second.vectors,
        first.groups,
        second.groups,
        rng=inputs.rng("what moved"),
        site_labels=labels if enough else None,
    )
    return WhatMoved(found)
