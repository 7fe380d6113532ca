"""Is an image unlike anything at the reference: every outlier score, and the site's images under pseudonyms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.audit.inputs import AuditInputs, Side
from medvlm_probe.errors import InputError
from medvlm_probe.shift.outlier_scores import METHODS, OutlierInputs, fit_outlier_score
from medvlm_probe.shift.outliers import (
    OutlierPerformance,
    choose_threshold,
    conformal_p_values,
    outlier_performance,
    share_above,
)
from medvlm_probe.types import Estimate, finite_or_none

LISTED = "knn"
"""The score that the per-image list and the share of outliers go by: it needs no labels and no prompts."""

EXPECTED = 0.05


@dataclass(frozen=True, eq=False)
class Outlying:
    """How unlike the reference's the site's images are.

    Attributes:
        methods: score to how well it tells the site from held-out reference images.
        share: of the site's images beyond what 95 % of new reference images stay within.
        site_scores, reference_scores: of `listed_by`, (m,) and (n,), larger = more outlying.
        threshold: of `listed_by`, that 5 % of new reference images lie above.
        p_values: conformal, of the site's images, (m,).
        left_out: score to why it could not be computed.
        listed_by: the score that the list goes by.
    """

    methods: Mapping[str, OutlierPerformance]
    share: Estimate
    site_scores: NDArray[np.float64]
    reference_scores: NDArray[np.float64]
    threshold: float
    p_values: NDArray[np.float64]
    left_out: Mapping[str, str]
    listed_by: str = LISTED

    @property
    def sentence(self) -> str:
        """How many images are unlike the reference's."""
        if self.listed_by != LISTED:
            by = self.listed_by.replace("_", " ")
            return f"{self._said} This is by {by}, which sees less than scores fitted on the reference's vectors."
        return self._said

    @property
    def _said(self) -> str:
        share = f"{100 * self.share.value:.0f} % [{100 * self.share.low:.0f}, {100 * self.share.high:.0f}]"
        if self.share.low > 2 * EXPECTED:
            return f"{share} of the images are unlike anything at the reference, where 5 % are expected: look at them."
        if self.share.low > EXPECTED:
            return f"Somewhat more images than expected are unlike the reference's: {share} against 5 %."
        return f"Images unlike anything at the reference are not shown to be more than expected: {share} against 5 %."

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values; images stand in a CSV under pseudonyms."""
        return {
            "sentence": self.sentence,
            "share_beyond": self.share.to_json(),
            "expected_share": EXPECTED,
            "listed_by": self.listed_by,
            "methods": [
                {
                    "method": name,
                    "auroc": found.auroc.to_json(),
                    "aupr_site": found.aupr_site.to_json(),
                    "aupr_reference": found.aupr_reference.to_json(),
                    "fpr_at_95": found.fpr_at_95.to_json(),
                    "site_share": finite_or_none(found.site_share),
                }
                for name, found in self.methods.items()
            ],
            "left_out": dict(self.left_out),
        }


def examine_outliers(inputs: AuditInputs, *, logit_scale: float = 1.0) -> Outlying:
    """Return every score's separation, fitted on one half of the reference and held against the other.

    Args:
        inputs: of the audit.
        logit_scale: of the model, by which logits are divided for what stands for cosines.
    """
    fitted_on, held_out, site = (
        outlier_inputs(s, logit_scale) for s in (inputs.chosen_on, inputs.reference, inputs.site)
    )
    methods, left_out = {}, {}
    scores: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]] = {}
    for name in METHODS:
        try:
            fitted = fit_outlier_score(name, fitted_on, _classes(inputs.chosen_on))
            scores[name] = fitted.scores(held_out), fitted.scores(site)
            methods[name] = outlier_performance(
                *scores[name], inputs.reference.groups, inputs.site.groups, rng=inputs.rng(f"outliers {name}")
            )
        except InputError as error:
            left_out[name] = str(error)
    own, new = scores[LISTED]
    rng = inputs.rng("outliers")
    threshold = choose_threshold(own, inputs.reference.groups, share=EXPECTED, rng=rng)
    p_values = conformal_p_values(own, new, inputs.reference.groups, rng=rng)
    share = share_above(threshold, new, inputs.site.groups)
    return Outlying(methods, share, new, own, threshold.value, p_values, left_out)


def outlier_inputs(side: Side, logit_scale: float) -> OutlierInputs:
    """Return what the scores look at; logits are those of the labels."""
    if side.scores is None or side.scores.kind == "probability" or len(side.scores.labels) < 2:
        return OutlierInputs(embeddings=side.vectors)
    values = side.scores.values.astype(np.float64)
    if side.scores.kind == "cosine":
        return OutlierInputs(embeddings=side.vectors, cosines=values)
    return OutlierInputs(embeddings=side.vectors, logits=values, cosines=np.clip(values / logit_scale, -1, 1))


def _classes(side: Side) -> NDArray[np.int64]:
    """Return a code of each image: any label present, none, or not known."""
    y = side.targets
    if not y.size:
        return np.zeros(len(side), dtype=np.int64)
    found: NDArray[np.int64] = np.where((y == 1).any(axis=1), 1, np.where(np.isnan(y).all(axis=1), 2, 0))
    return found
