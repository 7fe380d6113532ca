"""The images of a training, decoded by threads, and kept between epochs as far as a budget of memory allows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from typing import TYPE_CHECKING

from medvlm_probe.embeddings.batches import Item, load_batches
from medvlm_probe.errors import ImageError

if TYPE_CHECKING:
    from torch import Tensor

    from medvlm_probe.cohort.images import ImageSource
    from medvlm_probe.models.contract import VisionLanguageModel
    from medvlm_probe.types import IntArray

KEPT_BYTES = 1 << 30
"""Memory for decoded images: about 1,780 of 224 x 224 pixels."""


class Pixels:
    """Preprocessed images of a cohort, by row."""

    def __init__(
        self,
        source: ImageSource,
        keys: Sequence[str],
        model: VisionLanguageModel,
        pool: Executor,
        *,
        ahead: int = 0,
        kept_bytes: int = KEPT_BYTES,
    ) -> None:
        """Read nothing yet.

        Args:
            source: how the images are read.
            keys: each image's content key: an image that has changed since is refused.
            model: for its `preprocess`.
            pool: the threads that decode.
            ahead: batches decoded while the caller works on one.
            kept_bytes: memory for images that are kept.
        """
        self._source, self._keys, self._model, self._pool, self._ahead = source, keys, model, pool, ahead
        self._room = kept_bytes
        self._kept: dict[int, Tensor] = {}

    def batches(self, rows: Sequence[IntArray]) -> Iterator[Tensor]:
        """Yield (N, 3, H, W) float32 for each list of rows, in order. No row stands in two lists.

        Raises:
            ImageError: an image cannot be read any more, or has changed.
        """
        import torch

        missing = [[int(row) for row in part if int(row) not in self._kept] for part in rows]
        items = [[Item(self._keys[row], row) for row in part] for part in missing if part]
        loaded = load_batches(items, self._source, self._model, self._pool, ahead=self._ahead)
        for part, lacking in zip(rows, missing, strict=True):
            fresh: dict[int, Tensor] = {}
            if lacking:
                batch = next(loaded)
                for key, reason in batch.failed.items():
                    raise ImageError(reason, f"Image {key[:12]}... cannot be read any more ({reason}). Run again.")
                fresh = dict(zip(lacking, batch.pixels, strict=True))
                self._keep(fresh)
            yield torch.stack([fresh[int(row)] if int(row) in fresh else self._kept[int(row)] for row in part])

    def _keep(self, fresh: dict[int, Tensor]) -> None:
        for row, pixels in fresh.items():
            size = pixels.numel() * pixels.element_size()
            if size <= self._room:
                self._room -= size
                self._kept[row] = pixels.clone()
