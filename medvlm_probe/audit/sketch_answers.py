"""What an audit answers when its reference is a sketch: from its sums, from patients that stand in, or not at all."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.audit.calibration import Calibration, SideCalibration
from medvlm_probe.audit.differences import difference
from medvlm_probe.audit.inputs import SUBGROUPS, AuditInputs
from medvlm_probe.audit.label_frequency import LabelFrequencies, LabelFrequency, estimate_frequencies
from medvlm_probe.audit.outlying import EXPECTED, Outlying
from medvlm_probe.audit.performance_by_site import Cell, Performance
from medvlm_probe.audit.practice import Practice
from medvlm_probe.audit.reference_sketch import MOST, SketchedSide
from medvlm_probe.audit.without_labels import LabelFree, estimate_without_labels
from medvlm_probe.errors import InputError
from medvlm_probe.metrics.calibration import CalibrationEstimate
from medvlm_probe.shift.nuisance_probes import NuisanceProbe, nuisance_probes
from medvlm_probe.shift.outlier_scores import METHODS
from medvlm_probe.shift.outliers import (
    OutlierThreshold,
    choose_threshold,
    conformal_p_values,
    outlier_performance,
    share_above,
)
from medvlm_probe.shift.shift_tests import ShiftReport, ShiftResult
from medvlm_probe.shift.sketch import Sketch
from medvlm_probe.shift.sketch_cells import outlier_cells, outlier_centres, whole_patients
from medvlm_probe.shift.sketch_distance import FEWEST_FOR_TEST, SketchDistance, sketch_distance
from medvlm_probe.shift.sketch_plan import OUTLIER_EDGES
from medvlm_probe.types import Estimate, TestResult

NOT_FROM_A_SKETCH: Mapping[str, str] = {
    "facts": "The reference is a sketch, which holds no facts of acquisition or of patients to compare with.",
    "what_moved": "Findings that became more frequent and images that look different are told apart by the reference's "
    "own vectors, and a sketch holds none.",
    "shift_by_label": "It compares vectors of images with one label, and a sketch tells of all images together.",
    "why": "It changes the reference's own images, and a sketch holds none.",
    "crowding": "It compares distances between vectors with the reference's, and a sketch holds none; 'embed-dist' "
    "measures those of the site.",
    "repair": "Repairs are fitted beside the reference's vectors, and a sketch holds none.",
}
"""Questions that need the reference's images or vectors, and why each is left open."""

LOOK_UNKNOWN = "As the images differ, and a sketch does not tell whether in look or in how many have findings"
Ask = Callable[[], Any]
JOINT = "of labels together; a sketch does not tell which patients they share"


@dataclass(frozen=True, eq=False)
class SketchShift:
    """How far two sketches are apart, and what can be read off the site's own embeddings.

    Attributes:
        report: `mmd` with its interval, and a p-value where one was measured to hold; `frechet` without either.
        probes: of the site; none where it is a sketch too.
        mean_distance: squared distance of mean vectors, freed from what few patients add; 0 on average without a shift.
    """

    report: ShiftReport
    probes: tuple[NuisanceProbe, ...]
    mean_distance: float

    @property
    def sentence(self) -> str:
        """Whether the images moved, and how far."""
        (mmd, _) = self.report.tests
        numbers = f"squared MMD {mmd.effect.value:.3f} [{mmd.effect.low:.3f}, {mmd.effect.high:.3f}], from sketches"
        if not math.isfinite(mmd.effect.low):
            return f"Squared MMD is {mmd.effect.value:.3f}, from sketches of too few patients for an interval."
        if math.isnan(mmd.p_value):
            fewer = f"without a p-value, as a side has fewer than {FEWEST_FOR_TEST} patients"
            said = "The images differ from" if mmd.effect.low > 0 else "The images are not shown to differ from"
            return f"{said} the reference's: {numbers}, {fewer}."
        if mmd.p_value >= 0.05:
            return f"No shift was found that chance would not make: {numbers} (p {mmd.p_value:.2g})."
        return f"The images differ from the reference's: {numbers} (p {mmd.p_value:.2g})."

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {
            "sentence": self.sentence,
            **self.report.to_json(),
            # Sketches do not tell whom both sides have.
            "n_shared_groups": None,
            "n_left_out": None,
            "nuisance_probes": [probe.to_json() for probe in self.probes],
            "squared_distance_of_means": self.mean_distance,
        }


