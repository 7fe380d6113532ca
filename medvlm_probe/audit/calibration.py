"""Can the probabilities be believed: the model's own and those calibrated at the reference, on both sides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from medvlm_probe.audit.inputs import FEWEST_PEOPLE, AuditInputs, Side, people, raw_probabilities
from medvlm_probe.errors import InputError
from medvlm_probe.metrics.calibration import CalibrationEstimate, MultilabelCalibration, multilabel_calibration
from medvlm_probe.types import FloatArray

METRICS = ("ece", "brier", "nll", "overconfidence")
DEPLOYED, RAW = "calibrated at the reference", "the model's own"


@dataclass(frozen=True, eq=False)
class SideCalibration:
    """One side's probabilities of one kind, over the labels that it knows of ten people or more of either kind."""

    side: str
    probabilities: str
    labels: tuple[str, ...]
    found: MultilabelCalibration

    @property
    def pooled(self) -> Mapping[str, CalibrationEstimate]:
        """Over all entries."""
        return self.found.pooled

    def label(self, label: str) -> Mapping[str, CalibrationEstimate] | None:
        """Return one label's metrics; None where it is not known well enough."""
        return self.found.by_label[self.labels.index(label)] if label in self.labels else None

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {
            "side": self.side,
            "probabilities": self.probabilities,
            "labels": list(self.labels),
            "pooled": {name: found.to_json() for name, found in self.pooled.items()},
            "macro": {name: found.to_json() for name, found in self.found.macro.items()},
            "per_label": [
                {"label": label, **{name: estimate.to_json() for name, estimate in found.items()}}
                for label, found in zip(self.labels, self.found.by_label, strict=True)
            ],
        }


@dataclass(frozen=True, eq=False)
class Calibration:
    """Both sides' probabilities."""

    rows: tuple[SideCalibration, ...]

    def of(self, side: str, probabilities: str) -> SideCalibration | None:
        """Return one side's probabilities of one kind, None where there are none."""
        return next((r for r in self.rows if (r.side, r.probabilities) == (side, probabilities)), None)

    @property
    def sentence(self) -> str:
        """Whether the site's probabilities are too sure."""
        found = self.of("site", DEPLOYED) or self.of("site", RAW)
        if found is None:
            return "Whether probabilities can be believed at the site cannot be told: its labels are lacking."
        gap, ece = found.pooled["overconfidence"].estimate, found.pooled["ece"].estimate
        size = f"{abs(100 * gap.value):.0f} points [{100 * gap.low:+.0f}, {100 * gap.high:+.0f}]"
        lean = (
            f"Overconfident at the site by {size}"
            if gap.low > 0
            else f"Underconfident at the site by {size}"
            if gap.high < 0
            else f"Neither over- nor underconfident at the site for certain ({size})"
        )
        return f"{lean}, with probabilities {found.probabilities}; calibration error {ece.value:.2f}."

    def to_json(self) -> dict[str, Any]:
        """Return the rows as JSON."""
        return {"sentence": self.sentence, "rows": [row.to_json() for row in self.rows]}


def examine_calibration(inputs: AuditInputs, *, n_replicates: int = 200) -> Calibration:
    """Return the calibration of both sides by both kinds of probability.

    Raises:
        InputError: no probabilities, or no label of either side is known well enough.
    """
    rows = []
    for name, side in (("reference", inputs.reference), ("site", inputs.site)):
        if side.scores is None:
            raise InputError("Nothing was scored: there are no prompts for any label.")
        kinds = {RAW: raw_probabilities(side.scores)}
        if inputs.deployed is not None:
            kinds[DEPLOYED] = inputs.deployed.probabilities(side.scores)
        for kind, values in kinds.items():
            columns = known_columns(side)
            if values is not None and columns:
                rows.append(_row(inputs, name, side, kind, values, columns, n_replicates))
    if not rows:
        raise InputError("No label is known of ten people with and ten without it, or scores are no probabilities.")
    return Calibration(tuple(rows))


def known_columns(side: Side) -> list[int]:
    """Return the labels' columns that a side knows of ten people or more of either kind."""
    return [
        k
        for k in range(side.targets.shape[1])
        if min(people(side.groups[side.targets[:, k] == kind]) for kind in (1, 0)) >= FEWEST_PEOPLE
    ]


def _row(
    inputs: AuditInputs, name: str, side: Side, kind: str, values: FloatArray, columns: list[int], n_replicates: int
) -> SideCalibration:
    labels = tuple(inputs.labels[k] for k in columns)
    found = multilabel_calibration(
        np.asarray(values[:, columns]),
        side.targets[:, columns],
        side.groups,
        label_names=labels,
        rng=inputs.rng(f"calibration {name} {kind}"),
        n_replicates=n_replicates,
        metrics=METRICS,
    )
    return SideCalibration(name, kind, labels, found)
