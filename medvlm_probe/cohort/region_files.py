"""Files of boxes and masks, each form read as it was published: what was drawn, for which image, in which pixels."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medvlm_probe.cohort.importers.left_out import skipped
from medvlm_probe.cohort.importers.published import BOX_COLUMNS, LabelMap, no_rows
from medvlm_probe.cohort.importers.tables import column, numbers, read_cells, read_table
from medvlm_probe.cohort.region_names import NIH_BOX_CLASSES, RSNA_CLASSES
from medvlm_probe.cohort.run_masks import RunMask, runs_of_pairs
from medvlm_probe.errors import InputError, unknown_name

Space = tuple[int, int]

ORIGINAL: Space = (1024, 1024)
"""Width and height of the images that NIH's and RSNA's boxes and SIIM's masks were drawn on."""

_SPACE = re.compile(r"(\d{1,6})\s*[xX]\s*(\d{1,6})")


@dataclass(frozen=True, eq=False)
class Drawn:
    """One box or mask as a file has it.

    Attributes:
        where: which row or entry it is, for people.
        image, label: as the file names them.
        space: width and height of the image that its pixels count in; None is the image as shipped.
        box: left, top, width and height; None for a mask.
        runs: of width and height, the mask; raises InputError with the reason where it cannot be made.
    """

    where: str
    image: str
    label: str
    space: Space | None
    box: tuple[float, float, float, float] | None = None
    runs: Callable[[int, int], RunMask] | None = None


@dataclass(frozen=True, eq=False)
class DrawnFile:
    """What a file holds.

    Attributes:
        name: the file's.
        drawn: what can be used, as far as the file alone tells.
        skipped: what cannot, columns `published.SKIPPED_COLUMNS`.
        classes: the source's own classes, by the name as it writes them.
        notes: a sentence each.
    """

    name: str
    drawn: list[Drawn]
    skipped: pd.DataFrame = field(default_factory=no_rows)
    classes: LabelMap = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ReadOptions:
    """What a user may state: the pixel space (None: as the form has it), and the finding of a file that names none."""

    space: Space | None = None
    label: str | None = None


def parse_space(text: str) -> Space:
    """Return width and height from "1024x1024"; raises InputError."""
    match = _SPACE.fullmatch(text.strip())
    if match is None or "0" in (match[1], match[2]):
        raise InputError(f"'{text}' is no pixel space. Write WIDTHxHEIGHT, for example 1024x1024.")
    return int(match[1]), int(match[2])


@dataclass(frozen=True)
class RegionSpec:
    """What a user names on the command line: a file or folder and, where need be, its form, pixels and finding."""

    path: Path
    form: str | None = None
    space: Space | None = None
    label: str | None = None


def parse_regions(text: str) -> RegionSpec:
    """Return what `PATH` or `OPTIONS:PATH` names; options are a form, WIDTHxHEIGHT, label=NAME, with commas between.

    `boxes,512x512:drawn.csv`, `siim-rle:train-rle.csv`, `kaggle-rle,label=pneumothorax:train.csv`. A text that exists
    as a path is that path.

    Raises:
        UnknownNameError: another form.
        InputError: no pixel space.
    """
    options, colon, path = text.partition(":")
    if not colon or "/" in options or "\\" in options or len(options) == 1 or Path(text).exists():
        return RegionSpec(Path(text))
    form = space = label = None
    for option in options.split(","):
        if option.startswith("label="):
            label = option.removeprefix("label=")
        elif option[:1].isdigit():
            space = parse_space(option)
        elif option in FORMS:
            form = option
        else:
            raise unknown_name("form of regions", option, FORMS)
    return RegionSpec(Path(path), form, space, label)


def read_drawn(
    path: Path, *, form: str | None = None, space: Space | None = None, label: str | None = None
) -> DrawnFile:
    """Read a file or folder of regions; arguments and errors as `regions.read_regions`."""
    if not path.exists():
        raise InputError(f"There is no file or folder of regions '{path}'. Check the path.")
    if form is not None and form not in FORMS:
        raise unknown_name("form of regions", form, FORMS)
    return FORMS[form or form_of(path)][0](path, ReadOptions(space, label))


