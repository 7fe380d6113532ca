"""Manifests that an import writes: where images lie, copies of them, boxes, what was left out, and the data card."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from medvlm_probe.cohort.catalog import Loaded, load_cohort, load_with_notes
from medvlm_probe.cohort.data_cards import read_card
from medvlm_probe.cohort.image_places import ImageSet, places_below, unwritable
from medvlm_probe.cohort.import_cards import WRITTEN_BY
from medvlm_probe.cohort.write_manifest import ManifestPlan, WrittenManifest, write_manifest
from medvlm_probe.errors import InputError, ManifestError, StoreError

CARD = """---
name: {name}
title: Clinic {name}
labels: {{{labels}}}
manifest: manifest.csv
split: {{test: results}}
licence: {licence}
known_traps: [One scanner.]
---

# About {name}
"""


def clinic(root: Path, name: str, rows: str, labels: str = "", licence: str = "internal") -> Path:
    """Write a cohort of 24 x 24 images; `rows` is the manifest."""
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "manifest.csv").write_text(rows)
    (folder / "DATA_CARD.md").write_text(CARD.format(name=name, labels=labels, licence=licence))
    for number, line in enumerate(rows.splitlines()[1:]):
        path = folder / line.split(",")[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng([number, len(name), ord(name[0])]).integers(0, 256, (24, 24), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return folder


def written(out: Path, *specs: Path, **plan: Any) -> WrittenManifest:
    loaded = [load_with_notes(str(spec)) for spec in specs]
    return write_manifest(loaded, ManifestPlan(out, **plan), lambda done, total: None)


@pytest.fixture
def north(tmp_path: Path) -> Path:
    rows = 'image,patient,split,report,edema,room\na.png,1,train,"Fluid, ""wet""",1,x\nsub/b.png,2,test,,-1,y\n'
    folder = clinic(tmp_path / "data", "north", rows, "edema: Oedema")
    (folder / "boxes.csv").write_text(
        "image,label,x,y,w,h,source\na.png,edema,1,2,3.5,4,me\ngone.png,edema,1,2,3,4,me\n"
    )
    return folder


@pytest.fixture
def south(tmp_path: Path) -> Path:
    return clinic(
        tmp_path / "data", "south", "image,patient,age,mass,edema\na.png,1,30,1,0\n", "mass: Mass, edema: E", "CC0"
    )


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_two_cohorts_become_one(north: Path, south: Path, suffix: str) -> None:
    out = north.parent / f"both{suffix}"
    result = written(out, north, south)
    assert {path.name for path in result.paths} == {out.name, "boxes.csv", "DATA_CARD.md"}
    again = load_cohort(str(out))
    assert again.fingerprint == result.cohort.fingerprint
    assert again.table["image"].tolist() == ["north/a.png", "north/sub/b.png", "south/a.png"]
    assert again.table["patient"].tolist() == ["north-1", "2", "south-1"]
    assert again.sites().tolist() == ["north", "north", "south"]
    assert again.table["report"].fillna("").tolist() == ['Fluid, "wet"', "", ""]
    assert again.table["age"].fillna(-9).tolist() == [-9, -9, 30]
    assert again.table["room"].fillna("").tolist() == ["x", "y", ""]
    assert again.labels == ("edema", "mass")
    assert again.table["edema"].tolist() == [1, -1, 0]
    assert again.table["mass"].fillna(-9).tolist() == [-9, -9, 1]
    assert again.source.read(2).size == (24, 24)
    assert pd.read_csv(north.parent / "boxes.csv").to_numpy().tolist() == [["north/a.png", "edema", 1, 2, 3.5, 4, "me"]]
    assert any("1 boxes of images that are not in the manifest" in note for note in result.notes)


def test_the_card_of_joined_cohorts_says_what_all_say(north: Path, south: Path) -> None:
    written(north.parent / "both.csv", north, south)
    card = read_card(north.parent / "DATA_CARD.md")
    assert (card.name, card.title) == ("data", "Clinic north, Clinic south")
    assert card.labels == {"edema": "Oedema", "mass": "Mass"}
    assert card.licence == "north: internal; south: CC0"
    assert card.known_traps == ["north: One scanner.", "south: One scanner."]
    assert card.split == {"test": "results"}
    assert card.importer == "manifest"
    assert "| north | 2 |" in card.body
    assert "# About south" in card.body


def test_equal_imports_give_equal_bytes(north: Path, south: Path) -> None:
    out = north.parent / "both.csv"
    first = {path: path.read_bytes() for path in written(out, north, south).paths}
    second = {path: path.read_bytes() for path in written(out, north, south, overwrite=True).paths}
    assert first == second


