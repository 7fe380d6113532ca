"""The stored values of a DICOM file's single image: lengths checked against the header, then decoded by a plug-in."""

from __future__ import annotations

import re
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import uid
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders import base as decoders

from medvlm_probe.cohort.dicom_header import DicomHeader, hush_pydicom
from medvlm_probe.errors import ImageError

_JPEG = (
    uid.JPEGBaseline8Bit,
    uid.JPEGExtended12Bit,
    uid.JPEGLossless,
    uid.JPEGLosslessSV1,
    *uid.JPEGLSTransferSyntaxes,
)
Cells = NDArray[np.uint8] | NDArray[np.uint16]

_JPEG_2000 = (uid.JPEG2000Lossless, uid.JPEG2000, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K)
_NATIVE = (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian)
_ITEM, _END = 0xE000FFFE, 0xE0DDFFFE
_JPEG_FRAMES = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})
_RLE_HEADER = 64

_PLUG_INS: dict[str, tuple[str, ...]] = {
    uid.JPEGBaseline8Bit: ("pillow", "pylibjpeg", "gdcm"),
    uid.JPEGExtended12Bit: ("pylibjpeg", "gdcm"),
    uid.JPEGLossless: ("pylibjpeg", "gdcm"),
    uid.JPEGLosslessSV1: ("pylibjpeg", "gdcm"),
    uid.JPEGLSLossless: ("pylibjpeg", "pyjpegls", "gdcm"),
    uid.JPEGLSNearLossless: ("pylibjpeg", "pyjpegls", "gdcm"),
    uid.JPEG2000Lossless: ("pillow", "pylibjpeg", "gdcm"),
    uid.JPEG2000: ("pillow", "pylibjpeg", "gdcm"),
    uid.HTJ2KLossless: ("pylibjpeg",),
    uid.HTJ2KLosslessRPCL: ("pylibjpeg",),
    uid.HTJ2K: ("pylibjpeg",),
    uid.RLELossless: ("pylibjpeg", "pydicom", "gdcm"),
}
"""The plug-ins of pydicom that decode a transfer syntax, in the order in which they are tried, so that what is lossy
does not depend on which others are installed; Pillow, which is always there, comes first where it can."""


def stored_cells(data: bytes, header: DicomHeader) -> Cells:
    """Return the pixels as they are stored, one unsigned cell of 8 or 16 bits a sample.

    Grey: (rows, columns). Several samples: (rows, columns, samples), YBR already as RGB. Bits of a cell above the high
    bit are as the file has them, or sign extensions.

    Raises:
        ImageError: `truncated`, `corrupt`, `no_decoder`, `unsupported_format` or `decode_failed`.
    """
    if header.syntax in _NATIVE:
        return _decoded(_native(data, header), header, "", view_only=True)
    if header.syntax not in _PLUG_INS:
        name = uid.UID(header.syntax).name
        raise ImageError("unsupported_format", f"The transfer syntax is not read: {name}.")
    frame = _frame(data, header)
    _check_frame(frame, header)
    cells = _decompressed(encapsulate([frame], has_bot=False), header)
    if header.syntax != uid.RLELossless:
        _check_range(cells, header)
    return cells


def available_plug_ins(syntax: str) -> tuple[str, ...]:
    """Return the names of pydicom's plug-ins that are installed for a transfer syntax."""
    return tuple(decoders.get_decoder(uid.UID(syntax)).available_plugins)


def _decompressed(source: bytes, header: DicomHeader) -> Cells:
    installed = available_plug_ins(header.syntax)
    usable = [name for name in _wanted(header) if name in installed]
    if not usable:
        raise ImageError(
            "no_decoder",
            f"Nothing that is installed decodes {uid.UID(header.syntax).name}. Run: pip install 'medvlm-probe[dicom]'",
        )
    for name in usable[:-1]:
        try:
            return _decoded(source, header, name)
        except ImageError:
            continue  # one decoder reads what another refuses
    return _decoded(source, header, usable[-1])


def _wanted(header: DicomHeader) -> tuple[str, ...]:
    names = _PLUG_INS[header.syntax]
    if header.syntax == uid.JPEGExtended12Bit and header.bits_stored == 8:
        return ("pillow", *names)
    if header.samples > 1 and header.bits_stored > 8:
        return tuple(name for name in names if name != "pillow")  # it gives 8 bits of several channels
    return names


def _decoded(source: bytes | memoryview, header: DicomHeader, plug_in: str, **options: Any) -> Cells:
    options |= {
        "rows": header.rows,
        "columns": header.columns,
        "samples_per_pixel": header.samples,
        "photometric_interpretation": header.photometric,
        "bits_allocated": header.bits_allocated,
        "bits_stored": header.bits_stored,
        "pixel_representation": int(header.signed),
        "planar_configuration": header.planar,
        "number_of_frames": 1,
        "pixel_keyword": "PixelData",
        "pixel_vr": header.pixel_vr,
        "allow_excess_frames": False,
        "correct_unused_bits": False,
    }
    decoder = decoders.get_decoder(uid.UID(header.syntax))
    hush_pydicom()
    try:
        values, _ = decoder.as_array(source, index=0, decoding_plugin=plug_in, **options)
    except Exception as error:  # decoders of many makers raise whatever the bytes lead them to
        raise ImageError("decode_failed", f"The pixels cannot be decoded ({type(error).__name__}).") from error
    native_order = values.astype(values.dtype.newbyteorder("="), copy=False)
    cells: Cells = native_order.view(np.dtype(f"u{header.bits_allocated // 8}"))
    return cells


