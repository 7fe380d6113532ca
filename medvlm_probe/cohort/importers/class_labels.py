"""From a source's own classes to labels, by its label map: stated in lists of classes, or in columns of 1, 0 and -1."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medvlm_probe.cohort.importers.left_out import counted
from medvlm_probe.cohort.importers.published import LabelMap
from medvlm_probe.cohort.importers.tables import read_table
from medvlm_probe.cohort.labels import CHEXPERT_LABELS
from medvlm_probe.cohort.manifest_columns import label_values, snake_case
from medvlm_probe.cohort.manifest_files import rows_text
from medvlm_probe.errors import InputError, ManifestError

NO_FINDING = "no_finding"

CONTRADICTION = "Images said to show nothing and a finding at once, no_finding unknown there"

CHEXPERT_CLASSES: LabelMap = {
    "No Finding": ("no_finding",),
    "Enlarged Cardiomediastinum": ("enlarged_cardiomediastinum",),
    "Cardiomegaly": ("cardiomegaly",),
    "Lung Opacity": ("lung_opacity",),
    "Lung Lesion": ("lung_lesion",),
    "Edema": ("edema",),
    "Consolidation": ("consolidation",),
    "Pneumonia": ("pneumonia",),
    "Atelectasis": ("atelectasis",),
    "Pneumothorax": ("pneumothorax",),
    "Pleural Effusion": ("pleural_effusion",),
    "Pleural Other": ("pleural_other",),
    "Fracture": ("fracture",),
    "Support Devices": ("support_devices",),
}
"""The columns of CheXpert's labeler, which CheXpert and MIMIC-CXR-JPG publish."""


def labels_of(label_map: LabelMap) -> tuple[str, ...]:
    """Return the labels that a map's classes make present, in the order of CheXpert."""
    present = {label for labels in label_map.values() for label in labels}
    return tuple(label for label in CHEXPERT_LABELS if label in present)


def parsed_classes(texts: pd.Series, parse: Callable[[str], frozenset[str]]) -> pd.Series:
    """Return each row's classes as a frozenset, empty where the cell is; each distinct text is parsed once."""
    codes, kinds = pd.factorize(texts)
    lists = np.empty(len(kinds) + 1, dtype=object)
    lists[:] = [*(parse(str(kind)) for kind in kinds), frozenset()]
    return pd.Series(lists[codes], index=texts.index, dtype=object)


