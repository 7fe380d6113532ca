"""Embeddings, labels and groups as the distance functions need them, or an error that says which rows are wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medvlm_probe.errors import InputError
from medvlm_probe.types import FloatArray, IntArray

CHUNK_ROWS = 1024
"""Rows that are looked at or converted at once, so that no second copy of the embeddings is made."""


def checked_embeddings(embeddings: ArrayLike) -> FloatArray:
    """Return the embeddings as a float array (n, d), refusing other shapes and values that are not finite."""
    array = np.asarray(embeddings)
    if array.ndim != 2 or 0 in array.shape or array.dtype.kind not in "fiu":
        raise InputError(
            f"Embeddings of shape {array.shape} and type {array.dtype}: "
            "expected numbers (n images, d dimensions), at least one of each."
        )
    if array.dtype.kind != "f":
        array = array.astype(np.float64)
    bad = np.concatenate(
        [
            start + np.flatnonzero(~np.isfinite(array[start : start + CHUNK_ROWS]).all(axis=1))
            for start in range(0, len(array), CHUNK_ROWS)
        ]
    )
    if bad.size:
        raise InputError(f"Embeddings hold values that are not finite in {rows_in_words(bad)}: leave these images out.")
    return array


def checked_labels(labels: ArrayLike, n: int) -> NDArray[np.float32]:
    """Return labels as float32 (n, L) of 1, 0 and NaN; a single label may come as (n,)."""
    array = np.asarray(labels)
    if array.dtype.kind not in "fiub":
        raise InputError(f"Labels of type {array.dtype}: expected 1 (present), 0 (absent) or NaN (not known).")
    array = array.astype(np.float32)
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or len(array) != n or array.shape[1] == 0:
        raise InputError(f"Labels of shape {np.shape(labels)} do not fit {n} embeddings: expected ({n},) or ({n}, L).")
    bad = np.flatnonzero(~(np.isnan(array) | (array == 0) | (array == 1)).all(axis=1))
    if bad.size:
        row = array[bad[0]]
        value = row[~(np.isnan(row) | (row == 0) | (row == 1))][0]
        raise InputError(
            f"Labels hold {value:g} in {rows_in_words(bad)}: expected 1, 0 or NaN. "
            "Apply an uncertainty policy (ignore, zeros, ones) to uncertain labels first."
        )
    return array


def checked_label_names(names: Sequence[str] | None, n_labels: int) -> tuple[str, ...]:
    """Return the labels' names, `label_0` ... where none are given."""
    if names is None:
        return tuple(f"label_{k}" for k in range(n_labels))
    if len(names) != n_labels:
        raise InputError(f"{len(names)} label names do not fit labels with {n_labels} columns.")
    return tuple(str(name) for name in names)


def codes(values: ArrayLike | None, n: int, what: str) -> NDArray[np.int64]:
    """Return each row's group or site as codes 0 ... in sorted order of the values; None gives each row its own."""
    if values is None:
        return np.arange(n, dtype=np.int64)
    array = np.asarray(values)
    if array.shape != (n,):
        raise InputError(f"{what.capitalize()} of shape {array.shape} do not fit {n} embeddings: expected ({n},).")
    return np.unique(array, return_inverse=True)[1].astype(np.int64)


def rows_in_words(rows: IntArray) -> str:
    """Return row numbers for a message, at most five of them."""
    shown = ", ".join(str(row) for row in rows[:5])
    more = f" and {len(rows) - 5} more" if len(rows) > 5 else ""
    return f"row{'s' if len(rows) > 1 else ''} {shown}{more} (counted from 0)"


@dataclass(frozen=True)
class Images:
    """Checked inputs; all but the embeddings in group order.

    Attributes:
        embeddings: as given, (n, d).
        order: the rows of `embeddings` sorted by group, (n,).
        labels: float32 (n, L) of 1, 0 and NaN.
        groups: ascending codes 0 ... G - 1, (n,).
        strata: codes of the sites, (n,).
        names: of the L labels.
    """

    embeddings: FloatArray
    order: NDArray[np.int64]
    labels: NDArray[np.float32]
    groups: NDArray[np.int64]
    strata: NDArray[np.int64]
    names: tuple[str, ...]


def images_of(
    embeddings: ArrayLike,
    labels: ArrayLike,
    groups: ArrayLike | None,
    *,
    strata: ArrayLike | None = None,
    label_names: Sequence[str] | None = None,
) -> Images:
    """Check what a distance function was given, and sort it by group.

    Args:
        embeddings: (n, d).
        labels: 1, 0 or NaN, (n,) or (n, L).
        groups: (n,), any values; None makes each image its own group.
        strata: (n,), any values; None is one stratum.
        label_names: L names.
    """
    array = checked_embeddings(embeddings)
    n = len(array)
    values = checked_labels(labels, n)
    names = checked_label_names(label_names, values.shape[1])
    group_codes = codes(groups, n, "groups")
    site_codes = codes(np.zeros(n) if strata is None else strata, n, "strata")
    order = np.argsort(group_codes, kind="stable")
    return Images(array, order, values[order], group_codes[order], site_codes[order], names)
