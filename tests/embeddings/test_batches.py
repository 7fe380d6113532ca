"""Batches: order, composition, failed images, and how far decoding runs ahead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_embedding_model import cohort_of, make_model, write_images

from medvlm_probe.embeddings.batches import Item, content_keys, load_batches, read_item, split, unique_items
from medvlm_probe.errors import ImageError

MISSING = ImageError("missing_file", "There is no such file.")


@given(n=st.integers(0, 50), size=st.integers(1, 20))
def test_parts_cover_everything_once_in_order(n: int, size: int) -> None:
    items = [Item(str(row), row) for row in range(n)]
    parts = split(items, size)
    assert [item for part in parts for item in part] == items
    assert all(len(part) == size for part in parts[:-1])
    assert all(parts)


@given(st.lists(st.sampled_from(["a", "b", "c", "d", MISSING]), max_size=20))
def test_different_images_in_order_of_appearance(keys: list[str | ImageError]) -> None:
    items = unique_items(keys)
    assert [item.key for item in items] == list(dict.fromkeys(key for key in keys if isinstance(key, str)))
    assert all(keys.index(item.key) == item.row for item in items)


@pytest.mark.parametrize("ahead", [0, 1, 2, 10])
def test_pixels_are_the_models_in_order_and_reading_runs_ahead_by_so_many(tmp_path: Path, ahead: int) -> None:
    names = write_images(tmp_path, range(17))
    (tmp_path / names[5]).unlink()
    source, model = cohort_of(tmp_path, names).source, make_model()
    items = [Item("0" * 64 if row == 5 else source.content_key(row), row) for row in range(17)]
    parts = split(items, 4)
    taken = 0

    def asked() -> Iterator[Sequence[Item]]:
        nonlocal taken
        for part in parts:
            taken += 1
            yield part

    with ThreadPoolExecutor(2) as pool:
        for number, batch in enumerate(load_batches(asked(), source, model, pool, ahead=ahead)):
            assert taken == min(number + 1 + ahead, len(parts))
            assert batch.items == parts[number]
            assert batch.pixels.shape == (len(parts[number]), 3, 16, 16)
            for item, pixels in zip(batch.items, batch.pixels, strict=True):
                if item.row == 5:
                    assert not pixels.any()
                else:
                    assert torch.equal(pixels, model.preprocess(source.read(item.row)))
            assert batch.failed == ({items[5].key: "missing_file"} if number == 1 else {})
    assert taken == len(parts)


def test_faults_of_the_program_are_not_taken_for_bad_images(tmp_path: Path) -> None:
    source = cohort_of(tmp_path, write_images(tmp_path, range(3))).source

    class Broken:
        image_size = 16

        def preprocess(self, image: object) -> torch.Tensor:
            raise ZeroDivisionError

    items = [Item(source.content_key(row), row) for row in range(3)]
    with ThreadPoolExecutor(1) as pool, pytest.raises(ZeroDivisionError):
        list(load_batches([items], source, Broken(), pool))


@settings(max_examples=5, deadline=None)
@given(bad=st.sets(st.integers(0, 5)))
def test_content_keys_or_errors_by_row(tmp_path_factory: pytest.TempPathFactory, bad: set[int]) -> None:
    folder = tmp_path_factory.mktemp("keys")
    names = write_images(folder, range(6))
    for row in bad:
        (folder / names[row]).unlink()
    source = cohort_of(folder, names).source
    keys = content_keys(source)
    assert {row for row, key in enumerate(keys) if isinstance(key, ImageError)} == bad
    assert all(key == source.content_key(row) for row, key in enumerate(keys) if row not in bad)


def test_an_image_is_read_only_as_what_it_was_hashed(tmp_path: Path) -> None:
    source = cohort_of(tmp_path, write_images(tmp_path, [1, 2])).source
    assert read_item(source, Item(source.content_key(0), 0)).tobytes() == source.read(0).tobytes()
    with pytest.raises(ImageError) as caught:
        read_item(source, Item(source.content_key(1), 0))
    assert caught.value.reason == "changed"
