"""What importers read of a DICOM file's header: attributes by an allow-list, never the pixels."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_LATERAL = ("LL", "RL", "LAT", "LATERAL")


def read_header(path: Path, names: Sequence[str]) -> Dataset:
    """Return the named attributes of a file that has them; nothing after the header is read.

    Raises:
        pydicom.errors.InvalidDicomError: no DICOM file.
        OSError, ValueError and others: a header that cannot be parsed.
    """
    import pydicom

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # values that break their VR are common, and are judged by who asks for them
        return pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(names))


def view_of(value: object) -> str:
    """Return a ViewPosition (DICOM PS3.3, C.8.1.1.1.2) as manifests write it: PA, AP, LATERAL, else its own word or ""."""
    text = str(value or "").strip().upper()
    return "LATERAL" if text in _LATERAL else text
