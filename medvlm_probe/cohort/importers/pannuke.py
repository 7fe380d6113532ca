"""PanNuke: three folds of .npy files as patches that are benign or malignant by their counted nuclei."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medvlm_probe.cohort.importers.image_files import files_below
from medvlm_probe.cohort.importers.left_out import counted
from medvlm_probe.cohort.importers.one_class import class_columns, labels_in_order
from medvlm_probe.cohort.importers.patches import Patch, patch_place, sources_stated, write_patches
from medvlm_probe.cohort.importers.published import ImportOptions, LabelMap, Published
from medvlm_probe.cohort.importers.tables import refuse_labels_file
from medvlm_probe.cohort.manifest_columns import snake_case
from medvlm_probe.errors import ManifestError

TITLE = "PanNuke"
LABEL_MAP: LabelMap = {"benign": ("benign",), "malignant": ("malignant",)}
FOLD_SPLITS = {1: "train", 2: "val", 3: "test"}
"""The first of the three ways in which PanNuke's authors use their folds."""

RULE = "at least 10 neoplastic nuclei and above 30 % of all nuclei: malignant; none among other nuclei: benign"
LEGACY_RULE = f"{RULE}; as the published script counts"
PATCHES, LEGACY_PATCHES = "pannuke_patches", "pannuke_legacy_patches"

_NEOPLASTIC, _KINDS, _CHANNELS = 0, 5, 6
_LEAST_NUCLEI, _LEAST_SHARE = 10, 0.3


@dataclass(frozen=True)
class _Fold:
    """The files of a fold."""

    number: int
    images: Path
    masks: Path
    types: Path


def read(folder: Path, options: ImportOptions) -> Published:
    """Read `images.npy`, `masks.npy` and `types.npy` of each fold, wherever `fold1` (`Fold 1`, ...) is in their paths.

    Patches that are benign or malignant are written as PNG into `options.unpack_to`; the others are counted. The arrays
    are mapped into memory, one patch is held at a time, and pickled objects are refused. With `options.legacy_split`
    nuclei are counted, and patches divided 30/70, as the published script does.

    Raises:
        ManifestError: no folds, a fold without one of its files, arrays of another shape or kind.
        InputError: a labels file was given, or patches that are not written yet without `unpack_to`.
        StoreError: patches cannot be written.
    """
    refuse_labels_file(options, TITLE)
    folds = _folds(folder)
    files = [path for fold in folds for path in (fold.images, fold.masks, fold.types)]
    facts = {
        "rule": LEGACY_RULE if options.legacy_split else RULE,
        "files": sources_stated(files, folder),
    }
    name = LEGACY_PATCHES if options.legacy_split else PATCHES
    place = patch_place(folder, options.unpack_to, name, facts, f"pannuke:{folder}")
    options.say(f"Counting nuclei of {len(folds)} folds and writing patches into {place} ...")
    rows = write_patches(place, facts, _patches(folds, legacy=options.legacy_split), options.say).table
    if rows.empty:
        raise ManifestError(f"No patch in '{folder}' is benign or malignant. Take the folds as they were published.")
    rows["image"] = name + "/" + rows["image"]
    split = _legacy_split(rows) if options.legacy_split else rows["fold"].astype(int).map(FOLD_SPLITS)
    total = sum(len(_array(fold.types)) for fold in folds)
    lacking = sorted(set(FOLD_SPLITS) - {fold.number for fold in folds})
    return Published(
        table=rows[["image"]].assign(
            split=split,
            **class_columns(rows["class"], LABEL_MAP),
            tissue=rows["tissue"],
            fold=rows["fold"],
            neoplastic_nuclei=rows["neoplastic_nuclei"],
            nuclei=rows["nuclei"],
        ),
        labels=labels_in_order(LABEL_MAP),
        image_root=place.parent,
        notes=(
            "Which patches come from one slide or patient is not told: splits may share them.",
            *counted(total - len(rows), "Patches without nuclei, or with few neoplastic ones, left out"),
            *(f"Fold {number} is not there." for number in lacking),
        ),
    )


