"""Traps that make an audit's numbers mislead: children, no negatives, labels that acquisition gives away, sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medvlm_probe.audit.age_probe import CHILD_YEARS, Childlike
from medvlm_probe.audit.facts import FactsFound, manifest_facts
from medvlm_probe.audit.inputs import FEWEST_PEOPLE, AuditInputs, Side, people
from medvlm_probe.cohort.cohort import Cohort
from medvlm_probe.cohort.labels import display_name
from medvlm_probe.shift.nuisance_probes import nuisance_probes
from medvlm_probe.types import Estimate

SHORTCUT_AUROC = 0.7
"""A label that facts tell on held-out patients with an AUROC whose lower bound is above this differs in acquisition."""

CHILD_SHARE = 0.05
N_BANDS = 8

FACT_WORDS = {
    "number": "the order of patient numbers",
    "site": "the site",
    "view": "the view",
    "age": "the age",
    "sex": "the sex",
}
"""What `fact_matrix` holds, for people."""


@dataclass(frozen=True)
class Trap:
    """One trap.

    Attributes:
        kind: `children`, `recall_only`, `shortcut`, `resolution`, `no_groups`, `training`, `labels_missing`,
            `no_positives`, `age_unknown`.
        sentence: what to know, in one sentence.
        labels: those concerned; empty where all are.
        estimate: what it rests on, where there is a number.
    """

    kind: str
    sentence: str
    labels: tuple[str, ...] = ()
    estimate: Estimate | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {**vars(self), "labels": list(self.labels), "estimate": self.estimate and self.estimate.to_json()}


def find_traps(
    inputs: AuditInputs,
    facts: FactsFound | None,
    *,
    childlike: Childlike | None = None,
    seen: Sequence[str] = (),
) -> tuple[Trap, ...]:
    """Return the traps found.

    Args:
        inputs: of the audit.
        facts: of acquisition; None where none were read.
        childlike: what an age probe says of sites without ages; None without one.
        seen: sentences on images that the model has seen in training.
    """
    found = [*_one_sided(inputs.site.cohort), *_missing(inputs), *_children(inputs, childlike)]
    found += _shortcuts(inputs)
    found += _resolution(facts)
    if inputs.site.cohort.group_kind == "image":
        found.append(
            Trap(
                "no_groups", "No patient or study is given: each image counts as a patient, so intervals may be narrow."
            )
        )
    found += [Trap("training", sentence) for sentence in seen]
    return tuple(found)


def _one_sided(cohort: Cohort) -> list[Trap]:
    """Return the labels that are only ever present, or only ever absent, at the site, audited or not."""
    y = cohort.targets()
    only_present, only_absent = [], []
    for k, label in enumerate(cohort.labels):
        present, absent = bool((y[:, k] == 1).any()), bool((y[:, k] == 0).any())
        if present and not absent:
            only_present.append(label)
        if absent and not present:
            only_absent.append(label)
    found = []
    if only_present:
        has = _verb(only_present, "has", "have")
        sentence = f"{_named(only_present)} {has} no absent examples at the site: recall only, no AUROC or specificity."
        found.append(Trap("recall_only", sentence, tuple(only_present)))
    if only_absent:
        has = _verb(only_absent, "has", "have")
        sentence = f"{_named(only_absent)} {has} no present examples at the site: nothing can be said of finding them."
        found.append(Trap("no_positives", sentence, tuple(only_absent)))
    return found


def _missing(inputs: AuditInputs) -> list[Trap]:
    empty = [
        label
        for k, label in enumerate(inputs.labels)
        if np.isnan(inputs.site.targets[:, k]).all() and not np.isnan(inputs.whole_reference.targets[:, k]).all()
    ]
    if not empty:
        return []
    if len(empty) == len(inputs.labels):
        said = "None of the audited labels is known at the site"
    else:
        said = f"{_named(empty)} {_verb(empty, 'is', 'are')} not known at the site"
    return [Trap("labels_missing", f"{said}: not stated is not absent.", tuple(empty))]


def _children(inputs: AuditInputs, childlike: Childlike | None) -> list[Trap]:
    ages = [manifest_facts(side.cohort)["age"].to_numpy() for side in (inputs.whole_reference, inputs.site)]
    site = ages[1][np.isfinite(ages[1])]
    found = []
    if len(site):
        share = float((site < CHILD_YEARS).mean())
        before = ages[0][np.isfinite(ages[0])]
        known = (
            f"{100 * (before < CHILD_YEARS).mean():.0f} % at the reference"
            if len(before)
            else "the reference gives no ages"
        )
        few = people(inputs.site.groups[ages[1] < CHILD_YEARS]) < FEWEST_PEOPLE
        if share >= CHILD_SHARE and not few:
            sentence = f"{100 * share:.0f} % of the images with an age are of patients under 18 ({known})."
            found.append(Trap("children", sentence))
        return found
    if childlike is None:
        sentence = "Ages are not given: whether children are among the patients cannot be told."
        return [Trap("age_unknown", f"{sentence} A cohort with ages would teach an age probe: --ages-from.")]
    site_share, before = (f"{100 * share.value:.0f} %" for share in (childlike.site, childlike.reference))
    how = f"an age probe learnt elsewhere (AUROC {childlike.auroc.value:.2f} on held-out patients there)"
    if childlike.more.low > CHILD_SHARE:
        sentence = f"Ages are not given, but to {how} {site_share} of the images look like children's, {before} of the "
        return [Trap("children", f"{sentence}reference's: ask who the patients are.", estimate=childlike.more)]
    sentence = f"Ages are not given; to {how} no more images look like children's than at the reference"
    return [Trap("age_unknown", f"{sentence} ({site_share}, {before} there).", estimate=childlike.more)]


def _shortcuts(inputs: AuditInputs) -> list[Trap]:
    """Return the labels that facts of acquisition and of patients tell without a look at the finding."""
    site = inputs.site
    table = fact_matrix(site)
    if not table.shape[1]:
        return []
    y = site.targets
    facts = {
        label: np.where(np.isnan(y[:, k]), "", np.where(y[:, k] == 1, "present", "absent"))
        for k, label in enumerate(inputs.labels)
        if min(people(site.groups[y[:, k] == kind]) for kind in (1, 0)) >= 2 * FEWEST_PEOPLE
    }
    if not facts:
        return []
    probes = nuisance_probes(table.to_numpy(), facts, site.groups, space="raw", rng=inputs.rng("shortcuts"))
    caught = sorted((p for p in probes if p.auroc.low > SHORTCUT_AUROC), key=lambda p: -p.auroc.value)
    if not caught:
        return []
    first, labels = caught[0].auroc, tuple(p.fact for p in caught)
    facts_known = [words for name, words in FACT_WORDS.items() if any(str(c).startswith(f"{name}_") for c in table)]
    known = " and ".join(filter(None, (", ".join(facts_known[:-1]), facts_known[-1])))
    tell = _verb(facts_known, "tells", "tell")
    return [
        Trap(
            "shortcut",
            f"{_named(labels)}: labels differ in acquisition. Without a look at any image, {known} alone {tell} "
            f"present from absent images (AUROC up to {first.value:.2f} [{first.low:.2f}, {first.high:.2f}]), so a "
            "score may show where and when images were taken, not the finding.",
            labels,
            first,
        )
    ]


def fact_matrix(side: Side) -> pd.DataFrame:
    """Return what is known of each image without a look at it, as 0 and 1, (n, F): never written anywhere.

    View, sex, age in bands, the order of the patients' numbers in bands (patients of one time have near numbers), and
    the site: categories as columns of their own, with a column for "not known".
    """
    facts = manifest_facts(side.cohort)[["view", "sex"]].astype(str)
    facts["site"] = side.cohort.sites()
    age = manifest_facts(side.cohort)["age"]
    facts["age"] = _banded(age.to_numpy())
    facts["number"] = _banded(patient_numbers(side.cohort))
    varying = [name for name in facts if facts[name].nunique() > 1]
    return pd.get_dummies(facts[varying], dtype=float) if varying else pd.DataFrame(index=range(len(side)))


def patient_numbers(cohort: Cohort) -> NDArray[np.float64]:
    """Return the last number in each patient's id (n,), NaN where there is none: its order is that of registration."""
    if "patient" not in cohort.table:
        return np.full(len(cohort), np.nan)
    digits = cohort.table["patient"].astype(str).str.extract(r"(\d{2,15})\D*$")[0]
    return np.asarray(digits.astype(float), dtype=np.float64)


