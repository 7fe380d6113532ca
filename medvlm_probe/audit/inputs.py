"""What an audit looks at: a reference and a new site seen through one model, and the model as it would be run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medvlm_probe.audit.scanners import scanners_of, with_scanners
from medvlm_probe.cohort.cohort import Cohort
from medvlm_probe.cohort.stratify import stratified_parts
from medvlm_probe.errors import InputError
from medvlm_probe.tuning.post_hoc import Calibrator, fit_post_hoc
from medvlm_probe.types import BoolArray, FloatArray, IntArray, Scores
from medvlm_probe.zero_shot.scores import logistic
from medvlm_probe.zero_shot.thresholds import Thresholds, choose_thresholds

FEWEST_PEOPLE = 10
"""Cells with fewer people than this are not shown."""

CHOSEN_ON = "half of the reference"


@dataclass(frozen=True, eq=False)
class Side:
    """The reference or the new site; every array has a row an image of `cohort`.

    Attributes:
        cohort: the images that could be used.
        vectors: before normalisation, (n, D).
        groups: patients, codes that no other side shares, (n,).
        scores: of the labels audited; None where nothing can be scored.
        targets: 1, 0 or NaN, (n, L); NaN throughout for labels that this side does not have.
    """

    cohort: Cohort
    vectors: NDArray[np.float32]
    groups: NDArray[np.int64]
    scores: Scores | None
    targets: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.groups)

    def rows(self, kept: BoolArray) -> Side:
        """Return some of the images, by mask (n,)."""
        return Side(
            self.cohort.select(kept),
            self.vectors[kept],
            self.groups[kept],
            None if self.scores is None else self.scores.rows(kept),
            self.targets[kept],
        )


@dataclass(frozen=True, eq=False)
class Deployed:
    """The model as the site would run it: thresholds and calibration from images of the reference shown nowhere else.

    Attributes:
        thresholds: on the scores.
        calibrator: a logistic curve for each label; None where scores are no logits or probabilities.
        cuts: the least probability that is called, (L,); NaN where a label has no threshold or a falling curve.
    """

    thresholds: Thresholds
    calibrator: Calibrator | None
    cuts: NDArray[np.float64]

    def probabilities(self, scores: Scores) -> NDArray[np.float64] | None:
        """Return P(present) as calibrated at the reference, (n, L), or None."""
        return None if self.calibrator is None else self.calibrator.apply(scores).values.astype(np.float64)

    def called(self, scores: Scores) -> BoolArray:
        """Return which labels are called, (n, L); none where there is no threshold."""
        limits = [self.thresholds.values.get(label, math.inf) for label in scores.labels]
        return np.asarray(scores.values >= np.array(limits))


@dataclass(frozen=True, eq=False)
class AuditInputs:
    """Both sides, and how choices are made.

    Attributes:
        whole_reference: all images of the reference.
        chosen: which of them choices are made on, (n,): thresholds, calibration, outlier scores, referral plans.
        site: the new site, without images and patients that the reference has too.
        labels: those audited.
        deployed: None without labels at the reference, or without scores.
        n_shared: images of the site left out as the reference's own.
        notes: what was decided on the way, a sentence each.
        seed: of everything random.
        by_label_only: the reference's rows stand for patients of a sketch, each label's for others: what takes labels
            together, or a label and anything else, is not to be read off them.
    """

    whole_reference: Side
    chosen: BoolArray
    site: Side
    labels: tuple[str, ...]
    deployed: Deployed | None
    n_shared: int = 0
    notes: tuple[str, ...] = ()
    seed: int = 0
    by_label_only: bool = False

    def rng(self, question: str) -> np.random.Generator:
        """Return a generator of the question's own, so that no question moves another's numbers."""
        return np.random.default_rng([self.seed, *question.encode()])

    @cached_property
    def reference(self) -> Side:
        """The half of the reference that results are compared with: none of it served a choice."""
        return self.whole_reference.rows(~self.chosen)

    @cached_property
    def chosen_on(self) -> Side:
        """The other half."""
        return self.whole_reference.rows(self.chosen)

    def words(self, label: str) -> str:
        """Return a label as people read it, as the reference's card has it."""
        return self.reference.cohort.card.words(label)

    def column(self, label: str) -> int:
        """Return a label's column."""
        return self.labels.index(label)