def listed_labels(
    classes: pd.Series,
    label_map: LabelMap,
    *,
    open_classes: frozenset[str] = frozenset(),
    beside_normal: frozenset[str] = frozenset(),
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return labels where each row lists the classes that are present, and all that is not listed is absent.

    Args:
        classes: each row's classes (n,), frozensets; an empty one says nothing, so all labels are unknown.
        label_map: the source's classes.
        open_classes: classes that say that the list is not whole ("unchanged"): beside them, what is not listed is
            unknown rather than absent, unless the row is declared normal.
        beside_normal: classes that may stand beside the one of `no_finding` without contradicting it.

    Returns:
        Labels (n, L) of `labels_of(label_map)`: 1, 0 or NaN. Whether a row contradicts itself (n,): the class of
        `no_finding` stands beside another; `no_finding` is unknown there, the findings are as listed.
    """
    labels = labels_of(label_map)
    normal = {name for name, mapped in label_map.items() if NO_FINDING in mapped}
    codes, kinds = pd.factorize(classes)
    values = np.full((len(kinds), len(labels)), np.nan, dtype=np.float32)
    contradicts = np.zeros(len(kinds), dtype=np.bool_)
    for row, listed in enumerate(kinds):
        if not listed:
            continue
        present = {label for name in listed for label in label_map.get(name, ())}
        findings = listed - normal - open_classes - beside_normal
        whole = bool(listed & normal) or not listed & open_classes
        absent = 0.0 if whole else np.nan
        values[row] = [1.0 if label in present else absent for label in labels]
        contradicts[row] = bool(listed & normal and findings)
        if NO_FINDING in labels and (contradicts[row] or (findings and not whole)):
            values[row, labels.index(NO_FINDING)] = np.nan if contradicts[row] else 0.0
    return values[codes], contradicts[codes]


def stated_labels(table: pd.DataFrame, path: Path, label_map: LabelMap) -> pd.DataFrame:
    """Return labels that columns state as 1, 0, -1 (uncertain) or nothing (not mentioned, so unknown).

    Args:
        table: text columns; those whose name a class of `label_map` has in any spelling are read.
        path: where the table came from, for errors.
        label_map: each class to one label.

    Returns:
        One float32 column per label, in the order of CheXpert; labels without a column are absent.

    Raises:
        ManifestError: there is no such column, or a cell is none of these.
    """
    import pyarrow as pa

    labels = {snake_case(name): mapped[0] for name, mapped in label_map.items()}
    found: dict[str, NDArray[np.float32]] = {}
    for name in table.columns:
        label = labels.get(snake_case(str(name)))
        if label is None:
            continue
        texts = pa.array(table[name].to_numpy(dtype=object), type=pa.string(), from_pandas=True)
        values, bad = label_values(pa.chunked_array([texts]))
        if bad.any():
            rows = rows_text((np.flatnonzero(bad)[:5] + 1).tolist(), int(bad.sum()))
            raise ManifestError(f"{path.name}: column '{name}' holds values other than 1, 0, -1 or empty in {rows}.")
        found[label] = values
    if not found:
        raise ManifestError(f"{path.name} has no label columns ('{next(iter(label_map))}' and others).")
    order = [label for label in CHEXPERT_LABELS if label in found]
    return pd.DataFrame(found, columns=order, index=table.index)


def settled(values: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Return stated labels with `no_finding` unknown where it is present beside a finding, and a note of how many.

    Devices are no findings: CheXpert's labeler gives "No Finding" to films that show nothing but devices.
    """
    findings = values.drop(columns=[NO_FINDING, "support_devices"], errors="ignore")
    if NO_FINDING not in values:
        return values, ()
    contradicts = (values[NO_FINDING] == 1) & (findings == 1).any(axis=1)
    note = counted(int(contradicts.sum()), CONTRADICTION)
    return values.assign(**{NO_FINDING: values[NO_FINDING].mask(contradicts)}), note


def replace_by_file(
    values: pd.DataFrame,
    splits: pd.Series,
    path: Path,
    keys: dict[str, Callable[[str], str]],
    rows: dict[str, pd.Series],
    label_map: LabelMap,
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Put the labels of a user's file in the place of the publisher's.

    The file is taken for every split that it speaks of, so that within a split all labels have one origin: where it has
    no row for an image of such a split, the image's labels are unknown.

    Args:
        values: the publisher's labels, one float32 column each.
        splits: each row's split; missing is a split of its own.
        path: the file, a CSV with one of the columns of `keys` and label columns.
        keys: columns that may say what a row of the file is about, best first, and how a cell becomes a key.
        rows: for each of these columns the key of every row of `values`.
        label_map: the classes that the file's columns are named after.

    Raises:
        InputError: the file has none of these columns, or speaks of no image here, or gives one key two rows.
        ManifestError: the file cannot be read.
    """
    table = read_table(path, (), None)
    given = next((name for name in keys if name in table), None)
    if given is None:
        raise InputError(
            f"{path.name} has no column {' or '.join(repr(name) for name in keys)}, so its rows cannot be matched. It "
            f"has: {', '.join(str(name) for name in table.columns[:8])}."
        )
    theirs = stated_labels(table, path, label_map)
    theirs.index = pd.Index(table[given].map(keys[given], na_action="ignore"))
    theirs = theirs[theirs.index.notna()]
    if theirs.index.has_duplicates:
        twice = theirs.index[theirs.index.duplicated()][0]
        raise InputError(f"{path.name} has two rows for '{twice}'. Leave one.")
    ours = rows[given]
    known = ours.isin(theirs.index)
    if not known.any():
        raise InputError(
            f"{path.name} speaks of no image here: its '{given}' is such as '{table[given].dropna().iloc[0]}'. "
            "Take the file of this data set."
        )
    split = splits.fillna("").astype(object)
    replaced = split.isin(set(split[known]))
    columns = [label for label in CHEXPERT_LABELS if label in values or label in theirs]
    out = values.reindex(columns=columns)
    out[replaced] = theirs.reindex(index=ours[replaced], columns=columns).to_numpy(dtype=np.float32)
    where = ", ".join(sorted(name or "without a name" for name in set(split[known])))
    note = (
        f"Labels of the split{'s' if split[known].nunique() > 1 else ''} {where} are those of {path.name}: "
        f"{int(known.sum()):,} of {int(replaced.sum()):,} images have a row there, the others' labels are unknown."
    )
    return out.astype(np.float32), (note,)
