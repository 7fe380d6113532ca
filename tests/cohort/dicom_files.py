"""DICOM files of every kind for tests: any stored values, any header, several compressions."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import get_encoder
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    RLELossless,
)

SECRET = "Doe^Jane"
"""The patient in every file; what no message and no log may hold."""

CR_IMAGE = "1.2.840.10008.5.1.4.1.1.1"


def dataset_of(cells: np.ndarray[Any, Any], bits: int, **attributes: Any) -> Dataset:
    """Return a data set of stored values, (rows, columns) or (rows, columns, 3), in 8 or 16 bits allocated.

    `attributes` are DICOM keywords; None leaves one out.
    """
    grey = cells.ndim == 2
    fields: dict[str, Any] = {
        "SOPClassUID": CR_IMAGE,
        "SOPInstanceUID": "2.25.1",
        "Modality": "CR",
        "PatientName": SECRET,
        "PatientID": SECRET,
        "SamplesPerPixel": 1 if grey else 3,
        "PhotometricInterpretation": "MONOCHROME2" if grey else "RGB",
        "Rows": cells.shape[0],
        "Columns": cells.shape[1],
        "BitsAllocated": 8 * cells.dtype.itemsize,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": int(cells.dtype.kind == "i"),
        **({} if grey else {"PlanarConfiguration": 0}),
    } | attributes
    dataset = Dataset()
    for name, value in fields.items():
        if value is not None:
            setattr(dataset, name, value)
    return dataset


def file_of(dataset: Dataset, pixels: bytes | None, syntax: str = ExplicitVRLittleEndian) -> bytes:
    """Return the bytes of a DICOM file; pixels of an uncompressed syntax in its byte order, else encapsulated."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.get("SOPClassUID", CR_IMAGE)
    meta.MediaStorageSOPInstanceUID = dataset.get("SOPInstanceUID", "2.25.1")
    meta.TransferSyntaxUID = syntax
    dataset.file_meta = meta
    if pixels is not None:
        dataset.PixelData = pixels
        encapsulated = UID(syntax).is_encapsulated
        dataset["PixelData"].VR = "OB" if encapsulated else "OW"
        dataset["PixelData"].is_undefined_length = encapsulated
    buffer = io.BytesIO()
    dataset.save_as(
        buffer,
        enforce_file_format=True,
        implicit_vr=syntax == ImplicitVRLittleEndian,
        little_endian=syntax != ExplicitVRBigEndian,
    )
    return buffer.getvalue()


def native(cells: np.ndarray[Any, Any], bits: int, **attributes: Any) -> bytes:
    """Return an uncompressed file, explicit VR little endian."""
    return file_of(dataset_of(cells, bits, **attributes), little_bytes(cells))


def little_bytes(cells: np.ndarray[Any, Any]) -> bytes:
    """Return cells in little-endian order, with the byte that makes their number even."""
    data = cells.astype(cells.dtype.newbyteorder("<")).tobytes()
    return data + b"\0" * (len(data) % 2)


def in_big_endian(cells: np.ndarray[Any, Any], bits: int, **attributes: Any) -> bytes:
    data = cells.astype(cells.dtype.newbyteorder(">")).tobytes()
    if cells.dtype.itemsize == 1:  # bytes are stored as words
        data = np.frombuffer(data + b"\0" * (len(data) % 2), "<u2").astype(">u2").tobytes()
    return file_of(dataset_of(cells, bits, **attributes), data, ExplicitVRBigEndian)


def in_implicit(cells: np.ndarray[Any, Any], bits: int, **attributes: Any) -> bytes:
    return file_of(dataset_of(cells, bits, **attributes), little_bytes(cells), ImplicitVRLittleEndian)


def in_rle(cells: np.ndarray[Any, Any], bits: int, **attributes: Any) -> bytes:
    """Compress as PS3.5, annex G: byte planes from the highest, each row in literal runs and repeats (PackBits)."""
    planes = cells.view(np.uint8).reshape(*cells.shape, cells.dtype.itemsize)[..., ::-1]
    segments = [b"".join(_packed(row.tobytes()) for row in plane) for plane in np.moveaxis(planes, -1, 0)]
    segments = [segment + b"\0" * (len(segment) % 2) for segment in segments]
    starts = np.cumsum([64, *map(len, segments)])[:-1]
    header = np.array([len(segments), *starts] + [0] * (15 - len(segments)), dtype="<u4").tobytes()
    return file_of(
        dataset_of(cells, bits, **attributes), encapsulate([header + b"".join(segments)], has_bot=False), RLELossless
    )


