"""Where a cohort's pixels come from: the ImageSource contract, files on disk, and the reasons for quarantine."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from medvlm_probe.cohort import png_recipe, recipes
from medvlm_probe.cohort.recipes import recipe_for
from medvlm_probe.cohort.storage import MAX_FILE_BYTES, read_local
from medvlm_probe.errors import ImageError

if TYPE_CHECKING:
    from PIL.Image import Image

    from medvlm_probe.cohort.image_headers import ImageHeader

__all__ = ["MAX_FILE_BYTES", "REASONS", "FileImages", "ImageSource", "recipe_for"]

REASONS: dict[str, str] = {
    "missing_file": "no such file",
    "outside_folder": "the path leaves the cohort's folder, directly or through a link",
    "not_a_file": "a folder, pipe or device, not a file",
    "unreadable": "the file cannot be opened or read",
    "empty_file": "the file has no bytes",
    "too_many_bytes": "the file is larger than any image that is read",
    "not_an_image": "the file is no image, whatever its name says",
    "unsupported_format": "an image, but of a kind that is not read",
    "too_many_pixels": "more pixels than the limit; not decoded",
    "too_small": "too few pixels to be a radiograph",
    "truncated": "the file ends early",
    "corrupt": "the file's bytes contradict its own header or checksums",
    "decode_failed": "the decoder refused the file",
    "dark_16_bit": "16-bit values that were never scaled to the full range",
    "no_preamble": "a DICOM data set without the preamble and header of a DICOM file",
    "no_pixels": "a DICOM file without an image: a report, document, plan or directory",
    "several_frames": "several frames or pages in one file; one image is expected",
    "no_decoder": "the plug-in that decodes the compression is not installed",
    "no_window": "a DICOM file without a window, whose values fill too little of their range to be seen",
}
"""Why an image was put into quarantine: the codes of `ImageError.reason`, and what each says to people."""


class ImageSource(Protocol):
    """How the pixels of a cohort's rows are read. All methods may be called from several threads at once."""

    @property
    def recipe(self) -> str:
        """The named, versioned way from file to 8-bit pixels: `png/v1`, `dicom/v1`, `phantom/v1`."""
        ...

    @property
    def settings(self) -> str:
        """What besides the recipe decides the pixels (a generator's digest and size); "" for files."""
        ...

    def __len__(self) -> int:
        """Return how many rows there are."""
        ...

    def content_key(self, row: int) -> str:
        """Return the sha256 (64 hex digits) of the image's content, without decoding it.

        Raises:
            ImageError: the image is missing, forbidden, or by its first bytes unusable.
        """
        ...

    def read(self, row: int) -> Image:
        """Return the image in mode "L" or "RGB", 8 bit.

        Raises:
            ImageError: the image cannot be used.
        """
        ...

    def read_with_key(self, row: int) -> tuple[Image, str]:
        """Return the image and the content key of the very bytes that it was decoded from; errors as in `read`."""
        ...

    def rows(self, index: Sequence[int]) -> ImageSource:
        """Return the source of these rows, in this order."""
        ...


@dataclass(frozen=True)
class FileImages:
    """Image files below one folder, read by a recipe (see `png_recipe` and `dicom_recipe`) and told by first bytes.

    Attributes:
        root: the folder that every file must lie in, after links are followed.
        paths: each row's path, relative to `root`, with forward slashes.
        max_pixels: the largest width x height that is decoded.
        recipe: a key of `recipes.RECIPES`; `recipe_for(paths)` is the one that the names ask for.

    Raises:
        UnknownNameError: a recipe that does not exist.
    """

    root: Path
    paths: tuple[str, ...]
    max_pixels: int = png_recipe.MAX_PIXELS
    recipe: str = recipes.PNG
    settings: str = ""

    def __post_init__(self) -> None:
        recipes.recipe_named(self.recipe)
        object.__setattr__(self, "root", self.root.resolve())

    def __len__(self) -> int:
        return len(self.paths)

    def content_key(self, row: int) -> str:
        """Return the sha256 of the file's bytes; a file that its path or first bytes rule out raises ImageError."""
        return hashlib.sha256(self._checked_bytes(row)).hexdigest()

    def read(self, row: int) -> Image:
        """Return the decoded image, mode "L" or "RGB"; raises ImageError."""
        return self._decoded(row, self._checked_bytes(row))

    def read_with_key(self, row: int) -> tuple[Image, str]:
        """Return the decoded image and the sha256 of the bytes that it came from; raises ImageError."""
        data = self._checked_bytes(row)
        return self._decoded(row, data), hashlib.sha256(data).hexdigest()

    def header(self, row: int) -> ImageHeader:
        """Return the file's own statement of its format, size and depth; raises ImageError."""
        return recipes.checked_header(self._checked_bytes(row), recipes.recipe_named(self.recipe), self.max_pixels)

    def rows(self, index: Sequence[int]) -> FileImages:
        """Return the source of these rows, in this order."""
        return replace(self, paths=tuple(self.paths[i] for i in index))

    def _decoded(self, row: int, data: bytes) -> Image:
        return decoded(data, self.paths[row], self.recipe, self.max_pixels)

    def _checked_bytes(self, row: int) -> bytes:
        return checked_bytes(partial(read_local, self.root), self.paths[row], self.recipe, self.max_pixels)


def checked_bytes(read: Callable[[str], bytes], path: str, recipe: str, max_pixels: int) -> bytes:
    """Return a file's bytes, unless they rule it out without decoding; errors (ImageError) begin with its path."""
    with _naming(path):
        data = read(path)
        recipes.checked_header(data, recipes.recipe_named(recipe), max_pixels)
    return data


def decoded(data: bytes, path: str, recipe: str, max_pixels: int) -> Image:
    """Return a file's image, mode "L" or "RGB"; errors (ImageError) begin with its path."""
    with _naming(path):
        return recipes.decode(data, recipes.recipe_named(recipe), max_pixels)


@contextmanager
def _naming(path: str) -> Iterator[None]:
    try:
        yield
    except ImageError as error:
        raise ImageError(error.reason, f"{path}: {error}") from error
