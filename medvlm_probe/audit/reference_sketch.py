"""A reference that is a sketch, as an audit looks at it: patients that stand for each label's scores, and no images.

Every label's column has its own patients, drawn up from the cells of its scores: what is measured label by label holds,
what takes labels together does not. Each patient of the reference counts once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL.Image import Image
from scipy import special

from medvlm_probe.audit.inputs import (
    CHOSEN_ON,
    AuditInputs,
    Deployed,
    Side,
    deploy_at,
    halves,
    raw_probabilities,
    targets_of,
)
from medvlm_probe.cohort.cohort import Cohort
from medvlm_probe.cohort.data_cards import DataCard
from medvlm_probe.errors import ImageError, InputError
from medvlm_probe.models.contract import VisionLanguageModel
from medvlm_probe.shift.sketch import Sketch
from medvlm_probe.shift.sketch_cells import StandIns, stand_ins
from medvlm_probe.shift.sketch_plan import SketchPlan
from medvlm_probe.types import FloatArray, ScoreKind, Scores
from medvlm_probe.zero_shot.thresholds import choose_thresholds

MOST = 20_000
"""Patients that stand for a larger reference: the intervals are those of so many."""

NO_NOISE = 0.05
"""A label whose count of patients an export's noise moves by more than this share (one standard deviation) is not told
of."""


@dataclass(frozen=True)
class NoImages:
    """The pixels of patients that only stand for others: there are none."""

    n: int
    recipe: str = "none"
    settings: str = ""

    def __len__(self) -> int:
        return self.n

    def content_key(self, row: int) -> str:
        """Raise ImageError."""
        raise ImageError("missing_file", f"Row {row} of a sketch has no image.")

    def read(self, row: int) -> Image:
        """Raise ImageError."""
        raise ImageError("missing_file", f"Row {row} of a sketch has no image.")

    def read_with_key(self, row: int) -> tuple[Image, str]:
        """Raise ImageError."""
        raise ImageError("missing_file", f"Row {row} of a sketch has no image.")

    def rows(self, index: Sequence[int]) -> NoImages:
        """Return as many rows."""
        return replace(self, n=len(index))


@dataclass(frozen=True, eq=False)
class SketchedSide:
    """A sketch as a side of an audit.

    Attributes:
        sketch: what was read.
        side: one row a patient; vectors have no dimensions.
        cells: label to its patients' cells; labels that are not told are missing.
    """

    sketch: Sketch
    side: Side
    cells: Mapping[str, StandIns]

    def snapped(self, scores: Scores) -> Scores:
        """Return other images' scores as coarse as this sketch tells its own, so that both can be compared."""
        p = raw_probabilities(scores)
        if p is None:
            return scores
        values = p.copy()
        for k, label in enumerate(scores.labels):
            if label in self.cells:
                values[:, k] = self.cells[label].snapped(p[:, k])
        return Scores(_as_scores(values, scores.kind), scores.kind, scores.labels, scores.ids)


def refuse_other_model(plan: SketchPlan, model: VisionLanguageModel, prompts: str) -> None:
    """Raise InputError unless a sketch was made with this model and, where it has labels, these prompts.

    Args:
        plan: of the sketch.
        model: of the audit.
        prompts: what makes the audit's probabilities, as `cohort_sketch.words_of_prompts` says it.
    """
    if model.fingerprint != plan.fingerprint:
        same = " of the same name, but with other weights or another recipe" if model.name == plan.model else ""
        raise InputError(
            f"The sketch was made with {plan.model}, and the audit's model is {model.name}{same}: their numbers cannot "
            "be compared. Name the model of the sketch, or have the sketch made with this one."
        )
    if plan.prompts and prompts != plan.prompts:
        raise InputError(
            f"The sketch's probabilities come from other prompts ({plan.prompts}) than the audit's ({prompts}). Name "
            "the same --prompts, or have the sketch made with these."
        )


