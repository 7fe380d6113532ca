"""What each manifest column may hold, checked for whole columns at once."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medvlm_probe.cohort.manifest_files import rows_text
from medvlm_probe.cohort.storage import RemoteFile
from medvlm_probe.errors import ManifestError

BoolMask = NDArray[np.bool_]

MAX_AGE = 120.0
_LABEL_TEXTS = ("1", "0", "-1", "1.0", "0.0", "-1.0")
_SEX_TEXTS = {"F": "F", "M": "M", "OTHER": "other", "O": "other"}
_DRIVE = r"^[A-Za-z]:"
_URL = r"^[A-Za-z][A-Za-z0-9+.-]+:"
_CONTROL = r"[\x00-\x1f\x7f]"


def snake_case(name: str) -> str:
    """Return a name as files write it: "Pleural Effusion" becomes `pleural_effusion`; "" for no letter or digit."""
    return re.sub(r"[^0-9a-z]+", "_", name.lower()).strip("_")


class Problems:
    """Collects what is wrong with a manifest, so that one run names every faulty column."""

    def __init__(self, path: Path | RemoteFile) -> None:
        self._path = path
        self._found: list[tuple[str, str, str]] = []

    def add(self, what: str, bad: BoolMask, advice: str) -> None:
        """Note a problem for the rows where `bad` (n,) holds; nothing if none does."""
        total = int(bad.sum())
        if total:
            first = (np.flatnonzero(bad)[:5] + 1).tolist()
            self._found.append((what, rows_text(first, total), advice))

    def raise_first(self) -> None:
        """Raise the first problem in full, and name the others in a second line.

        Raises:
            ManifestError: there is at least one problem.
        """
        if not self._found:
            return
        what, rows, advice = self._found[0]
        message = f"{self._path.name}: {what} in {rows}. {advice}"
        if len(self._found) > 1:
            others = "; ".join(f"{what[0].lower()}{what[1:]} in {rows}" for what, rows, _ in self._found[1:4])
            more = len(self._found) - 4
            message += f"\nAlso: {others}" + (f"; and {more} more problems." if more > 0 else ".")
        raise ManifestError(message)


def label_values(column: Any) -> tuple[NDArray[np.float32], BoolMask]:
    """Return a text column's labels (n,) as 1, 0, -1 or NaN where empty, and the mask of all other cells."""
    import pyarrow as pa
    import pyarrow.compute as pc

    codes = pc.index_in(pc.utf8_trim_whitespace(column), value_set=pa.array([*_LABEL_TEXTS, ""]))
    position = codes.to_pandas().fillna(-1).to_numpy(dtype=np.int64)
    values = np.array([*(float(text) for text in _LABEL_TEXTS), np.nan, np.nan], dtype=np.float32)[position]
    return values, (position == -1) & _filled(column)


def age_values(column: Any) -> tuple[NDArray[np.float32], BoolMask]:
    """Return ages (n,) in years, NaN where empty, and the mask of cells that are no number from 0 to `MAX_AGE`."""
    text = trimmed(column)
    values = pd.to_numeric(text, errors="coerce").to_numpy(dtype=np.float32)
    out_of_range = ~((values >= 0) & (values <= MAX_AGE))
    return values, out_of_range & text.notna().to_numpy()


def sex_values(column: Any) -> tuple[pd.Series, BoolMask]:
    """Return sexes as F, M, other or missing (any case; O is other), and the mask of cells that are none of these."""
    text = trimmed(column)
    known = text.str.upper().map(_SEX_TEXTS)
    return known, (known.isna() & text.notna()).to_numpy()


def trimmed(column: Any) -> pd.Series:
    """Return a text column without white space at the ends; what is then empty is missing."""
    import pyarrow as pa
    import pyarrow.compute as pc

    text = pc.utf8_trim_whitespace(column)
    series: pd.Series = pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text).to_pandas()
    return series


def image_paths(column: Any, problems: Problems) -> pd.Series:
    """Return image paths with `./` and doubled slashes removed, noting those that no manifest may hold, and repeats."""
    import pyarrow.compute as pc

    for what, bad, advice in image_path_faults(column):
        problems.add(what, bad, advice)
    paths: pd.Series = pc.replace_substring_regex(column, r"(^|/)(\./|/)+", r"\1").to_pandas()
    repeats = paths.duplicated().to_numpy() & _filled(column)
    problems.add("Column 'image' repeats an earlier row's image", repeats, "Keep one row an image.")
    return paths


def image_path_faults(column: Any) -> list[tuple[str, BoolMask, str]]:
    """Return what no image path of a manifest may be: (what is wrong, the rows (n,) where it is, what to do)."""
    import pyarrow.compute as pc

    filled = pc.fill_null(column, "")

    def matching(pattern: str) -> BoolMask:
        mask: BoolMask = pc.match_substring_regex(filled, pattern).to_numpy(zero_copy_only=False)
        return mask

    inside = "Image paths are relative to the manifest's folder and stay inside it."
    drive = matching(_DRIVE + r"|\\")
    return [
        ("Column 'image' is empty", matching(r"^\s*$"), "Give each row its image, or remove the row."),
        ("Column 'image' holds control characters or NUL", matching(_CONTROL), "Correct these paths."),
        ("Column 'image' holds backslashes or drive letters", drive, "Write relative paths with forward slashes."),
        (
            "Column 'image' holds web addresses",
            matching(_URL) & ~drive,
            "Download the images; nothing is fetched from a manifest.",
        ),
        ("Column 'image' holds absolute paths", matching(r"^[/~]"), inside),
        ("Column 'image' holds '..'", matching(r"(^|/)\.\.(/|$)"), inside),
    ]


def _filled(column: Any) -> BoolMask:
    import pyarrow.compute as pc

    mask: BoolMask = pc.is_valid(column).to_numpy()
    return mask
