"""The cache of embeddings: Arrow shards keyed by the content of model and images, with a ledger of checksums.

A folder of the store holds

    about.json                what the folder is, for people
    shards/<name>.arrow       `image_sha256` (string), `embedding` (fixed-size list of float32); uncompressed
    ledger/<name>.json        the shard's SHA-256, its number of images, and the images that could not be used
    checks/<name>.json        how near this precision came to float32 (see `precision`)
    .lock                     held while a shard is published and while leftovers are removed

A shard is named by its fixed list of images. It is published in two steps, the file and then its ledger entry, each
written aside and renamed; without a matching entry it does not exist. Both steps happen under the lock, so whoever
holds the lock knows that every temporary file and every shard without an entry was left by a killed process. Two
processes that compute the same shard write it once: the second finds the entry and takes what is there. Where files
cannot be locked, nothing is removed, and a shard that two processes crossed fails its checksum and is computed again.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from medvlm_probe import runs
from medvlm_probe.errors import StoreError

LAYOUT = 1
NAME_LENGTH = 32


@dataclass(frozen=True)
class StoreKey:
    """What decides an embedding besides the image: the model's fingerprint, the reading recipe, the precision."""

    model: str
    recipe: str
    precision: str

    @property
    def folder_name(self) -> str:
        """The hash that names the store's folder."""
        return runs.sha256_json([LAYOUT, self.model, self.recipe, self.precision])[:NAME_LENGTH]


@dataclass(frozen=True)
class _Shard:
    keys: pa.StringArray
    vectors: NDArray[np.float32]
    failed: Mapping[str, str]


