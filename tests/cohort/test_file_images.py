"""Files on disk: what may be opened, and that keys belong to content."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medvlm_probe.cohort.images import REASONS, FileImages
from medvlm_probe.errors import ImageError, visible


@pytest.fixture
def folder(tmp_path: Path, rng: np.random.Generator) -> Path:
    root = tmp_path / "cohort"
    (root / "sub").mkdir(parents=True)
    for name in ("a.png", "sub/b.png"):
        Image.fromarray(rng.integers(0, 256, (24, 30), dtype=np.uint8)).save(root / name)
    Image.fromarray(rng.integers(0, 256, (24, 30), dtype=np.uint8)).save(tmp_path / "outside.png")
    return root


def reason_of(root: Path, path: str) -> str:
    source = FileImages(root, (path,))
    for method in (source.content_key, source.read, source.read_with_key):
        with pytest.raises(ImageError) as caught:
            method(0)
        assert str(caught.value).startswith(f"{visible(path)}: ")
        assert str(root) not in str(caught.value)
    assert caught.value.reason in REASONS
    return caught.value.reason


def test_images_and_keys(folder: Path) -> None:
    source = FileImages(folder, ("a.png", "sub/b.png"))
    data = (folder / "sub/b.png").read_bytes()
    assert len(source) == 2
    assert source.recipe == "png/v1"
    assert source.content_key(1) == hashlib.sha256(data).hexdigest()
    image, key = source.read_with_key(1)
    assert key == source.content_key(1)
    np.testing.assert_array_equal(np.asarray(image), np.asarray(Image.open(folder / "sub/b.png")))
    assert source.rows([1]).content_key(0) == key
    assert (source.header(0).width, source.header(0).height, source.header(0).bits) == (30, 24, 8)


def test_the_name_does_not_decide_the_format(folder: Path) -> None:
    (folder / "a.png").rename(folder / "really_png.jpg")
    assert FileImages(folder, ("really_png.jpg",)).read(0).mode == "L"


def test_the_pixel_limit_is_kept_by_subsets(folder: Path) -> None:
    source = FileImages(folder, ("a.png", "sub/b.png"), max_pixels=100).rows([1])
    with pytest.raises(ImageError) as caught:
        source.content_key(0)
    assert caught.value.reason == "too_many_pixels"


def test_what_is_not_there_or_no_file(folder: Path) -> None:
    assert reason_of(folder, "none.png") == "missing_file"
    assert reason_of(folder, "a.png/x.png") == "missing_file"
    assert reason_of(folder, "sub") == "not_a_file"
    assert reason_of(folder, "nul\0.png") == "unreadable"
    assert reason_of(folder, "x" * 300) == "unreadable"
    (folder / "empty.png").touch()
    assert reason_of(folder, "empty.png") == "empty_file"


def test_a_pipe_is_refused_and_does_not_block(folder: Path) -> None:
    os.mkfifo(folder / "pipe.png")
    assert reason_of(folder, "pipe.png") == "not_a_file"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_permission(folder: Path) -> None:
    (folder / "a.png").chmod(0)
    assert reason_of(folder, "a.png") == "unreadable"


def test_links_within_the_folder_are_followed_and_others_refused(folder: Path) -> None:
    (folder / "inner.png").symlink_to("sub/b.png")
    (folder / "outer.png").symlink_to(folder.parent / "outside.png")
    (folder / "up").symlink_to(folder.parent)
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "chain.png").symlink_to("outer.png")
    assert FileImages(folder, ("inner.png",)).read(0).size == (30, 24)
    assert reason_of(folder, "outer.png") == "outside_folder"
    assert reason_of(folder, "chain.png") == "outside_folder"
    assert reason_of(folder, "up/outside.png") == "outside_folder"
    assert reason_of(folder, "../outside.png") == "outside_folder"
    assert reason_of(folder, "up/cohort/../outside.png") == "outside_folder"
    assert reason_of(folder, "loop.png") == "unreadable"


def test_a_linked_root_is_its_target(folder: Path) -> None:
    link = folder.parent / "link"
    link.symlink_to(folder)
    assert FileImages(link, ("a.png",)).read(0).size == (30, 24)


def test_real_png_samples(shared_dir: Path) -> None:
    root = shared_dir / "real_cxr/iu_xray"
    paths = tuple(str(path.relative_to(root)) for path in sorted(root.glob("*_layout_sample/**/*.png")))
    source = FileImages(root, paths)
    assert len(paths) >= 100
    for row in range(len(paths)):
        image = source.read(row)
        assert image.mode == "L"
        np.testing.assert_array_equal(np.asarray(image), np.asarray(Image.open(root / paths[row]).convert("L")))