def form_of(path: Path) -> str:
    """Return the form (a key of `FORMS`) that a file's or folder's content shows.

    Raises:
        InputError: run lengths, whose two forms look alike, or none of the forms.
    """
    if path.is_dir():
        return "masks"
    if path.name.lower().endswith(".json"):
        return "coco"
    if not path.name.lower().endswith((".csv", ".csv.gz")):
        raise InputError(f"'{path.name}' is no file of regions. Give a CSV, a COCO JSON or a folder of masks.")
    header = set(read_cells(path)[0])
    if "EncodedPixels" in header:
        raise InputError(
            f"{path.name} holds run lengths, which come in two forms that look alike. Name the one it has: siim-rle "
            "(starts count from the end of the run before) or kaggle-rle (starts count from pixel 1): kaggle-rle:FILE."
        )
    for form, needed in _COLUMNS.items():
        if needed <= header:
            return form
    raise InputError(
        f"{path.name} has the columns {', '.join(sorted(filter(None, header))[:8])}: no known form of regions. Name "
        f"them {', '.join(BOX_COLUMNS[:6])}, or give the form: {', '.join(FORMS)}."
    )


def boxes_of_table(name: str, table: pd.DataFrame, options: ReadOptions | None = None) -> DrawnFile:
    """Return the boxes of a table with our own columns, numbers or text; `label` may be missing where it is stated."""
    options = options or ReadOptions()
    labels = column(table, "label").fillna(options.label)
    xywh = np.column_stack([numbers(table[name]) for name in ("x", "y", "w", "h")])
    return _boxes(name, table["image"], labels, xywh, options.space)


def _read_boxes(path: Path, options: ReadOptions) -> DrawnFile:
    """Read our own table, `published.BOX_COLUMNS`; `source` may be missing, and `label` where the option names it."""
    needed = ("image", "x", "y", "w", "h") if options.label else ("image", "label", "x", "y", "w", "h")
    return boxes_of_table(path.name, read_table(path, needed, ("label",)), options)


def _read_nih(path: Path, options: ReadOptions) -> DrawnFile:
    """Read NIH's BBox_List_2017, whose header names fewer columns than it has commas."""
    header, cells = read_cells(path)
    if header[:2] != ["Image Index", "Finding Label"] or len(cells) < 6:
        raise InputError(f"{path.name} does not begin as NIH's box list does. Take the file as it was published.")
    xywh = np.column_stack([numbers(cells[i]) for i in range(2, 6)])
    return _boxes(path.name, cells[0], cells[1], xywh, options.space or ORIGINAL, NIH_BOX_CLASSES)


def _read_rsna(path: Path, options: ReadOptions) -> DrawnFile:
    """Read RSNA's stage_2_train_labels; rows of Target 0 have no box."""
    table = read_table(path, ("patientId", "x", "y", "width", "height", "Target"))
    boxed = table[table["Target"] == "1"]
    xywh = np.column_stack([numbers(boxed[name]) for name in ("x", "y", "width", "height")])
    label = pd.Series("Lung Opacity", index=boxed.index, dtype=object)
    return _boxes(path.name, boxed["patientId"], label, xywh, options.space or ORIGINAL, RSNA_CLASSES)


def _read_rle(path: Path, options: ReadOptions, *, relative: bool) -> DrawnFile:
    """Read run lengths: columns ImageId, EncodedPixels and, where there are several findings, label or ClassId."""
    header, cells = read_cells(path)
    columns = dict(zip(header, cells, strict=True))
    if not {"ImageId", "EncodedPixels"} <= set(columns):
        raise InputError(f"{path.name} has no columns ImageId and EncodedPixels. Take the file as it was published.")
    image, runs = columns["ImageId"], columns["EncodedPixels"]
    label = column(pd.DataFrame(columns), "label", "ClassId").fillna(
        options.label or ("pneumothorax" if relative else None)
    )
    if label.isna().all():
        raise InputError(f"{path.name} does not say what its masks show. Name the label: kaggle-rle,label=NAME:FILE.")
    empty = runs.isna() | (runs == "-1")
    whole = runs.str.fullmatch(r"\d{1,12}( +\d{1,12})*").fillna(False).astype(bool)
    reason = _first_reason(
        {
            "it names no image": image.isna(),
            "it names no finding": label.isna(),
            "its runs are no whole numbers": ~whole,
        }
    ).where(~empty)
    good = reason.isna() & ~empty
    space = options.space or (ORIGINAL if relative else None)

    def decoder(text: str) -> Callable[[int, int], RunMask]:
        return lambda width, height: runs_of_pairs(
            np.array(text.split(), dtype=np.int64), height, width, relative=relative
        )

    drawn = [
        Drawn(_row(i), str(image[i]), str(label[i]), space, runs=decoder(str(runs[i])))
        for i in np.flatnonzero(good).tolist()
    ]
    n_empty = int(empty.sum())
    return DrawnFile(
        path.name,
        drawn,
        _skipped_rows(image, label, reason),
        notes=(f"Rows that say that nothing was found: {n_empty:,}.",) if n_empty else (),
    )