def sketched_side(
    sketch: Sketch, labels: Sequence[str], kind: ScoreKind, *, seed: int, first_group: int = 0
) -> SketchedSide:
    """Return a sketch as a side.

    Args:
        sketch: of either kind.
        labels: those audited, among the plan's.
        kind: of the scores that it is held against, `logit` or `probability`.
        seed: deals each label's patients to rows.
        first_group: the patients' codes go on from here.
    """
    n = max(2, round(min(sketch.n_patients, MOST)))
    rng = np.random.default_rng([seed, 3])
    # Probabilities of patients whose label is not told are never looked at.
    p, y = np.full((n, len(labels)), 0.5), np.full((n, len(labels)), np.nan)
    cells = {}
    for k, label in enumerate(labels):
        found = stand_ins(sketch, sketch.plan.labels.index(label), most=MOST)
        if found is not None and not _drowned(sketch, found):
            cells[label] = found
            rows = rng.permutation(n)[: len(found.cell)]
            p[rows, k] = found.centres[found.cell[: len(rows)]]
            y[rows, k] = found.present[: len(rows)]
    ids = tuple(f"stand-in {row}" for row in range(n))
    table = pd.DataFrame(
        {"image": list(ids), "patient": list(ids)}
        | {label: y[:, k].astype(np.float32) for k, label in enumerate(labels)}
    )
    card = DataCard(name="sketch", title=f"A sketch of {round(sketch.n_patients):,} patients; no card comes with it")
    cohort = Cohort("sketch", table, tuple(labels), "ignore", NoImages(n), card)
    scores = Scores(_as_scores(p, kind), kind, tuple(labels), ids) if labels else None
    side = Side(cohort, np.zeros((n, 0), dtype=np.float32), np.arange(n) + first_group, scores, y)
    return SketchedSide(sketch, side, cells)


def sketched_inputs(
    reference: SketchedSide, site: Side, labels: Sequence[str], *, seed: int, notes: Sequence[str] = ()
) -> AuditInputs:
    """Return what an audit looks at, half of the reference's stand-ins serving choices.

    Args:
        reference: as `sketched_side` makes it, of groups that the site does not share.
        site: the new site.
        labels: those audited.
        seed: of the halves and all that follows.
        notes: to hand on.
    """
    side = reference.side
    chosen = halves(side.groups, side.targets, np.random.default_rng([seed, 0]))
    deployed = deploy_between_cells(reference, side.rows(chosen))
    said = (*notes_of(reference), *notes)
    return AuditInputs(side, chosen, site, tuple(labels), deployed, 0, said, seed, by_label_only=True)


def site_of_images(
    cohort: Cohort, vectors: NDArray[np.float32], scores: Scores | None, labels: Sequence[str], first_group: int
) -> Side:
    """Return the new site's images as a side, patients' codes going on from `first_group`."""
    return Side(cohort, vectors, cohort.groups() + first_group, scores, targets_of(cohort, tuple(labels)))


def deploy_between_cells(reference: SketchedSide, chosen_on: Side) -> Deployed | None:
    """Return the model as it would be run: thresholds on walls of cells, which split no cell of the reference's."""
    scores = chosen_on.scores
    if scores is None or not (chosen_on.targets == 1).any():
        return None
    found = choose_thresholds(scores, chosen_on.targets, rule="youden", source=CHOSEN_ON)
    values = {}
    for label, value in found.values.items():
        cells = reference.cells[label]
        below = np.searchsorted(_as_scores(cells.centres, scores.kind), value) - 1
        held = np.unique(cells.cell)
        below = held[held <= below].max(initial=-1)
        inside = 0 <= below < len(cells.walls)
        values[label] = float(_as_scores(cells.walls, scores.kind)[below]) if inside else value
    return deploy_at(chosen_on, replace(found, values=values))


def notes_of(reference: SketchedSide) -> tuple[str, ...]:
    """Return what people should know of an audit against a sketch, a sentence each."""
    sketch = reference.sketch
    kind = "an exported sketch" if sketch.kind == "export" else "a working sketch"
    found = [
        f"The reference is {kind} of {round(sketch.n_patients):,} patients. Each of them counts once, at the middle of "
        "the cell that its score lies in; that both sides share no patient cannot be checked."
    ]
    if sketch.n_patients > MOST:
        found.append(f"{MOST:,} patients stand for the reference's, so its intervals are wider than they need be.")
    if sketch.privacy:
        found.append(
            "The reference's sketch holds noise (epsilon {epsilon:g}, delta {delta:g} a patient): what it tells of "
            "labels is less certain than its intervals say.".format(**sketch.privacy)
        )
    lost = [label for label in reference.side.cohort.labels if label not in reference.cells]
    if lost:
        found.append(f"The sketch does not tell of {len(lost)} labels: too few patients with or without them.")
    return tuple(found)


def _drowned(sketch: Sketch, found: StandIns) -> bool:
    """Return whether noise drowns a label's counts."""
    sd = sketch.noise.get("label_weights", 0.0) * math.sqrt(len(found.centres))
    fewest = min(int(found.present.sum()), int((~found.present).sum()))
    return sd > NO_NOISE * fewest


def _as_scores(probabilities: FloatArray, kind: ScoreKind) -> NDArray[np.float64]:
    values = np.asarray(probabilities, dtype=np.float64)
    return np.asarray(special.logit(values)) if kind == "logit" else values
