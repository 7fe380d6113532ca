"""COCO's JSON of annotations: boxes, polygons and run lengths, compressed or not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medvlm_probe.cohort.importers.left_out import skipped
from medvlm_probe.cohort.region_files import Drawn, DrawnFile, ReadOptions, Space
from medvlm_probe.cohort.run_masks import RunMask, counts_of_text, runs_of_counts, runs_of_polygon, union
from medvlm_probe.errors import InputError
from medvlm_probe.runs import parse_json


def read_coco(path: Path, options: ReadOptions) -> DrawnFile:
    """Read the annotations of a COCO file. A segmentation goes before the box beside it.

    Pixels count in each image's own `width` and `height`, else in the stated space, else in the image as shipped.
    Annotations that cannot be used are skipped with the reason, and so are references to unknown images or categories.

    Raises:
        InputError: no JSON, or none of COCO's form.
    """
    try:
        content = parse_json(path.read_text(encoding="utf-8-sig"))
        images = {entry["id"]: entry for entry in content["images"]}
        categories = {entry["id"]: str(entry["name"]) for entry in content["categories"]}
        annotations = list(content["annotations"])
        names = {key: str(entry["file_name"]) for key, entry in images.items()}
    except (OSError, ValueError) as error:
        raise InputError(f"{path.name} is no readable JSON: {error}.") from error
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{path.name} is not of COCO's form: an object with images (id, file_name), categories (id, name) and "
            "annotations."
        ) from error
    drawn, bad = [], []
    for number, entry in enumerate(annotations):
        where = f"annotation {entry.get('id', number) if isinstance(entry, dict) else number}"
        try:
            if not isinstance(entry, dict):
                raise InputError("it is no object")
            if not _among(entry.get("image_id"), images):
                raise InputError("its image_id is none of the images")
            if not _among(entry.get("category_id"), categories):
                raise InputError("its category_id is none of the categories")
            image, label = names[entry["image_id"]], categories[entry["category_id"]]
            space = _size(images[entry["image_id"]]) or options.space
            drawn.append(_drawn(where, image, label, space, entry))
        except InputError as error:
            bad.append((where, str(error)))
    table = pd.DataFrame(bad, columns=["what", "reason"], dtype=object)
    return DrawnFile(path.name, drawn, skipped(table["what"], table["reason"]))


def _among(key: Any, known: dict[Any, Any]) -> bool:
    return isinstance(key, int | str) and key in known


def _drawn(where: str, image: str, label: str, space: Space | None, entry: dict[str, Any]) -> Drawn:
    segmentation = entry.get("segmentation")
    if segmentation:
        own = _stated_size(segmentation)
        return Drawn(where, image, label, own or space, runs=_runs(segmentation))
    return Drawn(where, image, label, space, box=_box(entry.get("bbox")))


def _box(given: Any) -> tuple[float, float, float, float]:
    try:
        x, y, w, h = (float(number) for number in given)
    except (TypeError, ValueError) as error:
        raise InputError("it has neither a segmentation nor a bbox of four numbers") from error
    if not np.isfinite([x, y, w, h]).all() or w <= 0 or h <= 0:
        raise InputError("its bbox has no width or height")
    return x, y, w, h


def _runs(segmentation: Any) -> Callable[[int, int], RunMask]:
    if isinstance(segmentation, dict):
        counts = segmentation.get("counts")
        try:
            lengths = counts_of_text(counts) if isinstance(counts, str) else np.array(counts)
        except (OverflowError, ValueError) as error:
            raise InputError("its counts are no run lengths") from error
        if lengths.dtype != np.int64 or lengths.ndim != 1:
            raise InputError("its counts are no run lengths")
        return lambda width, height: runs_of_counts(lengths, height, width)
    try:
        polygons = [np.array(corners, dtype=np.float64).reshape(-1, 2) for corners in segmentation]
    except (TypeError, ValueError) as error:
        raise InputError("its polygons are no lists of x, y") from error
    if not all(len(corners) >= 3 and np.isfinite(corners).all() for corners in polygons):
        raise InputError("a polygon has under three corners, or one that is no number")
    return lambda width, height: union([runs_of_polygon(corners, height, width) for corners in polygons])


def _stated_size(segmentation: Any) -> Space | None:
    """Return width and height of run lengths, which state height and width; None for polygons."""
    if not isinstance(segmentation, dict):
        return None
    size = segmentation.get("size")
    if not isinstance(size, list) or len(size) != 2 or not all(isinstance(n, int) and n > 0 for n in size):
        raise InputError("its run lengths state no size [height, width]")
    return size[1], size[0]


def _size(image: dict[str, Any]) -> Space | None:
    size = image.get("width"), image.get("height")
    if all(isinstance(n, int) and n > 0 for n in size):
        return size  # type: ignore[return-value]
    return None
