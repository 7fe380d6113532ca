"""DigestPath's images and masks as published: patches against the published cropping, cases, both splits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from published_cohorts import assert_written_as_read

from medvlm_probe.cohort.catalog import load_with_notes
from medvlm_probe.cohort.importers.digestpath import PATCHES, case_of, cut, read
from medvlm_probe.cohort.importers.published import ImportOptions
from medvlm_probe.errors import InputError, ManifestError

NEGATIVE = (
    "18-01080A_2019-05-07 21_54_52-lv1-33291-11522-7532-7356",
    "18-01080B_2019-05-07 22_10_01-lv1-100-200-900-1000",
    "2019-05-10 19_54_23-lv1-1-2-900-900",
    "D201812321_2019-05-21 16_30_52-lv1-1-2-900-900",
)
POSITIVE = ("2018_64982_1-3_2019-02-26 00_11_42-lv1-1-2-1000-900", "18-08962B_2019-05-08 00_17_51-lv1-4-1-4-4")


def tissue(width: int, height: int, seed: int) -> Image.Image:
    """Return tissue of smooth stains with a white lower margin."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(90, 230, (height // 40, width // 40, 3), dtype=np.uint8))
    pixels = np.array(small.resize((width, height), Image.Resampling.BICUBIC))
    pixels[int(height * 0.8) :] = 245
    return Image.fromarray(pixels)