def _read_siim(path: Path, options: ReadOptions) -> DrawnFile:
    """Read SIIM-ACR's run lengths: relative starts, 1024 x 1024 pixels, pneumothorax unless another label is named."""
    return _read_rle(path, options, relative=True)


def _read_kaggle(path: Path, options: ReadOptions) -> DrawnFile:
    """Read Kaggle's usual run lengths: absolute starts that count from 1, in pixels of the image as shipped."""
    return _read_rle(path, options, relative=False)


def _boxes(
    name: str,
    image: pd.Series,
    label: pd.Series,
    xywh: NDArray[np.float64],
    space: Space | None,
    classes: LabelMap | None = None,
) -> DrawnFile:
    """Return the boxes of a table's columns (n,) and numbers (n, 4)."""
    reason = _first_reason(
        {
            "it names no image": image.isna(),
            "it names no finding": label.isna(),
            "its x, y, width and height are not four numbers": pd.Series(np.isnan(xywh).any(axis=1), index=image.index),
            "it has no width or height": pd.Series((xywh[:, 2:] <= 0).any(axis=1), index=image.index),
        }
    )
    good = np.flatnonzero(reason.isna())
    texts = zip(image.iloc[good], label.iloc[good], xywh[good].tolist(), image.index[good], strict=True)
    drawn = [Drawn(_row(at), str(i), str(what), space, box=tuple(box)) for i, what, box, at in texts]
    return DrawnFile(name, drawn, _skipped_rows(image, label, reason), dict(classes or {}))


def _first_reason(checks: dict[str, pd.Series]) -> pd.Series:
    """Return for each row the first check that it fails, missing where it passes all."""
    first = next(iter(checks.values()))
    reason = pd.Series([None] * len(first), index=first.index, dtype=object)
    for text, failed in checks.items():
        reason = reason.mask(reason.isna() & failed, text)
    return reason


def _skipped_rows(image: pd.Series, label: pd.Series, reason: pd.Series) -> pd.DataFrame:
    bad = reason.notna()
    what = [f"{_row(i)} ({image[i]}, {label[i]})" for i in reason.index[bad]]
    return skipped(pd.Series(what, dtype=object), reason[bad].reset_index(drop=True))


def _row(index: int) -> str:
    return f"row {index + 1}"


def _read_coco(path: Path, options: ReadOptions) -> DrawnFile:
    from medvlm_probe.cohort.region_coco import read_coco

    return read_coco(path, options)


def _read_masks(path: Path, options: ReadOptions) -> DrawnFile:
    from medvlm_probe.cohort.region_images import read_mask_images

    return read_mask_images(path, options)


Reader = Callable[[Path, ReadOptions], DrawnFile]

FORMS: dict[str, tuple[Reader, str]] = {
    "boxes": (_read_boxes, "CSV with image, label, x, y, w, h: what imports write as boxes.csv"),
    "nih": (_read_nih, "NIH's BBox_List_2017.csv, 1024 x 1024 pixels"),
    "rsna": (_read_rsna, "RSNA's stage_2_train_labels.csv, 1024 x 1024 pixels"),
    "coco": (_read_coco, "COCO JSON: boxes, polygons, run lengths"),
    "masks": (_read_masks, "a folder of mask images: LABEL/IMAGE.png or IMAGE_LABEL.png"),
    "siim-rle": (_read_siim, "CSV with ImageId, EncodedPixels, starts relative to the run before, 1024 x 1024 pixels"),
    "kaggle-rle": (_read_kaggle, "CSV with ImageId, EncodedPixels, starts counted from pixel 1"),
}
"""Forms of regions: how each is read, and what it is, for people."""

_COLUMNS = {
    "boxes": {"image", "x", "y", "w", "h"},
    "nih": {"Image Index", "Finding Label"},
    "rsna": {"patientId", "x", "y", "width", "height", "Target"},
}
