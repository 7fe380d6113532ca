"""Has the data moved? Two-sample tests, what the embedding tells of site, view, sex and age, and the most unusual."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from medvlm_probe.audit.inputs import SUBGROUPS, AuditInputs
from medvlm_probe.shift.nearest_reference import NearestReference, most_unusual
from medvlm_probe.shift.nuisance_probes import NuisanceProbe, nuisance_probes
from medvlm_probe.shift.shift_tests import N_PERMUTATIONS, ShiftReport, test_shift


@dataclass(frozen=True, eq=False)
class DataShift:
    """How far the site's embeddings lie from the reference's.

    Attributes:
        report: the family of tests.
        probes: how well view, sex, age band and site can be read off the site's embeddings.
        nearest: the site's most unusual images with the reference images most like them.
    """

    report: ShiftReport
    probes: tuple[NuisanceProbe, ...]
    nearest: NearestReference

    @property
    def sentence(self) -> str:
        """Whether the images moved, and how far."""
        tests = {test.test: test for test in self.report.tests}
        told, distance = tests["classifier"].effect, tests["mmd"].effect
        smallest = min(test.p_adjusted for test in self.report.tests)
        numbers = (
            f"a classifier tells a new image from a reference image with AUROC {told.value:.2f} [{told.low:.2f}, "
            f"{told.high:.2f}]; squared MMD {distance.value:.3f} [{distance.low:.3f}, {distance.high:.3f}]"
        )
        if smallest >= 0.05:
            return f"No shift was found that chance would not make: {numbers}."
        much = "far from" if told.low >= 0.9 else "different from" if told.low >= 0.7 else "slightly different from"
        return f"The images are {much} the reference's: {numbers} (smallest corrected p {smallest:.2g})."

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values; of the most unusual images only how near the reference comes."""
        best = self.nearest.cosines[:, 0]
        return {
            "sentence": self.sentence,
            **self.report.to_json(),
            "nuisance_probes": [probe.to_json() for probe in self.probes],
            "most_unusual_cosines": [round(float(value), 4) for value in best if np.isfinite(value)],
        }


def examine_shift(inputs: AuditInputs, *, n_permutations: int = N_PERMUTATIONS) -> DataShift:
    """Test the site's embeddings against those of the whole reference."""
    first, second = inputs.whole_reference, inputs.site
    report = test_shift(
        first.vectors,
        second.vectors,
        first.groups,
        second.groups,
        n_permutations=n_permutations,
        rng=inputs.rng("shift"),
    )
    facts = {name: read(second.cohort) for name, read in SUBGROUPS.items()}
    probes = nuisance_probes(second.vectors, facts, second.groups, rng=inputs.rng("probes"))
    nearest = most_unusual(first.vectors, second.vectors, first.groups, second.groups)
    return DataShift(report, probes, nearest)
