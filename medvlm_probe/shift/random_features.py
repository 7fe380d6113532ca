"""A fixed map of embeddings to random features, told by four numbers, whose products approximate a Gaussian kernel."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.errors import InputError
from medvlm_probe.shift.mmd import fourier_map
from medvlm_probe.types import FloatArray

N_FEATURES = 4_096
_CHECK_VALUES = 8
_CHECK_TOLERANCE = 1e-4


@dataclass(frozen=True)
class RandomFeatures:
    """Orthogonal random Fourier features of the kernel exp(-|x - y|^2 / (2 s^2)) between unit vectors.

    Attributes:
        n_dimensions: d, of the embeddings.
        bandwidth: s, in units of the unit vectors' distances.
        n_features: F, even: a cosine and a sine of each of F / 2 frequencies.
        seed: of the frequencies.

    Source: Rahimi and Recht 2007; Yu et al. 2016 (orthogonal ones).
    """

    n_dimensions: int
    bandwidth: float
    n_features: int = N_FEATURES
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n_dimensions < 1 or self.n_features < 2 or self.n_features % 2 or self.seed < 0:
            raise InputError(
                f"{self.n_features} features of {self.n_dimensions} dimensions, seed {self.seed}: expected an even "
                "number of features, at least one dimension and a seed of at least 0."
            )
        if not (math.isfinite(self.bandwidth) and self.bandwidth > 0):
            raise InputError(f"A bandwidth of {self.bandwidth}: expected a number above 0.")

    @cached_property
    def _frequencies(self) -> NDArray[np.float64]:
        rng = np.random.default_rng(self.seed)
        drawn = fourier_map(self.n_dimensions, self.n_features // 2, self.bandwidth, rng)
        return drawn.frequencies.astype(np.float64)

    def __call__(self, units: FloatArray) -> NDArray[np.float64]:
        """Return features of length 1, (n, F), of unit vectors (n, d).

        In float64: what a row gives must not depend, beyond 1e-12, on the rows that it came with.
        """
        angles = np.asarray(units, dtype=np.float64) @ self._frequencies
        return np.concatenate([np.cos(angles), np.sin(angles)], axis=1) / math.sqrt(self.n_features // 2)

    @property
    def check(self) -> tuple[float, ...]:
        """A few features of one fixed vector: another machine that draws other frequencies gives others."""
        probe = np.full((1, self.n_dimensions), 1 / math.sqrt(self.n_dimensions))
        scaled = self(probe)[0, :_CHECK_VALUES] * math.sqrt(self.n_features // 2)
        return tuple(round(float(value), 6) for value in scaled)

    def to_json(self) -> dict[str, Any]:
        """Return the four numbers and the check."""
        return {
            "n_dimensions": self.n_dimensions,
            "bandwidth": self.bandwidth,
            "n_features": self.n_features,
            "seed": self.seed,
            "check": list(self.check),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> RandomFeatures:
        """Return the map that `to_json` told of.

        Raises:
            InputError: numbers out of range, or this machine draws other frequencies from the seed.
        """
        found = cls(int(value["n_dimensions"]), float(value["bandwidth"]), int(value["n_features"]), int(value["seed"]))
        given = np.asarray(value["check"], dtype=np.float64)
        if given.shape != (len(found.check),) or np.abs(given - found.check).max() > _CHECK_TOLERANCE:
            raise InputError(
                f"Random features of seed {found.seed} come out differently here than where the sketch was made. "
                "Use the same version of NumPy on both machines."
            )
        return found
