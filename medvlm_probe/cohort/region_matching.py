"""What a file has drawn, put on a cohort's images and labels, in pixels of the images as shipped."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from medvlm_probe.cohort.cohort import Cohort
from medvlm_probe.cohort.images import FileImages
from medvlm_probe.cohort.importers.image_files import name_key
from medvlm_probe.cohort.importers.left_out import counted, joined, skipped
from medvlm_probe.cohort.manifest_columns import snake_case
from medvlm_probe.cohort.phantom_source import PhantomImages
from medvlm_probe.cohort.region_files import Drawn, DrawnFile, Space
from medvlm_probe.cohort.region_names import KNOWN_CLASSES, labels_for, read_region_names
from medvlm_probe.cohort.regions import Region, Regions
from medvlm_probe.cohort.run_masks import RunMask, runs_of_pixels, union
from medvlm_probe.errors import ImageError, InputError

OVERHANG = 1.0
"""Pixels by which a box may reach beyond its image, for rounding; it is then cut off."""

MAX_OUTSIDE = 0.05
"""More boxes outside their images than this share, and the file counts in other pixels than the images'."""

SUSPICIOUS_REACH = 0.6
SUSPICIOUS_BOXES = 10
"""Where so many boxes all lie within this share of their images' width and height, they may count in other pixels."""

_ASPECT_TOLERANCE = 0.02


def matched_regions(file: DrawnFile, cohort: Cohort, label_map: Path | None = None, *, needed: bool = True) -> Regions:
    """Return the regions of a cohort's images; arguments and errors as `regions.read_regions`.

    Without `needed`, a file whose regions all belong to other images gives none.
    """
    given = {} if label_map is None else read_region_names(label_map)
    tally = _sorted_out(file, cohort, given)
    if len(tally.outside) > MAX_OUTSIDE * tally.n_boxes:
        what, reason = tally.outside[0]
        raise InputError(
            f"{file.name}: {len(tally.outside):,} of {tally.n_boxes:,} boxes lie outside their images, such as {what}: "
            f"{reason}. State the size of the images that they were drawn on, as in boxes,1024x1024:FILE."
        )
    if not tally.parts and (needed or tally.bad):
        raise InputError(_nothing(file, cohort, tally))
    table = pd.DataFrame([*tally.bad, *tally.outside], columns=["what", "reason"], dtype=object)
    left_out = joined(file.skipped, skipped(table["what"], table["reason"]))
    return _regions(file.name, cohort, tally.parts, left_out, _notes(file, cohort, tally))


@dataclass(eq=False)
class _Tally:
    """What became of everything that a file has drawn: the parts of each region by row and label, and the rest."""

    parts: dict[tuple[int, str], list[_Part]] = field(default_factory=lambda: defaultdict(list))
    bad: list[tuple[str, str]] = field(default_factory=list)
    outside: list[tuple[str, str]] = field(default_factory=list)
    read_as: dict[str, tuple[str, ...]] = field(default_factory=dict)
    n_elsewhere: int = 0
    n_empty: int = 0
    n_boxes: int = 0
    reach: float = 0.0


def _sorted_out(file: DrawnFile, cohort: Cohort, given: Mapping[str, tuple[str, ...]]) -> _Tally:
    find = _Finder(cohort.table["image"])
    size = cache(lambda row: image_size(cohort, row))
    tally = _Tally()
    for entry in _split_names(file.drawn, cohort, given):
        what = f"{entry.where} ({entry.image}, {entry.label})" if entry.label else entry.where
        try:
            row = find(entry.image)
            if row is None:
                tally.n_elsewhere += 1
                continue
            if not entry.label:
                raise InputError("its name ends in no label; name files IMAGE_LABEL.png, or state the label")
            labels = labels_for(entry.label, cohort.labels, file.classes, given)
            tally.read_as[entry.label] = labels
            if labels:
                tally.n_boxes += entry.box is not None
                _add(tally, row, labels, _placed(entry, size(row)))
        except _OutsideError as error:
            tally.outside.append((what, str(error)))
        except (InputError, ImageError) as error:
            tally.bad.append((what, str(error)))
    return tally


