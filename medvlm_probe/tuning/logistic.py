"""Many L2-regularised logistic regressions on the same rows at once, each with labels, rows and strength of its own.

All problems go through the same matrix products: one step of every problem costs two products with the features. Steps
are those of L-BFGS, preconditioned by the eigenvalues of the features' covariance, so that a few of them do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from medvlm_probe.errors import InputError
from medvlm_probe.types import FloatArray

Array = NDArray[np.floating]

MEMORY = 12
MAX_STEPS = 2_000
_LINE_EVALUATIONS = 12
_SLOPE_LEFT = 0.4
_SMALLEST_SHARE = 1e-12
_TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Rotated:
    """Features turned into their principal axes, where a covariance is diagonal and a smaller rank needs less room.

    The turn is orthogonal, so lengths of coefficient vectors, and with them the penalty, stay as they are. What the
    features do not span has a coefficient of 0 in every solution.

    Attributes:
        features: (n, r), r the features' rank.
        axes: (d, r), orthonormal columns.
        spread: (r,), mean square of each column.
    """

    features: Array
    axes: Array
    spread: Array

    def start(self, n_problems: int) -> Array:
        """Return coefficients of 0 for so many problems, (r + 1, c), the intercept last."""
        return np.zeros((len(self.spread) + 1, n_problems), dtype=self.features.dtype)

    def in_single_precision(self) -> Rotated:
        """Return the same as float32: twice as fast, for solutions to about four digits."""
        return Rotated(self.features.astype(np.float32), self.axes, self.spread)

    def coefficients(self, solution: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return weights (c, d) for the features as they were given, and intercepts (c,), of solutions (r + 1, c)."""
        return (self.axes @ solution[:-1]).T.astype(np.float64), solution[-1].astype(np.float64)


def rotate(features: FloatArray) -> Rotated:
    """Return features (n, d), best centred and scaled, in their principal axes."""
    x = np.ascontiguousarray(features, dtype=np.float64)
    n, d = x.shape
    if n < d:
        values, left = linalg.eigh(x @ x.T)
        kept = values > _SMALLEST_SHARE * max(values[-1], np.finfo(float).tiny)
        axes = x.T @ (left[:, kept] / np.sqrt(values[kept]))
    else:
        values, right = linalg.eigh(x.T @ x)
        kept = values > _SMALLEST_SHARE * max(values[-1], np.finfo(float).tiny)
        axes = right[:, kept]
    return Rotated(x @ axes, np.ascontiguousarray(axes), values[kept] / n)


def solve(
    rotated: Rotated,
    positive: FloatArray,
    weights: FloatArray,
    strength: FloatArray,
    start: Array,
    *,
    tolerance: float,
) -> tuple[Array, Array]:
    """Return the solutions (r + 1, c), intercepts last, and their logits on all rows (n, c).

    Problem k minimises `sum_i weights[i, k] * log(1 + exp(-s_i z_i)) + |w|^2 / (2 strength[k])`, s_i = 1 for positives
    and -1 for others, z_i = w x_i + b; the intercept b is not penalised. Equal to scikit-learn's `LogisticRegression`
    with `C = strength`.

    Args:
        rotated: the features, whose precision is that of the work.
        positive: 1 or 0, (n, c).
        weights: 0 or more, (n, c); 0 leaves a row out. Each problem needs weight on positives and on others.
        strength: inverse penalty, above 0, (c,).
        start: where to begin, (r + 1, c).
        tolerance: largest component of the gradient of the mean loss at which a problem is solved, as scikit-learn's
            `tol`; at least about 1e-5 in single precision.

    Raises:
        InputError: a problem is not solved after `MAX_STEPS` steps, which happens where a strength is far too large.
    """
    c, dtype = len(strength), rotated.features.dtype
    solution = start.astype(dtype)
    logits = rotated.features @ solution[:-1] + solution[-1]
    open_problems = np.arange(c)
    total = weights.sum(axis=0)
    penalty = (1 / strength).astype(dtype)
    state = _Steps(rotated, positive.astype(dtype), weights.astype(dtype), penalty, solution, logits)
    for _ in range(MAX_STEPS):
        unsolved = np.abs(state.gradient).max(axis=0) > tolerance * total[open_problems]
        if not unsolved.all():
            solution[:, open_problems], logits[:, open_problems] = state.solution, state.logits
            open_problems = open_problems[unsolved]
            if not len(open_problems):
                return solution, logits
            state = state.only(unsolved)
        state.step()
    raise InputError(
        f"{len(open_problems)} of {c} logistic regressions are not solved after {MAX_STEPS:,} steps. "
        f"Give strengths below {strength.max():g}."
    )