def _folds(folder: Path) -> list[_Fold]:
    found: dict[int, dict[str, Path]] = {}
    for file in files_below(folder, (".npy",)):
        match = re.search(r"fold[ _-]?(\d+)", file, flags=re.IGNORECASE)
        kind = Path(file).stem.lower()
        if match and kind in ("images", "masks", "types"):
            found.setdefault(int(match.group(1)), {})[kind] = folder / file
    unknown = sorted(set(found) - set(FOLD_SPLITS))
    if not found or unknown:
        what = f"it has a fold {unknown[0]}" if unknown else "no images.npy lies in a folder fold1, fold2 or fold3"
        raise ManifestError(f"'{folder}' does not look like {TITLE}: {what}. Name the folder of the unpacked folds.")
    for number, files in found.items():
        missing = [f"{kind}.npy" for kind in ("images", "masks", "types") if kind not in files]
        if missing:
            raise ManifestError(f"Fold {number} of {TITLE} lacks {' and '.join(missing)}. Unpack it again.")
    return [_Fold(number, **found[number]) for number in sorted(found)]


def _array(path: Path) -> NDArray[Any]:
    """Return a file's array, mapped into memory."""
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # whatever the bytes lead numpy's reader to
        raise ManifestError(
            f"'{path.name}' in '{path.parent}' is no array that is read: damaged, or pickled objects, which are never "
            "loaded. Take the file as it was published."
        ) from error
    return array


def _checked(fold: _Fold) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    images, masks, types = _array(fold.images), _array(fold.masks), _array(fold.types)
    n = len(types) if types.ndim == 1 else -1
    shapes_fit = images.ndim == 4 and images.shape[0::3] == (n, 3) and masks.shape == (*images.shape[:3], _CHANNELS)
    kinds_fit = images.dtype.kind in "fui" and masks.dtype.kind in "fui" and types.dtype.kind == "U"
    if not (shapes_fit and kinds_fit):
        raise ManifestError(
            f"Fold {fold.number} holds images {images.shape} {images.dtype}, masks {masks.shape} {masks.dtype} and "
            f"types {types.shape} {types.dtype}; expected (n, h, w, 3), (n, h, w, 6) and n names."
        )
    return images, masks, types


def _patches(folds: list[_Fold], *, legacy: bool) -> Iterator[Patch]:
    for fold in folds:
        images, masks, types = _checked(fold)
        for number in range(len(types)):
            counts = legacy_nuclei(masks[number]) if legacy else nuclei(masks[number])
            kind = kind_of(counts)
            if kind is None:
                continue
            tissue = str(types[number])
            name = f"fold{fold.number}/{number:04d}_{snake_case(tissue)}_{kind}.png"
            row = {
                "class": kind,
                "tissue": tissue,
                "fold": str(fold.number),
                "neoplastic_nuclei": str(counts[_NEOPLASTIC]),
                "nuclei": str(sum(counts)),
            }
            yield Patch(name, np.clip(images[number], 0, 255).astype(np.uint8), row)


def nuclei(mask: NDArray[Any]) -> tuple[int, ...]:
    """Return how many nuclei of each of the five kinds a patch has, the background not counted; () where it has none.

    Args:
        mask: (h, w, 6), 0 or the number of a nucleus in each channel.
    """
    channels = (mask[..., kind] for kind in range(_KINDS))
    counts = tuple(int(np.unique(channel[channel > 0]).size) for channel in channels)
    return counts if any(counts) else ()


def legacy_nuclei(mask: NDArray[Any]) -> tuple[int, ...]:
    """Return what the published script counts in each of the six channels; () for a patch that it drops as empty.

    Numbers of nuclei are cut to 8 bits, so that 256 is nothing and 257 is 1; the background counts as one more; and one
    value of each channel is taken to be 0.
    """
    cut = mask.astype(np.int64).astype(np.uint8)
    if not cut[..., :_KINDS].any():
        return ()
    return tuple(len(np.unique(cut[..., channel])) - 1 for channel in range(_CHANNELS))


def kind_of(counts: tuple[int, ...]) -> str | None:
    """Return `malignant`, `benign` or neither (see `RULE`) for nuclei by kind, the neoplastic ones first."""
    if not counts:
        return None
    neoplastic = counts[_NEOPLASTIC]
    if neoplastic == 0:
        return "benign"
    return "malignant" if neoplastic >= _LEAST_NUCLEI and neoplastic / sum(counts) > _LEAST_SHARE else None


def _legacy_split(rows: pd.DataFrame) -> pd.Series:
    """Return the published 30/70 split: over all folds at random, malignant patches first, seed 1."""
    from sklearn.model_selection import train_test_split

    order = np.concatenate([np.flatnonzero(rows["class"] == kind) for kind in ("malignant", "benign")])
    train, _ = train_test_split(
        np.arange(len(order)), test_size=0.7, stratify=rows["class"].to_numpy()[order], random_state=1
    )
    split = pd.Series("test", index=rows.index)
    split.iloc[order[train]] = "train"
    return split