def test_images_elsewhere_are_refused_with_the_folder_that_would_do(north: Path, south: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "both.csv"
    with pytest.raises(InputError) as caught:
        written(out, north, south)
    assert f"--out {north.parent / 'both.csv'}" in str(caught.value)
    assert "--copy-images" in str(caught.value)
    assert not out.parent.exists()
    with pytest.raises(InputError, match=f"--out {north.parent / 'both.csv'}"):
        written(north / "both.csv", north, south)


def test_cohorts_that_cannot_be_joined_are_refused_before_anything_is_copied(north: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="sites were named"):
        written(tmp_path / "out" / "m.csv", north, copy_images=True, sites=("a", "b"))
    assert not (tmp_path / "out").exists()


def test_copies_appear_whole_go_on_and_overwrite_nothing(north: Path, south: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "both.csv"
    (south / "a.png").rename(south / "moved.png")
    progress: list[tuple[int, int]] = []
    loaded = [load_with_notes(str(spec)) for spec in (north, south)]
    (out.parent / "north").mkdir(parents=True)
    (out.parent / "north/a.png").write_bytes((north / "a.png").read_bytes())
    before = (out.parent / "north/a.png").stat().st_mtime_ns
    result = write_manifest(loaded, ManifestPlan(out, copy_images=True), lambda *done: progress.append(done))
    assert progress == [(1, 3), (2, 3), (3, 3)]
    assert (out.parent / "north/a.png").stat().st_mtime_ns == before
    assert (out.parent / "north/sub/b.png").read_bytes() == (north / "sub/b.png").read_bytes()
    assert result.cohort.table["image"].tolist() == ["north/a.png", "north/sub/b.png"]
    assert result.skipped.to_numpy().tolist() == [["south", "a.png", "no such image file"]]
    assert pd.read_csv(out.parent / "skipped.csv").to_numpy().tolist() == result.skipped.to_numpy().tolist()
    assert not [path for path in out.parent.rglob("*") if path.name.endswith(".tmp")]
    (out.parent / "north/a.png").write_bytes(b"mine")
    with pytest.raises(StoreError, match="exists with other content"):
        written(out, north, south, copy_images=True, overwrite=True)
    assert (out.parent / "north/a.png").read_bytes() == b"mine"


def test_one_cohort_keeps_its_paths_when_copied(north: Path, tmp_path: Path) -> None:
    result = written(tmp_path / "out/manifest.csv", north, copy_images=True)
    assert result.cohort.table["image"].tolist() == ["a.png", "sub/b.png"]
    card = read_card(tmp_path / "out/DATA_CARD.md")
    assert (card.name, card.labels, card.known_traps) == ("north", {"edema": "Oedema"}, ["One scanner."])


def test_links_lead_no_copy_out_of_the_folders(north: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"secret")
    (north / "a.png").unlink()
    (north / "a.png").symlink_to(tmp_path / "secret.png")
    out = tmp_path / "out/manifest.csv"
    result = written(out, north, copy_images=True)
    assert result.skipped["reason"].tolist() == ["the path leaves its folder through a link"]
    assert not (out.parent / "a.png").exists()
    (out.parent / "sub/b.png").unlink()
    (out.parent / "sub").rmdir()
    (tmp_path / "other").mkdir()
    (out.parent / "sub").symlink_to(tmp_path / "other")
    with pytest.raises(StoreError, match="through a link"):
        written(out, north, copy_images=True, overwrite=True)
    assert list((tmp_path / "other").iterdir()) == []


def test_files_that_exist_are_kept_unless_told_otherwise(north: Path, south: Path) -> None:
    out = north.parent / "both.csv"
    written(out, north, south)
    with pytest.raises(StoreError, match="--overwrite"):
        written(out, north, south)
    whole = out.read_bytes()
    out.unlink()  # as a kill before the last file leaves it
    written(out, north, south)
    assert out.read_bytes() == whole
    (north.parent / "boxes.csv").write_text("mine\n")
    with pytest.raises(StoreError, match=r"boxes\.csv exists"):
        written(north.parent / "other.csv", north, south)
    card = north.parent / "DATA_CARD.md"
    assert WRITTEN_BY in card.read_text()
    written(out, south, overwrite=True)
    assert read_card(card).labels == {"edema": "E", "mass": "Mass"}
    card.write_text("---\nname: mine\nmanifest: both.csv\n---\n")
    result = written(out, north, south, overwrite=True)
    assert card.read_text().startswith("---\nname: mine")
    assert any("was kept" in note for note in result.notes)
    assert result.cohort.name == "mine"


def test_the_same_files_twice_are_refused(north: Path) -> None:
    with pytest.raises(InputError, match="comes twice"):
        written(north.parent / "both.csv", north, north, sites=("x", "y"))


def test_phantoms_and_wrong_names_are_refused(north: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no files"):
        write_manifest([load_with_notes("phantom:n=2")], ManifestPlan(tmp_path / "m.csv"), lambda done, total: None)
    with pytest.raises(InputError, match=r"ending in \.csv or \.parquet"):
        written(tmp_path / "m.xlsx", north)


@pytest.mark.parametrize(
    ("boxes", "why"),
    [
        ("image,label,x,y,w\na.png,edema,1,1,1\n", "lacks the columns h"),
        ("image,label,x,y,w,h\na.png,e,1,1,1,z\n", "row 1"),
    ],
)
def test_boxes_that_are_none(north: Path, boxes: str, why: str) -> None:
    (north / "boxes.csv").write_text(boxes)
    assert len(load_cohort(str(north))) == 2
    with pytest.raises(ManifestError, match=why):
        written(north / "new.csv", north)


def test_names_that_no_manifest_may_hold(tmp_path: Path) -> None:
    bad = unwritable(["a.png", "b\n.png", "c:\\d.png", "caf\udce9.png", "http:x", "é/ü.png", "~x", " "])
    assert set(bad) == {1, 2, 3, 4, 6, 7}
    assert "control characters" in bad[1]
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("good.png", "IM:1.png"):
        Image.fromarray(np.zeros((24, 24), dtype=np.uint8)).save(folder / name, "PNG")
    loaded = load_with_notes(str(folder))
    result = write_manifest([loaded], ManifestPlan(folder / "manifest.csv"), lambda done, total: None)
    assert result.cohort.table["image"].tolist() == ["good.png"]
    assert result.skipped["what"].tolist() == ["IM:1.png"]


def test_places(tmp_path: Path) -> None:
    def places(folder: str, root: str, *images: str) -> tuple[str, ...] | None:
        return places_below(tmp_path / folder, [ImageSet("", tmp_path / root, images)])[0]

    assert places("a", "a", "x.png") == ("x.png",)
    assert places("a", "a/b", "x.png") == ("b/x.png",)
    assert places("a/b", "a", "b/x.png", "b/c/y.png") == ("x.png", "c/y.png")
    assert places("a/b", "a", "b/x.png", "y.png") is None
    assert places("a", "ab", "x.png") is None
    assert places("a/b", "a", "bc/x.png") is None


def test_text_of_every_kind_comes_back(tmp_path: Path) -> None:
    texts = ['"', "a,b", "line\nbreak", "=1+1", "NA", "nan", "007", "ü", "'", "\u2028", "\ttab"]
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(len(texts)):
        Image.fromarray(np.full((24, 24), number, dtype=np.uint8)).save(folder / f"{number:02}.png")
    loaded = load_with_notes(str(folder))
    table = loaded.cohort.table.assign(report=texts, patient=[text.strip() or "x" for text in texts], room=texts)
    named = Loaded(type(loaded.cohort)(**{**vars(loaded.cohort), "table": table}))
    for suffix in (".csv", ".parquet"):
        result = write_manifest([named], ManifestPlan(folder / f"m{suffix}", overwrite=True), lambda done, total: None)
        for column in ("report", "patient", "room"):
            assert result.cohort.table[column].tolist() == table[column].tolist()


def test_real_cohorts_join(shared_dir: Path, tmp_path: Path) -> None:
    real = shared_dir / "real_cxr"
    parts = []
    for name, n in (("iu_xray", 40), ("multisite", 60)):
        loaded = load_with_notes(str(real / name))
        rows = np.arange(len(loaded.cohort)) % (len(loaded.cohort) // n) == 0
        parts.append(Loaded(loaded.cohort.select(rows), boxes_file=loaded.boxes_file))
    with pytest.raises(InputError, match="--copy-images"):
        write_manifest(parts, ManifestPlan(tmp_path / "m.csv"), lambda done, total: None)
    result = write_manifest(parts, ManifestPlan(tmp_path / "m.csv", copy_images=True), lambda done, total: None)
    assert len(result.cohort) == len(parts[0].cohort) + len(parts[1].cohort)
    assert set(result.cohort.sites()) == {"guangzhou", "hannover", "indiana", "nih"}
    assert result.cohort.labels[-1] == "covid19"
    both = {*parts[0].cohort.table["patient"]} & {*parts[1].cohort.table["patient"]}
    assert set(result.cohort.table["patient"]) >= both
    assert all(result.cohort.source.read(row).mode == "L" for row in range(0, len(result.cohort), 9))
    covid = result.cohort.table["covid19"]
    assert covid[: len(parts[0].cohort)].isna().all()


@pytest.mark.skipif(os.name == "nt", reason="permissions work otherwise there")
def test_a_folder_that_cannot_be_written_is_said(north: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(InputError, match="no place to write to"):
        written(north.parent.parent / "out" / "m.csv", north)
