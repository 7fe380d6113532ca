"""`embed`: rows, copies, the cache, bad images, failures, memory, progress; on a tiny model and real PNG files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_embedding_model import cohort_of, direct, embed_all, make_model, snapshot, write_images

from medvlm_probe.embeddings.extract import allowed_failures, embed
from medvlm_probe.errors import DeviceError, ImageError, InputError, StoreError, TooManyFailuresError

CONTENTS = [0, 1, 2, 1, 3, 4, 5, 0, 6, 7, 8, 9, 10, 11, 12, 0, 13, 14, 15, 16, 17]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return tmp_path / "images"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def test_vectors_are_the_models_own_in_row_order(images: Path, cache: Path) -> None:
    model = make_model()
    cohort = cohort_of(images, write_images(images, CONTENTS))
    result = embed_all(cohort, model, cache, precision="float32")
    np.testing.assert_allclose(result.vectors, direct(model, CONTENTS), rtol=1e-5, atol=1e-5)
    assert result.vectors.dtype == np.float32
    assert result.rows.tolist() == list(range(len(CONTENTS)))
    assert result.rows.dtype == np.int64
    assert (result.n_given, result.n_used, result.n_unique, result.n_computed) == (21, 21, 18, 18)
    assert len(result.quarantine) == 0
    assert result.min_cosine is None
    assert set(result.seconds) == {"hash", "check", "decode", "forward", "total"}


def test_batches_never_cross_a_shard(images: Path, cache: Path) -> None:
    model = make_model()
    cohort = cohort_of(images, write_images(images, range(16)))
    embed_all(cohort, model, cache, precision="float32")
    assert model.batches == [3, 3, 1, 3, 3, 1, 2]


def test_copies_are_computed_once_and_are_equal(images: Path, cache: Path) -> None:
    model = make_model()
    result = embed_all(cohort_of(images, write_images(images, CONTENTS)), model, cache, precision="float32")
    assert sum(model.batches) == len(set(CONTENTS))
    first = {content: CONTENTS.index(content) for content in CONTENTS}
    np.testing.assert_array_equal(result.vectors, result.vectors[[first[content] for content in CONTENTS]])


def test_a_rerun_computes_nothing_and_changes_no_byte(images: Path, cache: Path) -> None:
    cohort = cohort_of(images, write_images(images, CONTENTS))
    once = embed_all(cohort, make_model(), cache)
    before = snapshot(cache)
    model = make_model()
    again = embed_all(cohort, model, cache)
    assert model.batches == []
    assert again.n_computed == 0
    assert snapshot(cache) == before
    np.testing.assert_array_equal(again.vectors, once.vectors)


def test_a_fresh_cache_ends_with_the_same_bytes(images: Path, tmp_path: Path) -> None:
    cohort = cohort_of(images, write_images(images, CONTENTS))
    folders = [tmp_path / "one", tmp_path / "two"]
    results = [embed_all(cohort, make_model(), folders[0], workers=1)]
    results.append(embed_all(cohort, make_model(), folders[1], workers=3, prefetch=2))
    assert snapshot(folders[0]) == snapshot(folders[1])
    np.testing.assert_array_equal(results[0].vectors, results[1].vectors)


def test_names_and_order_do_not_matter(images: Path, cache: Path) -> None:
    names = write_images(images, range(10))
    once = embed_all(cohort_of(images, names), make_model(), cache)
    renamed = tuple(f"moved/{name}" for name in reversed(names))
    (images / "moved").mkdir()
    for old, new in zip(reversed(names), renamed, strict=True):
        (images / old).rename(images / new)
    model = make_model()
    again = embed_all(cohort_of(images, renamed), model, cache)
    assert model.batches == []
    np.testing.assert_array_equal(again.vectors, once.vectors[::-1])


def test_a_file_with_new_content_under_an_old_name_is_computed(images: Path, cache: Path) -> None:
    names = write_images(images, range(10))
    embed_all(cohort_of(images, names), make_model(), cache, precision="float32")
    write_images(images, [0, 1, 2, 3, 99, 5, 6, 7, 8, 9])
    model = make_model()
    result = embed_all(cohort_of(images, names), model, cache, precision="float32")
    assert model.batches == [1]
    np.testing.assert_allclose(result.vectors[4], direct(model, [99])[0], rtol=1e-5, atol=1e-5)


def test_only_new_images_are_computed_when_a_cohort_grows(images: Path, cache: Path) -> None:
    names = write_images(images, range(12))
    embed_all(cohort_of(images, names[:5]), make_model(), cache, precision="float32")
    model = make_model()
    result = embed_all(cohort_of(images, names), model, cache, precision="float32")
    assert sum(model.batches) == result.n_computed == 7
    np.testing.assert_allclose(result.vectors, direct(model, range(12)), rtol=1e-5, atol=1e-5)


def test_other_weights_go_to_another_folder(images: Path, cache: Path) -> None:
    cohort = cohort_of(images, write_images(images, range(8)))
    first = embed_all(cohort, make_model(0), cache, precision="float32")
    other = make_model(1)
    second = embed_all(cohort, other, cache, precision="float32")
    assert first.folder != second.folder
    np.testing.assert_allclose(second.vectors, direct(other, range(8)), rtol=1e-5, atol=1e-5)


def test_other_recipes_and_precisions_go_to_other_folders(images: Path, cache: Path) -> None:
    cohort = cohort_of(images, write_images(images, range(8)))
    results = [embed_all(cohort, make_model(), cache, precision=precision) for precision in ("float32", "bfloat16")]
    renamed = replace(cohort, source=replace(cohort.source, recipe="png/v1:percentile-2-98"))
    results.append(embed_all(renamed, make_model(), cache, precision="float32"))
    assert len({result.folder for result in results}) == 3
    assert all(result.n_computed == 8 for result in results)


@pytest.mark.parametrize("damage", [lambda data: data[:-3], lambda data: data[:900] + b"\xff" + data[901:]])
def test_a_damaged_shard_is_computed_again(images: Path, cache: Path, damage: object) -> None:
    cohort = cohort_of(images, write_images(images, range(16)))
    once = embed_all(cohort, make_model(), cache)
    before = snapshot(cache)
    shard = sorted((once.folder / "shards").iterdir())[1]
    shard.write_bytes(damage(shard.read_bytes()))
    again = embed_all(cohort, make_model(), cache)
    assert 0 < again.n_computed <= 7
    assert snapshot(cache) == before
    np.testing.assert_array_equal(again.vectors, once.vectors)


def spoil(images: Path, names: tuple[str, ...]) -> None:
    """Make four rows unusable: two by what hashing sees, two that only decoding sees, of equal content."""
    (images / names[1]).unlink()
    (images / names[2]).write_bytes(b"no image at all")
    data = bytearray((images / names[4]).read_bytes())
    data[data.index(b"IDAT") + 12] ^= 0xFF
    for name in (names[4], names[9]):
        (images / name).write_bytes(bytes(data))


def test_bad_images_go_to_quarantine_and_the_rest_goes_on(images: Path, cache: Path) -> None:
    names = write_images(images, range(12))
    spoil(images, names)
    cohort = cohort_of(images, names)
    result = embed_all(cohort, make_model(), cache, precision="float32")
    table = result.quarantine
    assert table.columns.tolist() == ["row", "image", "reason", "message"]
    assert table["row"].tolist() == [1, 2, 4, 9]
    assert table["image"].tolist() == [names[row] for row in (1, 2, 4, 9)]
    assert table["reason"].tolist()[:2] == ["missing_file", "not_an_image"]
    assert all(name in message for name, message in zip(table["image"], table["message"], strict=True))
    assert result.rows.tolist() == [0, 3, 5, 6, 7, 8, 10, 11]
    assert (result.n_given, result.n_used) == (12, 8)
    np.testing.assert_allclose(result.vectors, direct(make_model(), result.rows), rtol=1e-5, atol=1e-5)

    before = snapshot(cache)
    again = embed_all(cohort, make_model(), cache, precision="float32")
    assert again.n_computed == 0
    assert again.quarantine.equals(table)
    assert snapshot(cache) == before


def test_the_cache_holds_no_file_names(images: Path, cache: Path) -> None:
    names = write_images(images, range(12))
    spoil(images, names)
    embed_all(cohort_of(images, names), make_model(), cache)
    written = b"".join(path.read_bytes() for path in cache.rglob("*") if path.is_file())
    assert b"image-0" not in written
    assert str(images).encode() not in written


def test_an_image_that_can_be_read_again_is_computed(
    images: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cohort = cohort_of(images, write_images(images, range(9)))
    away = {4}

    def read(source: object, row: int) -> tuple[Image.Image, str]:
        if row in away:
            raise ImageError("unreadable", "The share is away.")
        return really_read(source, row)

    really_read = type(cohort.source).read_with_key
    monkeypatch.setattr(type(cohort.source), "read_with_key", read)
    first = embed_all(cohort, make_model(), cache, precision="float32")
    assert first.quarantine[["row", "reason", "message"]].values.tolist() == [[4, "unreadable", "The share is away."]]
    away.clear()
    model = make_model()
    second = embed_all(cohort, model, cache, precision="float32")
    assert model.batches == [1]
    assert second.n_used == 9
    np.testing.assert_allclose(second.vectors, direct(model, range(9)), rtol=1e-5, atol=1e-5)


def test_a_file_that_changes_after_it_was_hashed_is_not_stored_under_the_old_key(
    images: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = write_images(images, range(6))
    cohort = cohort_of(images, names)
    really_key = type(cohort.source).content_key

    def key(source: object, row: int) -> str:
        return "f" * 64 if row == 3 else really_key(source, row)

    with monkeypatch.context() as patch:
        patch.setattr(type(cohort.source), "content_key", key)
        result = embed_all(cohort, make_model(), cache, precision="float32")
    assert result.quarantine[["row", "reason"]].values.tolist() == [[3, "changed"]]
    settled = embed_all(cohort, make_model(), cache, precision="float32")
    np.testing.assert_allclose(settled.vectors, direct(make_model(), range(6)), rtol=1e-5, atol=1e-5)


def test_values_that_are_not_finite_go_to_quarantine(images: Path, cache: Path) -> None:
    model = make_model()
    cohort = cohort_of(images, write_images(images, range(9)))

    class Overflowing(torch.nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            out = model.module(pixels)
            out[(pixels == model.preprocess(cohort.source.read(5))).flatten(1).all(dim=1)] = torch.inf
            return out

    broken = replace(model, module=Overflowing())
    result = embed_all(cohort, broken, cache, precision="float32")
    assert result.quarantine[["row", "reason"]].values.tolist() == [[5, "not_finite"]]
    again = embed_all(cohort, broken, cache, precision="float32")
    assert again.n_computed == 0
    assert again.quarantine.equals(result.quarantine)


def test_too_many_failures_fail_at_the_end_and_keep_the_work(images: Path, cache: Path) -> None:
    names = write_images(images, range(12))
    spoil(images, names)
    cohort = cohort_of(images, names)
    with pytest.raises(TooManyFailuresError, match=r"4 of 12 images cannot be used .*; 3 may fail.*row 2"):
        embed_all(cohort, make_model(), cache, max_failures=3)
    with pytest.raises(TooManyFailuresError):
        embed_all(cohort, make_model(), cache, max_failures=0.3)
    model = make_model()
    assert embed_all(cohort, model, cache, max_failures=4).n_used == 8
    assert model.batches == []


@pytest.mark.parametrize(("given", "n", "allowed"), [(0, 50, 0), (3, 50, 3), (0.05, 99, 4), (1.0, 7, 7), (0.0, 7, 0)])
def test_failures_are_a_count_or_a_share(given: float, n: int, allowed: int) -> None:
    assert allowed_failures(given, n) == allowed


@pytest.mark.parametrize("given", [-1, -0.1, 1.5])
def test_impossible_shares_are_refused(given: float) -> None:
    with pytest.raises(InputError, match="max_failures"):
        allowed_failures(given, 10)


@pytest.mark.parametrize("options", [{"workers": 0}, {"batch_size": 0}, {"shard_size": -1}, {"precision": "int8"}])
def test_options_out_of_range_are_refused(images: Path, cache: Path, options: dict[str, object]) -> None:
    cohort = cohort_of(images, write_images(images, [0]))
    with pytest.raises(InputError):
        embed_all(cohort, make_model(), cache, **options)


class Memory:
    """A device that holds so many images at once."""

    def __init__(self, limit: int, error: Exception) -> None:
        self.limit, self.error = limit, error

    def __call__(self, pixels: torch.Tensor) -> None:
        if len(pixels) > self.limit:
            raise self.error


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:113] DefaultCPUAllocator: can't allocate memory: you tried ..."),
    RuntimeError("MPS backend out of memory (MPS allocated: 8 GB)"),
    MemoryError(),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
def test_batches_are_halved_until_they_fit(images: Path, cache: Path, error: Exception) -> None:
    cohort = cohort_of(images, write_images(images, range(40)))
    model = make_model(before=Memory(9, error))
    result = embed_all(cohort, model, cache, batch_size="auto", shard_size=20, precision="float32")
    assert result.batch_size == 8  # a CPU starts with 16
    assert model.batches == [8, 8, 4, 8, 8, 4]
    np.testing.assert_allclose(result.vectors, direct(model, range(40)), rtol=1e-5, atol=1e-5)


def test_a_given_batch_size_is_not_halved(images: Path, cache: Path) -> None:
    cohort = cohort_of(images, write_images(images, range(4)))
    with pytest.raises(DeviceError, match="batch size of 3"):
        embed_all(cohort, make_model(before=Memory(2, OUT_OF_MEMORY[1])), cache)
    for precision, size in (("float32", 1), ("bfloat16", 4)):
        model = make_model(before=Memory(0, OUT_OF_MEMORY[1]))
        with pytest.raises(DeviceError, match=f"batch size of {size}"):
            embed_all(cohort, model, cache / "other", batch_size="auto", precision=precision)


def test_other_errors_of_a_model_are_not_hidden(images: Path, cache: Path) -> None:
    cohort = cohort_of(images, write_images(images, range(4)))
    with pytest.raises(RuntimeError, match="a bug"):
        embed_all(cohort, make_model(before=Memory(2, RuntimeError("a bug"))), cache, batch_size="auto")


def test_progress_counts_the_images_that_are_computed(images: Path, cache: Path) -> None:
    names = write_images(images, range(16))
    embed_all(cohort_of(images, names[:4]), make_model(), cache)
    seen: list[tuple[int, int, float]] = []
    embed_all(cohort_of(images, names), make_model(), cache, progress=lambda *step: seen.append(step))
    assert [(done, total) for done, total, _ in seen] == [(0, 12), (3, 12), (6, 12), (7, 12), (10, 12), (12, 12)]
    assert [seconds for _, _, seconds in seen] == sorted(seconds for _, _, seconds in seen)


def test_progress_when_memory_runs_out(images: Path, cache: Path) -> None:
    cohort = cohort_of(images, write_images(images, range(40)))
    model = make_model(before=Memory(8, MemoryError()))
    seen: list[int] = []
    embed_all(cohort, model, cache, batch_size="auto", shard_size=20, progress=lambda done, *_: seen.append(done))
    assert seen == [0, 0, 8, 16, 20, 28, 36, 40]


def test_a_cache_that_cannot_be_written(images: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="Cannot write"):
        embed_all(cohort_of(images, write_images(images, range(3))), make_model(), tmp_path / "file" / "cache")


def test_the_cache_of_the_environment_is_used(images: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDVLM_PROBE_CACHE", str(cache))
    result = embed(cohort_of(images, write_images(images, range(3))), make_model(), precision="float32")
    assert result.folder.is_relative_to(cache / "embeddings")


def test_an_empty_selection(images: Path, cache: Path) -> None:
    cohort = cohort_of(images, write_images(images, range(3))).select(np.zeros(3, dtype=bool))
    result = embed_all(cohort, make_model(), cache)
    assert result.vectors.shape == (0, 12)
    assert result.rows.shape == (0,)


def test_torchs_threads_are_left_as_they_were(images: Path, cache: Path) -> None:
    before = torch.get_num_threads()
    embed_all(cohort_of(images, write_images(images, range(3))), make_model(), cache)
    assert torch.get_num_threads() == before
