"""Patches of published images written as PNG files, once: an interrupted run goes on, a whole one is taken as it is."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medvlm_probe.cohort.importers.published import SKIPPED_COLUMNS
from medvlm_probe.errors import InputError, StoreError
from medvlm_probe.runs import parse_json, write_csv, write_json

DONE_FILE = "written.json"
"""What a folder of patches holds once all were written: the files and the rule that they come from."""

STARTED_FILE = "writing.json"
"""What it holds before."""

TABLE_FILE = "patches.csv"
LEFT_OUT_FILE = "left_out.csv"

_SAY_EVERY = 1_000


@dataclass(frozen=True, eq=False)
class Patch:
    """One patch.

    Attributes:
        name: its file, relative to the folder of patches, ending in .png.
        pixels: uint8 (height, width, 3).
        row: what the table says of it besides, as text.
    """

    name: str
    pixels: NDArray[np.uint8]
    row: Mapping[str, str]


@dataclass(frozen=True)
class Unusable:
    """A source image that gives no patches, and why."""

    what: str
    reason: str


@dataclass(frozen=True, eq=False)
class Written:
    """What was written.

    Attributes:
        table: one row a patch: `image`, relative to the folder of patches, and the columns of their rows, as text.
        left_out: sources without patches, columns `published.SKIPPED_COLUMNS`.
    """

    table: pd.DataFrame
    left_out: pd.DataFrame


def sources_stated(files: Iterable[Path], folder: Path) -> dict[str, list[int]]:
    """Return what tells whether source files are the same as before: bytes and time of change of each."""
    return {
        path.relative_to(folder).as_posix(): [path.stat().st_size, path.stat().st_mtime_ns] for path in sorted(files)
    }


def write_patches(
    folder: Path, facts: Mapping[str, Any], patches: Iterable[Patch | Unusable], say: Callable[[str], None]
) -> Written:
    """Write patches below `folder`, one by one, so that memory holds a single patch.

    Where `folder` was written from the same `facts` before, nothing is done; where that was cut short, files that are
    there with the same bytes are kept.

    Args:
        folder: made where it is not there.
        facts: the source files and the rule, as JSON.
        patches: taken only where something has to be written.
        say: is told of every thousandth patch.

    Raises:
        StoreError: the folder cannot be written.
    """
    known = written_patches(folder, facts)
    if known is not None:
        return known
    (folder / DONE_FILE).unlink(missing_ok=True)
    write_json(folder / STARTED_FILE, dict(facts))
    rows, unusable = [], []
    for patch in patches:
        if isinstance(patch, Unusable):
            unusable.append((patch.what, patch.reason))
            continue
        _write(folder / patch.name, _png(patch.pixels))
        rows.append({"image": patch.name, **patch.row})
        if len(rows) % _SAY_EVERY == 0:
            say(f"Wrote {len(rows):,} patches.")
    table = pd.DataFrame(rows, dtype=object) if rows else pd.DataFrame(columns=["image"])
    left_out = pd.DataFrame(unusable, columns=list(SKIPPED_COLUMNS))
    write_csv(folder / TABLE_FILE, table)
    write_csv(folder / LEFT_OUT_FILE, left_out)
    # Once for all: a sync after each of many small files would take most of the time.
    if hasattr(os, "sync"):
        os.sync()
    write_json(folder / DONE_FILE, dict(facts))
    (folder / STARTED_FILE).unlink()
    return _read_back(folder)


def written_patches(folder: Path, facts: Mapping[str, Any]) -> Written | None:
    """Return the patches that were written from the same `facts`; None where there are none."""
    if _stated(folder / DONE_FILE) != facts:
        return None
    return _read_back(folder)


def _read_back(folder: Path) -> Written:
    tables = (pd.read_csv(folder / name, dtype=str, keep_default_na=False) for name in (TABLE_FILE, LEFT_OUT_FILE))
    return Written(*tables)


def patch_place(folder: Path, unpack_to: Path | None, name: str, facts: Mapping[str, Any], spec: str) -> Path:
    """Return the folder that holds the patches `name`, or that they are to be written into.

    Raises:
        InputError: they are not in `folder` yet, and `unpack_to` is None; `spec` says what is to be imported.
    """
    if unpack_to is not None:
        return unpack_to / name
    if written_patches(folder / name, facts) is None:
        raise InputError(
            f"The images of '{spec}' have to be written as patches first: medvlm-probe cohort import {spec} --out "
            "FOLDER/manifest.csv"
        )
    return folder / name


def _write(path: Path, data: bytes) -> None:
    try:
        if path.is_file() and path.read_bytes() == data:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise StoreError(
            f"Cannot write {path}: {error.strerror or error}. Free space or choose another folder."
        ) from error


def _stated(path: Path) -> Any:
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError):
        return None


def _png(pixels: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    # Compression takes most of the time; the first level is several times as fast, and its files little larger.
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()