def save_mask(path: Path, width: int, height: int) -> None:
    """Write a mask as published: 0 and 255, blurred by JPEG. The left half is tumour."""
    pixels = np.zeros((height, width), dtype=np.uint8)
    pixels[:, : width // 2] = 255
    Image.fromarray(pixels).save(path, quality=75)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("digestpath")
    for place in ("tissue-train-neg", "tissue-train-pos-v1"):
        (root / place).mkdir()
    for seed, name in enumerate(NEGATIVE):
        tissue(900 + 60 * seed, 1000, seed).save(root / "tissue-train-neg" / f"{name}.jpg")
    for seed, name in enumerate(POSITIVE):
        tissue(1100, 920, 10 + seed).save(root / "tissue-train-pos-v1" / f"{name}.jpg")
        save_mask(root / "tissue-train-pos-v1" / f"{name}_mask.jpg", 1100, 920)
    return root


@pytest.fixture(scope="module")
def imported(published: Path) -> Path:
    load_with_notes(f"digestpath:{published}", ImportOptions(unpack_to=published))
    return published


def published_patches(image: Image.Image, mask: Image.Image | None, step: int) -> list[tuple[int, int, float, float]]:
    """Return top, left, tissue and tumour of each patch by plain loops over the published rule."""
    size = (int(np.round(image.size[0] / step)), int(np.round(image.size[1] / step)))
    small = image.resize(size)
    if small.size[0] < 224 or small.size[1] < 224:
        return []
    pixels = np.array(small)
    tumour = None if mask is None else (np.array(mask.resize(size, Image.Resampling.NEAREST)) > 10).astype(int)
    found = []
    for top in np.arange(0, pixels.shape[0], 224 * (1 - 0.1)).astype(int):
        for left in np.arange(0, pixels.shape[1], 224 * (1 - 0.1)).astype(int):
            if top + 224 >= pixels.shape[0] or left + 224 >= pixels.shape[1]:
                continue
            here = pixels[top : top + 224, left : left + 224]
            white = (here[..., 0] >= 200) & (here[..., 1] >= 200) & (here[..., 2] >= 200)
            share = 1 - np.sum(white) / (224 * 224)
            if share < 0.5:
                continue
            part = 0 if tumour is None else np.sum(tumour[top : top + 224, left : left + 224]) / (224 * 224)
            found.append((int(top), int(left), float(share), float(part)))
    return found


def test_patches_are_those_of_the_published_rule(imported: Path) -> None:
    table = read(imported, ImportOptions()).table
    expected: dict[str, tuple[str, float, float]] = {}
    for group, place, names in (("pos", "tissue-train-pos-v1", POSITIVE), ("neg", "tissue-train-neg", NEGATIVE)):
        for name in names:
            image = Image.open(imported / place / f"{name}.jpg")
            mask = Image.open(imported / place / f"{name}_mask.jpg") if group == "pos" else None
            for step in (2, 4, 8, 16, 32):
                for top, left, share, tumour in published_patches(image, mask, step):
                    kind = "malignant" if tumour >= 0.5 else "benign" if tumour == 0 else ""
                    if kind:
                        expected[f"{PATCHES}/{group}/{name}_x{step}_{top}_{left}.png"] = (kind, share, tumour)
    assert len(expected) > 20
    assert set(table["image"]) == set(expected)
    kinds = [expected[image][0] for image in table["image"]]
    assert set(kinds) == {"benign", "malignant"}
    np.testing.assert_array_equal(table["malignant"] == 1, np.array(kinds) == "malignant")
    np.testing.assert_array_equal(table["malignant"] + table["benign"], 1)
    for column, place in (("tissue", 1), ("tumour", 2)):
        np.testing.assert_allclose(table[column].astype(float), [expected[i][place] for i in table["image"]], atol=1e-4)


def test_patches_hold_the_down_sampled_pixels(imported: Path) -> None:
    table = read(imported, ImportOptions()).table
    image = next(name for name in table["image"] if "_x2_" in name and NEGATIVE[1] in name and "_201_" in name)
    left = int(Path(image).stem.rsplit("_", 1)[1])
    whole = Image.open(imported / "tissue-train-neg" / f"{NEGATIVE[1]}.jpg")
    small = np.asarray(whole.resize((whole.width // 2, whole.height // 2)))
    np.testing.assert_array_equal(np.asarray(Image.open(imported / image)), small[201:425, left : left + 224])


def test_cases_stay_whole(imported: Path) -> None:
    found = read(imported, ImportOptions())
    table = found.table
    assert set(table["study"]) == {"18-01080", "2019-05-10 19_54_23", "D201812321", "2018_64982", "18-08962"}
    assert (table.groupby("study")["split"].nunique() == 1).all()
    assert set(table["split"]) == {"train", "test"}
    assert found.notes[0] == f"5 cases, told from the files' names, gave {len(table)} patches."


def test_the_published_split_is_random_over_patches(imported: Path) -> None:
    table = read(imported, ImportOptions(legacy_split=True)).table
    negative, benign = table["image"].str.contains("/neg/"), table["benign"] == 1
    listed = pd.concat([table[negative], table[~negative & benign], table[~benign]], ignore_index=True)
    shuffled = listed.sample(frac=1, random_state=1).reset_index(drop=True)
    train = shuffled.iloc[: int(len(shuffled) * 0.7)]
    assert set(table["image"][table["split"] == "train"]) == set(train["image"])
    assert (table.groupby("study")["split"].nunique() == 2).any()


@pytest.mark.parametrize(
    ("name", "case"),
    [
        ("18-08962B_2019-05-08 00_17_51-lv1-41694-14406-4416-4108", "18-08962"),
        ("18-08962C_2019-05-09 00_17_51-lv1-1-2-3-4", "18-08962"),
        ("2018_64982_1-3_2019-02-26 00_11_42-lv1-1-2-3-4", "2018_64982"),
        ("D201812321_2019-05-21 16_30_52-lv1-1-2-3-4", "D201812321"),
        ("2019-05-10 19_54_23-lv1-1-2-3-4", "2019-05-10 19_54_23"),
        ("ABC_2019-05-10 19_54_23-lv1-1-2-3-4", "ABC"),
        ("slide 7", "slide 7"),
        ("2018_64982", "2018_64982"),
    ],
)
def test_cases_are_told_from_names(name: str, case: str) -> None:
    assert case_of(name) == case


@given(name=st.text(max_size=40))
def test_any_name_has_a_case(name: str) -> None:
    assert name == "" or case_of(name) != ""


@settings(max_examples=25, deadline=None)
@given(width=st.integers(224, 500), height=st.integers(224, 500), step=st.sampled_from([1, 2]), seed=st.integers(0, 9))
def test_patches_of_any_size(width: int, height: int, step: int, seed: int) -> None:
    image = tissue(width, height, seed)
    mask = Image.fromarray(np.random.default_rng(seed).integers(0, 21, (height, width), dtype=np.uint8))
    mine = [(top, left, share, part) for top, left, _, share, part in cut(image, mask, step)]
    theirs = published_patches(image, mask, step)
    assert [patch[:2] for patch in mine] == [patch[:2] for patch in theirs]
    np.testing.assert_allclose([p[2:] for p in mine], [p[2:] for p in theirs], rtol=1e-12, atol=0)


def test_images_that_cannot_be_used_are_told_each_time(tmp_path: Path) -> None:
    for place in ("tissue-train-neg", "tissue-train-pos"):
        (tmp_path / place).mkdir()
    tissue(900, 900, 0).save(tmp_path / "tissue-train-neg/a.jpg")
    (tmp_path / "tissue-train-neg/b.jpg").write_bytes(b"\xff\xd8\xff no image")
    for name in ("c", "d"):
        tissue(900, 900, 1).save(tmp_path / f"tissue-train-pos/{name}.jpg")
    save_mask(tmp_path / "tissue-train-pos/d_mask.jpg", 890, 900)
    for _ in range(2):
        found = read(tmp_path, ImportOptions(unpack_to=tmp_path))
        assert found.skipped["what"].tolist() == [
            "tissue-train-pos/c.jpg",
            "tissue-train-pos/d.jpg",
            "tissue-train-neg/b.jpg",
        ]
        assert found.skipped["reason"].tolist()[:2] == [
            "its mask is not there",
            "its mask has 890 x 900 pixels, not 900 x 900",
        ]
        assert found.notes[-1] == "Images that cannot be used, left out: 3."


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="does not look like DigestPath's"):
        read(tmp_path, ImportOptions())
    (tmp_path / "tissue-train-neg").mkdir()
    tissue(300, 300, 0).save(tmp_path / "tissue-train-neg/a.jpg")
    with pytest.raises(InputError, match="medvlm-probe cohort import digestpath:"):
        read(tmp_path, ImportOptions())
    with pytest.raises(InputError, match="takes no labels file"):
        read(tmp_path, ImportOptions(labels_file=tmp_path / "x.csv"))
    with pytest.raises(ManifestError, match="gives a patch of 224 pixels"):
        read(tmp_path, ImportOptions(unpack_to=tmp_path))


def test_the_manifest_written_from_it_is_the_same_cohort(imported: Path) -> None:
    cohort = assert_written_as_read("digestpath", imported)
    assert cohort.group_kind == "study"
    assert cohort.source.read(0).size == (224, 224)