def targets_of(cohort: Cohort, labels: Sequence[str]) -> NDArray[np.float64]:
    """Return the labels (n, L) as 1, 0 or NaN; a label that the cohort lacks is NaN throughout."""
    found = np.full((len(cohort), len(labels)), np.nan)
    held = [label for label in labels if label in cohort.labels]
    if held:
        found[:, [labels.index(label) for label in held]] = cohort.targets(held)
    return found


def joint_groups(reference: Cohort, site: Cohort) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return group codes of both cohorts in which a patient (study) id that both have has one code."""
    if reference.group_kind == site.group_kind != "image":
        names = [
            np.array(_group_names(cohort, prefix), dtype=object)
            for cohort, prefix in ((reference, "reference"), (site, "site"))
        ]
        codes, _ = pd.factorize(np.concatenate(names))
        return codes[: len(reference)].astype(np.int64), codes[len(reference) :].astype(np.int64)
    own = reference.groups()
    return own, site.groups() + int(own.max(initial=-1)) + 1


def _group_names(cohort: Cohort, prefix: str) -> list[str]:
    """Return `id ...` for images with an id, a name of the group's own for others."""
    given = cohort.table[cohort.group_kind]
    return [
        f"{prefix} {code}" if pd.isna(value) or not str(value) else f"id {value}"
        for value, code in zip(given, cohort.groups().tolist(), strict=True)
    ]


def halves(groups: IntArray, targets: FloatArray, rng: np.random.Generator) -> BoolArray:
    """Return which images are in the first of two halves of the patients, alike in labels, (n,)."""
    names, codes, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if len(names) < 2:
        raise InputError("The reference has one patient: at least two are needed to choose on one and compare with.")
    order = rng.permutation(len(names))
    traits = np.zeros((len(names), targets.shape[1]), dtype=np.int64)
    for k, column in enumerate(targets.T):
        traits[:, k] = np.bincount(codes, weights=column == 1, minlength=len(names))
    parts = np.empty(len(names), dtype=np.int64)
    parts[order] = stratified_parts(sizes[order].astype(np.int64), traits[order], np.array([0.5, 0.5]))
    return np.asarray(parts[codes] == 0)


def deploy(chosen_on: Side) -> Deployed | None:
    """Return thresholds (Youden) and logistic calibration from labelled images; None where there are none."""
    scores = chosen_on.scores
    if scores is None or not (chosen_on.targets == 1).any():
        return None
    return deploy_at(chosen_on, choose_thresholds(scores, chosen_on.targets, rule="youden", source=CHOSEN_ON))


def deploy_at(chosen_on: Side, thresholds: Thresholds) -> Deployed | None:
    """Return thresholds that were chosen, with logistic calibration from the same images; None without scores."""
    scores = chosen_on.scores
    if scores is None:
        return None
    cuts = np.full(len(scores.labels), np.nan)
    if scores.kind == "cosine":
        return Deployed(thresholds, None, cuts)
    calibrator = fit_post_hoc("platt", scores, chosen_on.targets, task="multi_label", source=CHOSEN_ON)
    limits = np.array([[thresholds.values.get(label, np.nan) for label in scores.labels]])
    known = np.isfinite(limits[0])
    filled = Scores(np.where(known, limits, 0.5), scores.kind, scores.labels, ("threshold",))
    rising = np.array([curve.numbers[0] > 0 for curve in calibrator.curves])
    usable = known & rising
    cuts[usable] = calibrator.apply(filled).values[0, usable]
    return Deployed(thresholds, calibrator, cuts)


def raw_probabilities(scores: Scores) -> NDArray[np.float64] | None:
    """Return P(present) as the model itself gives it, (n, L); None for cosines."""
    if scores.kind == "cosine":
        return None
    return scores.values.astype(np.float64) if scores.kind == "probability" else logistic(scores.values)


