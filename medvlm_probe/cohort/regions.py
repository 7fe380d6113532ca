"""Where findings are: boxes and masks of a cohort's images, by image and label."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medvlm_probe.cohort.cohort import Cohort
from medvlm_probe.cohort.images import FileImages
from medvlm_probe.cohort.importers.class_labels import NO_FINDING
from medvlm_probe.cohort.importers.published import no_rows
from medvlm_probe.cohort.phantom_source import PhantomImages
from medvlm_probe.cohort.run_masks import RunMask, runs_of_pixels
from medvlm_probe.errors import InputError

BOXES_FILE = "boxes.csv"
MASKS_FOLDER = "masks"


@dataclass(frozen=True, eq=False)
class Region:
    """Where one finding is in one image, in pixels of the image as it is shipped.

    Attributes:
        label: the finding, snake_case.
        size: width and height of the image.
        boxes: left, top, width and height of each box, from the top left corner, (k, 4); none for masks alone.
        runs: the exact pixels, beside the boxes; None where only boxes were drawn.
    """

    label: str
    size: tuple[int, int]
    boxes: NDArray[np.float64]
    runs: RunMask | None = None

    def mask(self, height: int, width: int) -> NDArray[np.bool_]:
        """Return the region's pixels, bool (height, width): those of its mask, or whose centres lie in a box.

        A box too thin to hold a pixel's centre takes the pixel at its own centre. Where there is a mask it alone
        counts, for it is the exacter of the two.

        Raises:
            InputError: the image has another size.
        """
        if (width, height) != self.size:
            raise InputError(
                f"The region of '{self.label}' belongs to an image of {self.size[0]} x {self.size[1]} pixels; "
                f"{width} x {height} was asked for. Give the size of the image as it is shipped."
            )
        if self.runs is not None:
            return self.runs.pixels()
        pixels = np.zeros((height, width), dtype=np.bool_)
        for x, y, w, h in self.boxes:
            pixels[_covered(y, h, height), _covered(x, w, width)] = True
        return pixels


@dataclass(frozen=True, eq=False)
class Regions:
    """The regions of a cohort's images.

    Attributes:
        source: where they come from, for people.
        labels_of: each image, as the manifest's `image`, to the labels that have a region in it.
        draw: of image and label, the region; only for those that `labels_of` names.
        skipped: what of the source was left out and why, columns `published.SKIPPED_COLUMNS`.
        notes: what people should know, a sentence each.
    """

    source: str
    labels_of: Mapping[str, tuple[str, ...]]
    draw: Callable[[str, str], Region]
    skipped: pd.DataFrame
    notes: tuple[str, ...] = ()

    def get(self, image: str, label: str) -> Region | None:
        """Return the region of a finding in an image; None where none was drawn."""
        return self.draw(image, label) if label in self.labels_of.get(image, ()) else None

    def __contains__(self, key: tuple[str, str]) -> bool:
        image, label = key
        return label in self.labels_of.get(image, ())

    def __len__(self) -> int:
        return sum(len(labels) for labels in self.labels_of.values())

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that have a region in any image, sorted."""
        return tuple(sorted({label for labels in self.labels_of.values() for label in labels}))

    def images(self, label: str) -> tuple[str, ...]:
        """Return the images that have a region of a label, in the cohort's order."""
        return tuple(image for image, labels in self.labels_of.items() if label in labels)