def _add(tally: _Tally, row: int, labels: Sequence[str], part: _Part) -> None:
    if part.runs is not None and not part.runs.area:
        tally.n_empty += 1
        return
    if part.box is not None:
        x, y, w, h = part.box
        tally.reach = max(tally.reach, (x + w) / part.size[0], (y + h) / part.size[1])
    for label in labels:
        tally.parts[row, label].append(part)


def _notes(file: DrawnFile, cohort: Cohort, tally: _Tally) -> tuple[str, ...]:
    left_out = sorted(name for name, labels in tally.read_as.items() if not labels)
    n_bad = len(file.skipped) + len(tally.bad) + len(tally.outside)
    return (
        *file.notes,
        *counted(tally.n_elsewhere, "Regions of images that are not here, left out"),
        *counted(tally.n_empty, "Masks that say that nothing was found"),
        *counted(n_bad, "Regions that cannot be used, left out"),
        *_name_notes(tally.read_as, cohort.labels),
        *((f"Left out by the label map: {', '.join(left_out)}.",) if left_out else ()),
        *_contradictions(tally.parts, cohort),
        *_reach_note(tally.n_boxes, tally.reach),
    )


def image_size(cohort: Cohort, row: int) -> Space:
    """Return width and height of a cohort's image as shipped, from its header where it has one; raises ImageError."""
    source = cohort.source
    if isinstance(source, PhantomImages):
        return source.size, source.size
    if isinstance(source, FileImages):
        header = source.header(row)
        return header.width, header.height
    return source.read(row).size


class _OutsideError(InputError):
    """A box that reaches beyond its image."""


@dataclass(frozen=True, eq=False)
class _Part:
    """One box or mask in pixels of an image of a size."""

    size: Space
    box: tuple[float, float, float, float] | None
    runs: RunMask | None


def _path_stem(path: str) -> str:
    folder, slash, _ = path.rpartition("/")
    return folder + slash + name_key(path)


class _Finder:
    """Finds images by their path, by their path without the suffix, or by their file name without it."""

    _KEYS: tuple[Callable[[str], str], ...] = (str, _path_stem, name_key)

    def __init__(self, images: pd.Series) -> None:
        self._tables: list[dict[str, list[int]]] = []
        for key in self._KEYS:
            table: dict[str, list[int]] = defaultdict(list)
            for row, image in enumerate(images):
                table[key(str(image))].append(row)
            self._tables.append(table)

    def __call__(self, name: str) -> int | None:
        """Return the row; None where there is no such image; raises InputError where it may be several."""
        name = name.replace("\\", "/").removeprefix("./")
        for key, table in zip(self._KEYS, self._tables, strict=True):
            rows = table.get(key(name))
            if rows:
                if len(rows) > 1:
                    raise InputError("several images have this name; write their paths as in the manifest")
                return rows[0]
        return None


def _split_names(drawn: Sequence[Drawn], cohort: Cohort, given: Mapping[str, tuple[str, ...]]) -> Sequence[Drawn]:
    """Return what was drawn, files IMAGE_LABEL.png split at the longest label that ends their name."""
    if all(entry.label for entry in drawn):
        return drawn
    known = sorted({*cohort.labels, *given, *KNOWN_CLASSES}, key=lambda name: (-len(name), name))
    split = []
    for entry in drawn:
        stem = snake_case(name_key(entry.image))
        label = next((name for name in known if stem.endswith(f"_{name}")), "")
        if entry.label or not label:
            split.append(entry)
        else:
            image = name_key(entry.image)[: -len(label) - 1]
            split.append(replace(entry, image=image, label=label))
    return split


