"""Boxes of published data sets, put under the labels that their classes make present."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medvlm_probe.cohort.importers.left_out import counted, skipped
from medvlm_probe.cohort.importers.published import BOX_COLUMNS, LabelMap
from medvlm_probe.cohort.manifest_columns import snake_case


def box_table(
    image: pd.Series,
    classes: pd.Series,
    xywh: NDArray[np.float64],
    drawn_by: pd.Series,
    label_map: LabelMap,
) -> tuple[pd.DataFrame, pd.DataFrame, tuple[str, ...]]:
    """Return boxes with the columns of `BOX_COLUMNS`, what was left out of them, and notes.

    A box stands once under each label that its class makes present; a class without a label keeps its own name in
    snake_case. `source` ends with the class in brackets.

    Args:
        image: each box's image (n,) as the manifest names it, missing where the image is not in the cohort.
        classes: each box's class (n,).
        xywh: left, top, width and height (n, 4) in pixels of the published image.
        drawn_by: who drew each box (n,).
        label_map: the source's classes.
    """
    here = image.notna().to_numpy()
    sized = np.isfinite(xywh).all(axis=1) & (xywh[:, 2:] > 0).all(axis=1)
    usable = here & sized & classes.notna().to_numpy()
    names = {name: label_map.get(name) or (snake_case(str(name)),) for name in classes[usable].unique()}
    boxes = pd.DataFrame(
        {
            "image": image[usable],
            "label": classes[usable].map(names),
            **dict(zip("xywh", xywh[usable].T, strict=True)),
            "source": drawn_by[usable] + " (" + classes[usable] + ")",
        },
        columns=list(BOX_COLUMNS),
    ).explode("label", ignore_index=True)
    left_out = skipped("a box of " + image[here & ~usable].astype(object), "it has no class, or no width and height")
    return boxes, left_out, counted(int((~here).sum()), "Boxes of images that are not here, left out")
