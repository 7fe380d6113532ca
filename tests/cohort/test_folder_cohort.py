"""Folders of images without a manifest, sorted by class or plain."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medvlm_probe.cohort.catalog import load_cohort
from medvlm_probe.errors import InputError, ManifestError


def put(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(len(str(path))).integers(0, 256, (24, 24), dtype=np.uint8)).save(path)


@pytest.fixture
def by_class(tmp_path: Path) -> Path:
    root = tmp_path / "rsna18"
    for name in (
        "train/b_none/2.png",
        "train/b_none/1.png",
        "train/a_lung/x.jpg",
        "test/a_lung/y.jpeg",
        "test/c/z.PNG",
    ):
        put(root / "images" / name)
    (root / "images/train/.hidden").mkdir()
    (root / "images/train/a_lung/notes.txt").write_text("no image")
    (root / "classnames.txt").write_text("c normal\na_lung lung opacity\nb_none no lung opacity, not normal\n\n")
    return root


def test_classes_become_one_hot_labels(by_class: Path) -> None:
    cohort = load_cohort(f"generic_folder:{by_class}")
    assert cohort.labels == ("lung_opacity", "no_lung_opacity_not_normal", "normal")
    assert cohort.card.task == "single_label"
    assert cohort.card.words("no_lung_opacity_not_normal") == "no lung opacity, not normal"
    assert (cohort.name, cohort.group_kind) == ("rsna18", "image")
    rows = dict(
        zip(cohort.table["image"], zip(cohort.splits(), cohort.targets().argmax(axis=1), strict=True), strict=True)
    )
    assert rows == {
        "images/train/a_lung/x.jpg": ("train", 0),
        "images/test/a_lung/y.jpeg": ("test", 0),
        "images/train/b_none/1.png": ("train", 1),
        "images/train/b_none/2.png": ("train", 1),
        "images/test/c/z.PNG": ("test", 2),
    }
    np.testing.assert_array_equal(cohort.targets().sum(axis=1), 1)
    assert cohort.source.read(0).mode == "L"
    assert load_cohort(str(by_class)).fingerprint == cohort.fingerprint


def test_class_folders_name_themselves_without_a_list(by_class: Path) -> None:
    (by_class / "classnames.txt").unlink()
    cohort = load_cohort(str(by_class))
    assert cohort.labels == ("a_lung", "b_none", "c")
    assert cohort.card.words("a_lung") == "a lung"


def test_class_lists_that_do_not_fit(by_class: Path) -> None:
    (by_class / "classnames.txt").write_text("a_lung lung opacity\nc normal\n")
    with pytest.raises(ManifestError, match="no line for the folder b_none"):
        load_cohort(str(by_class))
    (by_class / "classnames.txt").write_text("a_lung normal\nb_none none\nc Normal\n")
    with pytest.raises(ManifestError, match="same class name"):
        load_cohort(str(by_class))


def test_a_plain_folder_has_images_alone(tmp_path: Path) -> None:
    for name in ("b.png", "a.png", "sub/c.jpg", ".hidden.png", ".cache/d.png"):
        put(tmp_path / name)
    (tmp_path / "readme.txt").write_text("no image")
    cohort = load_cohort(str(tmp_path))
    assert cohort.table["image"].tolist() == ["a.png", "b.png", "sub/c.jpg"]
    assert cohort.labels == ()
    assert cohort.targets().shape == (3, 0)
    assert "site" in cohort.absent


def test_the_name_before_the_colon_passes_over_a_manifest(tmp_path: Path) -> None:
    put(tmp_path / "a.png")
    (tmp_path / "manifest.csv").write_text("image,edema\na.png,1\n")
    assert load_cohort(str(tmp_path)).labels == ("edema",)
    assert load_cohort(f"generic_folder:{tmp_path}").labels == ()


def test_folders_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"No \.png"):
        load_cohort(str(tmp_path))
    with pytest.raises(ManifestError, match="There is no folder"):
        load_cohort(f"generic_folder:{tmp_path / 'none'}")
    with pytest.raises(InputError, match="needs a folder"):
        load_cohort("generic_folder")