def read_regions(
    path: Path,
    cohort: Cohort,
    label_map: Path | None = None,
    *,
    form: str | None = None,
    space: tuple[int, int] | None = None,
    label: str | None = None,
) -> Regions:
    """Read the regions of a cohort's images from boxes, masks or run lengths.

    Rows about images that the cohort lacks are counted; rows that cannot be used are in `skipped`, with the reason.
    Images are found by their path, else by their file name without its suffix where that is unique.

    Args:
        path: a file, or a folder of masks.
        cohort: whose images they are; every image with a region is opened for its size.
        label_map: a TOML file of other names (see `region_names.read_region_names`).
        form: a key of `region_files.FORMS`; None tells it by the content, but for run lengths, which have two forms.
        space: width and height of the pixels that boxes and run lengths count, where that is not the image as shipped:
            the images were reduced after the regions were drawn. NIH's boxes, RSNA's and SIIM's run lengths are in
            1024 x 1024 unless this says otherwise; COCO files and mask images say their own size.
        label: the finding of a file that names none.

    Raises:
        InputError: no such file, a content that no form fits, no region for any image of the cohort, or boxes that lie
            outside their images.
        UnknownNameError: another form.
        ManifestError: a damaged table.
    """
    from medvlm_probe.cohort.region_files import read_drawn
    from medvlm_probe.cohort.region_matching import matched_regions

    return matched_regions(read_drawn(path, form=form, space=space, label=label), cohort, label_map)


def regions_named(text: str, cohort: Cohort, label_map: Path | None = None) -> Regions:
    """Return `read_regions` of what a user names, `PATH` or `OPTIONS:PATH`: see `region_files.parse_regions`."""
    from medvlm_probe.cohort.region_files import parse_regions

    spec = parse_regions(text)
    return read_regions(spec.path, cohort, label_map, form=spec.form, space=spec.space, label=spec.label)


def regions_of(cohort: Cohort, *, boxes: pd.DataFrame | None = None, boxes_file: Path | None = None) -> Regions | None:
    """Return the regions that a cohort has itself; None where it has none for its images.

    A phantom's are its exact masks. Of image files, the folder `masks`, else the boxes that are given, else `boxes.csv`
    in the images' folder, as exported phantoms and imported data sets have them.

    Args:
        cohort: the images.
        boxes: what an importer has read (`catalog.Loaded.boxes`); pixels of the images as shipped.
        boxes_file: boxes that lie elsewhere, beside a manifest (`catalog.Loaded.boxes_file`).

    Raises:
        InputError, ManifestError: as `read_regions`.
    """
    from medvlm_probe.cohort.region_files import boxes_of_table, read_drawn
    from medvlm_probe.cohort.region_matching import matched_regions

    if isinstance(cohort.source, PhantomImages):
        return _phantom_regions(cohort, cohort.source)
    if not isinstance(cohort.source, FileImages):
        return None
    masks, beside = cohort.source.root / MASKS_FOLDER, boxes_file or cohort.source.root / BOXES_FILE
    if masks.is_dir():
        file = read_drawn(masks, form="masks")
    elif boxes is not None and len(boxes):
        file = boxes_of_table("the published boxes", boxes)
    elif beside.is_file():
        file = read_drawn(beside, form="boxes")
    else:
        return None
    found = matched_regions(file, cohort, needed=False)
    return found if len(found) else None


def _phantom_regions(cohort: Cohort, source: PhantomImages) -> Regions:
    from medvlm_probe.cohort.phantom import Phantom, draw

    rows = {image: row for row, image in enumerate(cohort.table["image"])}

    @lru_cache(maxsize=1)
    def drawn(image: str) -> Phantom:
        return draw(source.cases[rows[image]], source.size)

    def region(image: str, label: str) -> Region:
        phantom = drawn(image)
        boxes = np.asarray(phantom.boxes[label], dtype=np.float64)
        return Region(label, (source.size, source.size), boxes, runs_of_pixels(phantom.masks[label]))

    labels_of = {
        image: tuple(label for label, present in case.labels.items() if present == 1 and label != NO_FINDING)
        for image, case in zip(cohort.table["image"], source.cases, strict=True)
    }
    return Regions("the phantoms' own masks", labels_of, region, no_rows())


def _covered(start: float, length: float, size: int) -> slice:
    """Return the pixels of a line whose centres lie from `start` on, for `length`; at least one."""
    first, end = max(0, int(np.ceil(start - 0.5))), min(size, int(np.ceil(start + length - 0.5)))
    if first < end:
        return slice(first, end)
    middle = min(max(int(start + length / 2), 0), size - 1)
    return slice(middle, middle + 1)
