"""What DICOM headers say, as manifests write it: only values of the expected form pass, free text never does."""

from __future__ import annotations

import re

from medvlm_probe.cohort.manifest_columns import MAX_AGE

_LATERAL = ("LL", "RL", "LAT", "LATERAL")
_CODE = re.compile(r"[A-Z0-9][A-Z0-9 _-]{0,15}")
_MAKER = re.compile(r"[A-Za-z0-9][A-Za-z0-9 .,&()/+-]{0,63}")
_AGE = re.compile(r"(\d{1,3})([YMWD]?)")
_YEARS = {"": 1.0, "Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}
_SEXES = {"F": "F", "M": "M", "O": "other"}

OLDEST = 90
"""Ages above it are written as it: few people are older, and their age would point to them."""


def code(value: object) -> str | None:
    """Return a code string (DICOM's CS: capitals, digits, space, underscore), None for anything else."""
    text = str(value or "").strip().upper()
    return text if _CODE.fullmatch(text) else None


def maker(value: object) -> str | None:
    """Return a manufacturer's name of plain characters, None for anything else."""
    text = " ".join(str(value or "").split())
    return text if _MAKER.fullmatch(text) else None


def view_of(value: object) -> str:
    """Return a ViewPosition (DICOM PS3.3, C.8.1.1.1.2): PA, AP or LATERAL, else its own code, "" where it is none."""
    text = code(value) or ""
    return "LATERAL" if text in _LATERAL else text


def age_of(value: object) -> float | None:
    """Return an age (DICOM's AS: 062Y, 006M; a bare number is years) in years, at most `OLDEST`; None otherwise.

    What is above 120 years (999Y) is a placeholder.
    """
    match = _AGE.fullmatch(str(value or "").strip().upper())
    if match is None:
        return None
    years = float(match[1]) * _YEARS[match[2]]
    return min(years, float(OLDEST)) if years <= MAX_AGE else None


def sex_of(value: object) -> str | None:
    """Return F, M or other; None otherwise."""
    return _SEXES.get(str(value or "").strip().upper())


def spacing_of(*values: object) -> str | None:
    """Return the first spacing as text, mm between rows, then between columns: `0.168x0.168`."""
    for value in values:
        try:
            numbers = [float(item) for item in value]  # type: ignore[attr-defined]
        except (TypeError, ValueError):
            continue
        if len(numbers) == 2 and all(0 < number < 100 for number in numbers):
            return "x".join(f"{number:.6g}" for number in numbers)
    return None
