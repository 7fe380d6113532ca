"""What several sources of labels say of the same images, how far conclusions move between them, what correction leaves.

A conclusion about a model is drawn from labels, and labels have errors. Here the same scores, on the same images, are
held against each source in turn; where one source is named as the truth, the others' errors are measured against it on
other patients, and taken off.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.errors import InputError, unknown_name
from medvlm_probe.metrics.agreement import LabelAgreement, label_agreement
from medvlm_probe.metrics.label_correction import (
    corrected_prevalence,
    corrected_recall,
    corrected_specificity,
    labeler_errors,
)
from medvlm_probe.metrics.proportions import proportion
from medvlm_probe.types import BoolArray, Estimate, FloatArray, IntArray, Scores, finite_or_none
from medvlm_probe.zero_shot.label_conclusions import Conclusion, conclusions_by_source
from medvlm_probe.zero_shot.label_sources import LabelSources
from medvlm_probe.zero_shot.thresholds import Thresholds


@dataclass(frozen=True)
class PairAgreement:
    """Two sources, `a` and `b`, on one label."""

    label: str
    a: str
    b: str
    found: LabelAgreement

    def to_json(self) -> dict[str, Any]:
        """Return counts and estimates."""
        f = self.found
        counts = {name: getattr(f, name) for name in ("n_both", "n_only_a", "n_only_b", "n_neither", "n_unknown")}
        return {"label": self.label, "a": self.a, "b": self.b, **counts} | {
            name: getattr(f, name).to_json()
            for name in ("agreement", "kappa", "positive_agreement", "negative_agreement", "a_of_b", "b_of_a")
        }


@dataclass(frozen=True)
class SourceErrors:
    """A source's errors against the truth, on images that nothing else uses; `refused` says why there are none."""

    label: str
    source: str
    sensitivity: Estimate | None
    specificity: Estimate | None
    refused: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the estimates, null where they were refused."""
        return {
            "label": self.label,
            "source": self.source,
            "sensitivity": self.sensitivity.to_json() if self.sensitivity else None,
            "specificity": self.specificity.to_json() if self.specificity else None,
            "refused": self.refused or None,
        }


@dataclass(frozen=True)
class Correction:
    """One quantity by one source: as it stands, with the source's errors taken off, and against the truth itself.

    Attributes:
        metric: `prevalence`, `recall` or `specificity`.
        low_if_dependent, high_if_dependent: what model and source may have in common can move it this far; NaN for
            prevalence, which needs no such assumption.
        independence_refuted: the counts show that model and source err together; `corrected` is then not to be used.
    """

    label: str
    source: str
    metric: str
    apparent: Estimate
    corrected: Estimate
    against_truth: Estimate
    low_if_dependent: float
    high_if_dependent: float
    independence_refuted: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the estimates and the range under dependence; undefined numbers are None."""
        return {
            "label": self.label,
            "source": self.source,
            "metric": self.metric,
            "apparent": self.apparent.to_json(),
            "corrected": self.corrected.to_json(),
            "against_truth": self.against_truth.to_json(),
            "low_if_dependent": finite_or_none(self.low_if_dependent),
            "high_if_dependent": finite_or_none(self.high_if_dependent),
            "independence_refuted": self.independence_refuted,
        }


@dataclass(frozen=True)
class AgreementAnalysis:
    """Everything that `label-agreement` found.

    Attributes:
        sources: their names, the reference first.
        labels: the labels compared.
        pairs: each two sources on each label.
        conclusions: what each source makes of the same scores (or embeddings) on the same images.
        errors, corrections: of the other sources against `truth`; empty without one.
        truth: the source that counts as the truth, "" for none. errors_from: the split that its errors are from.
        thresholds: at which recall and specificity are taken; None for none.
        n_images, n_groups: what was compared.
    """

    sources: tuple[str, ...]
    labels: tuple[str, ...]
    pairs: tuple[PairAgreement, ...]
    conclusions: tuple[Conclusion, ...]
    errors: tuple[SourceErrors, ...]
    corrections: tuple[Correction, ...]
    truth: str
    errors_from: str
    thresholds: Thresholds | None
    n_images: int
    n_groups: int

    def to_json(self) -> dict[str, Any]:
        """Return what the JSON file and `--json` hold."""
        return {
            "sources": list(self.sources),
            "reference": self.sources[0],
            "truth": self.truth or None,
            "errors_from": self.errors_from or None,
            "threshold_from": self.thresholds.source if self.thresholds else None,
            "threshold_rule": self.thresholds.rule if self.thresholds else None,
            "n_images": self.n_images,
            "n_groups": self.n_groups,
            "pairs": [pair.to_json() for pair in self.pairs],
            "conclusions": [entry.to_json() for entry in self.conclusions],
            "errors": [entry.to_json() for entry in self.errors],
            "corrections": [entry.to_json() for entry in self.corrections],
        }


