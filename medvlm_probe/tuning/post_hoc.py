"""Post-hoc calibration: maps from scores to probabilities, fitted on images that the result does not use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, log_softmax, logit, logsumexp, softmax

from medvlm_probe.errors import InputError, unknown_name
from medvlm_probe.runs import parse_json, write_json
from medvlm_probe.tuning import post_hoc_fits as fits
from medvlm_probe.types import Scores

Array = NDArray[np.float64]
Task = Literal["multi_label", "single_label"]
Mode = Literal["labels", "softmax", "one_vs_rest"]

LEAST = 5
"""Positives, and negatives, that a label's curve is fitted on at least."""

NEAREST_TO_CERTAIN = 1e-12
"""Probabilities are kept this far from 0 and 1 before they become log-odds."""


@dataclass(frozen=True)
class Method:
    """A way to calibrate: what it is, and for which tasks."""

    title: str
    tasks: tuple[Task, ...] = ("multi_label", "single_label")


POST_HOC: dict[str, Method] = {
    "none": Method("the scores as they are, through the logistic function or softmax"),
    "temperature": Method("one temperature for all labels (Guo et al. 2017)"),
    "temperature_per_label": Method("a temperature for each label", ("multi_label",)),
    "platt": Method("a logistic curve for each label (Platt 2000)"),
    "beta": Method("a beta curve for each label (Kull, Silva Filho and Flach 2017)"),
    "isotonic": Method("an increasing step curve for each label (Zadrozny and Elkan 2002)"),
    "vector": Method(
        "a scale and an offset for each class's log-probability before softmax (Guo et al. 2017)", ("single_label",)
    ),
}
"""Post-hoc methods by name. In single-label tasks curves are fitted one class against the rest, rows then sum to 1."""


@dataclass(frozen=True)
class Curve:
    """From a label's logit z to its probability; all but a falling logistic curve keep the order of images.

    Attributes:
        shape: `logistic`: logistic(a z + b); `beta`: logistic(a ln s - b ln(1 - s) + c) with s = logistic(z); `steps`:
            straight lines between corners, level beyond the outer ones.
        numbers: (a, b), (a, b, c), or the corners' logits (ascending), then their probabilities.
    """

    shape: Literal["logistic", "beta", "steps"]
    numbers: tuple[float, ...]

    def __call__(self, logits: Array) -> Array:
        """Return probabilities of logits of any shape."""
        return SHAPES[self.shape](logits, self.numbers)


IDENTITY = Curve("logistic", (1.0, 0.0))


def _logistic_curve(z: Array, numbers: tuple[float, ...]) -> Array:
    return np.asarray(expit(numbers[0] * z + numbers[1]))


def _beta_curve(z: Array, numbers: tuple[float, ...]) -> Array:
    return np.asarray(expit(fits.beta_features(z.ravel()) @ np.array(numbers))).reshape(z.shape)


def _step_curve(z: Array, numbers: tuple[float, ...]) -> Array:
    half = len(numbers) // 2
    return np.asarray(np.interp(z, numbers[:half], numbers[half:]))


SHAPES: dict[str, Callable[[Array, tuple[float, ...]], Array]] = {
    "logistic": _logistic_curve,
    "beta": _beta_curve,
    "steps": _step_curve,
}