@dataclass(frozen=True, eq=False)
class AgainstSketch:
    """An audit against a sketch.

    Attributes:
        reference: the sketch as a side.
        site_sketch: of the site, by the same plan.
        inputs: of the audit.
        outlier_scores: name to the site's scores, (m,).
    """

    reference: SketchedSide
    site_sketch: Sketch
    inputs: AuditInputs
    outlier_scores: Mapping[str, NDArray[np.float64]]

    def instead(self) -> dict[str, Callable[[Ask], Any]]:
        """Return question to how it is answered: each is given how it would be answered from images."""
        refusals = {name: _refusal(reason) for name, reason in NOT_FROM_A_SKETCH.items()}
        return refusals | {
            "shift": lambda _: self.shift(),
            "outliers": lambda _: self.outliers(),
            "label_shift": lambda _: self.label_shift(),
            "label_free": lambda _: self.label_free(),
            "performance": lambda ask: self.performance(ask()),
            "calibration": lambda ask: self.calibration(ask()),
            "practice": lambda ask: _by_label(ask()),
        }

    @cached_property
    def distance(self) -> SketchDistance:
        """How far the two sketches are apart."""
        return sketch_distance(self.reference.sketch, self.site_sketch)

    def shift(self) -> SketchShift:
        """Return the distance between both sketches, and what the site's embeddings tell of its subgroups."""
        start = time.perf_counter()
        first, second, distance = self.reference.sketch, self.site_sketch, self.distance
        p = distance.test.p_value if distance.test else math.nan
        features = first.plan.features
        settings = f"{features.n_features:,} random features, bandwidth {features.bandwidth:g} of the reference"
        undefined = Estimate(
            distance.frechet,
            math.nan,
            math.nan,
            distance.mmd.n,
            distance.mmd.n_groups,
            "Fréchet distance of sketches, above 0 also without a shift",
        )
        taken = time.perf_counter() - start
        none = (math.nan,) * 3
        tests = (
            ShiftResult("mmd", distance.mmd.value, distance.mmd, p, p, none, 0, settings, taken),
            ShiftResult("frechet", distance.frechet, undefined, math.nan, math.nan, none, 0, "no null", 0.0),
        )
        site = self.inputs.site
        images = [s.images[0] if math.isfinite(s.images[0]) else s.n_patients for s in (first, second)]
        report = ShiftReport(
            tests,
            (round(float(images[0])), round(float(images[1]))),
            (round(first.n_patients), round(second.n_patients)),
            0,
            0,
        )
        facts = {name: read(site.cohort) for name, read in SUBGROUPS.items()}
        probes = nuisance_probes(site.vectors, facts, site.groups, rng=self.inputs.rng("probes"))
        return SketchShift(report, probes, distance.frechet_mean)

    def outliers(self) -> Outlying:
        """Return the outlier scores that the sketch has quantiles of; those that need a fit are left out.

        Raises:
            InputError: it has none.
        """
        sketch, site = self.reference.sketch, self.inputs.site
        left_out = dict.fromkeys(METHODS, "The sketch holds no quantiles of it.")
        found = {}
        for k, name in enumerate(sketch.plan.outlier_scores):
            cells, new = outlier_cells(sketch, k), self.outlier_scores[name]
            left_out.pop(name, None)
            if cells is None:
                left_out[name] = "The sketch tells nothing of it."
                continue
            scale = min(1.0, MOST / sketch.n_patients)
            centres, walls = outlier_centres(cells.ends), OUTLIER_EDGES[cells.ends[:-1]]
            own = np.repeat(centres, whole_patients(cells.weights * scale))
            snapped = centres[np.searchsorted(walls, new, side="right")]
            groups, rng = np.arange(len(own)), self.inputs.rng(f"outliers {name}")
            performance = outlier_performance(own, snapped, groups, site.groups, rng=rng)
            # The whole cell of the threshold passes, so no more than the promised share lies above.
            threshold = choose_threshold(own, groups, share=EXPECTED, rng=rng)
            cell = int(np.searchsorted(centres, threshold.value))
            wall = float(walls[cell]) if cell < len(walls) else math.inf
            share = share_above(OutlierThreshold(wall, EXPECTED, len(own)), new, site.groups)
            p_values = conformal_p_values(own, snapped, groups, rng=rng)
            found[name] = performance, share, new, own, wall, p_values
        if not found:
            raise InputError(
                "The sketch holds no outlier scores, and the others are fitted on the reference's vectors."
            )
        listed = next(iter(found))
        methods = {name: entry[0] for name, entry in found.items()}
        return Outlying(methods, *found[listed][1:], left_out, listed_by=listed)

    def label_shift(self) -> LabelFrequencies:
        """Return the frequencies of findings, the site's scores being read as coarsely as the reference's."""
        found = estimate_frequencies(self._snapped())
        if self.reference.sketch.kind == "export":
            found = replace(found, labels=tuple(_untested(entry) for entry in found.labels))
        # Without an interval nothing shows that the images do not differ.
        return found if self.distance.mmd.low <= 0 else replace(found, doubt=LOOK_UNKNOWN)

    def label_free(self) -> LabelFree:
        """Return the estimates without labels, the site's scores being read as coarsely as the reference's."""
        return estimate_without_labels(self._snapped())

    def performance(self, found: Performance) -> Performance:
        """Return it with the reference's AUROC as wide as the order of patients within a cell leaves it."""
        wide = {cell.label: self._widened(cell) for cell in found.whole("reference").values()}
        cells = [
            wide[cell.label] if cell.side == "reference" else _compared_anew(cell, wide[cell.label])
            for cell in found.cells
        ]
        return replace(found, cells=tuple(cells))

    def calibration(self, found: Calibration) -> Calibration:
        """Return it with the reference's numbers of all labels together marked: their interval cannot be told."""
        return Calibration(tuple(_alone(row) if row.side == "reference" else row for row in found.rows))

    def _snapped(self) -> AuditInputs:
        site = self.inputs.site
        scores = self.reference.snapped(site.scores) if site.scores is not None else None
        return replace(self.inputs, site=replace(site, scores=scores))

    def _widened(self, cell: Cell) -> Cell:
        if cell.found is None or cell.label not in self.reference.cells:
            return cell
        estimate, half = cell.found.auroc, self.reference.cells[cell.label].tied_pairs / 2
        wide = replace(
            estimate,
            low=max(0.0, estimate.low - half),
            high=min(1.0, estimate.high + half),
            method=f"{estimate.method}, widened by half the pairs within a cell",
        )
        nothing = Estimate(math.nan, math.nan, math.nan, estimate.n, estimate.n_groups, "not from cells", False)
        return replace(cell, found=replace(cell.found, auroc=wide, average_precision=nothing))


