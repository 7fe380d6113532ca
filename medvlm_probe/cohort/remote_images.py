"""Image files below one folder of an object store, read as those on disk are."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from medvlm_probe.cohort import png_recipe, recipes
from medvlm_probe.cohort.images import checked_bytes, decoded
from medvlm_probe.cohort.storage import RemoteFolder

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class RemoteImages:
    """Objects below one folder; see `images.FileImages` for the attributes and errors.

    The content of an object is its key in the cache, as on disk: the same images are the same, wherever they lie.
    """

    root: RemoteFolder
    paths: tuple[str, ...]
    max_pixels: int = png_recipe.MAX_PIXELS
    recipe: str = recipes.PNG
    settings: str = ""

    def __post_init__(self) -> None:
        recipes.recipe_named(self.recipe)

    def __len__(self) -> int:
        return len(self.paths)

    def content_key(self, row: int) -> str:
        """Return the sha256 of the object's bytes, all of which are fetched; raises ImageError."""
        return hashlib.sha256(self._bytes(row)).hexdigest()

    def read(self, row: int) -> Image:
        """Return the decoded image, mode "L" or "RGB"; raises ImageError."""
        return self.read_with_key(row)[0]

    def read_with_key(self, row: int) -> tuple[Image, str]:
        """Return the decoded image and the sha256 of the bytes that it came from; raises ImageError."""
        data = self._bytes(row)
        return decoded(data, self.paths[row], self.recipe, self.max_pixels), hashlib.sha256(data).hexdigest()

    def rows(self, index: Sequence[int]) -> RemoteImages:
        """Return the source of these rows, in this order."""
        return replace(self, paths=tuple(self.paths[i] for i in index))

    def _bytes(self, row: int) -> bytes:
        return checked_bytes(self.root.read, self.paths[row], self.recipe, self.max_pixels)
