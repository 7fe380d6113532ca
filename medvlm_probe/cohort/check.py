"""What is in a cohort and what is wrong with it: counts, groups, copies, leaks and images that cannot be used."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medvlm_probe.cohort.cohort import Cohort, GroupKind
from medvlm_probe.cohort.copies import copy_table, leaks, near_copy_table
from medvlm_probe.cohort.images import REASONS
from medvlm_probe.cohort.manifest import MANIFEST_COLUMNS
from medvlm_probe.cohort.perceptual_hash import THUMBNAIL, Thumbnails, thumbnail
from medvlm_probe.errors import ImageError

_CHUNK = 256


@dataclass(frozen=True, eq=False)
class CohortCheck:
    """What `check_cohort` found. Tables hold counts, image paths and ids as the manifest gives them, never reports.

    Attributes:
        name, recipe: of the cohort.
        n_images, n_groups, group_kind: how many images, how many independent groups, and what a group is.
        n_rows_without_group_id: images whose patient or study (as `group_kind` says) is not given.
        absent: manifest columns that do not exist. partly_empty: column to number of empty cells, where there are some.
        extra: columns that are neither manifest columns nor labels.
        sites: site, split, n_images, n_groups.
        labels: label, site, n_positive, n_negative, n_uncertain, n_unknown (as written, before the uncertainty policy).
        groups_in_splits: groups with images in more than one split: group, splits, n_images.
        ids_at_sites: patient ids that occur at more than one site: patient, sites, n_images.
        images_read: whether the images were read; the tables below are empty otherwise.
        copies: images with the same content: copy (number of the set), image, site, split, patient.
        leaks: the sets of `copies` that span splits, sites or patients: copy, n_images, across.
        near_copies: images that look the same with other bytes (re-encoded, resized, slightly cropped, mirrored ...):
            near_copy (number of the set), image, site, split, patient, correlation, change. See `near_copies`.
        near_leaks: the sets of `near_copies` that span splits, sites or patients: near_copy, n_images, across.
        quarantine: image, reason, message.
        sizes: mode, width, height, n_images, most frequent first.
    """

    name: str
    recipe: str
    n_images: int
    n_groups: int
    group_kind: GroupKind
    n_rows_without_group_id: int
    absent: tuple[str, ...]
    partly_empty: dict[str, int]
    extra: tuple[str, ...]
    sites: pd.DataFrame
    labels: pd.DataFrame
    groups_in_splits: pd.DataFrame
    ids_at_sites: pd.DataFrame
    images_read: bool
    copies: pd.DataFrame
    leaks: pd.DataFrame
    near_copies: pd.DataFrame
    near_leaks: pd.DataFrame
    quarantine: pd.DataFrame
    sizes: pd.DataFrame

    @property
    def notes(self) -> tuple[str, ...]:
        """What people should know, a sentence each."""
        return tuple(_notes(self))


class _Seen(NamedTuple):
    thumbnail: Thumbnails | None = None
    key: str = ""
    mode: str = ""
    size: tuple[int, int] = (0, 0)
    reason: str = ""
    message: str = ""


def check_cohort(
    cohort: Cohort, *, read_images: bool = True, workers: int = 1, progress: Callable[[int], None] | None = None
) -> CohortCheck:
    """Look through a cohort.

    Args:
        cohort: any cohort.
        read_images: decode every image; finds copies, near copies and bad files. False looks at the table alone.
        workers: threads that decode.
        progress: called with the number of images read so far.
    """
    table = cohort.table
    groups = cohort.groups()
    seen = _read_all(cohort, workers, progress) if read_images else []
    keys = [item.key for item in seen]
    thumbnails = [item.thumbnail for item in seen if item.thumbnail is not None]
    copies = copy_table(cohort, keys)
    near_copies = near_copy_table(cohort, keys, np.array(thumbnails, np.uint8).reshape(-1, THUMBNAIL, THUMBNAIL))
    return CohortCheck(
        name=cohort.name,
        recipe=cohort.source.recipe,
        n_images=len(cohort),
        n_groups=int(np.unique(groups).size),
        group_kind=cohort.group_kind,
        n_rows_without_group_id=_without_group_id(cohort),
        absent=cohort.absent,
        partly_empty={
            name: int(table[name].isna().sum())
            for name in MANIFEST_COLUMNS
            if name in table and table[name].isna().any()
        },
        extra=cohort.extra,
        sites=_site_counts(cohort, groups),
        labels=label_counts(cohort),
        groups_in_splits=_groups_in_splits(cohort, groups),
        ids_at_sites=_ids_at_sites(cohort),
        images_read=read_images,
        copies=copies,
        leaks=leaks(copies),
        near_copies=near_copies,
        near_leaks=leaks(near_copies),
        quarantine=_quarantine(cohort, seen),
        sizes=_sizes(seen),
    )


def label_counts(cohort: Cohort) -> pd.DataFrame:
    """Return label, site, n_positive, n_negative, n_uncertain, n_unknown, as written, before the uncertainty policy."""
    codes, sites = pd.factorize(cohort.sites(), sort=True)
    parts = []
    for label in cohort.labels:
        values = cohort.table[label].to_numpy(dtype=np.float32)
        masks = {"n_positive": values == 1, "n_negative": values == 0, "n_uncertain": values == -1}
        masks["n_unknown"] = np.isnan(values)
        counts = {name: np.bincount(codes[mask], minlength=len(sites)) for name, mask in masks.items()}
        parts.append(pd.DataFrame({"label": label, "site": sites, **counts}))
    columns = ["label", "site", "n_positive", "n_negative", "n_uncertain", "n_unknown"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def _read_all(cohort: Cohort, workers: int, progress: Callable[[int], None] | None) -> list[_Seen]:
    def look(row: int) -> _Seen:
        try:
            image, key = cohort.source.read_with_key(row)
        except ImageError as error:
            return _Seen(reason=error.reason, message=str(error))
        return _Seen(thumbnail(image), key, image.mode, image.size)

    seen: list[_Seen] = []
    with ThreadPoolExecutor(max_workers=workers) as pool:
        for start in range(0, len(cohort), _CHUNK):
            seen.extend(pool.map(look, range(start, min(start + _CHUNK, len(cohort)))))
            if progress is not None:
                progress(len(seen))
    return seen


def _without_group_id(cohort: Cohort) -> int:
    if cohort.group_kind == "image":
        return len(cohort)
    return int(cohort.table[cohort.group_kind].isna().sum())


def _site_counts(cohort: Cohort, groups: NDArray[np.int64]) -> pd.DataFrame:
    frame = pd.DataFrame({"site": cohort.sites(), "split": cohort.splits(), "group": groups})
    counts = frame.groupby(["site", "split"], sort=True)["group"].agg(n_images="size", n_groups="nunique")
    return counts.reset_index()


def _groups_in_splits(cohort: Cohort, groups: NDArray[np.int64]) -> pd.DataFrame:
    names = cohort.table[cohort.group_kind] if cohort.group_kind != "image" else pd.Series("", index=cohort.table.index)
    return _spanning(pd.DataFrame({"id": names.fillna(""), "key": groups, "value": cohort.splits()}), "group", "splits")


def _ids_at_sites(cohort: Cohort) -> pd.DataFrame:
    if "patient" not in cohort.table:
        return pd.DataFrame(columns=["patient", "sites", "n_images"])
    ids = cohort.table["patient"].fillna("")
    frame = pd.DataFrame({"id": ids, "key": ids, "value": cohort.sites()})
    return _spanning(frame[frame["id"] != ""], "patient", "sites")


def _spanning(frame: pd.DataFrame, name: str, what: str) -> pd.DataFrame:
    """Return the keys of `frame` (id, key, value) that have more than one non-empty value."""
    frame = frame[frame["value"] != ""]
    pairs = frame.drop_duplicates(["key", "value"])
    pairs = pairs[pairs["key"].duplicated(keep=False)].sort_values(["key", "value"])
    values = pairs.groupby("key")["value"].agg(" ".join)
    ids = pairs.drop_duplicates("key").set_index("key")["id"]
    n_images = frame["key"].value_counts()
    return pd.DataFrame({name: ids, what: values, "n_images": n_images.reindex(ids.index)}).reset_index(drop=True)


def _quarantine(cohort: Cohort, seen: list[_Seen]) -> pd.DataFrame:
    images = cohort.table["image"]
    rows = [(images.iloc[row], item.reason, item.message) for row, item in enumerate(seen) if item.reason]
    return pd.DataFrame(rows, columns=["image", "reason", "message"])


def _sizes(seen: list[_Seen]) -> pd.DataFrame:
    columns = ["mode", "width", "height"]
    frame = pd.DataFrame([(item.mode, *item.size) for item in seen if not item.reason], columns=columns)
    counts = frame.groupby(columns, sort=True).size().rename("n_images").reset_index()
    return counts.sort_values("n_images", ascending=False, kind="stable", ignore_index=True)


def _notes(check: CohortCheck) -> list[str]:
    notes = []
    kind = check.group_kind
    if kind == "image":
        notes.append("No patient or study is given: each image is its own group, and intervals may be too narrow.")
    elif check.n_rows_without_group_id:
        without = _count(check.n_rows_without_group_id, "image")
        notes.append(f"{without} without a {kind}: grouped by study where one is given, else alone.")
    if len(check.groups_in_splits):
        notes.append(f"{_count(len(check.groups_in_splits), kind)} in more than one split: a leak.")
    if len(check.ids_at_sites):
        shared = _count(len(check.ids_at_sites), "patient id")
        notes.append(
            f"{shared} at more than one site, each taken as one patient; prefix ids with the site if they differ."
        )
    for found, noun, leak in (
        (check.leaks, "set of images with the same bytes", "a leak"),
        (check.near_leaks, "set of near-identical images", "a leak where they show the same film"),
    ):
        in_splits = found["across"].str.contains("split").astype(bool)
        for sets, where in ((found[in_splits], f"in several splits: {leak}"), (found[~in_splits], "")):
            if len(sets):
                notes.append(f"{_sets(len(sets), noun)} {where or 'at several sites or patients'}.")
    if len(check.quarantine):
        counts = check.quarantine["reason"].value_counts()
        listed = "; ".join(f"{count:,} x {REASONS[str(reason)]}" for reason, count in counts.items())
        notes.append(f"{_count(len(check.quarantine), 'image')} in quarantine: {listed}.")
    positive = set(check.labels.loc[check.labels["n_positive"] > 0, "label"])
    never = [label for label in dict.fromkeys(check.labels["label"]) if label not in positive]
    if never:
        notes.append(f"No image is positive for: {', '.join(never)}.")
    return notes


def _sets(n: int, noun: str) -> str:
    return f"{n:,} {noun if n == 1 else noun.replace('set', 'sets', 1)}"


def _count(n: int, noun: str) -> str:
    plural = noun[:-1] + "ies" if noun.endswith("y") else noun + "s"
    return f"{n:,} {noun if n == 1 else plural}"
