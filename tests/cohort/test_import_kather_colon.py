"""NCT-CRC-HE-100K and CRC-VAL-HE-7K as their archives unpack."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from published_cohorts import assert_written_as_read

from medvlm_probe.cohort.importers.kather_colon import LABEL_MAP, SPLITS, read
from medvlm_probe.cohort.importers.published import ImportOptions
from medvlm_probe.errors import InputError, ManifestError


@pytest.fixture
def archives(tmp_path: Path, rng: np.random.Generator) -> Path:
    for split, ending in (("train", "AAAFLCLY"), ("test", "TCGA-AAICEQFN")):
        for name in LABEL_MAP:
            place = tmp_path / SPLITS[split] / name
            place.mkdir(parents=True)
            pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(place / f"{name}-{ending}.tif")
    (tmp_path / SPLITS["test"] / "extra").mkdir()
    (tmp_path / SPLITS["test"] / "extra" / "x.tif").touch()
    return tmp_path


def test_nine_classes_in_the_published_split(archives: Path) -> None:
    found = read(archives, ImportOptions())
    table = found.table
    assert table["image"].tolist()[:2] == [
        "NCT-CRC-HE-100K/ADI/ADI-AAAFLCLY.tif",
        "NCT-CRC-HE-100K/BACK/BACK-AAAFLCLY.tif",
    ]
    assert table["split"].tolist() == ["train"] * 9 + ["test"] * 9
    np.testing.assert_array_equal(table[list(found.labels)].to_numpy(), np.tile(np.eye(9, dtype=np.float32), (2, 1)))
    assert found.skipped["what"].tolist() == ["CRC-VAL-HE-7K/extra/x.tif"]
    assert found.notes == ("Images outside the class folders, left out: 1.",)


def test_one_archive_alone(archives: Path) -> None:
    shutil.rmtree(archives / SPLITS["train"])
    found = read(archives, ImportOptions())
    assert set(found.table["split"]) == {"test"}
    assert found.notes[0] == "NCT-CRC-HE-100K is not there, so there is no split 'train'."


def test_what_cannot_be_read_is_refused(archives: Path) -> None:
    with pytest.raises(ManifestError, match="does not look like NCT-CRC-HE-100K"):
        read(archives / SPLITS["train"], ImportOptions())
    with pytest.raises(InputError, match="takes no labels file"):
        read(archives, ImportOptions(labels_file=archives / "x.csv"))
    for split in SPLITS.values():
        for name in LABEL_MAP:
            shutil.rmtree(archives / split / name)
    with pytest.raises(ManifestError, match="No image lies in the class folders"):
        read(archives, ImportOptions())


def test_the_manifest_written_from_it_is_the_same_cohort(archives: Path) -> None:
    cohort = assert_written_as_read("kather_colon", archives)
    assert cohort.card.words("cancer_associated_stroma") == "cancer-associated stroma"
    assert cohort.source.read(0).mode == "RGB"
