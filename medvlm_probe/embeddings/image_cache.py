"""Images at a model's size kept on disk, where asked for: a second model of that geometry need not decode them again.

It pays where decoding is dear (JPEG 2000, lossless JPEG) and images go through several models or precisions. The files
are pictures of patients, as readable as the originals: only their owner may read them, and nothing makes them unasked.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from medvlm_probe.errors import InputError, StoreError
from medvlm_probe.models.image_transform import EvalTransform

if TYPE_CHECKING:
    from PIL.Image import Image

    from medvlm_probe.cohort.images import ImageSource
    from medvlm_probe.models.contract import VisionLanguageModel

PROBED_SIZES = ((37, 53), (224, 224), (640, 480), (331, 700))
COMPRESSION = 1


@dataclass(frozen=True)
class CachedImages:
    """A source whose images come resized and cropped, from a folder where they have been before.

    The folder is asked by the content key of what the original's bytes are now, so a file that changed is never
    answered by its older picture. A file of the folder that cannot be read is made anew.

    Attributes:
        source: of the originals; it alone says what an image's key, recipe and faults are.
        geometry: resize and crop, which leave an image alone that went through them.
        side: of the model's square images, in pixels.
        folder: one file an image, named by its content key.
    """

    source: ImageSource
    geometry: Callable[[Image], Image]
    side: int
    folder: Path

    @property
    def recipe(self) -> str:
        """The source's."""
        return self.source.recipe

    @property
    def settings(self) -> str:
        """The source's."""
        return self.source.settings

    def __len__(self) -> int:
        return len(self.source)

    def content_key(self, row: int) -> str:
        """Return the source's."""
        return self.source.content_key(row)

    def read(self, row: int) -> Image:
        """Return the image at the model's size; raises ImageError."""
        return self.read_with_key(row)[0]

    def read_with_key(self, row: int) -> tuple[Image, str]:
        """Return the image at the model's size, and the content key of the original; raises ImageError, StoreError."""
        key = self.source.content_key(row)
        kept = _read(self._path(key), self.side)
        if kept is not None:
            return kept, key
        image, key = self.source.read_with_key(row)
        framed = self.geometry(image)
        _write(self._path(key), framed)
        return framed, key

    def rows(self, index: Sequence[int]) -> CachedImages:
        """Return the source of these rows, in this order."""
        return replace(self, source=self.source.rows(index))

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.png"


def cached_images(source: ImageSource, model: VisionLanguageModel, folder: Path) -> CachedImages:
    """Return a source that keeps images at the model's size below `folder`, apart by recipe and geometry.

    Two models share a geometry where it gives equal pixels of probe images, whatever their configurations are called.

    Raises:
        InputError: the model's transform has no geometry of its own, or one that changes its own result.
    """
    transform = getattr(model, "transform", None)
    if not isinstance(transform, EvalTransform):
        raise InputError(f"{model.name} has an image transform without a separate resize and crop. Embed it uncached.")
    digest = hashlib.sha256(f"{source.recipe}\n{source.settings}\n".encode())
    for probe in _probes():
        framed = transform.geometry(probe)
        if transform.geometry(framed).tobytes() != framed.tobytes():
            raise InputError(f"{model.name} resizes an image of its own size once more. Embed it uncached.")
        digest.update(f"{framed.mode} {framed.size}\n".encode() + framed.tobytes())
    return CachedImages(source, transform.geometry, model.image_size, folder / digest.hexdigest()[:16])


def _probes() -> list[Image]:
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    shapes = [(height, width, *depth) for width, height in PROBED_SIZES for depth in ((), (3,))]
    return [Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)) for shape in shapes]


def _read(path: Path, side: int) -> Image | None:
    from PIL import Image

    try:
        with Image.open(path, formats=("PNG",)) as image:
            if image.size != (side, side) or image.mode not in ("L", "RGB"):
                return None
            image.load()
            return image
    # Absent, or cut short when the machine went down.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None


def _write(path: Path, image: Image) -> None:
    # No sync: what a power cut leaves behind is noticed when it is read.
    aside = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        for folder in reversed(path.parents[:3]):  # parents that mkdir makes by itself would be open to others
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            image.save(file, "PNG", compress_level=COMPRESSION)
        aside.replace(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise StoreError(
            f"Cannot write an image to {path.parent}: {reason}. Free space, or leave the cache out."
        ) from error
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
