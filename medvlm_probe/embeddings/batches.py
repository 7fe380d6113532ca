"""From lists of images to tensors: decoded by threads, in between batches on a CPU, ahead of them on an accelerator."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from medvlm_probe.errors import ImageError

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from medvlm_probe.cohort.images import ImageSource
    from medvlm_probe.models.contract import VisionLanguageModel


@dataclass(frozen=True)
class Item:
    """One image to embed: its content key and a row of the cohort that holds it."""

    key: str
    row: int


@dataclass(frozen=True)
class Batch:
    """Decoded images.

    Attributes:
        items: what was to be read.
        pixels: (N, 3, H, W) float32; zeros where an image failed, so that a batch has the same size in every run.
        failed: content key to reason of the images that could not be read.
    """

    items: Sequence[Item]
    pixels: Tensor
    failed: dict[str, str]


def split(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    """Return consecutive parts of at most `size` items."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def load_batches(
    batches: Iterable[Sequence[Item]],
    source: ImageSource,
    model: VisionLanguageModel,
    pool: Executor,
    *,
    ahead: int = 0,
    pin: bool = False,
) -> Iterator[Batch]:
    """Yield the batches in order, decoded and preprocessed.

    Args:
        batches: what to read; taken one by one, when there is room.
        source: how the images are read.
        model: for its `preprocess` and image size.
        pool: the threads that decode.
        ahead: how many batches are decoded while the caller works on one. 0: decoding waits until a batch is asked
            for, and is over when it is handed out, so that a model on the same cores is never disturbed.
        pin: put the pixels into page-locked memory, from which copies to a CUDA device run in the background.
    """
    import torch

    shape = (3, model.image_size, model.image_size)
    fill = partial(decode_into, source=source, preprocess=model.preprocess)
    waiting: deque[tuple[Sequence[Item], Tensor, list[Future[str | None]]]] = deque()
    for items in batches:
        pixels = torch.empty((len(items), *shape), pin_memory=pin)
        waiting.append((items, pixels, [pool.submit(fill, *pair) for pair in zip(pixels, items, strict=True)]))
        if len(waiting) > ahead:
            yield _finished(*waiting.popleft())
    while waiting:
        yield _finished(*waiting.popleft())


def decode_into(slot: Tensor, item: Item, *, source: ImageSource, preprocess: Callable[[Image], Tensor]) -> str | None:
    """Put one image's pixels into its place of a batch, (3, H, W); zeros, and the reason, where it cannot be used."""
    try:
        slot.copy_(preprocess(read_item(source, item)))
    except ImageError as error:
        slot.zero_()
        return error.reason
    return None


def content_keys(source: ImageSource) -> list[str | ImageError]:
    """Return each row's content key, or the error of an image that has none."""

    def key_of(row: int) -> str | ImageError:
        try:
            return source.content_key(row)
        except ImageError as error:
            return error

    return [key_of(row) for row in range(len(source))]


def source_parts(source: ImageSource) -> list[ImageSource]:
    """Return a source in consecutive parts, small enough to share the work out and large enough to be worth sending."""
    size = max(16, min(512, len(source) // 256))
    return [source.rows(range(start, min(start + size, len(source)))) for start in range(0, len(source), size)]


def unique_items(keys: Sequence[str | ImageError]) -> list[Item]:
    """Return the different images in order, each with the first row that holds it."""
    rows: dict[str, int] = {}
    for row, key in enumerate(keys):
        if isinstance(key, str):
            rows.setdefault(key, row)
    return [Item(key, row) for key, row in rows.items()]


def read_item(source: ImageSource, item: Item) -> Image:
    """Return an image, provided that its content still is what its key says.

    Raises:
        ImageError: the image cannot be used, or has changed since it was hashed.
    """
    image, key = source.read_with_key(item.row)
    if key != item.key:
        raise ImageError("changed", "The file changed while the cohort was being embedded. Run again.")
    return image


def _finished(items: Sequence[Item], pixels: Tensor, reads: Sequence[Future[str | None]]) -> Batch:
    reasons = [read.result() for read in reads]
    return Batch(items, pixels, {item.key: why for item, why in zip(items, reasons, strict=True) if why is not None})