def _refusal(reason: str) -> Callable[[Ask], Any]:
    def refuse(_: Ask) -> Any:
        raise InputError(reason)

    return refuse


def _by_label(found: Practice) -> Practice:
    """Return it without the plans for whole examinations, which take the labels of a patient together."""
    return replace(found, plans=())


def _untested(entry: LabelFrequency) -> LabelFrequency:
    """Return it without the test of its assumption: on an export's few cells that rejects too often."""
    test = TestResult(entry.shift.misfit_test.statistic, math.nan)
    return replace(entry, shift=replace(entry.shift, misfit_test=test, verdict="cannot be told"))


def _compared_anew(cell: Cell, reference: Cell) -> Cell:
    here, there = cell.estimate("auroc"), reference.estimate("auroc")
    if here is None or there is None:
        return cell
    return replace(cell, to_reference={**cell.to_reference, "auroc": difference(here, there)})


def _alone(row: SideCalibration) -> SideCalibration:
    pooled, macro = (
        {name: _unreliable(estimate) for name, estimate in each.items()} for each in (row.found.pooled, row.found.macro)
    )
    return replace(row, found=replace(row.found, pooled=pooled, macro=macro))


def _unreliable(found: CalibrationEstimate) -> CalibrationEstimate:
    estimate = replace(found.estimate, reliable=False, method=f"{found.estimate.method}, {JOINT}")
    return replace(found, estimate=estimate)
