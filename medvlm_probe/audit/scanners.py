"""Which machine took each image: from the manifest's `scanner` column, else from DICOM headers, under safe names.

What a manifest or a header calls a machine is free text and may name a hospital or a person. So a name that people see
is the maker, of an allowed list, and a number: 1 for the machine with the most images.
"""

from __future__ import annotations

import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medvlm_probe.cohort.cohort import Cohort
from medvlm_probe.cohort.dicom_header import read_attributes
from medvlm_probe.cohort.images import FileImages
from medvlm_probe.cohort.recipes import recipe_named
from medvlm_probe.errors import ImageError

COLUMN = "scanner"
MAKERS = ("agfa", "canon", "carestream", "fuji", "general electric", "ge ", "hologic", "kodak", "konica", "philips",
          "samsung", "shimadzu", "siemens", "toshiba")  # fmt: skip
TAGS = ("Manufacturer", "ManufacturerModelName", "Modality")

_SHORT = re.compile(r"[A-Za-z0-9]{1,2}")


def maker_of(text: str) -> str:
    """Return the maker that a text names: of `MAKERS`, "other", or "" for an empty text."""
    lowered = f"{text.lower()} "
    return next((name.strip() for name in MAKERS if name in lowered), "other" if text.strip() else "")


def with_scanners(first: Cohort, second: Cohort) -> tuple[Cohort, Cohort]:
    """Return both cohorts with safe names in the column `scanner`; the same machine has one name in both."""
    raw = _raw(first), _raw(second)
    names = safe_names([value for values in raw for value in values if value])
    named = [
        replace(cohort, table=cohort.table.assign(**{COLUMN: [names.get(value, "") for value in values]}))
        if any(values) and COLUMN not in cohort.labels
        else cohort
        for cohort, values in zip((first, second), raw, strict=True)
    ]
    return named[0], named[1]


def safe_names(given: list[str]) -> dict[str, str]:
    """Return what each machine's own text is called: the maker and a number by how often it stands in the list.

    Texts of one or two letters or digits ("A", "12") are kept, as `scanner A`, where all are such.
    """
    counts = Counter(given)
    order = sorted(counts, key=lambda text: (-counts[text], text))
    if all(_SHORT.fullmatch(text) for text in order):
        return {text: f"scanner {text}" for text in order}
    makers = {text: maker_of(text).replace("other", COLUMN) for text in order}
    of_maker = Counter(makers.values())
    seen: Counter[str] = Counter()
    names = {}
    for text in order:
        maker = makers[text]
        seen[maker] += 1
        names[text] = maker if of_maker[maker] == 1 and maker != COLUMN else f"{maker} {seen[maker]}"
    return names


def scanners_of(cohort: Cohort) -> NDArray[np.object_]:
    """Return each image's scanner under its safe name (n,), "" where it is not known; see `with_scanners`."""
    if COLUMN not in cohort.table or COLUMN in cohort.labels:
        return np.full(len(cohort), "", dtype=object)
    return np.array(_texts(cohort.table[COLUMN]), dtype=object)


def _raw(cohort: Cohort) -> list[str]:
    """Return what the manifest, else the DICOM header, calls each image's machine; "" where neither does."""
    if COLUMN in cohort.table and COLUMN not in cohort.labels:
        return _texts(cohort.table[COLUMN])
    source = cohort.source
    if not isinstance(source, FileImages) or not recipe_named(source.recipe).dicom:
        return [""] * len(cohort)
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(_header_text, [source.root / path for path in source.paths]))


def _header_text(path: Path) -> str:
    """Return maker, model and modality; "" where the file names neither maker nor model, or is no DICOM file."""
    try:
        tags = read_attributes(path, TAGS)
    except ImageError:
        return ""
    given = [str(tags.get(name, "")).strip() for name in TAGS]
    return " ".join(given) if any(given[:2]) else ""


def _texts(column: pd.Series) -> list[str]:
    return ["" if pd.isna(value) else str(value).strip() for value in column]
