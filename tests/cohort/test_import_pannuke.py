"""PanNuke's folds as published: counting nuclei, the two rules, writing patches, and files that are never unpickled."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image
from published_cohorts import assert_written_as_read
from sklearn.model_selection import train_test_split

from medvlm_probe.cohort.catalog import load_with_notes
from medvlm_probe.cohort.importers import patches
from medvlm_probe.cohort.importers.pannuke import (
    LEGACY_PATCHES,
    PATCHES,
    kind_of,
    legacy_nuclei,
    nuclei,
    read,
)
from medvlm_probe.cohort.importers.published import ImportOptions
from medvlm_probe.errors import InputError, ManifestError, StoreError

SIDE = 32


def mask(*kinds: list[int]) -> NDArray[np.float64]:
    """Return a patch's mask as published: a channel a kind of nucleus, numbers as float64, background in the sixth."""
    out = np.zeros((SIDE, SIDE, 6))
    cell = 0
    for channel, numbers in enumerate(kinds):
        for number in numbers:
            row, column = divmod(cell, SIDE // 2)
            out[2 * row : 2 * row + 2, 2 * column : 2 * column + 2, channel] = number
            cell += 1
    out[..., 5] = out[..., :5].sum(axis=-1) == 0
    return out


MALIGNANT = mask(list(range(1, 13)), [20, 21])
BENIGN = mask([], [3], [7, 9])
FEW_NEOPLASTIC = mask([1, 2, 3], [4])
CROWDED = mask(list(range(1, 11)), list(range(20, 50)))
EMPTY = mask()
MASKS = (MALIGNANT, BENIGN, FEW_NEOPLASTIC, CROWDED, EMPTY)


def publish(folder: Path, n: int = 10, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    for fold in (1, 2, 3):
        place, masks = folder / f"Fold {fold}/images/fold{fold}", folder / f"Fold {fold}/masks/fold{fold}"
        place.mkdir(parents=True)
        masks.mkdir(parents=True)
        np.save(place / "images.npy", rng.integers(0, 256, (n, SIDE, SIDE, 3)).astype(np.float64))
        np.save(place / "types.npy", np.array(["Bile-duct", "HeadNeck"] * (n // 2)))
        np.save(masks / "masks.npy", np.stack([MASKS[i % len(MASKS)] for i in range(n)]))
    return folder


def brute_nuclei(patch: NDArray[np.float64]) -> tuple[int, ...]:
    counts = tuple(len({value for value in patch[..., kind].ravel().tolist() if value > 0}) for kind in range(5))
    return counts if sum(counts) else ()


def published_counts(masks: NDArray[np.float64]) -> tuple[pd.DataFrame, NDArray[np.bool_]]:
    """Count as the published script does, over the stacked arrays: what it drops, and a column a channel."""
    cut = masks.astype(np.int64).astype(np.uint8)
    dropped = np.sum(cut[..., 0:5].reshape(len(cut), -1), axis=1) == 0
    table = pd.DataFrame([[len(np.unique(cut[i, ..., j])) - 1 for j in range(6)] for i in range(len(cut))])
    return table, dropped


@pytest.mark.parametrize("patch", MASKS)
def test_nuclei_are_counted_by_their_numbers(patch: NDArray[np.float64]) -> None:
    assert nuclei(patch) == brute_nuclei(patch)


def test_the_rule() -> None:
    assert [kind_of(nuclei(patch)) for patch in MASKS] == ["malignant", "benign", None, None, None]
    assert kind_of((9, 0, 0, 0, 0)) is None
    assert kind_of((10, 23, 0, 0, 0)) == "malignant"
    assert kind_of((30, 70, 0, 0, 0)) is None


def test_the_published_script_cuts_numbers_to_8_bits_and_counts_the_background() -> None:
    rng = np.random.default_rng(1)
    many = mask([255, 256, 257, 1, *range(300, 309)], [512])
    random_masks = [mask(*(rng.integers(0, 600, rng.integers(0, 20)).tolist() for _ in range(5))) for _ in range(40)]
    stacked = np.stack([*MASKS, many, *random_masks, np.full((SIDE, SIDE, 6), 7.0)])
    table, dropped = published_counts(stacked)
    for row, patch in enumerate(stacked):
        counts = legacy_nuclei(patch)
        assert counts == (() if dropped[row] else tuple(table.iloc[row]))
        total, neoplastic = table.iloc[row].sum(), table.iloc[row, 0]
        kind = "malignant" if neoplastic >= 10 and neoplastic / total > 0.3 else "benign" if neoplastic == 0 else None
        assert kind_of(counts) == (None if dropped[row] else kind)
    assert nuclei(many)[0] == 13
    assert legacy_nuclei(many)[0] == 11
    assert legacy_nuclei(BENIGN) == (0, 1, 2, 0, 0, 1)


def test_patches_are_written_and_described(tmp_path: Path) -> None:
    publish(tmp_path)
    found = read(tmp_path, ImportOptions(unpack_to=tmp_path))
    table = found.table
    assert found.labels == ("benign", "malignant")
    assert table["image"].tolist()[:4] == [
        f"{PATCHES}/fold1/0000_bile_duct_malignant.png",
        f"{PATCHES}/fold1/0001_headneck_benign.png",
        f"{PATCHES}/fold1/0005_headneck_malignant.png",
        f"{PATCHES}/fold1/0006_bile_duct_benign.png",
    ]
    assert table["split"].tolist() == ["train"] * 4 + ["val"] * 4 + ["test"] * 4
    np.testing.assert_array_equal(table["malignant"], [1, 0] * 6)
    assert table["tissue"].tolist()[:2] == ["Bile-duct", "HeadNeck"]
    assert table[["neoplastic_nuclei", "nuclei"]].to_numpy().tolist()[:2] == [["12", "14"], ["0", "3"]]
    assert found.notes[1] == "Patches without nuclei, or with few neoplastic ones, left out: 18."
    pixels = np.load(tmp_path / "Fold 2/images/fold2/images.npy")
    written = Image.open(tmp_path / PATCHES / "fold2/0006_bile_duct_benign.png")
    np.testing.assert_array_equal(np.asarray(written), pixels[6].astype(np.uint8))


def test_the_published_split(tmp_path: Path) -> None:
    publish(tmp_path, 20)
    table = read(tmp_path, ImportOptions(unpack_to=tmp_path, legacy_split=True)).table
    kinds = np.where(table["malignant"] == 1, "malignant", "benign")
    listed = pd.concat(
        [pd.DataFrame({"image": table["image"][kinds == kind], "label": kind}) for kind in ("malignant", "benign")],
        ignore_index=True,
    )
    train, test = train_test_split(listed, test_size=0.7, stratify=listed["label"], random_state=1)
    assert set(table["image"][table["split"] == "train"]) == set(train["image"])
    assert set(table["image"][table["split"] == "test"]) == set(test["image"])
    assert all(image.startswith(f"{LEGACY_PATCHES}/") for image in table["image"])


def test_patches_are_written_once_and_again_after_a_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ImportOptions(unpack_to=publish(tmp_path))
    first = read(tmp_path, options).table
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / PATCHES).rglob("*.png")}
    with monkeypatch.context() as patched:
        patched.setattr(patches, "_write", lambda *_: pytest.fail("written again"))
        pd.testing.assert_frame_equal(read(tmp_path, options).table, first)
        pd.testing.assert_frame_equal(read(tmp_path, ImportOptions()).table, first)
    path = tmp_path / "Fold 1/images/fold1/images.npy"
    np.save(path, 255 - np.load(path))
    with pytest.raises(InputError, match="have to be written as patches first"):
        read(tmp_path, ImportOptions())
    read(tmp_path, options)
    changed = {path for path in (tmp_path / PATCHES).rglob("*.png") if path.stat().st_mtime_ns > stamps[path]}
    assert changed == set((tmp_path / PATCHES / "fold1").glob("*.png"))


def test_an_interrupted_import_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ImportOptions(unpack_to=publish(tmp_path / "a"))
    write, calls = patches._write, []

    def break_off(path: Path, data: bytes) -> None:
        calls.append(path)
        if len(calls) == 6:
            path.write_bytes(data[: len(data) // 2])
            raise KeyboardInterrupt
        write(path, data)

    with monkeypatch.context() as patched:
        patched.setattr(patches, "_write", break_off)
        with pytest.raises(KeyboardInterrupt):
            read(tmp_path / "a", options)
    with pytest.raises(InputError, match="written as patches first"):
        read(tmp_path / "a", ImportOptions())
    whole = {path: path.stat().st_mtime_ns for path in calls[:5]}
    read(tmp_path / "a", options)
    assert {path: path.stat().st_mtime_ns for path in calls[:5]} == whole
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    shutil.rmtree(tmp_path / "b" / PATCHES)
    read(tmp_path / "b", ImportOptions(unpack_to=tmp_path / "b"))
    for path in (tmp_path / "b" / PATCHES).rglob("*.*"):
        if path.suffix in (".png", ".csv"):
            assert (tmp_path / "a" / path.relative_to(tmp_path / "b")).read_bytes() == path.read_bytes()


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    publish(tmp_path)
    (tmp_path / PATCHES).mkdir()
    (tmp_path / PATCHES / "fold1").write_text("a file in the folder's place")
    with pytest.raises(StoreError, match=r"Cannot write .*malignant\.png"):
        read(tmp_path, ImportOptions(unpack_to=tmp_path))


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "touched",))

    types = publish(tmp_path) / "Fold 1/images/fold1/types.npy"
    np.save(types, np.array([Trap()] * 10, dtype=object), allow_pickle=True)
    with pytest.raises(ManifestError, match="pickled objects, which are never loaded"):
        read(tmp_path, ImportOptions(unpack_to=tmp_path))
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize(
    ("file", "array"),
    [
        ("images/fold1/images.npy", np.zeros((9, SIDE, SIDE, 3))),
        ("images/fold1/images.npy", np.zeros((10, SIDE, SIDE))),
        ("masks/fold1/masks.npy", np.zeros((10, SIDE, SIDE, 5))),
        ("masks/fold1/masks.npy", np.zeros((10, SIDE, SIDE + 1, 6))),
        ("images/fold1/types.npy", np.zeros(10)),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path: Path, file: str, array: NDArray[Any]) -> None:
    np.save(publish(tmp_path) / "Fold 1" / file, array)
    with pytest.raises(ManifestError, match="Fold 1 holds images"):
        read(tmp_path, ImportOptions(unpack_to=tmp_path))


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="does not look like PanNuke: no images"):
        read(tmp_path, ImportOptions())
    publish(tmp_path)
    with pytest.raises(InputError, match="takes no labels file"):
        read(tmp_path, ImportOptions(labels_file=tmp_path / "x.csv"))
    (tmp_path / "Fold 1/masks/fold1/masks.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(ManifestError, match=r"'masks\.npy' .* damaged"):
        read(tmp_path, ImportOptions(unpack_to=tmp_path))
    (tmp_path / "Fold 1/masks/fold1/masks.npy").unlink()
    with pytest.raises(ManifestError, match=r"Fold 1 of PanNuke lacks masks\.npy"):
        read(tmp_path, ImportOptions())


def test_flat_folders_and_a_single_fold(tmp_path: Path) -> None:
    publish(tmp_path / "whole")
    for kind, place in (("images", "images"), ("types", "images"), ("masks", "masks")):
        (tmp_path / "flat/fold3").mkdir(parents=True, exist_ok=True)
        shutil.copy(tmp_path / f"whole/Fold 3/{place}/fold3/{kind}.npy", tmp_path / f"flat/fold3/{kind}.npy")
    found = read(tmp_path / "flat", ImportOptions(unpack_to=tmp_path / "flat"))
    assert set(found.table["split"]) == {"test"}
    assert found.notes[-2:] == ("Fold 1 is not there.", "Fold 2 is not there.")
    (tmp_path / "flat/fold3").rename(tmp_path / "flat/fold4")
    with pytest.raises(ManifestError, match="it has a fold 4"):
        read(tmp_path / "flat", ImportOptions())


def test_the_manifest_written_from_it_is_the_same_cohort(tmp_path: Path) -> None:
    load_with_notes(f"pannuke:{publish(tmp_path)}", ImportOptions(unpack_to=tmp_path))
    cohort = assert_written_as_read("pannuke", tmp_path)
    assert cohort.source.read(0).size == (SIDE, SIDE)
    assert json.loads((tmp_path / PATCHES / patches.DONE_FILE).read_text())["files"]