def _native(data: bytes, header: DicomHeader) -> memoryview:
    expected = header.rows * header.columns * header.samples * header.bits_allocated // 8
    if header.photometric == "YBR_FULL_422":
        expected = expected * 2 // 3
    if header.length is None:
        raise ImageError("corrupt", "The pixels are encapsulated, but the transfer syntax is an uncompressed one.")
    if header.length < expected:
        raise ImageError(
            "truncated", f"The file declares {header.length:,} bytes of pixels; its rows and columns need {expected:,}."
        )
    if header.start + expected > len(data):
        raise ImageError("truncated", "The DICOM file ends before its last pixels.")
    bytes_a_pixel = header.samples * header.bits_allocated // 8
    # A wrong number of columns makes the length a pixel a row too long at least.
    if header.length > expected + max(1, min(header.rows, header.columns) * bytes_a_pixel - 1):
        raise ImageError(
            "corrupt", f"The file declares {header.length:,} bytes of pixels; its rows and columns need {expected:,}."
        )
    return memoryview(data)[header.start : header.start + expected + expected % 2]


def _frame(data: bytes, header: DicomHeader) -> bytes:
    """Return the compressed image: the encapsulated fragments behind the offset table, joined."""
    if header.length is not None:
        raise ImageError("corrupt", "The pixels are not encapsulated, but the transfer syntax is a compressed one.")
    fragments: list[bytes] = []
    position = header.start
    while position + 8 <= len(data):
        tag, length = struct.unpack_from("<II", data, position)
        position += 8
        if tag == _END:
            if len(fragments) < 2:
                raise ImageError("corrupt", "The DICOM file has no compressed pixels.")
            return b"".join(fragments[1:])
        if tag != _ITEM:
            raise ImageError("corrupt", "The compressed pixels are not divided into items.")
        fragments.append(data[position : position + length])
        position += length
    raise ImageError("truncated", "The DICOM file ends before its last pixels.")


def _check_frame(frame: bytes, header: DicomHeader) -> None:
    """Refuse a compressed image that is not of the header's size, or that ends early, before anything is decoded."""
    if header.syntax == uid.RLELossless:
        # A run of two bytes becomes 128 at most, so this bounds what a small file can be blown up to.
        most = 2 * header.rows * header.columns * header.samples * header.bits_allocated // 8
        if not _RLE_HEADER < len(frame) <= _RLE_HEADER + most:
            raise ImageError("corrupt", "The length of the RLE pixels does not fit rows and columns.")
        return
    height, width, samples, begin = _jpeg_2000_size(frame) if header.syntax in _JPEG_2000 else _jpeg_size(frame)
    if (height, width, samples) != (header.rows, header.columns, header.samples):
        raise ImageError(
            "corrupt",
            f"The compressed image has {width} x {height} pixels of {samples} channels; the DICOM header says "
            f"{header.columns} x {header.rows} of {header.samples}.",
        )
    if frame.rfind(b"\xff\xd9", begin) < 0:
        raise ImageError("truncated", "The compressed pixels end before their end mark.")


def _jpeg_size(frame: bytes) -> tuple[int, int, int, int]:
    """Return height, width, channels and where the frame header ends, of any kind of JPEG or JPEG-LS."""
    position = 2
    while frame[:2] == b"\xff\xd8" and position + 10 <= len(frame) and frame[position] == 0xFF:
        marker = frame[position + 1]
        if marker == 0xFF:
            position += 1
        elif marker in _JPEG_FRAMES:
            height, width, samples = struct.unpack_from(">HHB", frame, position + 5)
            return height, width, samples, position
        else:
            position += 2 + struct.unpack_from(">H", frame, position + 2)[0]
    raise ImageError("corrupt", "The compressed pixels do not begin as a JPEG does.")


def _jpeg_2000_size(frame: bytes) -> tuple[int, int, int, int]:
    """Return height, width, channels and where the size segment lies, of a JPEG 2000 code stream, boxed or bare."""
    start = re.search(rb"\xff\x4f\xff\x51", frame)
    if start is None or start.start() + 42 > len(frame):
        raise ImageError("corrupt", "The compressed pixels do not begin as a JPEG 2000 does.")
    right, bottom, left, top = struct.unpack_from(">IIII", frame, start.start() + 8)
    (samples,) = struct.unpack_from(">H", frame, start.start() + 40)
    return bottom - top, right - left, samples, start.start()


def _check_range(cells: Cells, header: DicomHeader) -> None:
    """Refuse values beyond the header's bits stored: in compressed pixels nothing else can lie above them."""
    if header.bits_stored == header.bits_allocated:
        return
    half = 2 ** (header.bits_stored - 1)
    values = cells.view(np.dtype(f"i{header.bits_allocated // 8}")) if header.signed else cells
    # Of negative values some decoders extend the sign, others give the bits stored alone.
    if values.min() < -half or values.max() >= 2 * half:
        raise ImageError(
            "corrupt", f"The compressed values exceed the {header.bits_stored} bits that the DICOM header gives them."
        )
