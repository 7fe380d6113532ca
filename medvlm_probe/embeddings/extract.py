"""A cohort through a model: `embed` returns one vector for each usable image, computing only what the cache lacks."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from medvlm_probe import runs
from medvlm_probe.embeddings import precision as precisions
from medvlm_probe.embeddings.batches import (
    Item,
    content_keys,
    load_batches,
    read_item,
    source_parts,
    split,
    unique_items,
)
from medvlm_probe.embeddings.choice import Choice, choose_store
from medvlm_probe.embeddings.engines import Engine, LocalEngine, Work
from medvlm_probe.embeddings.forward import NOT_FINITE, Pipeline, Progress, Stopwatch, embed_shards, start_batch_size
from medvlm_probe.embeddings.store import EmbeddingStore, StoreKey, open_store, shard_name
from medvlm_probe.embeddings.threads import decoding_pool, default_workers, torch_threads
from medvlm_probe.errors import ImageError, InputError, TooManyFailuresError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medvlm_probe.cohort.cohort import Cohort
    from medvlm_probe.cohort.images import ImageSource
    from medvlm_probe.embeddings.precision import Precision
    from medvlm_probe.models.contract import VisionLanguageModel

SHARD_SIZE = 512
MAX_FAILURES = 0.05
HASHED_HERE = 4_096
"""So many images are hashed sooner by this process than by others that have to start first."""

QUARANTINE_COLUMNS = ("row", "image", "reason", "message")

_PREFETCH = {"cuda": 2}
_LOCAL = LocalEngine()


@dataclass(frozen=True)
class Embedded:
    """What `embed` found.

    Attributes:
        vectors: (n, D) float32, not normalised; one row for each image that could be used, copies included.
        rows: (n,) int64, ascending: the cohort's row of each vector.
        keys: each vector's content key (n,), the sha256 of the image that it is of.
        quarantine: the rows without a vector: `row`, `image` (as in the manifest), `reason` (a code), `message`.
        n_given: images in the cohort.
        n_unique: images with different content among those with a vector.
        n_computed: images that went through the model now; the others were in the cache.
        precision: what the model ran in.
        min_cosine: the smallest cosine with float32 on the first images of the lower precision that was tried; None
            where nothing was checked.
        device: where the model ran.
        batch_size: images a batch, at the end.
        threads: threads that torch computed with.
        workers: threads (of another engine: processes) that decoded.
        engine: what did the work, a key of `engines.ENGINES`.
        model_workers: copies of the model that ran at once.
        seconds: by step: `hash`, `check`, `decode` (waited for), `forward`, `total`. On another engine `decode` and
            `forward` are summed over its workers.
        folder: the store in the cache.
        notes: sentences for people about what was decided.
    """

    vectors: NDArray[np.float32]
    rows: NDArray[np.int64]
    keys: tuple[str, ...]
    quarantine: pd.DataFrame
    n_given: int
    n_unique: int
    n_computed: int
    precision: Precision
    min_cosine: float | None
    device: str
    batch_size: int
    threads: int
    workers: int
    engine: str
    model_workers: int
    seconds: Mapping[str, float]
    folder: Path
    notes: tuple[str, ...]

    @property
    def n_used(self) -> int:
        """The images with a vector."""
        return len(self.rows)


@dataclass(frozen=True)
class _Means:
    """What turns images into vectors, at any precision."""

    source: ImageSource
    model: VisionLanguageModel
    cache: Path
    pool: Executor
    prefetch: int | None
    watch: Stopwatch

    def store_at(self, precision: Precision) -> EmbeddingStore:
        key = StoreKey(self.model.fingerprint, self.source.recipe, precision)
        return open_store(self.cache, key, self.model.embedding_dim)

    def pipeline_at(self, precision: Precision) -> Pipeline:
        kind = precisions.device_of(self.model).type
        load = partial(
            load_batches,
            source=self.source,
            model=self.model,
            pool=self.pool,
            ahead=_PREFETCH.get(kind, 0) if self.prefetch is None else self.prefetch,
            pin=kind == "cuda",
        )
        encode = partial(precisions.encode, precisions.at_precision(self.model, precision), precision=precision)
        return Pipeline(load, encode, self.watch)


def embed(
    cohort: Cohort,
    model: VisionLanguageModel,
    *,
    precision: str = "auto",
    batch_size: int | Literal["auto"] = "auto",
    workers: int | None = None,
    prefetch: int | None = None,
    shard_size: int = SHARD_SIZE,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
    max_failures: float = MAX_FAILURES,
    checked: bool = False,
    engine: Engine = _LOCAL,
) -> Embedded:
    """Return the embeddings of a cohort's images, in the order of its rows.

    Images are told apart by content: what the cache holds is not computed again, and copies are computed once. Work is
    done in shards, fixed lists of images not yet stored; a killed run loses the shard in the model and the one being
    written, and a rerun ends with the same bytes at equal device, precision, batch size, shard size and threads.

    Args:
        cohort: the images.
        model: not changed; at a lower precision a converted copy runs.
        precision: `float32`, `bfloat16`, `float16`, or `auto`: the fastest that the device has in hardware, unless its
            smallest cosine with float32 on the cohort's first images is below 0.9995; then float32.
        batch_size: images a batch; `auto` starts with a fixed size and halves it when memory runs out.
        workers: threads that decode; None: one a core, or `$OMP_NUM_THREADS` where that is less.
        prefetch: batches decoded while the model works; None: 2 on CUDA, else 0 (a CPU decodes in between).
        shard_size: images a shard.
        cache_dir: the cache; None: `$MEDVLM_PROBE_CACHE`, else the platform's user cache folder.
        progress: called after each batch.
        max_failures: the most images that may fail: a count (int), or a share of the cohort from 0 to 1 (float).
        checked: the model's precision, not `auto`, was held against float32 on such images before: it is not again.
        engine: where images are read and go through the model (see `engines.open_engine`). This process chooses the
            precision, and alone writes the cache.

    Raises:
        TooManyFailuresError: more images failed; what was computed stays in the cache.
        InputError: an option is out of range.
        DeviceError: the device lacks the precision, or memory ran out at a fixed batch size.
        StoreError: the cache cannot be written or read.
    """
    device = precisions.device_of(model)
    wanted = precisions.resolve_precision(precision, device)
    allowed = allowed_failures(max_failures, len(cohort))
    workers = default_workers() if workers is None else workers
    size = start_batch_size(device) if batch_size == "auto" else batch_size
    if min(workers, size, shard_size) < 1:
        raise InputError(f"{workers} workers, batch size {size}, shard size {shard_size}: each must be at least 1.")
    watch, started = Stopwatch(), time.perf_counter()
    with torch_threads() as threads, decoding_pool(workers) as pool:
        means = _Means(cohort.source, model, cache_dir or runs.cache_dir(), pool, prefetch, watch)
        pipeline_at = cache(means.pipeline_at)
        hashing = engine if len(cohort) > HASHED_HERE else _LOCAL
        keys = list(chain.from_iterable(hashing.map_shards(content_keys, source_parts(cohort.source), pool)))
        items = unique_items(keys)
        watch.add("hash", started)
        choosing = time.perf_counter()
        choice = (
            Choice(means.store_at(wanted), wanted, None)
            if checked and precision != "auto"
            else choose_store(
                items, wanted, means.store_at, pipeline_at, batch_size=size, may_fall_back=precision == "auto"
            )
        )
        watch.add("check", choosing)
        store = choice.store
        pending = _pending(items, store, cohort.source, pool)
        if pending:
            about = {"model": model.name, "fingerprint": model.fingerprint, "recipe": cohort.source.recipe}
            store.describe(about | {"precision": choice.precision})
            shards = {shard_name([item.key for item in part]): part for part in split(pending, shard_size)}
            here = pipeline_at(choice.precision)
            size = embed_shards(
                shards,
                store,
                engine.encoder(Work(cohort.source, model, choice.precision, threads, here)),
                batch_size=size,
                may_halve=batch_size == "auto",
                progress=progress,
            )
            store.refresh()
    rows, quarantine = _quarantine(cohort, keys, store)
    if len(quarantine) > allowed:
        raise TooManyFailuresError(_failure_message(quarantine, len(cohort), allowed))
    used = [str(keys[row]) for row in rows]
    vectors = store.vectors(used)
    watch.add("total", started)
    return Embedded(
        vectors=vectors,
        rows=rows,
        keys=tuple(used),
        quarantine=quarantine,
        n_given=len(cohort),
        n_unique=len(set(used)),
        n_computed=len(pending),
        precision=choice.precision,
        min_cosine=choice.min_cosine,
        device=str(device),
        batch_size=size,
        threads=threads,
        workers=engine.decoders or workers,
        engine=engine.name,
        model_workers=engine.model_workers,
        seconds={step: round(seconds, 3) for step, seconds in watch.seconds.items()},
        folder=store.folder,
        notes=choice.notes,
    )


def allowed_failures(max_failures: float, n_images: int) -> int:
    """Return the most images that may fail, of a count (int) or a share of the images (float from 0 to 1).

    Raises:
        InputError: a negative count, or a share outside 0 to 1.
    """
    if isinstance(max_failures, int):
        if max_failures >= 0:
            return max_failures
    elif 0 <= max_failures <= 1:
        return int(max_failures * n_images)
    raise InputError(f"max_failures is {max_failures}; expected a count (10) or a share from 0 to 1 (0.05).")


def _pending(items: Sequence[Item], store: EmbeddingStore, source: ImageSource, pool: Executor) -> list[Item]:
    """Return the images to compute, in order.

    An image that failed before is tried again only if it can be read by now: its share may have been away.
    """
    failed = store.failed()
    missing = [item for item, stored in zip(items, store.has([item.key for item in items]), strict=True) if not stored]
    again = [item for item in missing if failed.get(item.key, NOT_FINITE) != NOT_FINITE]
    readable = {
        item.key for item, error in zip(again, pool.map(partial(_error, source), again), strict=True) if error is None
    }
    return [item for item in missing if item.key not in failed or item.key in readable]


def _error(source: ImageSource, item: Item) -> ImageError | None:
    try:
        read_item(source, item)
    except ImageError as error:
        return error
    return None


def _quarantine(
    cohort: Cohort, keys: Sequence[str | ImageError], store: EmbeddingStore
) -> tuple[NDArray[np.int64], pd.DataFrame]:
    """Return the usable rows, and the table of the others.

    Messages may name files, so the store does not keep them; they come from reading the few bad images again, and are
    the same whether an image failed now or in an earlier run.
    """
    has_key = [isinstance(key, str) for key in keys]
    stored = np.zeros(len(keys), dtype=bool)
    stored[has_key] = store.has([key for key in keys if isinstance(key, str)])
    failed = store.failed()
    records = []
    for row in np.flatnonzero(~stored).tolist():
        key = keys[row]
        error = key if isinstance(key, ImageError) else _failure(cohort.source, Item(key, row), failed.get(key, ""))
        records.append((row, cohort.table["image"].iloc[row], error.reason, str(error)))
    return np.flatnonzero(stored).astype(np.int64), pd.DataFrame(records, columns=list(QUARANTINE_COLUMNS))


def _failure(source: ImageSource, item: Item, reason: str) -> ImageError:
    if reason == NOT_FINITE:
        return ImageError(reason, "The model gives NaN or infinite values for this image. Try --precision float32.")
    now = _error(source, item)
    return now or ImageError(reason or "unreadable", "The image could not be read for a while. Run again.")


def _failure_message(quarantine: pd.DataFrame, n_images: int, allowed: int) -> str:
    counts = ", ".join(f"{reason} {count:,}" for reason, count in Counter(quarantine["reason"]).most_common(5))
    first = quarantine.iloc[0]
    return (
        f"{len(quarantine):,} of {n_images:,} images cannot be used ({counts}); {allowed:,} may fail. "
        f"The first is row {first['row'] + 1}: {first['message']} Mend them, or raise --max-failures."
    )
