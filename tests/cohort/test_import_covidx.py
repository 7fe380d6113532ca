"""The COVID-19 Radiography Database as Kaggle publishes it, as the two classes of COVIDX."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from published_cohorts import assert_written_as_read
from workbooks import workbook

from medvlm_probe.cohort.catalog import load_with_notes
from medvlm_probe.cohort.importers.covidx import FOLDER, read
from medvlm_probe.cohort.importers.published import ImportOptions
from medvlm_probe.errors import InputError, ManifestError

N_COVID, N_NORMAL = 12, 23


def put(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


@pytest.fixture
def kaggle(tmp_path: Path) -> Path:
    root = tmp_path / FOLDER
    for name, count in (("COVID", N_COVID), ("Normal", N_NORMAL), ("Lung_Opacity", 3), ("Viral Pneumonia", 2)):
        for number in range(1, count + 1):
            put(root / name / "images" / f"{name}-{number}.png")
            put(root / name / "masks" / f"{name}-{number}.png")
        # The published workbook of Normal writes its files in capitals.
        written = "NORMAL" if name == "Normal" else name
        rows = [[f"{written}-{n}", "PNG", "256*256", f"https://{written.lower()}.org"] for n in range(1, count + 1)]
        workbook(root / f"{name}.metadata.xlsx", [["FILE NAME", "FORMAT", "SIZE", "URL"], *rows])
    (root / "README.md.txt").write_text("Read me.")
    return tmp_path


def test_two_classes_of_the_database(kaggle: Path) -> None:
    found = read(kaggle, ImportOptions())
    table = found.table
    assert found.labels == ("covid", "normal")
    assert found.image_root == kaggle / FOLDER
    assert table["image"].tolist() == [
        *(f"COVID/images/COVID-{n}.png" for n in range(1, N_COVID + 1)),
        *(f"Normal/images/Normal-{n}.png" for n in range(1, N_NORMAL + 1)),
    ]
    np.testing.assert_array_equal(table["covid"], [1] * N_COVID + [0] * N_NORMAL)
    np.testing.assert_array_equal(table["covid"] + table["normal"], 1)
    assert set(table["source"]) == {"https://covid.org", "https://normal.org"}
    assert found.notes[1] == "Images of Lung_Opacity and Viral Pneumonia, which COVIDX does not have, left out: 5."


def test_halves_hold_half_of_each_class_and_do_not_depend_on_other_files(kaggle: Path) -> None:
    table = read(kaggle, ImportOptions()).table
    train = table["split"] == "train"
    assert int((train & (table["covid"] == 1)).sum()) == N_COVID // 2
    assert abs(int((train & (table["normal"] == 1)).sum()) - N_NORMAL / 2) < 1
    again = read(kaggle / FOLDER, ImportOptions()).table
    assert again["split"].tolist() == table["split"].tolist()


def test_the_published_split_is_drawn_by_python_s_generator(kaggle: Path) -> None:
    table = read(kaggle, ImportOptions(legacy_split=True)).table
    random.seed(0)
    for name, count in (("COVID", N_COVID), ("Normal", N_NORMAL)):
        drawn = random.sample([f"{name}/images/{name}-{n}.png" for n in range(1, count + 1)], count // 2)
        mine = table[table["image"].str.startswith(f"{name}/") & (table["split"] == "train")]
        assert set(mine["image"]) == set(drawn)


def test_early_releases_have_no_folder_of_images(tmp_path: Path) -> None:
    for name in ("COVID", "Normal"):
        put(tmp_path / name / f"{name} (1).png".replace(" (1)", "-1"))
        put(tmp_path / name / "masks" / f"{name}-1.png")
    put(tmp_path / "COVID" / "odd.png")
    found = read(tmp_path, ImportOptions())
    assert found.table["image"].tolist() == ["COVID/COVID-1.png", "Normal/Normal-1.png"]
    assert "source" not in found.table
    assert found.skipped["what"].tolist() == ["COVID/odd.png"]


def test_what_cannot_be_read_is_refused(kaggle: Path, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="does not look like the COVID-19 Radiography Database"):
        read(tmp_path / FOLDER / "COVID", ImportOptions())
    with pytest.raises(InputError, match="takes no labels file"):
        read(kaggle, ImportOptions(labels_file=tmp_path / "x.csv"))
    workbook(kaggle / FOLDER / "COVID.metadata.xlsx", [["NAME", "URL"]])
    with pytest.raises(ManifestError, match="lacks the columns 'FILE NAME' and 'URL'"):
        read(kaggle, ImportOptions())


def test_the_manifest_written_from_it_is_the_same_cohort(kaggle: Path) -> None:
    cohort = assert_written_as_read("covidx", kaggle / FOLDER)
    assert cohort.card.task == "single_label"
    assert cohort.card.prompt_template == "A chest X-ray image of {} patient"


def test_data_sets_without_a_legacy_split_say_so(kaggle: Path) -> None:
    with pytest.raises(InputError, match="has no legacy split; those that have one: covidx, rsna18"):
        load_with_notes(f"generic_folder:{kaggle}", ImportOptions(legacy_split=True))
