"""Where images lie as seen from a manifest's folder, and their copies below it where they lie elsewhere."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medvlm_probe.cohort.manifest_columns import image_path_faults
from medvlm_probe.errors import InputError, StoreError
from medvlm_probe.runs import write_bytes_atomically


@dataclass(frozen=True)
class ImageSet:
    """The images of one cohort.

    Attributes:
        name: of the cohort; the folder that copies go into, "" for the manifest's own.
        root: the folder that `images` start from.
        images: paths relative to `root`, with forward slashes.
    """

    name: str
    root: Path
    images: tuple[str, ...]


def places_below(folder: Path, sets: Sequence[ImageSet]) -> list[tuple[str, ...] | None]:
    """Return each set's image paths relative to `folder`, None for a set with an image that does not lie below it."""
    prefix = _slashed(folder)
    found: list[tuple[str, ...] | None] = []
    for given in sets:
        root = _slashed(given.root)
        if root.startswith(prefix):
            found.append(tuple(root[len(prefix) :] + image for image in given.images))
        elif prefix.startswith(root) and all(image.startswith(prefix[len(root) :]) for image in given.images):
            found.append(tuple(image[len(prefix) - len(root) :] for image in given.images))
        else:
            found.append(None)
    return found


def elsewhere_error(out: Path, sets: Sequence[ImageSet]) -> InputError:
    """Return the error for images that do not lie below the manifest's folder: what to do instead."""
    common = Path(os.path.commonpath([given.root.resolve() for given in sets]))
    start = f"A manifest names images below its own folder, but not all images lie below '{out.parent}'."
    if common.parent == common or not os.access(common, os.W_OK):
        return InputError(f"{start}\nTheir common folder '{common}' is no place to write to: copy them: --copy-images.")
    return InputError(f"{start}\nUse --out {common / out.name}, or copy them below it: --copy-images.")


def copy_images(
    folder: Path, given: ImageSet, places: Sequence[str], rows: Sequence[int], progress: Callable[[int], None]
) -> dict[int, str]:
    """Copy images to their places below `folder`; returns the rows that cannot be copied, with the reason.

    Each file appears whole or not at all. One that exists with the same bytes is taken as copied, so that an
    interrupted run goes on; one with other bytes is never overwritten.

    Args:
        folder: the manifest's folder.
        given: the images.
        places: a path below `folder` for each image.
        rows: which of them to copy.
        progress: called with the number of images done.

    Raises:
        StoreError: a file that exists with other content, or a folder that cannot be written.
    """
    root = given.root.resolve()
    failed: dict[int, str] = {}
    for done, row in enumerate(rows, start=1):
        source = Path(os.path.realpath(root / given.images[row]))
        if not source.is_relative_to(root):
            failed[row] = "the path leaves its folder through a link"
        elif not source.is_file():
            failed[row] = "no such image file"
        else:
            _copy(source, folder, places[row])
        progress(done)
    return failed


def _copy(source: Path, folder: Path, place: str) -> None:
    target = folder / place
    if not Path(os.path.realpath(target)).is_relative_to(os.path.realpath(folder)):
        raise StoreError(f"'{target}' leads out of '{folder}' through a link. Remove the link.")
    try:
        data = source.read_bytes()
    except OSError as error:
        raise StoreError(f"Cannot read {source}: {error.strerror}.") from error
    if not target.exists():
        write_bytes_atomically(target, data)
    if not target.is_file() or target.read_bytes() != data:
        raise StoreError(f"'{target}' exists with other content and is not overwritten. Name another folder.")


def unwritable(images: Sequence[str]) -> dict[int, str]:
    """Return the rows whose path no manifest may hold, with the reason."""
    import pyarrow as pa

    reasons = {row: "its name is not UTF-8 text" for row, image in enumerate(images) if not _is_text(image)}
    column = pa.array(["?" if row in reasons else image for row, image in enumerate(images)], type=pa.string())
    for what, bad, _ in image_path_faults(column):
        fault = what.removeprefix("Column 'image' ")
        for row in np.flatnonzero(bad).tolist():
            reasons.setdefault(row, f"its name cannot stand in a manifest: it {fault}")
    return reasons


def _is_text(image: str) -> bool:
    try:
        image.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _slashed(folder: Path) -> str:
    return folder.resolve().as_posix().rstrip("/") + "/"
