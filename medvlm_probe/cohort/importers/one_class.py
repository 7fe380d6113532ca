"""Data sets with exactly one class an image: label columns, and splits by group that the same files always get."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from medvlm_probe.cohort.importers.published import LabelMap
from medvlm_probe.cohort.stratify import stratified_parts


def class_columns(classes: pd.Series, label_map: LabelMap) -> dict[str, pd.Series]:
    """Return a column of 1 and 0 for each label, in the order of the map; each class has exactly one label."""
    return {label: (classes == name).astype(np.float32) for name, (label,) in label_map.items()}


def labels_in_order(label_map: LabelMap) -> tuple[str, ...]:
    """Return the labels of a map whose classes have one each, in its order."""
    return tuple(label for (label,) in label_map.values())


def split_by_group(groups: Sequence[str], classes: Sequence[str], shares: Mapping[str, float]) -> list[str]:
    """Return each image's part: groups stay whole, and the parts are alike in classes (see `stratify`).

    Ties are broken by a hash of the groups' names, so that neither the order of the rows nor a seed matters.

    Args:
        groups: what each image belongs to, n names.
        classes: each image's class, n names.
        shares: part to its share of the images; they add up to 1.
    """
    codes, names = pd.factorize(pd.Series(groups, dtype=object))
    digests = [hashlib.sha256(str(name).encode()).hexdigest() for name in names]
    place = np.argsort(np.argsort(np.array(digests, dtype=object)))[codes]
    counts = pd.crosstab(place, pd.Series(classes, dtype=object).to_numpy()).to_numpy(np.int64)
    parts = stratified_parts(counts.sum(axis=1), counts, np.array(list(shares.values()), dtype=np.float64))
    return [list(shares)[part] for part in parts[place]]