def _packed(row: bytes) -> bytes:
    out = b""
    position = 0
    while position < len(row):
        run = 1
        while position + run < len(row) and run < 128 and row[position + run] == row[position]:
            run += 1
        if run > 2:
            out += bytes([257 - run, row[position]])
        else:
            run = min(100, len(row) - position)
            out += bytes([run - 1]) + row[position : position + run]
        position += run
    return out


def in_jpeg(cells: np.ndarray[Any, Any], bits: int, **attributes: Any) -> bytes:
    """Compress 8-bit cells by JPEG baseline, lossy."""
    buffer = io.BytesIO()
    Image.fromarray(cells).save(buffer, "JPEG", quality=95)
    return file_of(dataset_of(cells, bits, **attributes), encapsulate([buffer.getvalue()]), JPEGBaseline8Bit)


def in_jpeg_2000(cells: np.ndarray[Any, Any], bits: int, **attributes: Any) -> bytes:
    """Compress unsigned cells by JPEG 2000, without loss: 8 and 16 bits with Pillow, else with the plug-in openjpeg."""
    dataset = dataset_of(cells, bits, **attributes)
    if bits in (8, 16) or int(cells.max()) >= 2**bits:
        buffer = io.BytesIO()
        Image.fromarray(cells).save(buffer, "JPEG2000", irreversible=False, no_jp2=True)
        frame = buffer.getvalue()
    else:
        frame = get_encoder(JPEG2000Lossless).encode(
            cells,
            rows=cells.shape[0],
            columns=cells.shape[1],
            samples_per_pixel=1,
            photometric_interpretation="MONOCHROME2",
            bits_allocated=8 * cells.dtype.itemsize,
            bits_stored=bits,
            pixel_representation=0,
            number_of_frames=1,
            encoding_plugin="pylibjpeg",
        )
    return file_of(dataset, encapsulate([frame]), JPEG2000Lossless)


def in_jpeg_lossless(cells: np.ndarray[Any, Any], bits: int, **attributes: Any) -> bytes:
    """Compress unsigned grey cells by lossless JPEG (ITU T.81, annex H): first-order prediction, process 14."""
    frame = lossless_jpeg(cells, bits)
    return file_of(dataset_of(cells, bits, **attributes), encapsulate([frame]), JPEGLosslessSV1)


def lossless_jpeg(cells: np.ndarray[Any, Any], bits: int) -> bytes:
    rows, columns = cells.shape
    values = cells.astype(np.int64)
    predicted = np.empty_like(values)
    predicted[:, 1:] = values[:, :-1]
    predicted[1:, 0] = values[:-1, 0]
    predicted[0, 0] = 2 ** (bits - 1)
    coded = []
    for difference in ((values - predicted + 2**15) % 2**16 - 2**15).ravel().tolist():
        size = abs(difference).bit_length()
        coded.append(f"{size:05b}")  # every category has a code of five bits
        if 0 < size < 16:
            coded.append(f"{difference if difference > 0 else difference + 2**size - 1:0{size}b}")
    text = "".join(coded)
    text += "1" * (-len(text) % 8)
    scan = int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\xff", b"\xff\x00")
    frame = bytes([bits]) + rows.to_bytes(2, "big") + columns.to_bytes(2, "big") + b"\x01\x01\x11\x00"
    table = b"\x00" + bytes([0, 0, 0, 0, 17] + [0] * 11) + bytes(range(17))

    def segment(marker: int, data: bytes) -> bytes:
        return bytes([0xFF, marker]) + (len(data) + 2).to_bytes(2, "big") + data

    return (
        b"\xff\xd8"
        + segment(0xC3, frame)
        + segment(0xC4, table)
        + segment(0xDA, b"\x01\x01\x00\x01\x00\x00")
        + scan
        + b"\xff\xd9"
    )


COMPRESSIONS: dict[str, Callable[..., bytes]] = {
    "none": native,
    "implicit": in_implicit,
    "big endian": in_big_endian,
    "RLE": in_rle,
    "JPEG 2000": in_jpeg_2000,
    "JPEG lossless": in_jpeg_lossless,
}
"""Ways to store grey cells without loss."""


def table_item(entries: np.ndarray[Any, Any], first: int, bits: int, signed: bool = False) -> Dataset:
    """Return the item of a modality or VOI LUT sequence."""
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if signed else "US", [len(entries) % 2**16, first, bits])
    item.add_new("LUTData", "OW", entries.astype("<u2").tobytes())
    item.ModalityLUTType = "US"
    return item