def analyse_label_agreement(
    sources: LabelSources,
    shown: BoolArray,
    *,
    scores: Scores | None = None,
    scored: IntArray | None = None,
    thresholds: Thresholds | None = None,
    embeddings: FloatArray | None = None,
    truth: str = "",
    errors_rows: BoolArray | None = None,
    errors_from: str = "",
) -> AgreementAnalysis:
    """Compare sources on the images shown.

    Args:
        sources: of all images, (n, L) each.
        shown: the images that results are about, (n,).
        scores: a model's scores of some images, larger meaning more likely; labels it lacks have no conclusions.
        scored: which image each row of `scores` is, (m,); those not shown are left out.
        thresholds: label to the least score that counts as present; chosen on images that are not shown.
        embeddings: image vectors of the same m images, for the distances of `embed-dist`.
        truth: the source whose labels count as right.
        errors_rows: images on which the others' errors against it are measured, (n,); none of them shown.
        errors_from: the name of those images, a split.

    Raises:
        UnknownNameError: a truth that is no source.
        InputError: errors measured on patients that are also shown, or shapes that do not fit.
    """
    if truth and truth not in sources.values:
        raise unknown_name("source of labels", truth, sources.values)
    if errors_rows is not None:
        _refuse_shared(sources.groups, shown, errors_rows, errors_from)
    here = sources.rows(shown)
    pairs = tuple(
        PairAgreement(label, a, b, label_agreement(here.values[a][:, k], here.values[b][:, k], here.groups))
        for k, label in enumerate(here.labels)
        for a, b in combinations(here.values, 2)
    )
    conclusions: tuple[Conclusion, ...] = ()
    model: _Model | None = None
    if scores is not None and scored is not None:
        kept = np.asarray(shown)[scored]
        model = _Model(scores.rows(kept), np.asarray(scored)[kept], thresholds)
        of_model = {name: values[model.rows] for name, values in sources.values.items()}
        conclusions = conclusions_by_source(
            of_model,
            sources.labels,
            sources.groups[model.rows],
            scores=model.scores,
            thresholds=thresholds,
            embeddings=embeddings[kept] if embeddings is not None else None,
        )
    errors: list[SourceErrors] = []
    corrections: list[Correction] = []
    if truth and errors_rows is not None:
        for k in range(len(sources.labels)):
            for name in (name for name in sources.values if name != truth):
                measured, corrected = _corrected(sources, shown, errors_rows, truth, name, k, model)
                errors.append(measured)
                corrections += corrected
    return AgreementAnalysis(
        sources=tuple(sources.values),
        labels=sources.labels,
        pairs=pairs,
        conclusions=conclusions,
        errors=tuple(errors),
        corrections=tuple(corrections),
        truth=truth,
        errors_from=errors_from if errors_rows is not None else "",
        thresholds=thresholds,
        n_images=int(np.sum(shown)),
        n_groups=len(np.unique(here.groups)),
    )


@dataclass(frozen=True, eq=False)
class _Model:
    """The scores of the images shown, which images they are, and when a label counts as predicted."""

    scores: Scores
    rows: IntArray
    thresholds: Thresholds | None

    def predicted(self, label: str) -> NDArray[np.bool_] | None:
        """Return the decisions for a label; None without scores or threshold."""
        if self.thresholds is None or label not in self.thresholds.values or label not in self.scores.labels:
            return None
        column = self.scores.values[:, self.scores.labels.index(label)]
        return np.asarray(column >= self.thresholds.values[label])


def _corrected(
    sources: LabelSources, shown: BoolArray, errors_rows: BoolArray, truth: str, name: str, k: int, model: _Model | None
) -> tuple[SourceErrors, list[Correction]]:
    """Return one source's errors on one label, and what it says with them taken off."""
    label, reference, given = sources.labels[k], sources.values[truth][:, k], sources.values[name][:, k]
    try:
        errors = labeler_errors(reference[errors_rows], given[errors_rows], sources.groups[errors_rows])
    except InputError as refusal:
        return SourceErrors(label, name, None, None, refused=str(refusal)), []
    measured = SourceErrors(label, name, errors.sensitivity, errors.specificity)
    rows = np.flatnonzero(shown)

    def known(values: FloatArray, rows: IntArray) -> tuple[NDArray[np.bool_], IntArray, NDArray[np.bool_]]:
        kept = ~np.isnan(values[rows])
        return values[rows][kept] == 1, sources.groups[rows][kept], kept

    labelled, groups, _ = known(given, rows)
    right, right_groups, _ = known(reference, rows)
    found = [
        Correction(
            label,
            name,
            "prevalence",
            proportion(labelled, groups),
            corrected_prevalence(labelled, groups, errors),
            proportion(right, right_groups),
            np.nan,
            np.nan,
        )
    ]
    decisions = model.predicted(label) if model is not None else None
    if model is None or decisions is None:
        return measured, found
    labelled, groups, kept = known(given, model.rows)
    right, right_groups, right_kept = known(reference, model.rows)
    called, right_called = decisions[kept], decisions[right_kept]
    recall = corrected_recall(labelled, called, groups, errors)
    specificity = corrected_specificity(labelled, called, groups, errors)
    truths = (
        proportion(right_called[right], right_groups[right]),
        proportion(~right_called[~right], right_groups[~right]),
    )
    for metric, rate, against in (("recall", recall, truths[0]), ("specificity", specificity, truths[1])):
        bounds = rate.low_if_dependent, rate.high_if_dependent
        found.append(
            Correction(label, name, metric, rate.apparent, rate.corrected, against, *bounds, rate.independence_refuted)
        )
    return measured, found


def _refuse_shared(groups: IntArray, shown: BoolArray, errors_rows: BoolArray, errors_from: str) -> None:
    shared = np.intersect1d(groups[shown], groups[errors_rows])
    if len(shared):
        raise InputError(
            f"{len(shared):,} patients (or studies) are both shown and in '{errors_from}', where the sources' errors "
            "are measured. Name two splits that share none."
        )
