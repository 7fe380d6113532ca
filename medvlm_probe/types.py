"""What the parts hand each other: estimates, test results, scores."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.errors import InputError

ScoreKind = Literal["cosine", "logit", "probability"]

FloatArray = NDArray[np.floating]
IntArray = NDArray[np.integer]
BoolArray = NDArray[np.bool_]


def finite_or_none(value: float | None) -> float | None:
    """Return a float for JSON: None where the number is undefined (NaN, infinite or None)."""
    return None if value is None or not math.isfinite(value) else float(value)


@dataclass(frozen=True)
class Estimate:
    """A value with its two-sided 95 % interval.

    An undefined value or bound is NaN in Python and null in JSON. `n` counts images (or pairs' images), `n_groups` the
    independently sampled groups behind them. `reliable` is False where simulation shows that the interval's coverage is
    not near 95 % at this size; `method` then says "interval unreliable" wherever it is shown.
    """

    value: float
    low: float
    high: float
    n: int
    n_groups: int
    method: str
    reliable: bool = True

    def to_json(self) -> dict[str, float | int | str | None]:
        """Return the six fields that JSON files carry; undefined numbers are None."""
        method = self.method if self.reliable else f"{self.method}; interval unreliable"
        return {
            "value": finite_or_none(self.value),
            "low": finite_or_none(self.low),
            "high": finite_or_none(self.high),
            "n": int(self.n),
            "n_groups": int(self.n_groups),
            "method": method,
        }


@dataclass(frozen=True)
class TestResult:
    """A test's statistic, its p-value in (0, 1] and that value after correction for its family (NaN before)."""

    __test__ = False  # pytest must not collect it

    statistic: float
    p_value: float
    p_adjusted: float = math.nan

    def to_json(self) -> dict[str, float | None]:
        """Return the three fields that JSON files carry; undefined numbers are None."""
        return {
            "statistic": finite_or_none(self.statistic),
            "p_value": finite_or_none(self.p_value),
            "p_adjusted": finite_or_none(self.p_adjusted),
        }


@dataclass(frozen=True)
class Scores:
    """A number per image and label, of a declared kind; larger always means "more likely present".

    Attributes:
        values: float array (n_images, n_labels).
        kind: `"cosine"` in [-1, 1], `"logit"` unbounded, `"probability"` in [0, 1].
        labels: the columns' label names, snake_case.
        ids: the rows' image identifiers.
    """

    values: FloatArray
    kind: ScoreKind
    labels: tuple[str, ...]
    ids: tuple[str, ...]

    def __post_init__(self) -> None:
        expected = (len(self.ids), len(self.labels))
        if self.values.shape != expected:
            raise InputError(f"Scores of shape {self.values.shape} do not fit {expected} (ids, labels).")

    def rows(self, index: BoolArray | IntArray) -> Scores:
        """Return the scores of some rows, by mask (n,) or row numbers."""
        positions = np.arange(len(self.ids))[index]
        ids = tuple(self.ids[i] for i in positions)
        return Scores(self.values[positions], self.kind, self.labels, ids)
