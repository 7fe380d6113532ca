"""Sketches as files: safetensors with a JSON header, no pickle, checked when they are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from medvlm_probe.errors import InputError, ProbeError, StoreError
from medvlm_probe.runs import parse_json, write_bytes_atomically
from medvlm_probe.shift.sketch import ARRAYS, Sketch
from medvlm_probe.shift.sketch_plan import N_BINS, OUTLIER_EDGES, SketchPlan, fold_counts

FORMAT = 2
"""2: probabilities in fine bins, so that scores can be held against a reference that is a sketch."""

_HEADER = "sketch"
_LARGEST = 2**30


def write_sketch(path: Path, sketch: Sketch) -> None:
    """Write a sketch: float64, or float32 for an export. Equal sketches give equal bytes. Raises StoreError."""
    write_bytes_atomically(path, sketch_bytes(sketch))


def sketch_bytes(sketch: Sketch) -> bytes:
    """Return a sketch as the bytes of its file."""
    from safetensors.numpy import save

    dtype = np.float64 if sketch.kind == "working" else np.float32
    arrays = {name: np.ascontiguousarray(array, dtype=dtype) for name, array in sketch.arrays().items() if array.size}
    header = {
        "format": FORMAT,
        "kind": sketch.kind,
        "own_plan": sketch.own_plan,
        "plan": sketch.plan.to_json(),
        "noise": dict(sketch.noise),
        "privacy": dict(sketch.privacy),
    }
    return save(arrays, metadata={_HEADER: json.dumps(header, sort_keys=True, ensure_ascii=False, allow_nan=False)})


def read_sketch(path: Path) -> Sketch:
    """Return the sketch that a file holds.

    Raises:
        StoreError: the file cannot be read.
        InputError: it is no sketch, of a newer format, cut off, or its arrays do not fit its plan.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        if path.stat().st_size > _LARGEST:
            raise InputError(f"{path.name} is larger than any sketch (1 GiB). Give the file that 'sketch --out' wrote.")
        data = path.read_bytes()
    except OSError as error:
        raise StoreError(
            f"Cannot read {path}: {error.strerror or error}. Check the name and its permissions."
        ) from error
    try:
        header = _header(data)
        arrays = load(data)
        found = _sketch(header, arrays)
    except ProbeError as error:
        raise InputError(f"{path.name} cannot be used: {error}") from error
    except (SafetensorError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise InputError(
            f"{path.name} is no sketch, or is cut off. Give a file that 'medvlm-probe sketch --out' wrote."
        ) from error
    return found


def _header(data: bytes) -> dict[str, Any]:
    length = int.from_bytes(data[:8], "little")
    header: dict[str, Any] = parse_json(parse_json(data[8 : 8 + length])["__metadata__"][_HEADER])
    if header["format"] != FORMAT:
        raise InputError(
            f"its format is {header['format']}, this version reads {FORMAT}. Make it again with this version."
        )
    return header


def _sketch(header: dict[str, Any], arrays: dict[str, Any]) -> Sketch:
    plan = SketchPlan.from_json(header["plan"])
    kind = header["kind"]
    if kind not in ("working", "export"):
        raise InputError(f"its kind is '{kind}': expected working or export.")
    n_folds = len(arrays["fold_patients"])
    shapes = _shapes(plan, n_folds)
    found: dict[str, Any] = {}
    for name in ARRAYS:
        array = arrays[name] if name in arrays else np.zeros(shapes[name])
        if (
            array.shape != shapes[name]
            or array.dtype.kind != "f"
            or (name in _COMPLETE and not np.isfinite(array).all())
        ):
            raise InputError(f"its array {name} of shape {array.shape} is not the finite one of shape {shapes[name]}.")
        if name in _COUNTS and np.abs(np.nan_to_num(array)).max(initial=0.0) > _MOST_PEOPLE:
            raise InputError(f"its array {name} counts more than {_MOST_PEOPLE:,} people.")
        found[name] = np.asarray(array, dtype=np.float64)
    return Sketch(
        plan,
        kind,
        bool(header["own_plan"]),
        **found,
        noise={str(name): float(sd) for name, sd in header["noise"].items()},
        privacy={str(name): float(number) for name, number in header["privacy"].items()},
    )


_MOST_PEOPLE = 10**8
_COUNTS = ("fold_patients", "label_weights", "calls", "call_patients", "outlier_weights", "images")
_COMPLETE = ("fold_patients", "fold_features", "fold_lengths", "embedding", "products")


def _shapes(plan: SketchPlan, n_folds: int) -> dict[str, tuple[int, ...]]:
    if n_folds not in fold_counts(plan.n_folds):
        raise InputError(f"it has {n_folds} folds where its plan has {plan.n_folds}.")
    d, labels, scores = plan.features.n_dimensions, len(plan.labels), len(plan.outlier_scores)
    return {
        "fold_patients": (n_folds,),
        "fold_features": (n_folds, plan.features.n_features),
        "fold_lengths": (n_folds,),
        "embedding": (d,),
        "products": (d * (d + 1) // 2,),
        "label_weights": (labels, 3, N_BINS),
        "label_confidence": (labels, 3, N_BINS),
        "calls": (labels, 3, 2),
        "call_patients": (labels, 3, 2),
        "residuals": (labels, 5),
        "outlier_weights": (scores, len(OUTLIER_EDGES) + 1),
        "images": (1,),
    }
