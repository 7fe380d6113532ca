"""What the first bytes of a PNG or JPEG say: its true format, size and depth, and whether the file is whole."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Literal

from medvlm_probe.errors import ImageError

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_SIGNATURE = b"\xff\xd8\xff"

_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_JPEG_FRAMES = frozenset({0xC0, 0xC1, 0xC2})
_JPEG_OTHER_FRAMES = frozenset({0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})
_JPEG_BARE = frozenset({0x01, *range(0xD0, 0xD8)})

_OTHER_FORMATS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"GIF8", "GIF"),
    (0, b"II+\x00", "BigTIFF"),
    (0, b"MM\x00+", "BigTIFF"),
    (0, b"BM", "BMP"),
    (8, b"WEBP", "WebP"),
    (0, b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (4, b"ftyp", "HEIF or AVIF"),
)
_DICOM_STARTS = (
    b"\x02\x00\x00\x00",
    b"\x08\x00\x05\x00",
    b"\x08\x00\x08\x00",
    b"\x08\x00\x16\x00",
    b"\x00\x08\x00\x05",
)
"""How data sets begin: file meta information, character set, image type or SOP class, in either byte order."""


@dataclass(frozen=True)
class ImageHeader:
    """A file's own statement about its pixels; `bits` per channel, `channels` as stored (a palette counts as one)."""

    format: Literal["PNG", "JPEG", "TIFF", "DICOM"]
    width: int
    height: int
    bits: int
    channels: int


def read_header(data: bytes) -> ImageHeader:
    """Return the header of a PNG or JPEG, told by its first bytes and never by the file's name.

    Raises:
        ImageError: `empty_file`, `not_an_image`, `unsupported_format`, `truncated` or `corrupt`.
    """
    if not data:
        raise ImageError("empty_file", "The file has no bytes.")
    if data.startswith(PNG_SIGNATURE):
        return _png_header(data)
    if data.startswith(JPEG_SIGNATURE):
        return _jpeg_scan(data)[0]
    for offset, magic, name in _OTHER_FORMATS:
        if data[offset : offset + len(magic)] == magic:
            raise ImageError("unsupported_format", f"The file is {name}; PNG, JPEG, TIFF and DICOM are read.")
    if is_dicom(data):
        raise ImageError(
            "unsupported_format",
            "The file is DICOM, which the recipe png/v1 does not read. Write 'recipe: dicom/v1' into the data card, "
            "DATA_CARD.md beside the manifest, or end the file's name in .dcm.",
        )
    if data.startswith(_DICOM_STARTS):
        raise ImageError(
            "no_preamble",
            "The file looks like a DICOM data set without a DICOM file's preamble and header; nothing says how it is "
            "encoded. Export it again as a DICOM file (part 10).",
        )
    if data.startswith(b"version https://git-lfs"):
        raise ImageError("not_an_image", "The file is a Git LFS pointer, not the image; run git lfs pull.")
    raise ImageError("not_an_image", "The file does not begin as a PNG, JPEG, TIFF or DICOM file does.")


def is_dicom(data: bytes) -> bool:
    """Return whether the bytes begin as a DICOM file does: a preamble of 128 bytes, then "DICM"."""
    return data[128:132] == b"DICM"


def check_whole(data: bytes, header: ImageHeader) -> None:
    """Refuse a file that ends early, or a PNG whose stored checksums do not fit its bytes.

    Raises:
        ImageError: `truncated` or `corrupt`.
    """
    if header.format == "PNG":
        _check_png_chunks(data)
    elif data.find(b"\xff\xd9", _jpeg_scan(data)[1]) < 0:
        raise ImageError("truncated", "The JPEG ends before its end mark.")


def _png_header(data: bytes) -> ImageHeader:
    if len(data) < 33:
        raise ImageError("truncated", "The PNG ends within its header.")
    length, kind, width, height, bits, colour = struct.unpack(">I4sIIBB", data[8:26])
    if length != 13 or kind != b"IHDR" or colour not in _PNG_CHANNELS or width == 0 or height == 0:
        raise ImageError("corrupt", "The PNG's header is not valid.")
    return ImageHeader("PNG", width, height, bits, _PNG_CHANNELS[colour])


def _check_png_chunks(data: bytes) -> None:
    view = memoryview(data)
    position = len(PNG_SIGNATURE)
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if end > len(data):
            break
        if zlib.crc32(view[position + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
            raise ImageError("corrupt", "A checksum within the PNG does not fit its bytes; copy the file again.")
        if kind == b"acTL":
            raise ImageError("unsupported_format", "The file is an animated PNG; one still image is expected.")
        if kind == b"IEND":
            return
        position = end
    raise ImageError("truncated", "The PNG ends before its end mark.")


def _jpeg_scan(data: bytes) -> tuple[ImageHeader, int]:
    """Return the frame header and the offset of the first scan."""
    header: ImageHeader | None = None
    position = 2
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            raise ImageError("corrupt", "The JPEG's segments are out of order.")
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        if marker in _JPEG_BARE:
            position += 2
            continue
        if marker in _JPEG_OTHER_FRAMES:
            raise ImageError("unsupported_format", "The JPEG is lossless, hierarchical or arithmetic-coded.")
        (length,) = struct.unpack_from(">H", data, position + 2)
        if marker in _JPEG_FRAMES:
            header = _jpeg_frame(data[position + 4 : position + 10])
        if marker == 0xDA:
            if header is None:
                break
            return header, position
        position += 2 + length
    raise ImageError("truncated", "The JPEG ends within its header.")


def _jpeg_frame(frame: bytes) -> ImageHeader:
    if len(frame) < 6:
        raise ImageError("truncated", "The JPEG ends within its header.")
    bits, height, width, channels = struct.unpack(">BHHB", frame)
    if bits != 8 or channels not in (1, 3):
        what = "CMYK" if channels == 4 else f"{bits} bits deep with {channels} channels"
        raise ImageError("unsupported_format", f"The JPEG is {what}; 8-bit grey and RGB JPEGs are read.")
    if width == 0 or height == 0:
        raise ImageError("corrupt", "The JPEG's header gives no width or height.")
    return ImageHeader("JPEG", width, height, bits, channels)