@dataclass(frozen=True)
class Calibrator:
    """A fitted method.

    Attributes:
        method: key of `POST_HOC`.
        labels: the labels, in the order of the scores.
        mode: `labels`: each label's curve by itself; `softmax`: over the curves' a z + b; `one_vs_rest`: each class's
            curve of its log-odds against the others, then every row divided by its sum.
        curves: one a label.
        n_parameters: how many numbers were fitted.
        source: the images that it was fitted on, by the name of their split.
        n_known, n_positive: images with a known label, and positive ones, for each label.
        notes: labels that were left as they were and why, fits that ended at a bound: a sentence each.
    """

    method: str
    labels: tuple[str, ...]
    mode: Mode
    curves: tuple[Curve, ...]
    n_parameters: int
    source: str
    n_known: tuple[int, ...]
    n_positive: tuple[int, ...]
    notes: tuple[str, ...] = ()

    def apply(self, scores: Scores) -> Scores:
        """Return probabilities of the same images and labels.

        Raises:
            InputError: other labels, or cosines.
        """
        if scores.labels != self.labels:
            raise InputError(
                f"The calibration is for {', '.join(self.labels[:5])}; the scores are for "
                f"{', '.join(scores.labels[:5])}. Both must have the same labels in the same order."
            )
        z = _logits(scores, "multi_label" if self.mode == "labels" else "single_label")
        if self.mode == "softmax":
            slopes, offsets = np.array([curve.numbers for curve in self.curves]).T
            values = np.asarray(softmax(slopes * z + offsets, axis=1))
        else:
            z = _against_the_rest(z) if self.mode == "one_vs_rest" else z
            values = np.column_stack([curve(z[:, k]) for k, curve in enumerate(self.curves)])
        if self.mode == "one_vs_rest":
            values = values / values.sum(axis=1, keepdims=True)
        return Scores(values, "probability", scores.labels, scores.ids)

    def to_json(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        fields = {name: getattr(self, name) for name in ("method", "mode", "n_parameters", "source")}
        lists = {name: list(getattr(self, name)) for name in ("labels", "n_known", "n_positive", "notes")}
        curves = [{"shape": curve.shape, "numbers": list(curve.numbers)} for curve in self.curves]
        return {**fields, **lists, "curves": curves}

    def save(self, path: Path) -> None:
        """Write the calibration as JSON (StoreError where that fails)."""
        write_json(path, self.to_json())


def load_calibrator(path: Path) -> Calibrator:
    """Return a calibration that `Calibrator.save` wrote.

    Raises:
        InputError: no such file, or another content.
    """
    try:
        content: dict[str, Any] = parse_json(path.read_text(encoding="utf-8"))
        curves = tuple(Curve(c["shape"], tuple(float(x) for x in c["numbers"])) for c in content.pop("curves"))
        content |= {name: tuple(content[name]) for name in ("labels", "n_known", "n_positive", "notes")}
        found = Calibrator(**content, curves=curves)
    except FileNotFoundError as error:
        raise InputError(f"There is no calibration '{path}'. Check the path.") from error
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path.name} is no calibration that this tool wrote. Fit it again.") from error
    texts = (found.method, found.mode, found.source, *found.labels, *found.notes, *(c.shape for c in curves))
    numbers = [number for curve in curves for number in curve.numbers]
    if not all(isinstance(text, str) for text in texts) or not np.isfinite(numbers).all():
        raise InputError(f"{path.name} is no calibration that this tool wrote. Fit it again.")
    counts = {"logistic": (2,), "beta": (3,), "steps": range(2, 1 << 20, 2)}
    wrong = (
        any(len(c.numbers) not in counts.get(c.shape, ()) for c in curves)
        or len(curves) != len(found.labels)
        or {c.shape for c in curves} - set(SHAPES)
        or found.method not in POST_HOC
    )
    if wrong or found.mode not in ("labels", "softmax", "one_vs_rest"):
        raise InputError(f"{path.name} holds a calibration that this version does not know. Fit it again.")
    return found


