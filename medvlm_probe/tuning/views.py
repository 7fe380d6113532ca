"""Several augmented views of a few images through a model, each computed once and kept in the cache of embeddings."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.embeddings.extract import embed
from medvlm_probe.embeddings.precision import at_precision
from medvlm_probe.errors import InputError
from medvlm_probe.runs import sha256_json
from medvlm_probe.tuning.augment import augmented

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from medvlm_probe.cohort.cohort import Cohort
    from medvlm_probe.cohort.images import ImageSource
    from medvlm_probe.embeddings.forward import Progress
    from medvlm_probe.embeddings.precision import Precision
    from medvlm_probe.models.contract import VisionLanguageModel

ViewKind = Literal["clean", "light", "crops"]

VIEW_KINDS: dict[ViewKind, str] = {
    "clean": "the image as results see it: one view",
    "light": "small turns, shifts, zooms, contrast and brightness; never mirrored",
    "crops": "CalibPrompt's: random crops of 8 to 100 % of the area, half of them mirrored, CLIP's mean and deviation",
}
"""How a view differs from the image."""

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
CROP_AREA, CROP_RATIO, CROP_TRIES = (0.08, 1.0), (3 / 4, 4 / 3), 10
KEPT_BYTES = 1 << 30


@dataclass(frozen=True)
class Views:
    """Which views an image has.

    Attributes:
        n_views: how many, at least 1.
        kind: of `VIEW_KINDS`; `clean` has one.
        seed: of the augmentation. A view depends on it, on its number and on the image's content alone.
    """

    n_views: int
    kind: ViewKind
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n_views < 1 or (self.kind == "clean" and self.n_views > 1):
            raise InputError(f"{self.n_views} {self.kind} views: expected at least 1, and exactly 1 clean one.")

    @property
    def words(self) -> str:
        """What a run says of them."""
        return "1 clean view" if self.kind == "clean" else f"{self.n_views} {self.kind} views"


def embed_views(
    cohort: Cohort,
    model: VisionLanguageModel,
    views: Views,
    *,
    precision: Precision,
    batch_size: int | Literal["auto"] = "auto",
    workers: int | None = None,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """Return the embeddings of every view, (V, n, D), not normalised, in the order of the cohort's rows.

    The cache's folders are those of a model whose fingerprint covers the view, so that a view of an image is computed
    once, whichever cohort, seed or loss asks for it.

    Args:
        cohort: the images, all of which can be read.
        model: not changed.
        views: which.
        precision: one of `PRECISIONS`, as chosen (and held against float32) for the clean images. A check of every view
            would cost more than the view.
        batch_size, workers, cache_dir, progress: as in `embed`.

    Raises:
        TooManyFailuresError: an image cannot be read any more.
    """
    kept = replace(cohort, source=KeptImages(cohort.source))
    lowered = at_precision(model, precision)  # once for all views: embed finds nothing left to convert
    found = []
    for number in range(views.n_views):
        done = embed(
            kept,
            lowered if views.kind == "clean" else viewing(lowered, views, number),
            precision=precision,
            batch_size=batch_size,
            workers=workers,
            cache_dir=cache_dir,
            progress=progress,
            max_failures=0,
            checked=True,
        )
        found.append(done.vectors)
    return np.stack(found)


def viewing(model: VisionLanguageModel, views: Views, number: int) -> VisionLanguageModel:
    """Return a model that sees one view of every image; it shares the given model's weights."""
    twin = copy.copy(model)
    change: Callable[[Image], Tensor] = partial(_light if views.kind == "light" else _crop, model, views.seed, number)
    facts = ["views/v1", model.fingerprint, views.kind, views.seed, number]
    for name, value in (("preprocess", change), ("fingerprint", sha256_json(facts))):
        object.__setattr__(twin, name, value)  # models are frozen dataclasses
    return twin


class KeptImages:
    """A source that keeps what it has decoded, as far as a budget of memory allows: each view needs the same images."""

    def __init__(self, source: ImageSource, kept_bytes: int = KEPT_BYTES) -> None:
        self._source, self._room = source, kept_bytes
        self._keys: dict[int, str] = {}
        self._images: dict[int, tuple[Image, str]] = {}

    @property
    def recipe(self) -> str:
        """The source's."""
        return self._source.recipe

    @property
    def settings(self) -> str:
        """The source's."""
        return self._source.settings

    def __len__(self) -> int:
        return len(self._source)

    def content_key(self, row: int) -> str:
        """Return the sha256 of the image's content, hashed once; raises ImageError."""
        if row not in self._keys:
            self._keys[row] = self._source.content_key(row)
        return self._keys[row]

    def read(self, row: int) -> Image:
        """Return the image; raises ImageError."""
        return self.read_with_key(row)[0]

    def read_with_key(self, row: int) -> tuple[Image, str]:
        """Return the image and the content key of what it was decoded from; raises ImageError."""
        if row in self._images:
            return self._images[row]
        image, key = self._source.read_with_key(row)
        size = image.width * image.height * len(image.getbands())
        if size <= self._room:
            self._room -= size
            self._images[row] = image, key
        return image, key

    def rows(self, index: Sequence[int]) -> ImageSource:
        """Return the source of these rows, in this order; it keeps nothing."""
        return self._source.rows(index)


def _light(model: VisionLanguageModel, seed: int, number: int, image: Image) -> Tensor:
    return augmented(model.preprocess(image)[None], [_key(seed, number, image)])[0]


def _crop(model: VisionLanguageModel, seed: int, number: int, image: Image) -> Tensor:
    """Return the view that torchvision's RandomResizedCrop and RandomHorizontalFlip, then CLIP's statistics, give."""
    import torch
    from PIL import Image as Pillow

    rng = np.random.default_rng(_key(seed, number, image))
    side, box = model.image_size, crop_box(image.width, image.height, rng)
    view = image.convert("RGB").crop(box).resize((side, side), Pillow.Resampling.BICUBIC)
    if rng.random() < 0.5:
        view = view.transpose(Pillow.Transpose.FLIP_LEFT_RIGHT)
    levels = np.asarray(view, dtype=np.float32) / 255
    pixels = (levels - np.asarray(CLIP_MEAN, dtype=np.float32)) / np.asarray(CLIP_STD, dtype=np.float32)
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def crop_box(width: int, height: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Return left, top, right, bottom of a random crop: area uniform, ratio of sides log-uniform, as in torchvision.

    After ten crops that do not fit, the largest central one with a ratio in the range is taken.
    """
    for _ in range(CROP_TRIES):
        area = width * height * rng.uniform(*CROP_AREA)
        ratio = np.exp(rng.uniform(*np.log(CROP_RATIO)))
        w, h = round(float(np.sqrt(area * ratio))), round(float(np.sqrt(area / ratio)))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            return left, top, left + w, top + h
    ratio = float(np.clip(width / height, *CROP_RATIO))
    w, h = min(width, round(height * ratio)), min(height, round(width / ratio))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def _key(seed: int, number: int, image: Image) -> list[int]:
    """Return the seed of a view: of its number and the decoded pixels."""
    digest = sha256(f"{image.mode} {image.size} ".encode() + image.tobytes()).digest()
    return [seed, number, int.from_bytes(digest[:8], "little")]
