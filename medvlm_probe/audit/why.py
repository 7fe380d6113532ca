"""Why did it move: which acquisition transforms of the reference's own images explain the distance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from medvlm_probe.audit.inputs import AuditInputs
from medvlm_probe.cohort.acquisition import ACQUISITIONS, chained
from medvlm_probe.embeddings.acquisition_embeddings import AcquisitionEmbeddings, acquisition_embeddings
from medvlm_probe.embeddings.acquisition_words import PARTS, attribution_sentence, parts_of, words_of
from medvlm_probe.models.contract import VisionLanguageModel
from medvlm_probe.shift.attribution import Attribution, attribute_shift
from medvlm_probe.shift.attribution_pairs import promising_pairs
from medvlm_probe.types import Estimate, FloatArray, Scores
from medvlm_probe.zero_shot.acquisition_sensitivity import acquisition_sensitivity, most_affected

TRIED = (
    *("resolution/v1@128", "resolution/v1@96", "resolution/v1@64", "blur/v1@1", "blur/v1@2"),
    *("aspect/v1@0.85", "aspect/v1@1.18", "contrast/v1@0.7", "contrast/v1@1.4", "gamma/v1@0.7", "gamma/v1@1.4"),
    *("window/v1@-10", "window/v1@10", "noise/v1@2000", "noise/v1@500", "jpeg/v1@25", "collimation/v1@5"),
    *("rotation/v1@6", "marker/v1@10", "inversion/v1@25"),
)
"""The transforms that are tried: one or two levels of each kind."""

ENOUGH = 0.9
"""Where one transform explains this share, no pair is tried."""

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
            "parts": [
                {"part": name, "explained_by": PARTS[name], "share": share.to_json()}
                for name, share in parts_of(f).items()
            ],
            "families": dict(f.families),
            "transforms": [
                {"transform": t.name, "explained_by": words_of(t.name), "family": t.family, "share": t.share.to_json()}
                for t in f.transforms
            ],
            "largest_auroc_changes": _largest(self.sensitivity),
            "n_images": self.n_images,
            "n_computed": self.n_computed,
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

    def passes(names: Sequence[str]) -> AcquisitionEmbeddings:
        return acquisition_embeddings(
            inputs.whole_reference.cohort,
            model,
            names,
            max_images=n_images,
            precision=precision,
            workers=workers,
            say=say,
        )

    embedded = [passes(TRIED)]

    def with_pairs(names: Sequence[str]) -> Mapping[str, FloatArray]:
        embedded.append(passes(names))
        return embedded[-1].transformed

    singles = embedded[0]
    found = attribute_with_pairs(
        singles.untouched,
        inputs.site.vectors,
        singles.transformed,
        with_pairs,
        reference_groups=[f"reference {group}" for group in singles.cohort.groups().tolist()],
        site_groups=[f"site {group}" for group in inputs.site.groups.tolist()],
        rng_of=inputs.rng,
    )
    return Why(
        found,
        _sensitivity(inputs, singles, score),
        len(singles.cohort),
        sum(part.n_computed for part in embedded),
        sum(sum(part.seconds.values()) for part in embedded),
    )


def attribute_with_pairs(
    reference: FloatArray,
    site: FloatArray,
    transformed: Mapping[str, FloatArray],
    embed_pairs: Callable[[Sequence[str]], Mapping[str, FloatArray]] | None,
    *,
    reference_groups: Sequence[str],
    site_groups: Sequence[str],
    rng_of: Callable[[str], np.random.Generator],
) -> Attribution:
    """Return the attribution to single transforms, or with the most promising pairs where these leave a distance.

    Args:
        reference, site, transformed, reference_groups, site_groups: as for `attribute_shift`.
        embed_pairs: from names such as `blur/v1@1+jpeg/v1@25` to the reference's embeddings under them; None tries no
            pair.
        rng_of: a fresh generator for a purpose.
    """
    attribute = partial(attribute_shift, reference_groups=reference_groups, site_groups=site_groups)
    found = attribute(reference, site, transformed, rng=rng_of("why"))
    settled = found.verdict in ("no distance", "other patients") or found.parts.best.value >= ENOUGH
    if settled or embed_pairs is None:
        return found
    pairs = promising_pairs(
        reference,
        site,
        transformed,
        reference_groups=reference_groups,
        site_groups=site_groups,
        rng=rng_of("why"),
    )
    if not pairs:
        return found
    tried = {**transformed, **embed_pairs([chained(pair) for pair in pairs])}
    return attribute(reference, site, tried, rng=rng_of("why"))


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
    ends = ("value", "low", "high", "n", "n_groups", "method", "reliable")
    return [
        {
            "transform": ACQUISITIONS[row["transform"]].step(row["level"]).words,
            "label": row["label"],
            "auroc_change": Estimate(*(row[name] for name in ends)).to_json(),
        }
        for row in most_affected(table).head(5).to_dict("records")
    ]