def fit_post_hoc(
    method: str,
    scores: Scores,
    labels: ArrayLike,
    *,
    task: Task,
    source: str,
    least: int = LEAST,
    share_temperature: bool = False,
) -> Calibrator:
    """Fit a method.

    A label with fewer than `least` positives or negatives keeps its own probabilities, and `notes` says so; so do all
    labels where a temperature has fewer than that over all labels, or a class too few for `vector`.

    Args:
        method: key of `POST_HOC`.
        scores: logits or probabilities of the images that the fit may use; none of them may be in the result.
        labels: 1, 0 or NaN (left out), (n, L); single-label: one 1 a row, or a row of NaN.
        task: `multi_label`: each label is a question of its own; `single_label`: exactly one is right.
        source: the name of the split.
        least: positives and negatives that a fit needs.
        share_temperature: in multi-label tasks labels with too few take the temperature of all labels together instead.

    Raises:
        UnknownNameError: another method.
        InputError: shapes that do not fit, cosines, a method for the other task, rows without exactly one class.
    """
    if method not in POST_HOC:
        raise unknown_name("post-hoc method", method, POST_HOC)
    if task not in POST_HOC[method].tasks:
        other = "platt" if method == "vector" else "temperature"
        raise InputError(f"'{method}' is not for {task} tasks. Take {other}.")
    y = np.asarray(labels, dtype=np.float64)
    if y.shape != scores.values.shape:
        raise InputError(f"Labels of shape {y.shape} do not fit scores of shape {scores.values.shape}.")
    if not np.isin(y[~np.isnan(y)], (0, 1)).all():
        raise InputError("Labels must be 1, 0 or NaN (not known). Apply the uncertainty policy first.")
    z = _logits(scores, task)
    if task == "single_label":
        z, y = _known_rows(z, y)
    known, positive = (~np.isnan(y)).sum(axis=0), (y == 1).sum(axis=0)
    by_curve = method in FITS
    if by_curve:
        fitted = _curves(method, z, y, scores.labels, task, least)
        if share_temperature and task == "multi_label":
            fitted = _with_temperature(fitted, _joint("temperature", z, y, scores.labels, task, least), scores.labels)
    else:
        fitted = _joint(method, z, y, scores.labels, task, least)
    mode: Mode = "labels" if task == "multi_label" else "one_vs_rest" if by_curve else "softmax"
    return Calibrator(
        method=method,
        labels=scores.labels,
        mode=mode,
        curves=fitted.curves,
        n_parameters=fitted.n_parameters,
        source=source,
        n_known=tuple(known.tolist()),
        n_positive=tuple(positive.tolist()),
        notes=fitted.notes,
    )


@dataclass(frozen=True)
class _Fitted:
    """Curves, how many numbers were fitted, notes, and the labels that had too few to be fitted."""

    curves: tuple[Curve, ...]
    n_parameters: int = 0
    notes: tuple[str, ...] = ()
    too_few: tuple[int, ...] = ()


def _curves(method: str, z: Array, y: Array, labels: tuple[str, ...], task: Task, least: int) -> _Fitted:
    """Fit each label's curve; of single-label tasks, that of its log-odds against the other classes."""
    z = _against_the_rest(z) if task == "single_label" else z
    curves, notes, too_few, n_parameters = [], [], [], 0
    for k, label in enumerate(labels):
        known = ~np.isnan(y[:, k])
        few = _too_few(y[known, k], least)
        if few:
            curves.append(IDENTITY)
            too_few.append(k)
            notes.append(f"{label} keeps its own probabilities: {few}.")
            continue
        curve, n_numbers = FITS[method](z[known, k], y[known, k])
        if curve.shape == "logistic" and curve.numbers[0] < 0:
            notes.append(f"{label}: higher scores are less often right here, so the curve falls.")
        if method == "temperature_per_label":
            notes += [f"{label}: {end}" for end in _at_bound(1 / curve.numbers[0])]
        curves.append(curve)
        n_parameters += n_numbers
    return _Fitted(tuple(curves), n_parameters, tuple(notes), tuple(too_few))


def _with_temperature(fitted: _Fitted, joint: _Fitted, labels: tuple[str, ...]) -> _Fitted:
    """Return the curves with the common temperature's for labels that had too few."""
    if not fitted.too_few or not joint.n_parameters:
        return fitted
    curves = tuple(joint.curves[k] if k in fitted.too_few else curve for k, curve in enumerate(fitted.curves))
    named = ", ".join(labels[k] for k in fitted.too_few)
    kept = tuple(note for note in fitted.notes if "keeps its own probabilities" not in note)
    shared = f"Labels with too few positives or negatives take the temperature of all labels: {named}."
    return _Fitted(curves, fitted.n_parameters + 1, (*kept, *joint.notes, shared))


