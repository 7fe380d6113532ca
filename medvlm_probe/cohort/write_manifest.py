"""From loaded cohorts to a manifest on disk: `manifest.csv`, `boxes.csv`, `skipped.csv` and `DATA_CARD.md`."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from medvlm_probe.cohort.catalog import BOXES_FILE, MANIFEST_SUFFIXES, PUBLISHED, Loaded, load_cohort
from medvlm_probe.cohort.cohort import Cohort
from medvlm_probe.cohort.data_cards import CARD_FILE
from medvlm_probe.cohort.image_places import (
    ImageSet,
    copy_images,
    elsewhere_error,
    places_below,
    unwritable,
)
from medvlm_probe.cohort.images import FileImages
from medvlm_probe.cohort.import_cards import WRITTEN_BY, import_card
from medvlm_probe.cohort.importers.published import BOX_COLUMNS, SKIPPED_COLUMNS
from medvlm_probe.cohort.joining import Joined, join_cohorts
from medvlm_probe.cohort.manifest import UncertaintyPolicy
from medvlm_probe.cohort.manifest_columns import snake_case
from medvlm_probe.cohort.manifest_files import read_text_columns, rows_text
from medvlm_probe.errors import InputError, ManifestError, ProbeError, StoreError
from medvlm_probe.runs import csv_bytes, write_bytes_atomically, write_csv

SKIPPED_FILE = "skipped.csv"

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ManifestPlan:
    """What to write and how.

    Attributes:
        out: the manifest, `.csv` or `.parquet`.
        sites: one site name a cohort, `-` for its own; empty for the cohorts' own.
        uncertainty: what -1 becomes, where the cohorts differ.
        copy_images: copy images that do not lie below the manifest's folder into it.
        overwrite: write over files of an earlier import.
        labels_file: where the labels come from if they are not the source's own; the data card says so.
    """

    out: Path
    sites: tuple[str, ...] = ()
    uncertainty: UncertaintyPolicy | None = None
    copy_images: bool = False
    overwrite: bool = False
    labels_file: Path | None = None


@dataclass(frozen=True, eq=False)
class WrittenManifest:
    """What was written.

    Attributes:
        cohort: the cohort, read back from the manifest.
        skipped: what was left out: cohort, what, reason.
        n_boxes: rows of `boxes.csv`.
        notes: what people should know, a sentence each.
        paths: the files.
    """

    cohort: Cohort
    skipped: pd.DataFrame
    n_boxes: int
    notes: tuple[str, ...]
    paths: tuple[Path, ...]


def check_plan(plan: ManifestPlan) -> None:
    """Refuse a name that is no manifest's (InputError) or a manifest that exists (StoreError), before data are read."""
    if plan.out.suffix.lower() not in MANIFEST_SUFFIXES:
        raise InputError(f"--out {plan.out}: expected a manifest's name, ending in .csv or .parquet.")
    if plan.out.exists() and not plan.overwrite:
        raise StoreError(f"{plan.out} exists. Name another manifest, or give --overwrite.")


def write_manifest(loaded: Sequence[Loaded], plan: ManifestPlan, progress: Progress) -> WrittenManifest:
    """Join cohorts (one is as good as several) and write the manifest with what belongs beside it.

    Args:
        loaded: from `catalog.load_with_notes`.
        plan: what to write.
        progress: called with (images copied, images to copy).

    Raises:
        InputError: images that lie elsewhere and are not to be copied, cohorts that cannot be joined, no image left.
        StoreError: files that exist, or a folder that cannot be written.
    """
    check_plan(plan)
    sets = _image_sets([item.cohort for item in loaded])
    places = places_below(plan.out.parent, sets)
    if None in places and not plan.copy_images:
        raise elsewhere_error(plan.out, sets)
    # Cohorts that cannot be joined are refused before anything is copied.
    join_cohorts([item.cohort for item in loaded], sites=plan.sites, uncertainty=plan.uncertainty)
    parts = []
    n_done, n_all = 0, sum(len(images.images) for images, place in zip(sets, places, strict=True) if place is None)
    for item, images, place in zip(loaded, sets, places, strict=True):
        parts.append(_placed(item, images, place, plan.out.parent, _from(n_done, n_all, progress)))
        n_done += len(images.images) if place is None else 0
    cohorts = [part.cohort for part in parts]
    joined = join_cohorts(cohorts, sites=plan.sites, uncertainty=plan.uncertainty)
    _check_images(joined, cohorts)
    skipped = _stacked([part.skipped.assign(cohort=part.cohort.name) for part in parts])[["cohort", *SKIPPED_COLUMNS]]
    boxes = _stacked([part.boxes for part in parts])
    notes = [*_named_notes(parts), *joined.notes]
    paths = _write(plan, joined, cohorts, boxes, skipped, notes)
    return WrittenManifest(_read_back(plan.out), skipped, len(boxes), tuple(notes), tuple(paths))


