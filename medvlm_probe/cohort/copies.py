"""Tables of the images that occur more than once in a cohort, byte for byte or nearly, and of those that leak."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medvlm_probe.cohort.cohort import Cohort
from medvlm_probe.cohort.near_copies import find_near_copies
from medvlm_probe.cohort.perceptual_hash import Thumbnails

COPY_COLUMNS = ("copy", "image", "site", "split", "patient")
NEAR_COLUMNS = ("near_copy", *COPY_COLUMNS[1:], "correlation", "change")


def copy_table(cohort: Cohort, keys: Sequence[str]) -> pd.DataFrame:
    """Return the images that share their content with another: `COPY_COLUMNS`, sets numbered from 1.

    Args:
        cohort: the images.
        keys: their content keys (n,), "" where an image could not be read; empty where none was read.
    """
    found = pd.Series(list(keys), dtype=object)
    repeated = found.duplicated(keep=False) & (found != "")
    rows = np.flatnonzero(repeated.to_numpy())
    codes, _ = pd.factorize(found.iloc[rows])
    frame = _described(cohort, rows)
    frame.insert(0, "copy", codes + 1)
    return frame.sort_values("copy", kind="stable").reset_index(drop=True)


def near_copy_table(cohort: Cohort, keys: Sequence[str], thumbnails: Thumbnails) -> pd.DataFrame:
    """Return the images that look the same as another with other bytes: `NEAR_COLUMNS`, sets numbered from 1.

    Sets are closed: the copies of a copy belong to it, and so do exact copies of its members. `correlation` and
    `change` are those of an image with the one most like it.

    Args:
        cohort: the images.
        keys: their content keys (n,), "" where an image could not be read.
        thumbnails: of the readable images, in their order, uint8 (m, 32, 32).
    """
    readable = np.flatnonzero([key != "" for key in keys])
    codes, contents = pd.factorize(pd.Series([key for key in keys if key], dtype=object))
    first = np.flatnonzero(~pd.Series(codes).duplicated().to_numpy())
    found = find_near_copies(thumbnails[first])
    sets = _connected(found.pairs, len(contents))
    best = np.zeros(len(contents), np.float32)
    change = np.full(len(contents), "", dtype=object)
    for (one, other), correlation, what in zip(found.pairs.tolist(), found.correlation, found.change, strict=True):
        for content in (one, other):
            if correlation > best[content]:
                best[content], change[content] = correlation, what
    chosen = best[codes] > 0
    frame = _described(cohort, readable[chosen])
    numbers, _ = pd.factorize(sets[codes[chosen]])
    frame.insert(0, "near_copy", numbers + 1)
    frame["correlation"] = np.round(best[codes[chosen]].astype(np.float64), 3)
    frame["change"] = change[codes[chosen]]
    return frame.sort_values("near_copy", kind="stable").reset_index(drop=True)


def leaks(table: pd.DataFrame) -> pd.DataFrame:
    """Return the sets of a table of copies that span splits, sites or patients: its number, n_images, across."""
    number = str(table.columns[0])
    rows = []
    for value, part in table.groupby(number):
        across = [name for name in ("split", "site", "patient") if part[name].nunique() > 1]
        if across:
            rows.append((value, len(part), ", ".join(across)))
    return pd.DataFrame(rows, columns=[number, "n_images", "across"])


def _described(cohort: Cohort, rows: NDArray[np.int64]) -> pd.DataFrame:
    patients = cohort.table["patient"].fillna("") if "patient" in cohort.table else pd.Series("", cohort.table.index)
    return pd.DataFrame(
        {
            "image": cohort.table["image"].to_numpy()[rows],
            "site": cohort.sites()[rows],
            "split": cohort.splits()[rows],
            "patient": patients.to_numpy()[rows],
        }
    )


def _connected(pairs: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    _, component = connected_components(edges, directed=False)
    return np.asarray(component, dtype=np.int64)
