"""DigestPath 2019: colonoscopy tissue images with masks of tumour, cut into benign and malignant patches."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from medvlm_probe.cohort.importers.image_files import files_below
from medvlm_probe.cohort.importers.left_out import counted
from medvlm_probe.cohort.importers.one_class import class_columns, labels_in_order, split_by_group
from medvlm_probe.cohort.importers.patches import Patch, Unusable, patch_place, sources_stated, write_patches
from medvlm_probe.cohort.importers.published import ImportOptions, LabelMap, Published
from medvlm_probe.cohort.importers.tables import refuse_labels_file
from medvlm_probe.cohort.png_recipe import decode
from medvlm_probe.errors import ImageError, ManifestError

TITLE = "DigestPath's colonoscopy tissue images"
LABEL_MAP: LabelMap = {"benign": ("benign",), "malignant": ("malignant",)}
FOLDERS = {"neg": ("tissue-train-neg",), "pos": ("tissue-train-pos-v1", "tissue-train-pos")}
SHARES = {"train": 0.7, "test": 0.3}
PATCHES = "digestpath_patches"

SIDE = 224
OVERLAP = 0.1
LEAST_TISSUE = 0.5
LEAST_TUMOUR = 0.5
DOWNSAMPLES = (2, 4, 8, 16, 32)
WHITE = 200
"""A pixel is background where red, green and blue are all at least this."""

MASKED = 10
"""A pixel is tumour where its mask is above this: masks are JPEG files, so 0 and 255 are blurred."""

_RULE = (
    f"{SIDE} px, overlap {OVERLAP}, tissue >= {LEAST_TISSUE}, tumour >= {LEAST_TUMOUR} or none, down-sampled by "
    f"{', '.join(str(step) for step in DOWNSAMPLES)}"
)


def read(folder: Path, options: ImportOptions) -> Published:
    """Read `tissue-train-neg/*.jpg` and `tissue-train-pos-v1/*.jpg` with `*_mask.jpg`, wherever these folders lie.

    Each image is down-sampled by 2 to 32 and cut into patches of 224 pixels; those of at least half tissue are written
    as PNG into `options.unpack_to`: malignant where at least half is tumour, benign where none is. One image is held at
    a time. The split is 70/30 by case, so that all patches, magnifications and slides of a case are in one part; with
    `options.legacy_split` it is the published random split of patches.

    Raises:
        ManifestError: neither folder, or no image that gives a patch.
        InputError: a labels file was given, or patches that are not written yet without `unpack_to`.
        StoreError: patches cannot be written.
    """
    refuse_labels_file(options, TITLE)
    sources, masks = _files(folder)
    facts = {"rule": _RULE, "files": sources_stated([folder / file for file in (*sources, *masks.values())], folder)}
    place = patch_place(folder, options.unpack_to, PATCHES, facts, f"digestpath:{folder}")
    options.say(f"Cutting {len(sources):,} images into patches below {place} ...")
    written = write_patches(place, facts, _patches(folder, sources, masks), options.say)
    rows = written.table
    if rows.empty:
        raise ManifestError(f"No image in '{folder}' gives a patch of {SIDE} pixels with tissue. Check the files.")
    classes = rows["class"]
    split = _legacy_split(rows) if options.legacy_split else split_by_group(list(rows["study"]), list(classes), SHARES)
    return Published(
        table=pd.DataFrame({"image": PATCHES + "/" + rows["image"], "study": rows["study"], "split": split}).assign(
            **class_columns(classes, LABEL_MAP),
            **{name: rows[name] for name in ("slide_image", "downsample", "tissue", "tumour")},
        ),
        labels=labels_in_order(LABEL_MAP),
        image_root=place.parent,
        skipped=written.left_out,
        notes=(
            f"{rows['study'].nunique():,} cases, told from the files' names, gave {len(rows):,} patches.",
            *counted(len(written.left_out), "Images that cannot be used, left out"),
        ),
    )


def case_of(name: str) -> str:
    """Return the case that a published file's name speaks of.

    Names are `CASE_DATE TIME-lv1-X-Y-W-H`, where CASE is `18-08962B` (a block's letter at the end), `D201812321` or
    `2018_64982_1-3`, or `DATE TIME-lv1-...`, where the slide's own time stands for the case. A name of another form is
    a case by itself.
    """
    date = re.search(r"2\d{3}-\d{2}-\d{2}", name)
    if date is None:
        return name
    before = name[: date.start()].strip("_ ")
    if not before:
        return name.split("-lv")[0]
    by_year = re.match(r"\d{4}\D\d+", before)
    return by_year.group() if by_year else re.sub(r"[A-Za-z]+$", "", before) or before


def _files(folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Return the images with the group that they lie in (`neg`, `pos`), and each image's mask."""
    sources: dict[str, str] = {}
    masks: dict[str, str] = {}
    for file in files_below(folder, (".jpg", ".jpeg")):
        parents = file.split("/")[:-1]
        group = next((name for name, folders in FOLDERS.items() if any(part in folders for part in parents)), None)
        stem, dot, suffix = file.rpartition(".")
        if stem.endswith("_mask"):
            masks[f"{stem.removesuffix('_mask')}{dot}{suffix}"] = file
        elif group is not None:
            sources[file] = group
    if not sources:
        raise ManifestError(
            f"'{folder}' does not look like {TITLE}: it holds no tissue-train-neg/*.jpg or tissue-train-pos-v1/*.jpg. "
            "Name the folder that the archives were unpacked into."
        )
    return sources, masks


def _patches(folder: Path, sources: dict[str, str], masks: dict[str, str]) -> Iterator[Patch | Unusable]:
    """Yield the patches in the published order: positive slides first, by name, then by down-sampling."""
    for file in sorted(sources, key=lambda name: (sources[name] != "pos", name.rsplit("/", 1)[-1])):
        stem = Path(file).stem
        if sources[file] == "pos" and file not in masks:
            yield Unusable(file, "its mask is not there")
            continue
        try:
            image = decode((folder / file).read_bytes()).convert("RGB")
            mask = decode((folder / masks[file]).read_bytes()).convert("L") if sources[file] == "pos" else None
        except ImageError as error:
            yield Unusable(file, str(error))
            continue
        if mask is not None and mask.size != image.size:
            yield Unusable(
                file, f"its mask has {mask.width} x {mask.height} pixels, not {image.width} x {image.height}"
            )
            continue
        for step in DOWNSAMPLES:
            for row, column, pixels, tissue, tumour in cut(image, mask, step):
                kind = "malignant" if tumour >= LEAST_TUMOUR else "benign" if tumour == 0 else None
                if kind is None:
                    continue
                yield Patch(
                    f"{sources[file]}/{stem}_x{step}_{row}_{column}.png",
                    pixels,
                    {
                        "class": kind,
                        "study": case_of(stem),
                        "slide_image": stem,
                        "downsample": str(step),
                        "tissue": f"{tissue:.4f}",
                        "tumour": f"{tumour:.4f}",
                    },
                )


def cut(
    image: Image.Image, mask: Image.Image | None, step: int
) -> Iterator[tuple[int, int, NDArray[np.uint8], float, float]]:
    """Yield top, left, pixels, share of tissue and share of tumour of each patch with enough tissue.

    Args:
        image: RGB. mask: grey, of the same size; None where there is no tumour. step: the down-sampling.
    """
    size = (round(image.width / step), round(image.height / step))
    if min(size) < SIDE:
        return
    pixels = np.asarray(image.resize(size, Image.Resampling.BICUBIC))
    tumour = None if mask is None else np.asarray(mask.resize(size, Image.Resampling.NEAREST)) > MASKED
    stride = SIDE * (1 - OVERLAP)
    for top in np.arange(0, size[1], stride).astype(int).tolist():
        for left in np.arange(0, size[0], stride).astype(int).tolist():
            # The published script leaves out patches that end at the image's very border.
            if top + SIDE >= size[1] or left + SIDE >= size[0]:
                continue
            here = slice(top, top + SIDE), slice(left, left + SIDE)
            tissue = 1 - float((pixels[here] >= WHITE).all(axis=-1).mean())
            if tissue >= LEAST_TISSUE:
                yield top, left, pixels[here], tissue, 0.0 if tumour is None else float(tumour[here].mean())


def _legacy_split(rows: pd.DataFrame) -> pd.Series:
    """Return the published split: benign patches (those of negative slides first), then malignant ones, shuffled."""
    negative, benign = rows["image"].str.startswith("neg/"), rows["class"] == "benign"
    order = np.concatenate([np.flatnonzero(part) for part in (negative, ~negative & benign, ~benign)])
    shuffled = np.random.RandomState(1).permutation(len(order))
    split = pd.Series("test", index=rows.index)
    split.iloc[order[shuffled[: int(len(order) * SHARES["train"])]]] = "train"
    return split