def _joint(method: str, z: Array, y: Array, labels: tuple[str, ...], task: Task, least: int) -> _Fitted:
    """Fit one temperature for all labels, or the classes' scales and offsets."""
    own = (IDENTITY,) * len(labels)
    if method == "none":
        return _Fitted(own)
    known = ~np.isnan(y)
    rows = [y[:, k] for k in range(len(labels))] if method == "vector" else [y[known]]
    few = next((found for found in (_too_few(row, least) for row in rows) if found), "")
    if task == "single_label" and ((y == 1).any(axis=0)).sum() < 2:
        few = "only one class occurs"
    if few:
        return _Fitted(own, 0, (f"All labels keep their own probabilities: {few}.",))
    if not np.ptp(z, axis=None if task == "multi_label" else 1).any():
        return _Fitted(own, 0, ("All labels keep their own probabilities: their scores are all alike.",))
    if method == "vector":
        slopes, offsets = fits.vector_scaling(z, y)
        pairs = zip(slopes.tolist(), offsets.tolist(), strict=True)
        return _Fitted(tuple(Curve("logistic", pair) for pair in pairs), 2 * len(labels))
    if task == "multi_label":
        temperature = fits.binary_temperature(z[known], y[known])
    else:
        temperature = fits.softmax_temperature(z, y)
    return _Fitted((Curve("logistic", (1 / temperature, 0.0)),) * len(labels), 1, tuple(_at_bound(temperature)))


def _fit_temperature(z: Array, y: Array) -> tuple[Curve, int]:
    return Curve("logistic", (1 / fits.binary_temperature(z, y), 0.0)), 1


def _fit_platt(z: Array, y: Array) -> tuple[Curve, int]:
    return Curve("logistic", fits.platt(z, y)), 2


def _fit_beta(z: Array, y: Array) -> tuple[Curve, int]:
    return Curve("beta", fits.beta(z, y)), 3


def _fit_isotonic(z: Array, y: Array) -> tuple[Curve, int]:
    corners, values = fits.isotonic(z, y)
    return Curve("steps", (*corners.tolist(), *values.tolist())), len(np.unique(values))


FITS: Mapping[str, Callable[[Array, Array], tuple[Curve, int]]] = {
    "temperature_per_label": _fit_temperature,
    "platt": _fit_platt,
    "beta": _fit_beta,
    "isotonic": _fit_isotonic,
}
"""Methods that fit each label by itself: from logits and labels (n,) to the curve, and how many numbers were fitted."""


def _logits(scores: Scores, task: Task) -> Array:
    """Return log-odds of each label, or in single-label tasks log-probabilities, whatever rows add to all."""
    values = np.asarray(scores.values, dtype=np.float64)
    if scores.kind == "cosine":
        raise InputError(
            "Cosines are no logits. Give logits, the cosine times the model's logit scale, or probabilities."
        )
    if scores.kind == "probability":
        inside = np.clip(values, NEAREST_TO_CERTAIN, 1 - NEAREST_TO_CERTAIN)
        values = np.asarray(logit(inside) if task == "multi_label" else np.log(inside))
    return values if task == "multi_label" else np.asarray(log_softmax(values, axis=1))


def _known_rows(z: Array, y: Array) -> tuple[Array, Array]:
    known = ~np.isnan(y).all(axis=1)
    if ((y[known] == 1).sum(axis=1) != 1).any() or np.isnan(y[known]).any():
        raise InputError("A single-label task needs exactly one label of 1 and else 0 in each row, or a row of NaN.")
    return z[known], y[known]


def _against_the_rest(z: Array) -> Array:
    """Return the log-odds of each class's softmax probability, (n, K), exact for large logits."""
    columns = [z[:, k] - logsumexp(np.delete(z, k, axis=1), axis=1) for k in range(z.shape[1])]
    return np.column_stack(columns)


def _too_few(y: Array, least: int) -> str:
    n_positive, n_negative = int((y == 1).sum()), int((y == 0).sum())
    if min(n_positive, n_negative) >= max(least, 1):
        return ""
    return f"{n_positive:,} positives and {n_negative:,} negatives, at least {max(least, 1)} of each are needed"


def _at_bound(temperature: float) -> list[str]:
    if temperature not in fits.BRACKET:
        return []
    low = temperature == fits.BRACKET[0]
    why = "the scores separate the labels without error" if low else "the scores say nothing, or the opposite"
    return [f"the temperature ended at its bound {temperature:g}: {why}."]
