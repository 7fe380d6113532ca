"""Exported phantoms read back as what was drawn: PNG and DICOM, manifest and card, boxes and masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
from PIL import Image

from medvlm_probe.cohort.catalog import card_of, load_cohort
from medvlm_probe.cohort.labels import CHEXPERT_LABELS
from medvlm_probe.cohort.phantom import SITES, Case, Phantom, draw, sample_cases
from medvlm_probe.cohort.phantom_export import export_phantoms
from medvlm_probe.errors import InputError, StoreError, UnknownNameError

SIZE = 160


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return [case for site in SITES for case in sample_cases(site, 4, 12, "balanced")]


@pytest.fixture(scope="module")
def phantoms(cases: list[Case]) -> list[Phantom]:
    return [draw(case, SIZE) for case in cases]


@pytest.fixture(scope="module")
def pngs(cases: list[Case], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    folder = tmp_path_factory.mktemp("png") / "cohort"
    return folder, export_phantoms(cases, folder, size=SIZE)


@pytest.fixture(scope="module")
def dicoms(cases: list[Case], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    folder = tmp_path_factory.mktemp("dicom") / "cohort"
    return folder, export_phantoms(cases, folder, format="dicom", size=SIZE)


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def windowed(dataset: pydicom.Dataset) -> np.ndarray:
    """The linear window of DICOM PS3.3, C.11.2.1.2.1, written out, then the inversion that MONOCHROME1 asks for."""
    stored = dataset.pixel_array.astype(float)
    centre, width = float(dataset.WindowCenter), float(dataset.WindowWidth)
    shown = np.clip(((stored - (centre - 0.5)) / (width - 1) + 0.5) * 255, 0, 255)
    return 255 - shown if dataset.PhotometricInterpretation == "MONOCHROME1" else shown


def test_png_files_hold_the_drawn_pixels(phantoms: list[Phantom], pngs: tuple[Path, list[Path]]) -> None:
    folder, paths = pngs
    assert len(paths) == len(phantoms)
    for phantom, path in zip(phantoms, paths, strict=True):
        case = phantom.case
        assert path == folder / case.site / f"{case.patient}-{case.image_index + 1}.png"
        with Image.open(path) as image:
            assert image.mode == "L"
            np.testing.assert_array_equal(np.asarray(image), phantom.pixels)


def test_the_folder_is_a_cohort(cases: list[Case], phantoms: list[Phantom], pngs: tuple[Path, list[Path]]) -> None:
    exported = load_cohort(str(pngs[0]))
    drawn = load_cohort(f"phantom:prevalence=balanced,n=4,seed=12,size={SIZE}")
    assert exported.labels == drawn.labels == CHEXPERT_LABELS
    assert exported.absent == ()
    assert exported.extra == ()
    np.testing.assert_array_equal(exported.targets(), drawn.targets())
    np.testing.assert_array_equal(
        exported.targets(), [[case.labels[name] for name in CHEXPERT_LABELS] for case in cases]
    )
    columns = ["image", "patient", "study", "site", "view", "split", "age", "sex", "report"]
    pd.testing.assert_frame_equal(exported.table[columns], drawn.table[columns], check_dtype=False)
    np.testing.assert_array_equal(exported.groups(), drawn.groups())
    for row in (0, len(cases) - 1):
        np.testing.assert_array_equal(np.asarray(exported.source.read(row)), phantoms[row].pixels)
    shipped = card_of("phantom")
    assert {name: exported.card.words(name) for name in CHEXPERT_LABELS} == shipped.labels
    assert exported.card.split == shipped.split
    assert "not medicine" in exported.card.known_traps[0]


def test_boxes_span_the_mask_files(phantoms: list[Phantom], pngs: tuple[Path, list[Path]]) -> None:
    folder, paths = pngs
    boxes = pd.read_csv(folder / "boxes.csv")
    assert list(boxes.columns) == ["image", "label", "x", "y", "w", "h", "source"]
    assert set(boxes["source"]) == {"phantom"}
    assert sum(1 for path in (folder / "masks").rglob("*.png")) == sum(len(phantom.masks) for phantom in phantoms)
    for phantom, path in zip(phantoms, paths, strict=True):
        image = path.relative_to(folder).as_posix()
        of_image = boxes[boxes["image"] == image]
        assert set(of_image["label"]) == set(phantom.masks)
        for label, drawn in phantom.masks.items():
            with Image.open(folder / "masks" / label / image) as file:
                mask = np.asarray(file)
            assert mask.dtype == np.uint8
            np.testing.assert_array_equal(mask, np.where(drawn, 255, 0))
            rows, columns = np.nonzero(mask)
            x, y, w, h = of_image.loc[of_image["label"] == label, ["x", "y", "w", "h"]].to_numpy().T
            assert (x.min(), y.min()) == (columns.min(), rows.min())
            assert ((x + w).max(), (y + h).max()) == (columns.max() + 1, rows.max() + 1)


def test_dicom_files_show_the_drawn_picture(phantoms: list[Phantom], dicoms: tuple[Path, list[Path]]) -> None:
    from pydicom.pixels import apply_voi_lut

    for phantom, path in zip(phantoms, dicoms[1], strict=True):
        dataset = pydicom.dcmread(path)
        np.testing.assert_array_equal(dataset.pixel_array, phantom.raw)
        shown = windowed(dataset)
        assert np.abs(shown - phantom.pixels).max() <= 1
        by_pydicom = apply_voi_lut(dataset.pixel_array, dataset) / 4095 * 255
        if dataset.PhotometricInterpretation == "MONOCHROME1":
            by_pydicom = 255 - by_pydicom
        np.testing.assert_allclose(by_pydicom, shown, atol=1e-6)
        inverted = phantom.case.site == "inverted_archive"
        assert dataset.PhotometricInterpretation == ("MONOCHROME1" if inverted else "MONOCHROME2")
        assert np.corrcoef(dataset.pixel_array.ravel(), phantom.pixels.ravel())[0, 1] * (-1 if inverted else 1) > 0.99


def test_dicom_headers_say_who_and_how(phantoms: list[Phantom], dicoms: tuple[Path, list[Path]]) -> None:
    datasets = [pydicom.dcmread(path) for path in dicoms[1]]
    for phantom, dataset in zip(phantoms, datasets, strict=True):
        case, site = phantom.case, SITES[phantom.case.site]
        assert (dataset.Modality, dataset.ViewPosition) == (site.modality, case.view)
        assert (dataset.PatientID, dataset.PatientSex) == (case.patient, case.sex)
        assert dataset.PatientAge == f"{case.age:03d}Y"
        assert dataset.BurnedInAnnotation == ("YES" if case.site in ("portable", "community") else "NO")
        assert (dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit) == (16, 12, 11)
        assert dataset.file_meta.TransferSyntaxUID == pydicom.uid.ExplicitVRLittleEndian
        assert dataset.SOPClassUID.name.startswith("Digital X-Ray" if site.modality == "DX" else "Computed Radiography")
        for uid in (dataset.SOPInstanceUID, dataset.StudyInstanceUID, dataset.SeriesInstanceUID):
            assert uid.is_valid
            assert uid.startswith("2.25.")
        assert not any(element.tag.is_private for element in dataset.iterall())
        assert not any(element.VR in ("DA", "TM", "DT") and element.value for element in dataset.iterall())
    assert len({dataset.SOPInstanceUID for dataset in datasets}) == len(datasets)
    studies = {
        (dataset.StudyInstanceUID, phantom.case.study) for dataset, phantom in zip(datasets, phantoms, strict=True)
    }
    assert len(studies) == len({uid for uid, _ in studies}) == len({study for _, study in studies})


def test_another_seed_has_other_identifiers(tmp_path: Path) -> None:
    uids = []
    for seed in (0, 1):
        path = export_phantoms(sample_cases("low_dose", 1, seed), tmp_path / str(seed), format="dicom", size=64)[0]
        dataset = pydicom.dcmread(path)
        uids.append((dataset.SOPInstanceUID, dataset.StudyInstanceUID, dataset.SeriesInstanceUID))
    assert not set(uids[0]) & set(uids[1])


@pytest.mark.parametrize("format_", ["png", "dicom"])
def test_equal_cases_give_equal_bytes(format_: str, cases: list[Case], tmp_path: Path) -> None:
    few = cases[::5]
    for name in ("first", "second"):
        export_phantoms(few, tmp_path / name, format=format_, size=96)  # type: ignore[arg-type]
    first, second = files_of(tmp_path / "first"), files_of(tmp_path / "second")
    assert {"manifest.csv", "boxes.csv", "DATA_CARD.md"} < set(first)
    assert first == second


def test_an_export_that_stopped_halfway_is_done_again(cases: list[Case], tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    export_phantoms(cases[:3], whole, size=64)
    export_phantoms(cases[:2], broken, size=64)
    (broken / "manifest.csv").unlink()
    (broken / "DATA_CARD.md").unlink()
    export_phantoms(cases[:3], broken, size=64)
    assert files_of(whole) == files_of(broken)


def test_what_cannot_be_exported_is_refused(cases: list[Case], pngs: tuple[Path, list[Path]], tmp_path: Path) -> None:
    before = files_of(pngs[0])
    with pytest.raises(StoreError, match=r"holds a cohort already \(manifest.csv\)"):
        export_phantoms(cases[:1], pngs[0])
    assert files_of(pngs[0]) == before
    with pytest.raises(InputError, match="comes twice"):
        export_phantoms([cases[0], cases[0]], tmp_path / "twice")
    with pytest.raises(UnknownNameError, match="dicom"):
        export_phantoms(cases[:1], tmp_path / "other", format="dicm")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="32 to 1024"):
        export_phantoms(cases[:1], tmp_path / "small", size=8)
    assert not (tmp_path / "twice").exists()


def test_no_cases_make_an_empty_cohort(tmp_path: Path) -> None:
    assert export_phantoms([], tmp_path / "none") == []
    assert (
        (tmp_path / "none" / "manifest.csv")
        .read_text()
        .startswith("image,patient,study,site,view,split,age,sex,report,")
    )
