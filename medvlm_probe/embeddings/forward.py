"""The loop over shards: batches through the model, whole shards to the store, smaller batches when memory is short."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

from medvlm_probe.embeddings.batches import Batch, Item, split
from medvlm_probe.embeddings.store import EmbeddingStore
from medvlm_probe.errors import DeviceError

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

NOT_FINITE = "not_finite"
"""The reason code of an image that the model itself fails on, with NaN or infinite values."""

# CPU: of 8, 16, 32 and 64 the fastest for a ViT-B/16 in bfloat16 (118, 116, 126, 135 ms an image on two cores).
_START_BATCH_SIZES = {"cpu": 16, "cuda": 256, "mps": 64}
_NO_MEMORY = re.compile(r"out of memory|can't allocate memory|not enough memory", re.IGNORECASE)


class Progress(Protocol):
    """A callback that shows how far the work is."""

    def __call__(self, done: int, total: int, seconds: float, /) -> None:
        """Take the images done, the images to do, and the seconds since the first one began."""
        ...


@dataclass
class Stopwatch:
    """Seconds spent by step."""

    seconds: dict[str, float] = field(default_factory=dict)

    def timed(self, step: str, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Pass batches on, and count the time that each was waited for."""
        iterator = iter(batches)
        while True:
            started = time.perf_counter()
            batch = next(iterator, None)
            self.add(step, started)
            if batch is None:
                return
            yield batch

    def add(self, step: str, started: float) -> None:
        """Count the time since `started` (of `time.perf_counter`) towards a step."""
        self.seconds[step] = self.seconds.get(step, 0.0) + time.perf_counter() - started


@dataclass(frozen=True)
class Encoded:
    """A batch after the model: its images, their vectors (N, D) float32, and the failed ones (key to reason)."""

    items: Sequence[Item]
    vectors: Tensor
    failed: Mapping[str, str]


Encoder = Callable[[Iterable[Sequence[Item]]], Iterator[Encoded]]
"""Takes lists of images; gives one `Encoded` for each, in order."""


@dataclass(frozen=True)
class Pipeline:
    """How images become vectors.

    Attributes:
        load: reads lists of items as batches, in order.
        encode: pixels (N, 3, H, W) to float32 embeddings (N, D) on the model's device.
        watch: counts the seconds of reading ("decode") and of the model ("forward").
    """

    load: Callable[[Iterable[Sequence[Item]]], Iterator[Batch]]
    encode: Callable[[Tensor], Tensor]
    watch: Stopwatch

    def encoded(self, batches: Iterable[Sequence[Item]]) -> Iterator[Encoded]:
        """Yield the batches in order, read and encoded in this process."""
        for batch in self.watch.timed("decode", self.load(batches)):
            started = time.perf_counter()
            vectors = self.encode(batch.pixels)
            self.watch.add("forward", started)
            yield Encoded(batch.items, vectors, batch.failed)


def start_batch_size(device: torch.device) -> int:
    """Return the batch size that `auto` starts with; fixed for a kind of device, so that reruns give the same bytes."""
    return _START_BATCH_SIZES.get(device.type, 16)


def embed_shards(
    shards: Mapping[str, Sequence[Item]],
    store: EmbeddingStore,
    encoder: Encoder,
    *,
    batch_size: int,
    may_halve: bool,
    progress: Progress | None,
) -> int:
    """Compute and publish shards in order; those that another process published meanwhile are passed over.

    A shard is written while the model is busy with the next one. Each is written before the one after it is.

    Args:
        shards: name to fixed list of images.
        store: where they go.
        encoder: how batches become vectors, here or elsewhere.
        batch_size: images a batch; batches never cross a shard.
        may_halve: on running out of memory, halve the batch size and begin the shard again.
        progress: called after each batch.

    Returns:
        The batch size at the end.

    Raises:
        DeviceError: memory runs out, and the batch size is fixed or 1.
        StoreError: the store cannot be written.
    """
    import torch

    total = sum(map(len, shards.values()))
    started = time.perf_counter()
    left = dict(shards)
    while left:
        finished = total - sum(map(len, left.values()))

        def show(n_images: int, before: int = finished) -> None:
            if progress is not None:
                progress(before + n_images, total, time.perf_counter() - started)

        show(0)
        try:
            _publish_all(_computed(left, store, encoder, batch_size, show), left, store)
            return batch_size
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            if not may_halve or batch_size == 1:
                raise no_memory(batch_size) from error
        # Outside the handler: the traceback held the tensors that did not fit.
        batch_size //= 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        left = {name: items for name, items in left.items() if name not in store}
    return batch_size


def out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that a device, or this machine, ran out of memory."""
    return isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)) is not None


def no_memory(batch_size: int) -> DeviceError:
    """Return the error for a batch that does not fit."""
    return DeviceError(f"Out of memory at a batch size of {batch_size}. Give a smaller --batch-size, or --device cpu.")


def _publish_all(
    computed: Iterable[tuple[str, NDArray[np.float32], dict[str, str]]],
    shards: Mapping[str, Sequence[Item]],
    store: EmbeddingStore,
) -> None:
    """Publish shards as they come, one at a time, in a thread of its own; nothing is left to write at the end."""
    with ThreadPoolExecutor(1, "publish") as writer:
        writing: Future[None] | None = None
        for name, vectors, failed in computed:
            if writing is not None:
                writing.result()
            writing = writer.submit(store.publish, [item.key for item in shards[name]], vectors, failed)
        if writing is not None:
            writing.result()


def _computed(
    shards: Mapping[str, Sequence[Item]],
    store: EmbeddingStore,
    encoder: Encoder,
    batch_size: int,
    show: Callable[[int], None],
) -> Iterator[tuple[str, NDArray[np.float32], dict[str, str]]]:
    """Yield each shard's name, the vectors of its good images in order, and the failed ones with their reasons."""
    import torch

    name_by_last_key = {items[-1].key: name for name, items in shards.items()}
    parts: list[Tensor] = []
    failed: dict[str, str] = {}
    n_images = 0
    for batch in encoder(_batches(shards, store, batch_size)):
        parts.append(batch.vectors)
        failed |= batch.failed
        n_images += len(batch.items)
        show(n_images)
        name = name_by_last_key.get(batch.items[-1].key)
        if name is not None:
            vectors = torch.cat(parts).cpu().numpy()
            keys = [item.key for item in shards[name]]
            finite = np.isfinite(vectors).all(axis=1)
            failed |= {
                key: NOT_FINITE for key, good in zip(keys, finite, strict=True) if not good and key not in failed
            }
            yield name, vectors[[key not in failed for key in keys]], failed
            parts, failed = [], {}


def _batches(shards: Mapping[str, Sequence[Item]], store: EmbeddingStore, size: int) -> Iterator[Sequence[Item]]:
    for name, items in shards.items():
        if name not in store:
            yield from split(items, size)