@dataclass(frozen=True, eq=False)
class _Part:
    """A cohort whose images are named from the manifest's folder on; boxes and what was left out fit it."""

    cohort: Cohort
    boxes: pd.DataFrame
    skipped: pd.DataFrame
    notes: tuple[str, ...]


def _image_sets(cohorts: Sequence[Cohort]) -> list[ImageSet]:
    sets: list[ImageSet] = []
    names = [cohort.name for cohort in cohorts]
    for number, cohort in enumerate(cohorts):
        if not isinstance(cohort.source, FileImages):
            raise InputError(f"'{cohort.name}' has no files. Write them first: medvlm-probe cohort export.")
        name = cohort.name if names.count(cohort.name) == 1 else f"{cohort.name}-{number + 1}"
        sets.append(ImageSet(name if len(cohorts) > 1 else "", cohort.source.root, cohort.source.paths))
    return sets


def _from(n_before: int, n_all: int, progress: Progress) -> Callable[[int], None]:
    return lambda done: progress(n_before + done, n_all)


def _placed(
    item: Loaded, images: ImageSet, place: tuple[str, ...] | None, folder: Path, progress: Callable[[int], None]
) -> _Part:
    """Return a cohort with its images named from the manifest's folder on, copied there where `place` is None."""
    cohort = item.cohort
    start = f"{images.name}/" if images.name else ""
    names = place if place is not None else tuple(start + image for image in images.images)
    failed = unwritable(names)
    if place is None:
        rows = [row for row in range(len(names)) if row not in failed]
        failed |= copy_images(folder, images, names, rows, progress)
    kept = np.array([row not in failed for row in range(len(names))], dtype=np.bool_)
    left_out = [(ascii(images.images[row])[1:-1], failed[row]) for row in sorted(failed)]
    skipped = _stacked([item.skipped, pd.DataFrame(left_out, columns=list(SKIPPED_COLUMNS))])
    new_names = dict(zip(images.images, names, strict=True))
    cohort = cohort.select(kept)
    table = cohort.table.assign(image=[new_names[image] for image in cohort.table["image"]])
    boxes, notes = _renamed_boxes(item, set(cohort.table["image"]), new_names)
    return _Part(replace(cohort, table=table), boxes, skipped, (*item.notes, *notes))


def _renamed_boxes(item: Loaded, kept: set[str], names: dict[str, str]) -> tuple[pd.DataFrame, list[str]]:
    boxes = _boxes(item)
    known = boxes["image"].isin(kept)
    lost = int((~known).sum())
    boxes = boxes[known].assign(image=boxes["image"][known].map(names))
    return boxes, [f"{lost:,} boxes of images that are not in the manifest were left out."] if lost else []


