"""load_cohort: every way to name a cohort, its options, and what is said about a name that is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medvlm_probe.cohort.catalog import card_of, load_cohort, shipped_cards
from medvlm_probe.errors import DataCardError, InputError, ManifestError, UnknownNameError

MANIFEST = "image,site,split,edema,mass\na.png,x,train,1,0\nsub/b.png,y,test,-1,1\n"
CARD = "---\nname: clinic\nlabels: {mass: A mass}\nuncertainty: ones\n{more}---\nAbout.\n"


@pytest.fixture
def folder(tmp_path: Path, rng: np.random.Generator) -> Path:
    root = tmp_path / "North Clinic"
    (root / "sub").mkdir(parents=True)
    for name in ("a.png", "sub/b.png"):
        Image.fromarray(rng.integers(0, 256, (24, 30), dtype=np.uint8)).save(root / name)
    (root / "manifest.csv").write_text(MANIFEST)
    return root


def write_card(folder: Path, more: str = "", name: str = "DATA_CARD.md") -> Path:
    path = folder / name
    path.write_text(CARD.replace("{more}", more))
    return path


def test_a_manifest_alone(folder: Path) -> None:
    cohort = load_cohort(str(folder / "manifest.csv"))
    assert (cohort.name, len(cohort), cohort.labels) == ("north_clinic", 2, ("edema", "mass"))
    assert cohort.uncertainty == "ignore"
    assert cohort.card.licence == "not stated"
    assert cohort.source.read(1).size == (30, 24)


def test_a_folder_with_a_manifest_is_that_manifest(folder: Path) -> None:
    from_folder = load_cohort(str(folder))
    assert from_folder.fingerprint == load_cohort(str(folder / "manifest.csv")).fingerprint


def test_the_card_beside_a_manifest_is_honoured(folder: Path) -> None:
    write_card(folder)
    cohort = load_cohort(str(folder / "manifest.csv"))
    assert (cohort.name, cohort.labels, cohort.extra) == ("clinic", ("mass",), ("edema",))
    assert cohort.uncertainty == "ones"
    assert cohort.card.words("mass") == "A mass"
    assert load_cohort(str(folder / "manifest.csv"), uncertainty="zeros").uncertainty == "zeros"


def test_a_card_about_another_manifest_is_not(folder: Path) -> None:
    write_card(folder, "manifest: other.csv\n")
    assert load_cohort(str(folder / "manifest.csv")).name == "north_clinic"
    with pytest.raises(ManifestError, match=r"There is no manifest file .*other\.csv"):
        load_cohort(str(folder))


def test_a_card_path_and_its_image_root(folder: Path) -> None:
    card = write_card(folder.parent, "manifest: North Clinic/manifest.csv\nimage_root: North Clinic\n", "card.md")
    cohort = load_cohort(str(card))
    assert cohort.source.read(0).size == (30, 24)
    assert card_of(str(card)).body == "About."


def test_an_image_root_that_is_a_link_out_of_the_folder_is_refused_unless_given(folder: Path) -> None:
    home = folder.parent / "cards"
    home.mkdir()
    (home / "images").symlink_to(folder)
    (home / "manifest.csv").write_text(MANIFEST)
    card = write_card(home, "manifest: manifest.csv\nimage_root: images\n")
    with pytest.raises(DataCardError, match="leaves its folder"):
        load_cohort(str(card))
    assert load_cohort(str(card), image_root=folder).source.read(0).size == (30, 24)
    with pytest.raises(InputError, match="no image folder"):
        load_cohort(str(card), image_root=folder / "none")


def test_a_card_without_a_manifest(folder: Path) -> None:
    with pytest.raises(DataCardError, match="names no manifest"):
        load_cohort(str(write_card(folder)))


def test_an_unknown_importer(folder: Path) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean manifest"):
        load_cohort(str(write_card(folder, "importer: manifst\n")))


def test_single_label_cards_need_one_label_a_row(folder: Path) -> None:
    (folder / "manifest.csv").write_text("image,mass,edema\na.png,1,0\nb.png,1,1\nc.png,0,0\nd.png,,\n")
    text = "---\nname: c\ntask: single_label\nlabels: {mass: M, edema: E}\nmanifest: manifest.csv\n---\n"
    (folder / "DATA_CARD.md").write_text(text)
    with pytest.raises(ManifestError, match="rows 2, 3 do not have exactly one label of 1"):
        load_cohort(str(folder))


def test_splits(folder: Path) -> None:
    cohort = load_cohort(str(folder), split="test")
    assert cohort.table["image"].tolist() == ["sub/b.png"]
    assert cohort.source.read(0).size == (30, 24)
    with pytest.raises(UnknownNameError, match="Did you mean train"):
        load_cohort(str(folder), split="trian")


def test_names_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"Unknown cohort 'fantom'\. Did you mean phantom"):
        load_cohort("fantom")
    with pytest.raises(InputError, match="no cohort, file or folder"):
        load_cohort(str(tmp_path / "none"))
    with pytest.raises(InputError, match=r"manifest \(\.csv or \.parquet\)"):
        load_cohort("table.xlsx")
    with pytest.raises(UnknownNameError, match="uncertainty policy"):
        load_cohort(uncertainty="zeroes")  # type: ignore[arg-type]


def test_shipped_cards() -> None:
    assert {"phantom", "generic_folder"} <= set(shipped_cards())


def test_the_real_cohorts(shared_dir: Path) -> None:
    cohort = load_cohort(str(shared_dir / "real_cxr/multisite/manifest.csv"), split="test")
    assert sorted(set(cohort.sites())) == ["guangzhou", "hannover", "indiana", "nih"]
    assert cohort.group_kind == "patient"
    for row in range(0, len(cohort), 25):
        image = cohort.source.read(row)
        width, height = int(cohort.table["width"][row]), int(cohort.table["height"][row])
        assert (image.mode, image.size) == ("L", (width, height))
    assert len(np.unique(load_cohort(str(shared_dir / "real_cxr/iu_xray")).groups())) == 2929
