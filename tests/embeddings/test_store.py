"""The store: what is published comes back; what is damaged, half-written or left over is never used."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_embedding_model import snapshot

from medvlm_probe import runs
from medvlm_probe.embeddings.store import EmbeddingStore, StoreKey, open_store, shard_name
from medvlm_probe.errors import StoreError

DIM = 5


def keys_of(*numbers: int) -> list[str]:
    return [f"{number:064x}" for number in numbers]


def vectors_of(*numbers: int) -> np.ndarray:
    return np.stack(
        [np.full(DIM, number, dtype=np.float32) + np.arange(DIM, dtype=np.float32) / 7 for number in numbers]
    )


@pytest.fixture
def store(tmp_path: Path) -> EmbeddingStore:
    store = EmbeddingStore(tmp_path / "store", DIM)
    store.publish(keys_of(3, 1, 2), vectors_of(3, 1, 2), {})
    store.publish(keys_of(5, 6, 7), vectors_of(5, 7), {keys_of(6)[0]: "truncated"})
    return store


def reopened(store: EmbeddingStore) -> EmbeddingStore:
    return EmbeddingStore(store.folder, DIM)


def shard_path(store: EmbeddingStore, *numbers: int) -> Path:
    return store.folder / "shards" / f"{shard_name(keys_of(*numbers))}.arrow"


@pytest.mark.parametrize("again", [False, True])
def test_vectors_come_back_in_any_order_and_repeated(store: EmbeddingStore, again: bool) -> None:
    if again:
        store = reopened(store)
    wanted = (7, 1, 1, 3, 5, 2, 7)
    np.testing.assert_array_equal(store.vectors(keys_of(*wanted)), vectors_of(*wanted))
    assert store.has(keys_of(1, 6, 4, 7)).tolist() == [True, False, False, True]
    assert store.failed() == {keys_of(6)[0]: "truncated"}
    with pytest.raises(StoreError, match="2 of 3 embeddings are missing"):
        store.vectors(keys_of(1, 4, 6))


def test_an_empty_store_and_empty_shards(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path / "store", DIM)
    assert store.vectors([]).shape == (0, DIM)
    assert store.has(keys_of(1)).tolist() == [False]
    store.publish(keys_of(1, 2), np.empty((0, DIM), np.float32), dict.fromkeys(keys_of(1, 2), "corrupt"))
    store = reopened(store)
    assert store.has(keys_of(1)).tolist() == [False]
    assert set(store.failed()) == set(keys_of(1, 2))


def test_shards_are_plain_arrow_files(store: EmbeddingStore) -> None:
    with pa.memory_map(str(shard_path(store, 3, 1, 2))) as file:
        table = pa.ipc.open_file(file).read_all()
        assert table.schema == pa.schema(
            {"image_sha256": pa.string(), "embedding": pa.list_(pa.float32(), DIM)}, metadata=None
        )
        assert table["image_sha256"].to_pylist() == keys_of(3, 1, 2)
        np.testing.assert_array_equal(np.stack(table["embedding"].to_numpy()), vectors_of(3, 1, 2))


@settings(max_examples=40, deadline=None)
@given(position=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), in_ledger=st.booleans())
def test_any_flipped_bit_is_seen(
    tmp_path_factory: pytest.TempPathFactory, position: float, bit: int, in_ledger: bool
) -> None:
    store = EmbeddingStore(tmp_path_factory.mktemp("flip") / "store", DIM)
    store.publish(keys_of(1, 2), vectors_of(1, 2), {})
    path = shard_path(store, 1, 2)
    if in_ledger:
        path = store.folder / "ledger" / f"{path.stem}.json"
    data = bytearray(path.read_bytes())
    data[int(position * len(data))] ^= 1 << bit
    path.write_bytes(bytes(data))
    fresh = reopened(store)
    if fresh.has(keys_of(1)).all():
        assert in_ledger  # a flip in white space or in a count that nothing rests on
        np.testing.assert_array_equal(fresh.vectors(keys_of(1, 2)), vectors_of(1, 2))
    else:
        assert not path.exists()


@pytest.mark.parametrize("damage", ["cut", "longer", "empty", "gone", "other shard", "ledger cut", "ledger empty"])
def test_a_damaged_shard_is_removed_and_the_others_stay(store: EmbeddingStore, damage: str) -> None:
    path, other = shard_path(store, 3, 1, 2), shard_path(store, 5, 6, 7)
    entry = store.folder / "ledger" / f"{path.stem}.json"
    data = path.read_bytes()
    match damage:
        case "cut":
            path.write_bytes(data[:-1])
        case "longer":
            path.write_bytes(data + b"\0")
        case "empty":
            path.write_bytes(b"")
        case "gone":
            path.unlink()
        case "other shard":
            path.write_bytes(other.read_bytes())
        case "ledger cut":
            entry.write_bytes(entry.read_bytes()[:-20])
        case "ledger empty":
            entry.write_bytes(b"")
    fresh = reopened(store)
    assert fresh.has(keys_of(1, 2, 3, 5, 7)).tolist() == [False, False, False, True, True]
    assert not entry.exists()
    assert not path.exists()
    fresh.publish(keys_of(3, 1, 2), vectors_of(3, 1, 2), {})
    assert path.read_bytes() == data


def test_leftovers_of_a_killed_process_are_removed(store: EmbeddingStore) -> None:
    before = snapshot(store.folder)
    aside = store.folder / "shards" / f".{'a' * 32}.arrow.x1y2.tmp"
    aside.write_bytes(b"half")
    (store.folder / "ledger" / f".{'a' * 32}.json.x1y2.tmp").write_bytes(b"{")
    (store.folder / "shards" / f"{'b' * 32}.arrow").write_bytes(shard_path(store, 3, 1, 2).read_bytes())
    reopened(store)
    assert snapshot(store.folder) == before


def test_a_shard_is_written_once_by_two_processes(store: EmbeddingStore) -> None:
    other = reopened(store)
    store.publish(keys_of(8, 9), vectors_of(8, 9), {})
    before = snapshot(store.folder)
    assert shard_name(keys_of(8, 9)) in other
    other.publish(keys_of(8, 9), vectors_of(8, 9) + 1, {})
    assert snapshot(store.folder) == before
    np.testing.assert_array_equal(other.vectors(keys_of(8, 9)), vectors_of(8, 9))


def test_what_others_publish_is_seen_after_refresh(store: EmbeddingStore) -> None:
    other = reopened(store)
    store.publish(keys_of(8), vectors_of(8), {})
    assert not other.has(keys_of(8)).any()
    other.refresh()
    np.testing.assert_array_equal(other.vectors(keys_of(8)), vectors_of(8))


def test_many_shards_keep_no_files_open(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path / "store", DIM)
    n_before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    for number in range(60):
        store.publish(keys_of(number), vectors_of(number), {})
    store = reopened(store)
    if n_before:
        assert len(os.listdir("/proc/self/fd")) <= n_before + 2
    np.testing.assert_array_equal(store.vectors(keys_of(*range(60))), vectors_of(*range(60)))


def test_folders_differ_by_model_recipe_and_precision(tmp_path: Path) -> None:
    keys = [StoreKey("a" * 64, "png/v1", "float32"), StoreKey("b" * 64, "png/v1", "float32")]
    keys += [StoreKey("a" * 64, "png/v2", "float32"), StoreKey("a" * 64, "png/v1", "bfloat16")]
    assert len({open_store(tmp_path, key, DIM).folder for key in keys}) == 4


def test_about_names_no_more_than_it_is_given(store: EmbeddingStore) -> None:
    store.describe({"model": "tiny"})
    store.describe({"model": "other"})
    about = json.loads((store.folder / "about.json").read_bytes())
    assert about == {"layout": 1, "model": "tiny", "embedding_dim": DIM}


def test_a_full_disk_is_one_line(store: EmbeddingStore, monkeypatch: pytest.MonkeyPatch) -> None:
    before = snapshot(store.folder)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(runs.os, "fsync", full)
    with pytest.raises(StoreError, match="No space left on device"):
        store.publish(keys_of(8), vectors_of(8), {})
    assert snapshot(store.folder) == before


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    store = EmbeddingStore(tmp_path / "file" / "store", DIM)
    with pytest.raises(StoreError, match="Cannot write"):
        store.publish(keys_of(8), vectors_of(8), {})


def test_a_read_only_store_can_be_read(store: EmbeddingStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object, *args: object, **kwargs: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    def open_to_read(path: Path, mode: str = "r", *args: object, **kwargs: object) -> object:
        return really_open(path, mode, *args, **kwargs) if set(mode) <= set("rbt") else refuse(path)

    really_open = Path.open
    monkeypatch.setattr(Path, "open", open_to_read)
    monkeypatch.setattr(Path, "unlink", refuse)
    monkeypatch.setattr(os, "open", refuse)
    fresh = reopened(store)
    np.testing.assert_array_equal(fresh.vectors(keys_of(1, 7)), vectors_of(1, 7))
    with pytest.raises(StoreError, match="Read-only file system"):
        fresh.publish(keys_of(8), vectors_of(8), {})


def test_without_locks_nothing_is_removed_and_the_damaged_is_replaced(
    store: EmbeddingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    path = shard_path(store, 3, 1, 2)
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    aside = path.with_name(".other.tmp")
    aside.write_bytes(b"another process may be writing this")
    monkeypatch.setattr(fcntl, "flock", refuse)
    fresh = reopened(store)
    assert not fresh.has(keys_of(1)).any()
    assert aside.exists()
    fresh.publish(keys_of(3, 1, 2), vectors_of(3, 1, 2), {})
    assert path.read_bytes() == data
    np.testing.assert_array_equal(reopened(store).vectors(keys_of(1, 5)), vectors_of(1, 5))
