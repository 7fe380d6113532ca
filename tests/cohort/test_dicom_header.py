"""DICOM headers: attributes without pixels, and nothing of the patient in messages, warnings or logs."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_files import SECRET, in_implicit, little_bytes, native
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset

from medvlm_probe.cohort import dicom_header
from medvlm_probe.cohort.dicom_header import read_dicom_header
from medvlm_probe.cohort.dicom_recipe import checked_header, read_attributes
from medvlm_probe.cohort.images import REASONS
from medvlm_probe.errors import ImageError

CELLS = np.random.default_rng(2).integers(0, 4096, (20, 30), dtype=np.uint16)


def reason_of(data: bytes | Path) -> str:
    with pytest.raises(ImageError) as caught:
        read_attributes(data, ["PatientID"])
    assert caught.value.reason in REASONS
    return caught.value.reason


@pytest.mark.parametrize("write", [native, in_implicit])
def test_attributes_are_those_that_are_named(write: object, tmp_path: Path) -> None:
    data = write(CELLS, 12, PatientAge="054Y", StudyDate="20200101")  # type: ignore[operator]
    path = tmp_path / "image.dcm"
    path.write_bytes(data)
    for given in (data, path):
        found = read_attributes(given, ["PatientAge", "PatientID", "ViewPosition", "Rows"])
        assert isinstance(found, Dataset)
        assert sorted(element.keyword for element in found) == ["PatientAge", "PatientID", "Rows"]
        assert (found.PatientAge, found.PatientID, found.Rows) == ("054Y", SECRET, 20)


def test_attributes_of_files_without_an_image() -> None:
    report = Path(get_testdata_file("reportsi.dcm", download=False))
    assert read_attributes(report, ["Modality"]).Modality == "SR"


def test_only_the_header_is_read_from_a_path(tmp_path: Path) -> None:
    data = native(np.zeros((2000, 2000), np.uint16), 12)
    path = tmp_path / "cut.dcm"
    path.write_bytes(data[: len(data) // 2])
    assert read_attributes(path, ["Rows"]).Rows == 2000


def test_a_value_that_its_bytes_do_not_give_is_absent() -> None:
    data = native(CELLS, 12, AccessionNumber="A7", StudyID="S7")
    data = data.replace(b"\x08\x00\x50\x00SH", b"\x08\x00\x50\x00FD")  # two bytes, said to be a number of eight
    found = read_attributes(data, ["AccessionNumber", "StudyID"])
    assert [element.keyword for element in found] == ["StudyID"]


def test_what_is_no_dicom_file_has_a_reason(tmp_path: Path) -> None:
    data = native(CELLS, 12)
    assert reason_of(b"") == "empty_file"
    assert reason_of(b"text") == "not_an_image"
    assert reason_of(data[132:]) == "no_preamble"
    assert reason_of(Path(get_testdata_file("image_dfl.dcm", download=False))) == "unsupported_format"
    assert reason_of(tmp_path / "absent.dcm") == "missing_file"
    assert reason_of(tmp_path) == "not_a_file"
    os.mkfifo(tmp_path / "pipe.dcm")
    assert reason_of(tmp_path / "pipe.dcm") == "not_a_file"


def test_a_deflated_file_is_never_inflated(monkeypatch: pytest.MonkeyPatch) -> None:
    def inflate(*arguments: object) -> bytes:
        raise AssertionError("inflated")

    monkeypatch.setattr("pydicom.filereader.zlib.decompress", inflate)
    data = Path(get_testdata_file("image_dfl.dcm", download=False)).read_bytes()
    with pytest.raises(AssertionError):
        pydicom.dcmread(io.BytesIO(data))
    assert reason_of(data) == "unsupported_format"


def test_meta_information_of_another_encoding_is_refused() -> None:
    """pydicom would read it a second time as implicit, and could then find what was not checked here."""
    data = bytearray(native(CELLS, 12))
    assert data[136:138] == b"UL"
    data[136:138] = b"?!"
    assert reason_of(bytes(data)) == "corrupt"


def test_pixels_lie_where_the_header_says() -> None:
    data = native(CELLS, 12)
    header = read_dicom_header(data)
    assert data[header.start : header.start + (header.length or 0)] == little_bytes(CELLS)
    shown = checked_header(data)
    assert (shown.format, shown.width, shown.height, shown.bits, shown.channels) == ("DICOM", 30, 20, 12, 1)


def test_nothing_of_the_patient_is_printed(tmp_path: Path) -> None:
    """Values that break their own rules are what pydicom quotes."""
    good = {
        "StudyDate": "20200102",
        "AccessionNumber": "A12345",
        "StudyInstanceUID": "1.2.345678",
        "PatientAge": "012Y",
        "SeriesNumber": "123456",
        "WindowCenter": "654321",
    }
    data = native(CELLS, 12, WindowWidth=3000, **good)
    for value in good.values():
        assert data.count(value.encode()) == 1
        data = data.replace(value.encode(), b"Doe\x07\xff1234567890"[: len(value)])
    path = tmp_path / "bad.dcm"
    path.write_bytes(data)
    code = f"""
import logging
from pathlib import Path
from medvlm_probe.cohort.dicom_recipe import decode, read_attributes
from medvlm_probe.errors import ImageError
logging.basicConfig(level=logging.DEBUG)
names = {[*good, "PatientName"]!r}
assert len(read_attributes(Path({str(path)!r}), names)) >= 4
try:
    decode(Path({str(path)!r}).read_bytes())
except ImageError as error:
    print(error.reason, error)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "WindowCenter" in ran.stdout
    assert "Doe" not in ran.stdout + ran.stderr
    assert ran.stderr == ""


def test_warnings_are_silenced_for_pydicom_alone() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        dicom_header.hush_pydicom()
        warnings.warn("somebody else's", UserWarning, stacklevel=1)
        warnings.warn_explicit("pydicom's", UserWarning, "valuerep.py", 1, module="pydicom.valuerep")
    assert [str(warning.message) for warning in caught] == ["somebody else's"]
