"""Which store a run reads and fills: that of the fast precision, or of float32 where the fast one strays too far."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medvlm_probe.embeddings.batches import Item, split
from medvlm_probe.embeddings.forward import no_memory, out_of_memory
from medvlm_probe.embeddings.precision import CHECK_IMAGES, MIN_COSINE, min_cosine
from medvlm_probe.embeddings.store import shard_name

if TYPE_CHECKING:
    from torch import Tensor

    from medvlm_probe.embeddings.forward import Pipeline
    from medvlm_probe.embeddings.precision import Precision
    from medvlm_probe.embeddings.store import EmbeddingStore


@dataclass(frozen=True)
class Choice:
    """A store, its precision, the check's smallest cosine (None: no check), and what people should know about it."""

    store: EmbeddingStore
    precision: Precision
    min_cosine: float | None
    notes: tuple[str, ...] = ()


def choose_store(
    items: Sequence[Item],
    wanted: Precision,
    open_at: Callable[[Precision], EmbeddingStore],
    pipeline_at: Callable[[Precision], Pipeline],
    *,
    batch_size: int,
    may_fall_back: bool,
) -> Choice:
    """Return the store for a cohort's images at the wanted precision, or at float32.

    A lower precision is held against float32 on the cohort's first images, which never change while a killed run is
    taken up again; the result is kept beside the embeddings. Where it holds all images already, nothing is computed.

    Args:
        items: the cohort's different images, in order.
        wanted: the precision to try.
        open_at: opens the store of a precision.
        pipeline_at: how images become vectors at a precision.
        batch_size: the most images that the check puts through at once.
        may_fall_back: take float32 when the smallest cosine is below `MIN_COSINE`; else only note it.
    """
    store = open_at(wanted)
    if wanted == "float32":
        return Choice(store, wanted, None)
    first = split(items, min(CHECK_IMAGES, batch_size))
    name = shard_name([item.key for item in first[0]]) if first else ""
    record = store.read_check(name)
    if record is None and _has_work(store, items):
        record = _checked(first, pipeline_at("float32"), pipeline_at(wanted))
        store.write_check(name, record)
    cosine = None if record is None else record["min_cosine"]
    if cosine is None or cosine >= MIN_COSINE:
        return Choice(store, wanted, cosine)
    found = f"{wanted} strays from float32: smallest cosine {cosine:.5f} on the first images, {MIN_COSINE} expected."
    if may_fall_back:
        return Choice(open_at("float32"), "float32", cosine, (f"{found} Computing in float32.",))
    return Choice(store, wanted, cosine, (f"{found} Kept, as asked for; --precision auto would take float32.",))


def _has_work(store: EmbeddingStore, items: Sequence[Item]) -> bool:
    failed = store.failed()
    stored = store.has([item.key for item in items])
    return any(not there and item.key not in failed for item, there in zip(items, stored, strict=True))


def _checked(parts: Sequence[Sequence[Item]], exact: Pipeline, fast: Pipeline) -> dict[str, int | float | None]:
    """Return how the first part with a readable image fares in both precisions; None where no image is readable."""
    for batch in exact.load(parts):
        good = [i for i, item in enumerate(batch.items) if item.key not in batch.failed]
        if good:
            return {"images": len(good), "min_cosine": _min_cosine(batch.pixels[good], exact, fast)}
    return {"images": 0, "min_cosine": None}


def _min_cosine(pixels: Tensor, exact: Pipeline, fast: Pipeline) -> float:
    try:
        return min_cosine(exact.encode(pixels), fast.encode(pixels))
    except (RuntimeError, MemoryError) as error:
        if out_of_memory(error):
            raise no_memory(len(pixels)) from error
        raise
