"""Images kept at a model's size: the same bytes as without, and what is wrong in the folder changes nothing."""

from __future__ import annotations

import pickle
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_embedding_model import cohort_of, make_model

from medvlm_probe.cohort.cohort import Cohort
from medvlm_probe.cohort.images import FileImages
from medvlm_probe.embeddings.extract import Embedded, embed
from medvlm_probe.embeddings.image_cache import CachedImages, cached_images
from medvlm_probe.errors import ImageError, InputError, StoreError
from medvlm_probe.models.image_transform import build_transform
from medvlm_probe.models.zoo import load_model

Through = Callable[[str], tuple[Embedded, set[int], Path]]
SIZES = ((300, 200), (224, 224), (90, 400), (231, 229))


@pytest.fixture
def cohort(tmp_path: Path, rng: np.random.Generator) -> Cohort:
    """Grey and coloured files, one of them broken."""
    folder, names = tmp_path / "files", []
    folder.mkdir()
    for number, (width, height) in enumerate(SIZES):
        for depth in ((), (3,)):
            names.append(f"{number}-{len(depth)}.png")
            Image.fromarray(rng.integers(0, 256, (height, width, *depth), dtype=np.uint8)).save(folder / names[-1])
    (folder / names[2]).write_bytes((folder / names[2]).read_bytes()[:-300])
    return cohort_of(folder, names)


@pytest.fixture
def through(tmp_path: Path, cohort: Cohort, monkeypatch: pytest.MonkeyPatch) -> Through:
    """Embed with the folder of images and a fresh store; returns what was decoded, and where the images lie."""
    decoded: list[int] = []
    decode = FileImages.read_with_key

    def noted(self: FileImages, row: int) -> tuple[Image.Image, str]:
        decoded.append(row)
        return decode(self, row)

    monkeypatch.setattr(FileImages, "read_with_key", noted)

    def run(store: str) -> tuple[Embedded, set[int], Path]:
        decoded.clear()
        model = load_model()
        source = cached_images(cohort.source, model, tmp_path / "images")
        options: dict[str, Any] = {"precision": "float32", "workers": 1, "max_failures": 1.0}
        found = embed(replace(cohort, source=source), model, cache_dir=tmp_path / store, **options)
        return found, set(decoded), source.folder

    return run


def test_a_second_time_nothing_is_decoded_and_the_bytes_are_the_same(
    cohort: Cohort, tmp_path: Path, through: Through
) -> None:
    plain = embed(cohort, load_model(), cache_dir=tmp_path / "p", precision="float32", workers=1, max_failures=1.0)
    first, decoded, folder = through("a")
    assert decoded == set(range(8))
    again, decoded, _ = through("b")
    assert decoded == {2}, "the broken file alone"
    for found in (first, again):
        np.testing.assert_array_equal(found.vectors, plain.vectors)
        assert found.keys == plain.keys
        assert found.quarantine.equals(plain.quarantine)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.stem for path in files} == set(plain.keys)
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in files)
    assert stat.S_IMODE(files[0].parent.stat().st_mode) == stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700


def test_what_is_wrong_in_the_folder_is_made_anew(through: Through, rng: np.random.Generator) -> None:
    first, _, folder = through("a")
    short, large, other, text = sorted(folder.rglob("*.png"))[:4]
    short.write_bytes(short.read_bytes()[:500])
    Image.fromarray(rng.integers(0, 256, (300, 300), dtype=np.uint8)).save(large)
    Image.fromarray(rng.integers(0, 2**16, (224, 224), dtype=np.uint16)).save(other)
    text.write_text("nothing")
    again, decoded, _ = through("b")
    assert len(decoded) == 5
    np.testing.assert_array_equal(again.vectors, first.vectors)
    assert through("c")[1] == {2}


def test_a_file_that_changed_is_not_answered_by_its_older_picture(
    cohort: Cohort, through: Through, rng: np.random.Generator
) -> None:
    first = through("a")[0]
    assert isinstance(cohort.source, FileImages)
    path = cohort.source.root / cohort.source.paths[0]
    Image.fromarray(rng.integers(0, 256, (200, 300), dtype=np.uint8)).save(path)
    again, decoded, _ = through("b")
    assert decoded == {0, 2}
    assert (again.vectors[0] != first.vectors[0]).any()
    np.testing.assert_array_equal(again.vectors[1:], first.vectors[1:])


def test_models_share_a_folder_where_they_frame_alike(cohort: Cohort, tmp_path: Path) -> None:
    def folder_of(**changes: Any) -> Path:
        settings = {"size": (224, 224), "interpolation": "bicubic"} | changes
        model = replace(load_model(), transform=build_transform(settings))  # type: ignore[type-var]
        return cached_images(cohort.source, model, tmp_path).folder

    assert folder_of() == folder_of(mean=(0.5, 0.5, 0.5))
    framings = [folder_of(), folder_of(interpolation="bilinear"), folder_of(resize_mode="squash")]
    assert len({*framings, folder_of(size=(112, 112))}) == 4
    recipe = cached_images(replace(cohort.source, recipe="dicom/v1"), load_model(), tmp_path)  # type: ignore[type-var]
    assert recipe.folder != cached_images(cohort.source, load_model(), tmp_path).folder


def test_it_goes_to_other_processes(cohort: Cohort, tmp_path: Path) -> None:
    source = cached_images(cohort.source, load_model(), tmp_path)
    there: CachedImages = pickle.loads(pickle.dumps(source))
    assert there.read(0).tobytes() == source.read(0).tobytes()
    assert there.rows([3, 1]).content_key(0) == source.content_key(3)
    with pytest.raises(ImageError):
        there.read(2)


def test_what_cannot_be_kept_is_said(cohort: Cohort, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="tiny has an image transform without"):
        cached_images(cohort.source, make_model(), tmp_path)  # type: ignore[arg-type]
    model = load_model()
    assert hasattr(model, "transform")
    twice = replace(model.transform, geometry=lambda image: image.resize((image.width // 2 + 1, 224)))
    with pytest.raises(InputError, match="once more"):
        cached_images(cohort.source, replace(model, transform=twice), tmp_path)  # type: ignore[type-var]
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="Free space, or leave the cache out"):
        cached_images(cohort.source, model, tmp_path / "file").read(0)
