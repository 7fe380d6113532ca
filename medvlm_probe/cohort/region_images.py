"""Folders of mask images: LABEL/IMAGE.png, as phantoms are exported, or IMAGE_LABEL.png."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from PIL.Image import DecompressionBombError

from medvlm_probe.cohort.importers.image_files import files_below
from medvlm_probe.cohort.importers.left_out import skipped
from medvlm_probe.cohort.region_files import Drawn, DrawnFile, ReadOptions
from medvlm_probe.cohort.run_masks import RunMask, runs_of_pixels
from medvlm_probe.errors import InputError

_UNREADABLE = (OSError, SyntaxError, ValueError, MemoryError, DecompressionBombError)


def read_mask_images(path: Path, options: ReadOptions) -> DrawnFile:
    """List the PNG files of a folder of masks.

    In `LABEL/IMAGE.png` the first folder names the finding, and the path below it the image, with its folders or
    without. A file that lies in no folder is `IMAGE_LABEL.png`, split where a label of the cohort or of the label map
    ends it, the longest one; or the mask of the stated label, where one is stated. A mask is 0 outside and one other
    value inside, of the image's size, or of the size that the image was reduced from; one that is all 0 is counted as
    saying that nothing was found.

    Raises:
        InputError: no PNG file in the folder.
    """
    files = files_below(path, (".png",))
    if not files:
        raise InputError(f"'{path}' holds no PNG masks. Name them LABEL/IMAGE.png or IMAGE_LABEL.png.")
    drawn, bad = [], []
    for file in files:
        label, slash, image = file.partition("/")
        if not slash:
            image, label = (file, options.label) if options.label else (file, "")
        try:
            size = _size(path / file)
        except _UNREADABLE:
            bad.append((file, "it is no readable PNG"))
            continue
        drawn.append(Drawn(file, image, label, size, runs=_reader(path / file)))
    table = pd.DataFrame(bad, columns=["what", "reason"], dtype=object)
    return DrawnFile(f"{path.name}/", drawn, skipped(table["what"], table["reason"]))


def _size(path: Path) -> tuple[int, int]:
    from PIL import Image

    with Image.open(path, formats=["PNG"]) as image:
        return image.size


def _reader(path: Path) -> Callable[[int, int], RunMask]:
    def read(width: int, height: int) -> RunMask:
        from PIL import Image

        try:
            with Image.open(path, formats=["PNG"]) as image:
                image.load()
                grey = np.asarray(image.convert("L") if image.mode in ("RGB", "P", "1") else image)
        except _UNREADABLE as error:
            raise InputError("it is no readable PNG") from error
        levels = np.unique(grey)
        if grey.ndim != 2 or len(levels) > 2 or (len(levels) == 2 and levels[0] != 0):
            raise InputError(f"it has {len(levels)} grey levels; a mask is 0 outside and one other value inside")
        return runs_of_pixels(grey > 0)

    return read
