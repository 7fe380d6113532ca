"""Shards are written beside the model's work on the next ones, in order, and a failure to write ends the run."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_embedding_model import cohort_of, embed_all, make_model, write_images

from medvlm_probe.embeddings.store import EmbeddingStore
from medvlm_probe.errors import StoreError

PATIENCE = 30.0


def test_the_model_goes_on_while_a_shard_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = tmp_path / "images"
    cohort = cohort_of(images, write_images(images, range(21)))
    write, in_second_shard, written = EmbeddingStore.publish, threading.Event(), []

    def publish(store: EmbeddingStore, keys: Sequence[str], vectors: Any, failed: Mapping[str, str]) -> None:
        assert in_second_shard.wait(PATIENCE)
        write(store, keys, vectors, failed)
        written.append(list(keys))

    def before(pixels: object) -> None:
        if len(model.batches) == 3:  # a shard of seven in batches of three
            in_second_shard.set()

    monkeypatch.setattr(EmbeddingStore, "publish", publish)
    model = make_model(before=before)
    result = embed_all(cohort, model, tmp_path / "cache", precision="float32")
    assert [key for keys in written for key in keys] == list(result.keys)
    monkeypatch.undo()
    alone = embed_all(cohort, make_model(), tmp_path / "alone", precision="float32")
    np.testing.assert_array_equal(result.vectors, alone.vectors)


@pytest.mark.parametrize("shard", [0, 1, 2])
def test_a_shard_that_cannot_be_written_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shard: int
) -> None:
    images = tmp_path / "images"
    cohort = cohort_of(images, write_images(images, range(21)))
    write, calls = EmbeddingStore.publish, []

    def publish(store: EmbeddingStore, keys: Sequence[str], vectors: Any, failed: Mapping[str, str]) -> None:
        calls.append(keys)
        if len(calls) == shard + 1:
            raise StoreError("The disk is full.")
        write(store, keys, vectors, failed)

    monkeypatch.setattr(EmbeddingStore, "publish", publish)
    with pytest.raises(StoreError, match="full"):
        embed_all(cohort, make_model(), tmp_path / "cache", precision="float32")
    assert len(calls) == shard + 1
    monkeypatch.undo()
    assert embed_all(cohort, make_model(), tmp_path / "cache", precision="float32").n_computed == 21 - 7 * shard
