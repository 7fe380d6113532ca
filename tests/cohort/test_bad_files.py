"""A folder of every kind of bad or odd file: each ends as an embedding or in quarantine with its reason."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import struct
import sys
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from dicom_files import dataset_of, file_of, in_jpeg_2000, little_bytes, native
from PIL import Image, PngImagePlugin
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    MPEG2MPML,
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

from medvlm_probe.cohort.catalog import load_cohort
from medvlm_probe.cohort.check import check_cohort
from medvlm_probe.cohort.images import REASONS
from medvlm_probe.errors import ManifestError

RNG = np.random.default_rng(12)
GREY = RNG.integers(0, 256, (40, 44), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (40, 44, 3), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (40, 44)).astype(np.uint16)
TWELVE = DEEP >> 4
READ = ""


def encoded(pixels: np.ndarray[Any, Any] | Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_of_size(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = zlib.compress(bytes(10_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def patched(data: bytes, old: bytes, new: bytes) -> bytes:
    assert data.count(old) >= 1
    return data.replace(old, new, 1)


def with_tag(tiff: bytes, tag: int, value: int) -> bytes:
    """Replace the value of a tag of a little-endian TIFF."""
    (start,) = struct.unpack_from("<I", tiff, 4)
    (n,) = struct.unpack_from("<H", tiff, start)
    for position in range(start + 2, start + 2 + 12 * n, 12):
        if struct.unpack_from("<H", tiff, position) == (tag,):
            return tiff[: position + 8] + struct.pack("<I", value) + tiff[position + 12 :]
    raise AssertionError(tag)


def report(sop_class: str, modality: str) -> bytes:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.Modality = sop_class, "2.25.7", modality
    dataset.PatientName = "Doe^Jane"
    return file_of(dataset, None)


def nested(depth: int) -> bytes:
    """A DICOM file whose VOI LUT lies `depth` sequences deep."""
    item = Dataset()
    for _ in range(40):
        outer = Dataset()
        outer.VOILUTSequence = [item]
        item = outer
    inner = file_of(item, None)
    start = inner.index(b"\x28\x00\x10\x30SQ")
    opened = b"\x28\x00\x10\x30SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * depth
    return inner[:start] + opened


def floating() -> bytes:
    dataset = dataset_of(GREY, 8)
    dataset.FloatPixelData = GREY.astype("<f4").tobytes()
    return file_of(dataset, None)


def text_bomb() -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "a" * (70 << 20), zip=True)
    return encoded(GREY, pnginfo=info)


def bad_files() -> dict[str, tuple[bytes, str]]:
    """Return name to content and to the reason that it must end in quarantine for; "" for what is read."""
    png, jpeg, tiff = encoded(GREY), encoded(COLOUR, "JPEG"), encoded(GREY, "TIFF")
    dicom = native(TWELVE, 12, WindowCenter=2000, WindowWidth=3000)
    code_stream = in_jpeg_2000(GREY, 8)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("image.png", png)
    half_checksum = bytearray(png)
    half_checksum[60] ^= 4
    two = [Image.fromarray(GREY), Image.fromarray(GREY[::-1].copy())]
    secondary = "1.2.840.10008.5.1.4.1.1."
    return {
        # what is read, under whatever name
        "good.png": (png, READ),
        "good.jpg": (jpeg, READ),
        "progressive.jpg": (encoded(COLOUR, "JPEG", progressive=True), READ),
        "good.tif": (tiff, READ),
        "lzw.tiff": (encoded(COLOUR, "TIFF", compression="tiff_lzw"), READ),
        "good.dcm": (dicom, READ),
        "jpeg_2000.dcm": (code_stream, READ),
        "jpeg_inside.png": (jpeg, READ),
        "png_inside.jpg": (png, READ),
        "dicom_inside.png": (dicom, READ),
        "tiff_inside.dcm": (tiff, READ),
        "16_bit.png": (encoded(DEEP), READ),
        "1_bit.png": (encoded(Image.fromarray(GREY).convert("1")), READ),
        "palette.png": (encoded(Image.fromarray(COLOUR).quantize(9)), READ),
        "transparent.png": (encoded(np.dstack([COLOUR, GREY])), READ),
        "-dash.png": (png, READ),
        " spaces .png": (png, READ),
        "quotes \"'`.png": (png, READ),
        "comma,semicolon;.png": (png, READ),
        "$(touch owned) && %20 #.png": (png, READ),
        "рентген 胸部 é.png": (png, READ),
        "x" * 200 + ".png": (png, READ),
        "after the end.png": (png + b"more bytes", READ),
        # not images
        "empty.png": (b"", "empty_file"),
        "empty.dcm": (b"", "empty_file"),
        "text.png": (b"no image", "not_an_image"),
        "page.png": (b"<!DOCTYPE html><html>404</html>", "not_an_image"),
        "pointer.png": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "not_an_image"),
        "document.png": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "not_an_image"),
        "archive.png": (buffer.getvalue(), "not_an_image"),
        "noise.png": (RNG.bytes(5000), "not_an_image"),
        "zeros.dcm": (bytes(5000), "not_an_image"),
        "packed.dcm": (gzip.compress(dicom), "not_an_image"),
        # other formats and kinds
        "gif.png": (encoded(GREY, "GIF"), "unsupported_format"),
        "bmp.png": (encoded(GREY, "BMP"), "unsupported_format"),
        "webp.jpg": (encoded(COLOUR, "WEBP"), "unsupported_format"),
        "heif.jpg": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99), "unsupported_format"),
        "jpeg_2000.jpg": (encoded(GREY, "JPEG2000"), "unsupported_format"),
        "cmyk.jpg": (encoded(Image.fromarray(COLOUR).convert("CMYK"), "JPEG"), "unsupported_format"),
        "animated.png": (encoded(two[0], "PNG", save_all=True, append_images=two[1:]), "unsupported_format"),
        "lossless.jpg": (patched(jpeg, b"\xff\xc0", b"\xff\xc3"), "unsupported_format"),
        "12_bit.jpg": (patched(jpeg, b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x11\x0c"), "unsupported_format"),
        "big.tif": (b"II+\x00\x08\0\0\0" + bytes(99), "unsupported_format"),
        "pages.tif": (encoded(two[0], "TIFF", save_all=True, append_images=two[1:]), "several_frames"),
        "float.tif": (encoded(GREY.astype(np.float32), "TIFF"), "unsupported_format"),
        "dark.png": (encoded(TWELVE), "dark_16_bit"),
        "dark.tif": (encoded(TWELVE, "TIFF"), "dark_16_bit"),
        "tiny.png": (encoded(GREY[:8, :8]), "too_small"),
        "thin.png": (encoded(GREY[:1]), "too_small"),
        # cut and damaged
        "cut_in_signature.png": (png[:6], "not_an_image"),
        "cut_in_header.png": (png[:20], "truncated"),
        "cut_in_middle.png": (png[: len(png) // 2], "truncated"),
        "cut_at_end.png": (png[:-3], "truncated"),
        "cut_in_header.jpg": (jpeg[:100], "truncated"),
        "cut_in_middle.jpg": (jpeg[: len(jpeg) // 2], "truncated"),
        "cut_at_end.jpg": (jpeg[:-2], "truncated"),
        "cut_in_pixels.tif": (tiff[:60], "truncated"),
        "strip_beyond_end.tif": (with_tag(tiff, 273, 10_000_000), "truncated"),
        "flipped_bit.png": (bytes(half_checksum), "corrupt"),
        "noise_in_pixels.jpg": (jpeg[:200] + RNG.bytes(300), "corrupt"),
        # bombs
        "bomb.png": (png_of_size(60_000, 60_000), "too_many_pixels"),
        "bomb.jpg": (patched(jpeg, struct.pack(">HH", 40, 44), struct.pack(">HH", 65_000, 65_000)), "too_many_pixels"),
        "bomb.tif": (with_tag(with_tag(tiff, 256, 60_000), 257, 60_000), "too_many_pixels"),
        "bomb.dcm": (native(TWELVE, 12, Rows=60_000, Columns=60_000), "too_many_pixels"),
        "bomb_in_text.png": (text_bomb(), "decode_failed"),
        "bomb_within.dcm": (
            patched(code_stream, struct.pack(">II", 44, 40), struct.pack(">II", 60_000, 60_000)),
            "corrupt",
        ),
        "bomb_rle.dcm": (
            file_of(
                dataset_of(GREY, 8), encapsulate([struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81a" * 9000]), RLELossless
            ),
            "corrupt",
        ),
        "nested.dcm": (nested(5000), "corrupt"),
        # DICOM
        "report.dcm": (report(secondary + "88.11", "SR"), "no_pixels"),
        "presentation.dcm": (report(secondary + "11.1", "PR"), "no_pixels"),
        "encapsulated_pdf.dcm": (report(secondary + "104.1", "DOC"), "no_pixels"),
        "frames.dcm": (native(TWELVE, 12, NumberOfFrames=2), "several_frames"),
        "cut_in_pixels.dcm": (dicom[:-500], "truncated"),
        "cut_before_pixels.dcm": (dicom[: dicom.index(b"\xe0\x7f\x10\x00")], "truncated"),
        "cut_in_header.dcm": (dicom[:300], "truncated"),
        "preamble_alone.dcm": (bytes(128) + b"DICM", "corrupt"),
        "no_preamble.dcm": (dicom[132:], "no_preamble"),
        "no_meta.dcm": (bytes(128) + b"DICM" + dicom[dicom.index(b"\x08\x00\x16\x00") :], "corrupt"),
        "deflated.dcm": (
            file_of(dataset_of(TWELVE, 12), little_bytes(TWELVE), DeflatedExplicitVRLittleEndian),
            "unsupported_format",
        ),
        "video.dcm": (file_of(dataset_of(GREY, 8), encapsulate([b"film"]), MPEG2MPML), "unsupported_format"),
        "wrong_bits.dcm": (native(TWELVE, 12, BitsStored=20), "corrupt"),
        "no_bits.dcm": (native(TWELVE, 12, BitsAllocated=None), "corrupt"),
        "zero_rows.dcm": (native(TWELVE, 12, Rows=0), "corrupt"),
        "wrong_rows.dcm": (native(TWELVE, 12, Rows=41), "truncated"),
        "wrong_columns.dcm": (native(TWELVE, 12, Columns=43), "corrupt"),
        "32_bit.dcm": (native(TWELVE, 12, BitsAllocated=32), "unsupported_format"),
        "1_bit.dcm": (native(TWELVE, 1, BitsAllocated=1), "unsupported_format"),
        "float.dcm": (floating(), "unsupported_format"),
        "hsv.dcm": (native(COLOUR, 8, PhotometricInterpretation="HSV"), "unsupported_format"),
        "no_photometric.dcm": (native(TWELVE, 12, PhotometricInterpretation=None), "unsupported_format"),
        "narrow.dcm": (native(TWELVE // 64 + np.uint16(900), 12), "no_window"),
        "not_encapsulated.dcm": (
            patched(native(GREY, 8), b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.5\0"),
            "corrupt",
        ),
        "no_jpeg.dcm": (file_of(dataset_of(GREY, 8), encapsulate([b"\xff\xd8 no"]), JPEGBaseline8Bit), "corrupt"),
        "no_frame.dcm": (file_of(dataset_of(GREY, 8), b"\xfe\xff\x00\xe0" + bytes(4), JPEG2000Lossless), "corrupt"),
        "noise_in_jpeg_2000.dcm": (
            code_stream[: code_stream.index(b"\xff\x93") + 2] + RNG.bytes(200) + code_stream[-10:],
            "truncated",
        ),
        "long_name.dcm": (
            file_of(
                dataset_of(TWELVE, 12, PatientName="X" * 900, WindowCenter=2000, WindowWidth=3000), little_bytes(TWELVE)
            ),
            READ,
        ),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bad") / "files"


@pytest.fixture(scope="module")
def expected(folder: Path) -> dict[str, str]:
    """Write the folder, and return path to reason for everything that a manifest may name."""
    folder.mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's, about what is written wrong on purpose
        files = bad_files()
    for name, (content, _) in files.items():
        (folder / name).write_bytes(content)
    reasons = {name: reason for name, (_, reason) in files.items()}
    good = (folder / "good.png").read_bytes()
    (folder.parent / "outside.png").write_bytes(good)
    (folder / "directory.png").mkdir()
    (folder / "directory.png" / "inner.png").write_bytes(good)
    links = {
        "dangling.png": "nowhere.png",
        "escaping.png": "../outside.png",
        "round.png": "round.png",
        "linked.png": "good.png",
        "linked_directory.png": "directory.png",
        "secret.png": "/etc/passwd",
    }
    for name, target in links.items():
        (folder / name).symlink_to(target)
    os.mkfifo(folder / "pipe.png")
    reasons |= {
        "directory.png/inner.png": READ,
        "dangling.png": "missing_file",
        "escaping.png": "outside_folder",
        "secret.png": "outside_folder",
        "round.png": "unreadable",
        "linked.png": READ,
        "pipe.png": "not_a_file",
    }
    if os.geteuid() != 0:
        (folder / "forbidden.png").write_bytes(good)
        (folder / "forbidden.png").chmod(0)
        reasons["forbidden.png"] = "unreadable"
    return reasons


@pytest.fixture(scope="module")
def manifest(folder: Path, expected: dict[str, str]) -> Path:
    """A manifest of the folder, which may name folders and absent files too."""
    (folder / "1.2.840.113619").write_bytes((folder / "good.dcm").read_bytes())
    only_here = {
        "directory.png": "not_a_file",
        "linked_directory.png": "not_a_file",
        "absent.png": "missing_file",
        "good.png/within.png": "missing_file",
        "1.2.840.113619": READ,
    }
    path = folder / "manifest.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "expected"])
        writer.writerows((expected | only_here).items())
    return path


def assert_ends_as_expected(quarantine: pd.DataFrame, reasons: dict[str, str], folder: Path) -> None:
    found = dict(zip(quarantine["image"], quarantine["reason"], strict=True))
    assert found == {name: reason for name, reason in reasons.items() if reason}
    assert set(found.values()) <= set(REASONS)
    for message in quarantine["message"]:
        assert "Doe" not in message
        assert str(folder) not in message
        assert len(message) < 600


def test_there_are_many_kinds(expected: dict[str, str]) -> None:
    assert len(expected) >= 90
    assert len(set(expected.values())) >= 17


def test_a_manifest_of_bad_files(manifest: Path) -> None:
    reasons = dict(pd.read_csv(manifest, dtype=str, keep_default_na=False).itertuples(index=False, name=None))
    checked = check_cohort(load_cohort(str(manifest)), workers=2)
    assert checked.recipe == "dicom/v1"
    assert_ends_as_expected(checked.quarantine, reasons, manifest.parent)


def test_a_folder_of_bad_files(folder: Path, expected: dict[str, str]) -> None:
    (folder / "new\nline.png").write_bytes((folder / "good.png").read_bytes())
    (folder / ".hidden.png").write_bytes(b"passed over")
    try:
        checked = check_cohort(load_cohort(f"generic_folder:{folder}"), workers=2)
    finally:
        (folder / "new\nline.png").unlink()
    assert checked.n_images == len(expected) + 1
    assert_ends_as_expected(checked.quarantine, expected, folder)


def test_a_manifest_with_a_line_break_in_a_name_says_so(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text('image\n"new\nline.png"\n')
    with pytest.raises(ManifestError, match="control characters"):
        load_cohort(str(tmp_path / "manifest.csv"))


def test_a_file_name_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"latin-1 \xe9.png")).write_bytes(encoded(GREY))
    with pytest.raises(ManifestError, match=r"latin-1 \\udce9\.png.*Rename"):
        load_cohort(f"generic_folder:{tmp_path}")


def test_the_commands_end_without_a_traceback(
    manifest: Path,
    expected: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    from medvlm_probe.cli.main import main

    monkeypatch.setenv("MEDVLM_PROBE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["medvlm-probe", *map(str, arguments)])
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0), *capfd.readouterr()
        return 0, *capfd.readouterr()

    folder = manifest.parent
    for cohort in (manifest, f"generic_folder:{folder}"):
        code, out, err = run("cohort", "check", cohort, "--json", "--out", tmp_path / "check")
        assert code == 0, err
        assert "Doe" not in out + err
        n_bad = len(json.loads(out)["quarantine"])
    code, out, err = run("embed", "--cohort", cohort, "--max-failures", "100%", "--json", "--out", tmp_path / "run")
    assert code == 0, err
    assert "Warning" not in err
    counts = json.loads(out)
    assert counts["quarantined"] == n_bad
    assert counts["embedded"] == counts["images"] - n_bad > 0
    quarantine = pd.read_csv(tmp_path / "run" / "quarantine.csv")
    assert_ends_as_expected(quarantine, expected, folder)
    assert not (tmp_path / "owned").exists()
