"""What a phantom is before it is drawn: the case (who, where, which findings) and the drawn result."""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Severity = Literal["mild", "moderate", "severe"]
SEVERITIES: tuple[Severity, ...] = ("mild", "moderate", "severe")
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Finding:
    """One finding of a patient.

    Attributes:
        kind: a CheXpert label other than `no_finding`.
        severity: how far the finding is developed.
        side: `"left"`, `"right"` (the patient's), `"bilateral"` or `"midline"`.
        zone: `"upper"`, `"middle"`, `"lower"` or `""` where the finding has no zone.
        variant: the form it takes (a device, a kind of fracture, ...), `""` where there is one form only.
    """

    kind: str
    severity: Severity
    side: str
    zone: str = ""
    variant: str = ""

    @property
    def grade(self) -> int:
        """0 for mild, 1 for moderate, 2 for severe."""
        return SEVERITIES.index(self.severity)


@dataclass(frozen=True)
class Case:
    """All that determines one image and its labels; pixels follow from it alone.

    Attributes:
        seed, index, image_index: the cohort's seed, the patient's number and the image's number within the patient.
        site: name in `SITES`.
        patient, study: pseudonymous identifiers; images of a patient share the patient, a repeat has its own study.
        view: `"PA"` or `"AP"`.
        age: years. sex: `"F"` or `"M"`.
        ctr: cardiothoracic ratio as this image shows it (an AP view magnifies the heart).
        labels: the 14 CheXpert labels, 1 or 0.
        report: findings and impression in words.
    """

    seed: int
    index: int
    image_index: int
    site: str
    prevalence: str
    patient: str
    study: str
    view: str
    age: int
    sex: str
    ctr: float
    labels: dict[str, int]
    findings: tuple[Finding, ...]
    report: str


@dataclass(frozen=True)
class Phantom:
    """A drawn case.

    Attributes:
        pixels: uint8 (size, size), bright is dense, the right way round for display at every site.
        masks: label to bool (size, size), for each finding present.
        boxes: label to (x, y, w, h) in pixels, one per instance of the finding; together they span the mask.
        anatomy: `"heart"`, `"lungs"` and `"thorax"` as bool (size, size).
        raw: uint16 (size, size) of 12 bits as the site archives it; MONOCHROME1 pixels are stored inverted.
    """

    pixels: NDArray[np.uint8]
    masks: dict[str, NDArray[np.bool_]]
    boxes: dict[str, list[Box]]
    case: Case
    anatomy: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    raw: NDArray[np.uint16] = field(default_factory=lambda: np.zeros((0, 0), np.uint16))


def stream(*key: int | str) -> np.random.Generator:
    """Return the random generator that belongs to a key: equal keys give equal numbers in every process."""
    words = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in key]
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(words)))


def case_digest(case: Case, size: int, generator: str) -> str:
    """Return the sha256 that names a case's image content at a size under one version of the generator."""
    key = (generator, case.site, case.seed, case.index, case.image_index, case.prevalence, size)
    return hashlib.sha256(repr(key).encode()).hexdigest()