def _placed(entry: Drawn, size: Space) -> _Part:
    """Return a box or mask in pixels of an image as shipped; raises InputError with the reason why not."""
    space = entry.space or size
    if abs(size[0] * space[1] / (size[1] * space[0]) - 1) > _ASPECT_TOLERANCE:
        raise InputError(
            f"its image has {size[0]} x {size[1]} pixels, which is no reduced image of {space[0]} x {space[1]}"
        )
    if entry.runs is not None:
        runs = entry.runs(*space)
        return _Part(size, None, runs if space == size else runs.resized(size[1], size[0]))
    if entry.box is None:
        raise InputError("it has neither a box nor a mask")
    x, y, w, h = entry.box
    across, down = size[0] / space[0], size[1] / space[1]
    left, top, right, bottom = x * across, y * down, (x + w) * across, (y + h) * down
    if min(left, top, size[0] - right, size[1] - bottom) < -OVERHANG:
        raise _OutsideError(
            f"it reaches outside its image of {size[0]} x {size[1]} pixels: x {x:g}, y {y:g}, w {w:g}, h {h:g}"
        )
    left, top, right, bottom = max(left, 0.0), max(top, 0.0), min(right, size[0]), min(bottom, size[1])
    return _Part(size, (left, top, right - left, bottom - top), None)


def _regions(
    name: str,
    cohort: Cohort,
    parts: Mapping[tuple[int, str], Sequence[_Part]],
    left_out: pd.DataFrame,
    notes: tuple[str, ...],
) -> Regions:
    images = cohort.table["image"].tolist()
    labels_of: dict[str, list[str]] = defaultdict(list)
    found = {}
    for row, label in sorted(parts):
        labels_of[images[row]].append(label)
        found[images[row], label] = _merged(label, parts[row, label])
    return Regions(
        source=name,
        labels_of={image: tuple(labels) for image, labels in labels_of.items()},
        draw=lambda image, label: found[image, label],
        skipped=left_out.reset_index(drop=True),
        notes=notes,
    )


def _merged(label: str, parts: Sequence[_Part]) -> Region:
    size = parts[0].size
    boxes = np.array([part.box for part in parts if part.box is not None], dtype=np.float64).reshape(-1, 4)
    masks = [part.runs for part in parts if part.runs is not None]
    if masks and len(boxes):
        masks.append(runs_of_pixels(Region(label, size, boxes).mask(size[1], size[0])))
    return Region(label, size, boxes, union(masks) if masks else None)


def _nothing(file: DrawnFile, cohort: Cohort, tally: _Tally) -> str:
    if tally.n_elsewhere and not tally.bad:
        example = cohort.table["image"].iloc[0] if len(cohort) else "none"
        return (
            f"None of the {tally.n_elsewhere:,} regions of {file.name} belongs to an image of cohort '{cohort.name}'. "
            f"They are for images such as '{file.drawn[0].image}', the cohort's are such as '{example}'."
        )
    problems = [*file.skipped.itertuples(index=False, name=None), *tally.bad]
    first = f", such as {problems[0][0]}: {problems[0][1]}" if problems else ""
    return (
        f"{file.name} holds no region that can be used for cohort '{cohort.name}' ({len(problems):,} rejected{first})."
    )


def _name_notes(read_as: Mapping[str, tuple[str, ...]], own: Sequence[str]) -> tuple[str, ...]:
    other = [
        f"'{name}' as {' and '.join(labels)}"
        for name, labels in sorted(read_as.items())
        if labels and labels != (snake_case(name),)
    ]
    strange = sorted({label for labels in read_as.values() for label in labels} - set(own))
    notes = [f"Read {', '.join(other)}."] if other else []
    if strange:
        notes.append(
            f"No labels of the cohort: {', '.join(strange)}. Map them with a label map if they have other names."
        )
    return tuple(notes)


def _contradictions(parts: Mapping[tuple[int, str], Sequence[_Part]], cohort: Cohort) -> tuple[str, ...]:
    targets = {label: cohort.table[label].to_numpy() for label in cohort.labels}
    absent = Counter(label for row, label in parts if label in targets and targets[label][row] == 0)
    return tuple(
        f"{n:,} image{'s have' if n > 1 else ' has'} a region of {label} that the cohort calls absent."
        for label, n in sorted(absent.items())
    )


def _reach_note(boxes: int, reach: float) -> tuple[str, ...]:
    if boxes < SUSPICIOUS_BOXES or reach >= SUSPICIOUS_REACH:
        return ()
    return (
        f"All {boxes:,} boxes lie within the first {reach:.0%} of their images' width and height. If they were drawn "
        "on reduced images, state those images' width and height.",
    )