def make_inputs(
    reference: tuple[Cohort, NDArray[np.float32], Scores | None, Sequence[str]],
    site: tuple[Cohort, NDArray[np.float32], Scores | None, Sequence[str]],
    labels: Sequence[str],
    *,
    seed: int = 0,
    notes: Sequence[str] = (),
) -> AuditInputs:
    """Return what an audit looks at.

    Args:
        reference: cohort, vectors (n, D), scores of `labels` or None, content keys.
        site: the same of the new site; images that the reference has too, and other images of its patients, go.
        labels: those audited; the sides may lack some.
        seed: of the reference's halves and all that follows.
        notes: to hand on.

    Raises:
        InputError: nothing is left of the site, or a reference of one patient.
    """
    names = tuple(labels)
    (own, own_vectors, own_scores, own_keys), (new, new_vectors, new_scores, new_keys) = reference, site
    own, new = with_scanners(own, new)
    own_groups, new_groups = joint_groups(own, new)
    shared = np.isin(new_groups, own_groups) | np.isin(np.array(new_keys, dtype=object), list(set(own_keys)))
    if shared.all():
        raise InputError("Every image or patient of the cohort is in the reference too: there is no new site to audit.")
    first = Side(own, own_vectors, own_groups, own_scores, targets_of(own, names))
    second = Side(new, new_vectors, new_groups, new_scores, targets_of(new, names)).rows(~shared)
    chosen = halves(first.groups, first.targets, np.random.default_rng([seed, 0]))
    said = list(notes)
    if shared.any():
        n = int(shared.sum())
        left_out = "1 image of the cohort was" if n == 1 else f"{n:,} images of the cohort were"
        said.append(f"{left_out} left out: the reference has {'it' if n == 1 else 'them'}, or the patient.")
    return AuditInputs(first, chosen, second, names, deploy(first.rows(chosen)), int(shared.sum()), tuple(said), seed)


def people(groups: IntArray) -> int:
    """Return how many patients (studies, images) there are."""
    return len(np.unique(groups))


def age_bands(cohort: Cohort) -> NDArray[np.object_]:
    """Return each image's age band (n,), "" where the age is not known."""
    if "age" not in cohort.table:
        return np.full(len(cohort), "", dtype=object)
    age = cohort.table["age"].to_numpy(dtype=np.float64)
    bands = np.full(len(age), "", dtype=object)
    for low, high, name in _AGE_BANDS:
        bands[(age >= low) & (age < high)] = name
    return bands


_AGE_BANDS = ((0, 18, "under 18"), (18, 40, "18 to 39"), (40, 60, "40 to 59"), (60, 80, "60 to 79"), (80, 200, "80 on"))

VIEWS: Mapping[str, str] = {
    **{name: name for name in ("PA", "AP", "LATERAL")},
    **dict.fromkeys(("LL", "RL", "L", "LAT"), "LATERAL"),
}
"""The views that are named; others are "other", for a free text could hold anything."""


def views_of(cohort: Cohort) -> NDArray[np.object_]:
    """Return each image's view (n,): of `VIEWS`, "other", or "" where it is not known."""
    if "view" not in cohort.table:
        return np.full(len(cohort), "", dtype=object)
    given = ["" if pd.isna(value) else str(value).strip().upper() for value in cohort.table["view"]]
    return np.array([VIEWS.get(value, "other") if value else "" for value in given], dtype=object)


def sexes_of(cohort: Cohort) -> NDArray[np.object_]:
    """Return each image's sex (n,), "" where it is not known."""
    if "sex" not in cohort.table:
        return np.full(len(cohort), "", dtype=object)
    return np.array(["" if pd.isna(value) else str(value) for value in cohort.table["sex"]], dtype=object)


def sites_of(cohort: Cohort) -> NDArray[np.object_]:
    """Return each image's site (n,), "" where it is not known."""
    return cohort.sites().astype(object)


SUBGROUPS = {"site": sites_of, "view": views_of, "sex": sexes_of, "age": age_bands, "scanner": scanners_of}
"""What images are grouped by: a column, and how it is read."""