def _boxes(item: Loaded) -> pd.DataFrame:
    """Return a cohort's boxes, those of a `boxes.csv` as numbers and text; no rows where there are none."""
    if item.boxes is not None:
        return item.boxes
    if item.boxes_file is None:
        return pd.DataFrame(columns=list(BOX_COLUMNS))
    columns = {name: column.to_pandas() for name, column in read_text_columns(item.boxes_file)}
    missing = [name for name in BOX_COLUMNS[:-1] if name not in columns]
    if missing:
        raise ManifestError(f"{item.boxes_file} lacks the columns {', '.join(missing)}. Add them, or move it away.")
    boxes = pd.DataFrame(columns)
    numbers = boxes[list("xywh")].apply(pd.to_numeric, errors="coerce")
    bad = numbers.isna().any(axis=1).to_numpy()
    if bad.any():
        rows = rows_text((np.flatnonzero(bad)[:5] + 1).tolist(), int(bad.sum()))
        raise ManifestError(f"{item.boxes_file}: x, y, w or h is no number in {rows}. Correct these cells.")
    return boxes.assign(**numbers)


def _named_notes(parts: Sequence[_Part]) -> list[str]:
    if len(parts) == 1:
        return list(parts[0].notes)
    return [f"{part.cohort.name}: {note}" for part in parts for note in part.notes]


def _stacked(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return the rows of all tables; the first where none has rows, for its columns."""
    filled = [table for table in tables if len(table)]
    return pd.concat(filled, ignore_index=True) if filled else tables[0]


def _check_images(joined: Joined, cohorts: Sequence[Cohort]) -> None:
    if not len(joined.table):
        raise InputError("No image is left to write. See what was left out and why in the notes above.")
    images = joined.table["image"]
    twice = np.flatnonzero(images.duplicated(keep=False))
    if twice.size:
        names = {cohorts[part].name for part in joined.part[twice]}
        raise InputError(
            f"{images.iloc[twice[0]]} comes twice ({', '.join(sorted(names))}), as do {twice.size // 2 - 1:,} other "
            "images. Join cohorts that share no files."
        )


def _write(
    plan: ManifestPlan,
    joined: Joined,
    cohorts: Sequence[Cohort],
    boxes: pd.DataFrame,
    skipped: pd.DataFrame,
    notes: list[str],
) -> list[Path]:
    """Write the files, the manifest last, and return their paths; notes of the files kept are added to `notes`."""
    folder = plan.out.parent
    beside = [(folder / BOXES_FILE, boxes), (folder / SKIPPED_FILE, skipped)]
    beside = [(path, table) for path, table in beside if len(table)]
    # Equal ones are what a killed import leaves.
    others = (path for path, table in beside if path.exists() and path.read_bytes() != csv_bytes(table, exact=True))
    existing = next(others, None)
    if existing is not None and not plan.overwrite:
        raise StoreError(f"{existing} exists. Name another folder, or give --overwrite.")
    paths = []
    for path, table in beside:
        write_csv(path, table, exact=True)
        paths.append(path)
    card = folder / CARD_FILE
    # A manifest that was imported earlier keeps its data set's name.
    published = [cohort.card.name for cohort in cohorts if cohort.card.name in PUBLISHED]
    name = snake_case(folder.resolve().name) or "joined"
    labels_file = plan.labels_file.name if plan.labels_file is not None else None
    text = import_card(joined, cohorts, manifest=plan.out.name, name=name, published=published, labels_file=labels_file)
    standing = card.read_text(encoding="utf-8", errors="replace") if card.exists() else text
    if standing != text and not (plan.overwrite and WRITTEN_BY in standing):
        notes.append(f"{CARD_FILE} exists and was kept; check that it fits this manifest.")
    else:
        write_bytes_atomically(card, text.encode())
        paths.append(card)
    _write_table(plan.out, joined)
    return [plan.out, *paths]


def _write_table(path: Path, joined: Joined) -> None:
    table = joined.table.copy()
    for label in joined.labels:
        table[label] = table[label].astype("Int8")
    if path.suffix.lower() == ".csv":
        write_csv(path, table, exact=True)
        return
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    write_bytes_atomically(path, buffer.getvalue())


def _read_back(out: Path) -> Cohort:
    try:
        return load_cohort(str(out))
    except ProbeError as error:
        raise StoreError(f"{out} was written, but cannot be read: {error}") from error