class _Steps:
    """The problems that are not solved yet, with the recent steps that L-BFGS goes by."""

    def __init__(
        self,
        rotated: Rotated,
        positive: FloatArray,
        weights: FloatArray,
        penalty: Array,
        solution: Array,
        logits: Array,
    ) -> None:
        self.rotated, self.penalty = rotated, penalty
        self.positive, self.weights = positive, weights
        self.solution, self.logits = solution.copy(), logits.copy()
        chance = _logistic(logits)
        self.gradient = self._gradient(chance)
        curvature = np.maximum(np.einsum("nc,nc,nc->c", weights, chance, 1 - chance), _SMALLEST_SHARE)
        penalties = np.outer(np.append(np.ones(len(rotated.spread)), 0.0), penalty)
        scale = 1 / (np.outer(np.append(rotated.spread, 1.0), curvature) + penalties)
        self.scale = scale.astype(logits.dtype)
        self.moves: list[Array] = []
        self.changes: list[Array] = []

    def only(self, kept: NDArray[np.bool_]) -> _Steps:
        """Keep some of the problems."""
        for name in ("positive", "weights", "solution", "logits", "gradient", "scale"):
            setattr(self, name, np.ascontiguousarray(getattr(self, name)[:, kept]))
        self.penalty = self.penalty[kept]
        self.moves = [move[:, kept] for move in self.moves]
        self.changes = [change[:, kept] for change in self.changes]
        return self

    def step(self) -> None:
        """Move every problem along its direction to about the lowest point there."""
        direction = self._direction()
        along = self.rotated.features @ direction[:-1] + direction[-1]
        length, chance = self._length(direction, along)
        move = direction * length
        self.solution += move
        along *= length
        self.logits += along
        before, self.gradient = self.gradient, self._gradient(chance)
        self.moves, self.changes = self.moves[1 - MEMORY :], self.changes[1 - MEMORY :]
        self.moves.append(move)
        self.changes.append(self.gradient - before)

    def _gradient(self, chance: Array) -> Array:
        """Return the gradient (r + 1, c) at the solution, whose probabilities are given, (n, c)."""
        residual = self.weights * (chance - self.positive)
        found = np.vstack([self.rotated.features.T @ residual, residual.sum(axis=0)])
        found[:-1] += self.solution[:-1] * self.penalty
        return found

    def _direction(self) -> Array:
        """Return the L-BFGS directions (r + 1, c): Nocedal and Wright 2006, algorithm 7.4."""
        q = self.gradient.copy()
        products = [np.maximum(_dots(s, y), _TINY) for s, y in zip(self.moves, self.changes, strict=True)]
        factors = []
        for s, y, product in zip(self.moves[::-1], self.changes[::-1], products[::-1], strict=True):
            factors.append(_dots(s, q) / product)
            q -= factors[-1] * y
        q *= self.scale
        if self.moves:
            y = self.changes[-1]
            q *= products[-1] / np.maximum(_dots(y, self.scale * y), _TINY)
        for s, y, product, factor in zip(self.moves, self.changes, products, factors[::-1], strict=True):
            q += s * (factor - _dots(y, q) / product)
        return -q

    def _length(self, direction: Array, along: Array) -> tuple[Array, Array]:
        """Return how far to go, (c,), and the probabilities there, (n, c).

        The slope rises along a convex loss; where the whole step leaves too much of it, its root is sought.
        """
        first = _dots(self.gradient, direction)
        linear = _dots(self.solution[:-1], direction[:-1]) * self.penalty
        square = _dots(direction[:-1], direction[:-1]) * self.penalty
        pull = self.weights * along
        length = np.ones_like(first)
        chance = _logistic(self.logits + along)
        slope = np.einsum("nc,nc->c", pull, chance - self.positive) + linear + square
        for k in np.flatnonzero(np.abs(slope) > _SLOPE_LEFT * np.abs(first)):
            at = (self.logits[:, k], along[:, k], pull[:, k], self.positive[:, k])
            length[k], chance[:, k] = _root(*at, float(linear[k]), float(square[k]), float(-_SLOPE_LEFT * first[k]))
        return length, chance


def _root(
    logits: Array, along: Array, pull: Array, positive: FloatArray, linear: float, square: float, enough: float
) -> tuple[float, Array]:
    """Return how far one problem goes until its slope is at most `enough` either way, and the probabilities there.

    Newton's method between bounds that the sign of the slope moves.
    """
    length, low, high = 1.0, 0.0, np.inf
    chance = _logistic(logits + along)
    for _ in range(_LINE_EVALUATIONS):
        slope = float(pull @ (chance - positive)) + linear + length * square
        if abs(slope) <= enough:
            break
        low, high = (length, high) if slope < 0 else (low, length)
        bend = float((pull * along) @ (chance * (1 - chance))) + square
        newton = length - slope / max(bend, _TINY)
        if not low < newton < high:
            newton = 4 * length if np.isinf(high) else (low + high) / 2
        length = min(newton, 10 * length)
        chance = _logistic(logits + length * along)
    return length, chance


def _logistic(x: Array) -> Array:
    """Return 1 / (1 + exp(-x)); where the exponential overflows the result is 0, as it should be."""
    with np.errstate(over="ignore"):
        return np.asarray(1 / (1 + np.exp(-x)))


def _dots(a: Array, b: Array) -> Array:
    return np.asarray(np.einsum("rc,rc->c", a, b))