class EmbeddingStore:
    """Embeddings of one model, recipe and precision. Only shards that match their checksum are ever seen."""

    def __init__(self, folder: Path, embedding_dim: int) -> None:
        self.folder = folder
        self.embedding_dim = embedding_dim
        self._shards: dict[str, _Shard] = {}
        self.refresh()

    def refresh(self) -> None:
        """Read what other processes published; every shard not seen before is checked against the ledger's checksum.

        Shards that are damaged (cut short, a flipped bit, no file) and what killed processes left are removed.
        """
        with self._lock() as locked:
            if locked:
                self._remove_leftovers()
            for name in sorted(path.stem for path in self._ledger.glob("*.json")):
                if name not in self._shards:
                    shard = self._read(name)
                    if shard is not None:
                        self._shards[name] = shard
                    elif locked:
                        self._remove(name)

    def __contains__(self, name: str) -> bool:
        """Whether a shard is in the ledger by now, put there by this process or another."""
        return self._entry_path(name).exists()

    def has(self, keys: Sequence[str]) -> NDArray[np.bool_]:
        """Return for each image (content key) whether its embedding is stored, (n,)."""
        return self._positions(keys) >= 0

    def failed(self) -> dict[str, str]:
        """Return the images that could not be embedded, with the reason; some may have been embedded later."""
        return {key: reason for shard in self._shards.values() for key, reason in shard.failed.items()}

    def vectors(self, keys: Sequence[str]) -> NDArray[np.float32]:
        """Return the embeddings (n, D) of images, in the order of their keys, which may repeat.

        Raises:
            StoreError: an image is not stored.
        """
        positions = self._positions(keys)
        if (positions < 0).any():
            raise StoreError(
                f"{(positions < 0).sum():,} of {len(keys):,} embeddings are missing from {self.folder}; "
                "another process may have removed them. Run again."
            )
        shards = list(self._shards.values())
        found = np.empty((len(keys), self.embedding_dim), dtype=np.float32)
        order = np.argsort(positions, kind="stable")
        starts = np.cumsum([0, *(len(shard.keys) for shard in shards)])
        cuts = np.searchsorted(positions[order], starts)
        for shard, start, low, high in zip(shards, starts[:-1], cuts[:-1], cuts[1:], strict=True):
            rows = order[low:high]
            found[rows] = shard.vectors[positions[rows] - start]
        return found

    def publish(self, keys: Sequence[str], vectors: NDArray[np.float32], failed: Mapping[str, str]) -> None:
        """Store one shard: of its list of images those embedded, in the list's order, and those that failed.

        Args:
            keys: the shard's whole list of content keys, each once.
            vectors: (m, D) float32, one row for each key that is not in `failed`.
            failed: content key to reason code.

        Raises:
            StoreError: the folder cannot be written (read-only, full).
        """
        name = shard_name(keys)
        embedded = [key for key in keys if key not in failed]
        with self._lock():
            shard = self._read(name) if name in self else None
            if shard is None:
                data = _serialised(embedded, vectors)
                runs.write_bytes_atomically(self._shard_path(name), data)
                entry = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data), "images": len(embedded)}
                runs.write_json(self._entry_path(name), entry | {"failed": dict(failed)})
                shard = self._read(name)
        if shard is None:
            raise StoreError(f"{self._shard_path(name)} does not read back as written. Check the disk.")
        self._shards[name] = shard

    def read_check(self, name: str) -> dict[str, Any] | None:
        """Return the record of a precision check, or None where it was not made or cannot be read."""
        try:
            record: dict[str, Any] = runs.parse_json((self.folder / "checks" / f"{name}.json").read_bytes())
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return None
        return record

    def write_check(self, name: str, record: Mapping[str, Any]) -> None:
        """Keep the record of a precision check."""
        with self._lock():
            runs.write_json(self.folder / "checks" / f"{name}.json", dict(record))

    def describe(self, facts: Mapping[str, Any]) -> None:
        """Write `about.json` for people, unless it is there: names only, nothing of patients or files."""
        path = self.folder / "about.json"
        with self._lock():
            if not path.exists():
                runs.write_json(path, {"layout": LAYOUT, **facts, "embedding_dim": self.embedding_dim})

    @property
    def _ledger(self) -> Path:
        return self.folder / "ledger"

    def _shard_path(self, name: str) -> Path:
        return self.folder / "shards" / f"{name}.arrow"

    def _entry_path(self, name: str) -> Path:
        return self._ledger / f"{name}.json"

    def _positions(self, keys: Sequence[str]) -> NDArray[np.int64]:
        """Return each key's row in the shards laid end to end, or -1."""
        stored = pa.chunked_array([shard.keys for shard in self._shards.values()], type=pa.string())
        found = pc.fill_null(pc.index_in(pa.array(keys, type=pa.string()), value_set=stored), -1)
        return np.asarray(found, dtype=np.int64)

    def _read(self, name: str) -> _Shard | None:
        """Return a shard mapped into memory, or None where its file or ledger entry is damaged or absent.

        The whole file is hashed (over 1 GB/s): what is used has to be read once anyway.
        """
        path = self._shard_path(name)
        try:
            entry = runs.parse_json(self._entry_path(name).read_bytes())
            checksum, n_bytes, failed = entry["sha256"], entry["bytes"], dict(entry["failed"])
            if path.stat().st_size != n_bytes:
                return None
            with pa.memory_map(str(path)) as file:
                data = file.read_buffer()
        except (FileNotFoundError, ValueError, LookupError, TypeError):
            return None
        except OSError as error:
            raise StoreError(f"Cannot read {path}: {error.strerror or error}. Check its permissions.") from error
        if hashlib.sha256(data).hexdigest() != checksum:
            return None
        try:
            batch = pa.ipc.open_file(pa.BufferReader(data)).get_batch(0)
            # Arrow believes what a file says of its own lengths: unchecked, a crafted one ends the process.
            batch.validate(full=True)
            if not batch.schema.equals(_schema(self.embedding_dim)):
                return None
        except (OSError, pa.ArrowException, LookupError):
            return None
        flat = batch.column("embedding").flatten().to_numpy(zero_copy_only=True)
        return _Shard(batch.column("image_sha256"), flat.reshape(len(batch), self.embedding_dim), failed)

    def _remove_leftovers(self) -> None:
        for path in self.folder.rglob(".*.tmp"):
            path.unlink(missing_ok=True)
        for path in self.folder.glob("shards/*.arrow"):
            if path.stem not in self:
                path.unlink(missing_ok=True)

    def _remove(self, name: str) -> None:
        self._shard_path(name).unlink(missing_ok=True)
        self._entry_path(name).unlink(missing_ok=True)

    @contextmanager
    def _lock(self) -> Iterator[bool]:
        """Hold the store's lock; gives False where there is no folder yet, or files cannot be written or locked."""
        if sys.platform == "win32":
            yield False
            return
        import fcntl

        descriptor = -1
        locked = False
        with suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            locked = True
        try:
            yield locked
        finally:
            if descriptor >= 0:
                os.close(descriptor)


def open_store(cache: Path, key: StoreKey, embedding_dim: int) -> EmbeddingStore:
    """Return the store of a model, recipe and precision in a cache folder; it may be empty."""
    return EmbeddingStore(cache / "embeddings" / key.folder_name, embedding_dim)


def shard_name(keys: Sequence[str]) -> str:
    """Return the name of the shard with exactly these images in this order."""
    return runs.sha256_json(list(keys))[:NAME_LENGTH]


def _schema(embedding_dim: int) -> Any:
    return pa.schema({"image_sha256": pa.string(), "embedding": pa.list_(pa.float32(), embedding_dim)})


def _serialised(keys: Sequence[str], vectors: NDArray[np.float32]) -> bytes:
    flat = pa.array(np.ascontiguousarray(vectors, dtype=np.float32).ravel())
    columns = [pa.array(keys, type=pa.string()), pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])]
    batch = pa.record_batch(columns, names=["image_sha256", "embedding"])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())