def _banded(values: NDArray[np.float64]) -> NDArray[np.object_]:
    known = np.isfinite(values)
    bands = np.full(len(values), "", dtype=object)
    if known.any():
        edges = np.unique(np.quantile(values[known], np.linspace(0, 1, N_BANDS + 1)[1:-1]))
        bands[known] = np.searchsorted(edges, values[known], side="right").astype(str)
    return bands


def _resolution(facts: FactsFound | None) -> list[Trap]:
    if facts is None:
        return []
    different = {test.fact for test in facts.different}
    if not different & {"width", "height", "aspect"}:
        return []
    sizes = [facts.medians.get(name, (np.nan, np.nan)) for name in ("width", "height")]
    there, here = (f"{sizes[0][side]:.0f} x {sizes[1][side]:.0f}" for side in (0, 1))
    square = facts.medians.get("aspect", (np.nan, np.nan))
    extra = ""
    if square[0] == 1.0 != square[1] or square[1] == 1.0 != square[0]:
        extra = "; one side's images are square, which squashes the chest if they were made so"
    if not all(np.isfinite(size) for pair in sizes for size in pair):
        text = "other proportions"
    elif there == here:
        text = f"sizes vary otherwise, though the median is {here} pixels on both sides"
    else:
        text = f"median {here} pixels against {there} at the reference"
    return [
        Trap(
            "resolution",
            f"Images are stored differently ({text}{extra}): part of any distance is preprocessing, not patients.",
        )
    ]


def _verb(labels: Sequence[str], one: str, several: str) -> str:
    return one if len(labels) == 1 else several


def _named(labels: Sequence[str]) -> str:
    words = [display_name(label) for label in labels[:4]]
    return ", ".join(words) + (f" and {len(labels) - 4} more" if len(labels) > 4 else "")
