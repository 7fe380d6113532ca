"""Recipes by name: what names ask for, what cards may say, and that a recipe reads by first bytes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from dicom_files import native
from PIL import Image

from medvlm_probe.cohort.catalog import load_cohort
from medvlm_probe.cohort.check import check_cohort
from medvlm_probe.cohort.data_cards import parse_card
from medvlm_probe.cohort.images import FileImages, recipe_for
from medvlm_probe.cohort.phantom import SITES, draw, sample_cases
from medvlm_probe.cohort.phantom_export import export_phantoms
from medvlm_probe.cohort.recipes import RECIPES, recipe_named
from medvlm_probe.errors import DataCardError, UnknownNameError

CELLS = np.random.default_rng(6).integers(0, 4096, (20, 30), dtype=np.uint16)


@pytest.mark.parametrize(
    ("paths", "recipe"),
    [
        ([], "png/v1"),
        (["a.png", "b/c.JPG", "d.tiff", "e.jpeg"], "png/v1"),
        (["a.png", "b/c.DCM"], "dicom/v1"),
        (["a.dicom"], "dicom/v1"),
        (["a.ima"], "dicom/v1"),
        (["DICOM/ST000001/SE000001/IM000001"], "dicom/v1"),
        (["1.2.840.113619.2.1"], "dicom/v1"),
        (["v1.2/a.png"], "png/v1"),
        ([".png"], "dicom/v1"),
    ],
)
def test_what_names_ask_for(paths: list[str], recipe: str) -> None:
    assert recipe_for(paths) == recipe


def test_recipe_names() -> None:
    assert {name: recipe.name for name, recipe in RECIPES.items()} == {name: name for name in RECIPES}
    assert set(RECIPES) == {
        "png/v1",
        "png/v1:percentile-0.5-99.5",
        "png/v1:percentile-2-98",
        "dicom/v1",
        "dicom/v1:window2",
        "dicom/v1:full-range",
        "dicom/v1:percentile-0.5-99.5",
        "dicom/v1:percentile-2-98",
        "jpeg/draft/v1",
    }
    for name, recipe in RECIPES.items():
        _, _, ends = name.partition("percentile-")
        assert recipe.percentiles == (tuple(map(float, ends.split("-"))) if ends else None)
    with pytest.raises(UnknownNameError, match="Did you mean dicom/v1:full-range"):
        recipe_named("dicom/v1:fullrange")
    with pytest.raises(UnknownNameError, match="Unknown recipe 'dicom'"):
        FileImages(Path(), (), recipe="dicom")


def test_a_card_may_name_its_recipe() -> None:
    assert parse_card("---\nname: a\n---\n", "card").recipe is None
    assert parse_card("---\nname: a\nrecipe: dicom/v1:window2\n---\n", "card").recipe == "dicom/v1:window2"
    with pytest.raises(DataCardError, match=r"field 'recipe': Unknown recipe 'dcm/v1'\. Did you mean dicom/v1"):
        parse_card("---\nname: a\nrecipe: dcm/v1\n---\n", "card")


def test_the_recipe_of_a_cohort(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(native(CELLS, 12, WindowCenter=2000, WindowWidth=3000))
    (tmp_path / "manifest.csv").write_text("image\na.png\n")
    checked = check_cohort(load_cohort(str(tmp_path)))
    assert checked.recipe == "png/v1"
    assert "recipe: dicom/v1" in checked.quarantine["message"][0]
    (tmp_path / "DATA_CARD.md").write_text("---\nname: a\nmanifest: manifest.csv\nrecipe: dicom/v1\n---\n")
    checked = check_cohort(load_cohort(str(tmp_path)))
    assert checked.recipe == "dicom/v1"
    assert checked.quarantine.empty
    assert load_cohort(str(tmp_path)).fingerprint != load_cohort(f"generic_folder:{tmp_path}").fingerprint
    (tmp_path / "b.dcm").write_bytes((tmp_path / "a.png").read_bytes())
    assert check_cohort(load_cohort(f"generic_folder:{tmp_path}")).quarantine.empty


def test_files_are_read_by_their_first_bytes(tmp_path: Path) -> None:
    grey = (CELLS >> 4).astype(np.uint8)
    Image.fromarray(grey).save(tmp_path / "a.dcm", "PNG")
    Image.fromarray(grey).save(tmp_path / "b.dcm", "TIFF")
    (tmp_path / "c.dcm").write_bytes(native(grey, 8))
    source = FileImages(tmp_path, ("a.dcm", "b.dcm", "c.dcm"), recipe="dicom/v1")
    for row in range(3):
        image, key = source.read_with_key(row)
        np.testing.assert_array_equal(np.asarray(image), grey)
        assert key == source.content_key(row)
    assert [source.header(row).format for row in range(3)] == ["PNG", "TIFF", "DICOM"]
    assert source.rows([2]).recipe == "dicom/v1"


def test_exported_dicom_phantoms_can_be_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from medvlm_probe.cli.main import main

    out = str(tmp_path / "phantoms")
    for arguments in (["export", "phantom:n=2", "--format", "dicom", "--out", out], ["check", out, "--json"]):
        monkeypatch.setattr(sys, "argv", ["medvlm-probe", "cohort", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        assert not end.value.code
    found = json.loads(capsys.readouterr().out)
    assert (found["recipe"], found["n_images"], found["quarantine"]) == ("dicom/v1", 10, [])
    assert found["sizes"] == [{"mode": "L", "width": 224, "height": 224, "n_images": 10}]


@pytest.mark.parametrize("recipe", [name for name in RECIPES if name.startswith("dicom")])
def test_exported_dicom_phantoms_look_like_the_phantoms(recipe: str, tmp_path: Path) -> None:
    cases = [case for site in SITES for case in sample_cases(site, 1, 3, "balanced")]
    paths = export_phantoms(cases, tmp_path / "out", format="dicom", size=128)
    cohort = load_cohort(str(tmp_path / "out"))
    assert cohort.source.recipe == "dicom/v1"
    source = FileImages(tmp_path / "out", tuple(path.relative_to(tmp_path / "out").as_posix() for path in paths))
    source = FileImages(source.root, source.paths, recipe=recipe)
    for row, case in enumerate(cases):
        drawn, found = draw(case, 128).pixels, np.asarray(source.read(row))
        assert np.corrcoef(drawn.ravel(), found.ravel())[0, 1] > 0.98
        if recipe == "dicom/v1":
            assert np.abs(found.astype(int) - drawn).max() <= 1


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize(
    ("size", "small"),
    [((511, 4000), (511, 4000)), ((1023, 2000), (1023, 2000)), ((1024, 1300), (512, 650)), ((2100, 4500), (525, 1125))],
)
def test_drafts_keep_both_sides_at_512(
    tmp_path: Path, size: tuple[int, int], small: tuple[int, int], mode: str, rng: np.random.Generator
) -> None:
    coarse = rng.integers(0, 256, (size[1] // 50, size[0] // 50, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).convert(mode)
    picture.save(tmp_path / "a.jpg", quality=95)
    picture.save(tmp_path / "a.png")
    files = ("a.jpg", "a.png")
    whole, draft = FileImages(tmp_path, files), FileImages(tmp_path, files, recipe="jpeg/draft/v1")
    assert (draft.read(0).size, draft.read(0).mode) == (small, mode)
    assert draft.read(1).tobytes() == whole.read(1).tobytes()
    assert (draft.header(0).width, draft.header(0).height) == size
    shrunk = whole.read(0).resize(small, Image.Resampling.BOX)
    assert np.abs(np.asarray(draft.read(0)).astype(int) - np.asarray(shrunk)).mean() < 1.0
    assert (draft.read(0).tobytes() == whole.read(0).tobytes()) == (size == small)


def test_drafts_are_taken_only_when_a_card_asks() -> None:
    assert recipe_for(["a.jpg", "b.jpeg"]) == "png/v1"
    assert parse_card("---\nname: a\nrecipe: jpeg/draft/v1\n---\n", "card").recipe == "jpeg/draft/v1"
