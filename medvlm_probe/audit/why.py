"""Why did it move: which acquisition transforms of the reference's own images explain the distance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from medvlm_probe.audit.inputs import AuditInputs
from medvlm_probe.embeddings.acquisition_embeddings import AcquisitionEmbeddings, acquisition_embeddings
from medvlm_probe.embeddings.acquisition_words import attribution_sentence, words_of
from medvlm_probe.models.contract import VisionLanguageModel
from medvlm_probe.shift.attribution import Attribution, attribute_shift
from medvlm_probe.types import Scores
from medvlm_probe.zero_shot.acquisition_sensitivity import acquisition_sensitivity, most_affected

TRIED = (
    *("resolution/v1@128", "resolution/v1@96", "resolution/v1@64", "blur/v1@1", "blur/v1@2"),
    *("aspect/v1@0.85", "aspect/v1@1.18", "contrast/v1@0.7", "contrast/v1@1.4", "gamma/v1@0.7", "gamma/v1@1.4"),
    *("window/v1@-10", "window/v1@10", "noise/v1@2000", "noise/v1@500", "jpeg/v1@25", "collimation/v1@5"),
    *("rotation/v1@6", "marker/v1@10", "inversion/v1@25"),
)
"""The transforms that are tried: one or two levels of each kind."""

IMAGES = 150
"""Images of the reference that go through each transform."""

NOT_ASKED = "Not computed: it sends images through the model once for each transform. Ask for it with --why."


@dataclass(frozen=True, eq=False)
class Why:
    """The attribution, and what each transform does to scores.

    Attributes:
        found: shares of the distance explained.
        sensitivity: of `acquisition_sensitivity`: each label's score, recall and AUROC under each transform.
        n_images: images of the reference that were transformed.
        n_computed: passes through the model now; the rest was in the cache.
        seconds: of the passes.
    """

    found: Attribution
    sensitivity: pd.DataFrame | None
    n_images: int
    n_computed: int
    seconds: float

    @property
    def sentence(self) -> str:
        """Why it moved."""
        return attribution_sentence(self.found)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values; sensitivity stands in a CSV, here its largest effects."""
        f = self.found
        return {
            "sentence": self.sentence,
            "verdict": f.verdict,
            "distance": f.distance.to_json(),
            "chance": f.chance,
            "parts": {name: share.to_json() for name, share in vars(f.parts).items()},
            "families": dict(f.families),
            "transforms": [
                {"transform": t.name, "words": words_of(t.name), "share": t.share.to_json()} for t in f.transforms
            ],
            "largest_auroc_changes": _largest(self.sensitivity),
            "n_images": self.n_images,
            "n_computed": self.n_computed,
            "seconds": round(self.seconds, 1),
        }


def examine_why(
    inputs: AuditInputs,
    model: VisionLanguageModel,
    score: Callable[[np.ndarray[Any, Any]], Scores] | None,
    *,
    precision: str = "auto",
    workers: int | None = None,
    n_images: int = IMAGES,
    say: Callable[[str], None] | None = None,
) -> Why:
    """Return what explains the distance.

    Args:
        inputs: of the audit.
        model: that the vectors are of.
        score: from vectors to scores of the audited labels; None where nothing is scored.
        precision, workers: of the passes.
        n_images: of the reference, at most.
        say: told how far it is.

    Raises:
        InputError: too few people on a side.
    """
    embedded = acquisition_embeddings(
        inputs.whole_reference.cohort,
        model,
        TRIED,
        max_images=n_images,
        precision=precision,
        workers=workers,
        say=say,
    )
    own = [f"reference {group}" for group in embedded.cohort.groups().tolist()]
    other = [f"site {group}" for group in inputs.site.groups.tolist()]
    found = attribute_shift(
        embedded.untouched,
        inputs.site.vectors,
        embedded.transformed,
        reference_groups=own,
        site_groups=other,
        rng=inputs.rng("why"),
    )
    return Why(
        found,
        _sensitivity(inputs, embedded, score),
        len(embedded.cohort),
        embedded.n_computed,
        sum(embedded.seconds.values()),
    )


def _sensitivity(
    inputs: AuditInputs, embedded: AcquisitionEmbeddings, score: Callable[[np.ndarray[Any, Any]], Scores] | None
) -> pd.DataFrame | None:
    if score is None or not set(inputs.labels) <= set(embedded.cohort.labels):
        return None
    thresholds = inputs.deployed.thresholds.values if inputs.deployed else None
    return acquisition_sensitivity(embedded, score, thresholds=thresholds)


def _largest(table: pd.DataFrame | None) -> list[dict[str, Any]]:
    if table is None:
        return []
    rows = most_affected(table).head(5)
    return [
        {"transform": r["transform"], "level": r["level"], "label": r["label"], "change": round(r["value"], 4)}
        for r in rows.to_dict("records")
    ]
