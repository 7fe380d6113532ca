"""What a DICOM file says before its pixels: size, depth, encoding and display, and what is refused without decoding."""

from __future__ import annotations

import logging
import math
import struct
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from pydicom import dcmread
from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from medvlm_probe.cohort.image_headers import is_dicom, read_header
from medvlm_probe.errors import ImageError

PALETTE_ATTRIBUTES = tuple(
    f"{colour}PaletteColorLookupTable{what}" for colour in ("Red", "Green", "Blue") for what in ("Descriptor", "Data")
)
_GROUP_MACROS = ("PixelValueTransformationSequence", "FrameVOILUTSequence")
_ATTRIBUTES = (
    "SOPClassUID",
    "Modality",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "RescaleSlope",
    "RescaleIntercept",
    "ModalityLUTSequence",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    "VOILUTSequence",
    "PresentationLUTShape",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    *PALETTE_ATTRIBUTES,
)

_META_START = 132
_META_BYTES = 1 << 16
_LONG_VRS = frozenset({b"OB", b"OW", b"OD", b"OF", b"OL", b"OV", b"SQ", b"UC", b"UN", b"UR", b"UT", b"SV", b"UV"})
_SHORT_VRS = frozenset(
    b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split()  # the others have lengths of 32 bits
)
_TRANSFER_SYNTAX = (2, 0x10)
_PIXEL_DATA, _FLOAT_PIXEL_DATA = (0x7FE0, 0x10), ((0x7FE0, 0x08), (0x7FE0, 0x09))
_UNDEFINED = 0xFFFFFFFF
_LARGEST = 1e12


@dataclass(frozen=True, eq=False)
class DicomHeader:
    """A DICOM file's own statement about its single image.

    Attributes:
        syntax: the transfer syntax UID.
        rows, columns, samples: the image's size and channels.
        photometric: the photometric interpretation.
        bits_allocated, bits_stored, high_bit: cell size, bits used of it, and the highest of these.
        signed: whether values are in two's complement.
        planar: 1 where channels are stored one after the other.
        start, length: where the pixels lie in the file; length None where they are encapsulated.
        pixel_vr: the value representation of the pixel data.
        attributes: the attributes that say how to show the values.
        big_endian: the byte order of tables in `attributes`.
    """

    syntax: str
    rows: int
    columns: int
    samples: int
    photometric: str
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    planar: int
    start: int
    length: int | None
    pixel_vr: str
    attributes: Dataset
    big_endian: bool


def read_dicom_header(data: bytes) -> DicomHeader:
    """Return the header of a DICOM file with one image.

    Raises:
        ImageError: no DICOM file, an encoding that is not read, no pixels or several frames, or a header that is
            incomplete or contradicts itself. No message holds a value that could tell of a patient.
    """
    file = BytesIO(data)
    attributes = _parsed(file, _ATTRIBUTES)
    syntax = _syntax_of(data)
    tag, vr, length = _element_at(data, file.tell(), *attributes.original_encoding)
    if tag in _FLOAT_PIXEL_DATA:
        raise ImageError("unsupported_format", "The DICOM file holds floating point pixels; whole numbers are read.")
    if tag != _PIXEL_DATA:
        raise _without_pixels(attributes, cut=file.tell() > len(data))
    _copy_frame_attributes(attributes)
    start = file.tell() + (8 if vr == "" else 12)
    header = DicomHeader(
        syntax=syntax,
        rows=whole_number(attributes, "Rows"),
        columns=whole_number(attributes, "Columns"),
        samples=whole_number(attributes, "SamplesPerPixel", 1),
        photometric=text(attributes, "PhotometricInterpretation"),
        bits_allocated=whole_number(attributes, "BitsAllocated"),
        bits_stored=whole_number(attributes, "BitsStored", whole_number(attributes, "BitsAllocated")),
        high_bit=whole_number(attributes, "HighBit", whole_number(attributes, "BitsStored", 1) - 1),
        signed=whole_number(attributes, "PixelRepresentation", 0) == 1,
        planar=whole_number(attributes, "PlanarConfiguration", 0),
        start=start,
        length=None if length == _UNDEFINED else length,
        pixel_vr=vr or "OW",
        attributes=attributes,
        big_endian=not attributes.original_encoding[1],
    )
    _check_frames(attributes)
    _check_depth(header)
    return header


def read_attributes(data: bytes | Path, names: Iterable[str]) -> Dataset:
    """Return the named attributes of a DICOM file as a data set; the pixels are not read.

    Args:
        data: the file's bytes, or its path.
        names: DICOM keywords (`PatientID`). What the file lacks, and what its bytes do not give a valid value for, is
            absent from the result.

    Raises:
        ImageError: no DICOM file, an encoding that is not read, or a path that cannot be opened as a file.
    """
    wanted = tuple(names)
    if isinstance(data, bytes):
        found = _parsed(BytesIO(data), wanted)
    elif not data.is_file():
        reason, what = ("not_a_file", "a folder, pipe or device") if data.exists() else ("missing_file", "not there")
        raise ImageError(reason, f"The file is {what}.")
    else:
        try:
            with data.open("rb") as file:
                found = _parsed(file, wanted)
        except OSError as error:
            raise ImageError("unreadable", f"The file cannot be read: {error.strerror}.") from error
    kept = Dataset()
    for name in wanted:
        # pydicom reads values when they are asked for, and quotes them in what it warns of and raises.
        try:
            if name in found:
                kept.add(found[name])
        except Exception:
            continue
    return kept


def whole_number(attributes: Dataset, name: str, default: int | None = None) -> int:
    """Return an attribute's one whole number; without a default a missing one is an ImageError, as a wrong one is."""
    value = value_of(attributes, name)
    if value is None or value == "":
        if default is None:
            raise ImageError("corrupt", f"The DICOM header gives no {name}.")
        return default
    if not isinstance(value, int):
        raise ImageError("corrupt", f"The DICOM header's {name} is no whole number.")
    return int(value)


def numbers(attributes: Dataset, name: str) -> list[float]:
    """Return an attribute's numbers, none where it is absent or empty; ImageError where one is none, or beyond 1e12."""
    value = value_of(attributes, name)
    if value is None or value == "":
        return []
    try:
        given = [float(item) for item in (value if isinstance(value, Iterable) else [value])]
    except (TypeError, ValueError):
        given = [math.nan]
    if not all(abs(number) <= _LARGEST for number in given):
        raise ImageError("corrupt", f"The DICOM header's {name} is no number.")
    return given


def text(attributes: Dataset, name: str) -> str:
    """Return an attribute's first text in capitals, "" where it is absent."""
    value = value_of(attributes, name)
    if isinstance(value, Iterable) and not isinstance(value, str):
        value = next(iter(value), "")
    return str(value or "").strip().upper()


def first_item(attributes: Dataset, name: str) -> Dataset | None:
    """Return the first item of a sequence, None where there is none (ImageError where it is no sequence)."""
    items = value_of(attributes, name)
    if not items:
        return None
    if not isinstance(items, Sequence):
        raise ImageError("corrupt", f"The DICOM header's {name} is no sequence.")
    return items[0]


def value_of(attributes: Dataset, name: str) -> Any:
    """Return an attribute's value as pydicom gives it, None where it is absent (ImageError where it has none)."""
    try:
        return attributes.get(name)
    except Exception:  # whatever pydicom makes of bytes that are no valid value
        raise ImageError("corrupt", f"The DICOM header's {name} cannot be read.") from None


def _parsed(file: BinaryIO, names: Iterable[str]) -> Dataset:
    """Return the named attributes, and leave the file at the pixel data."""
    start = file.read(_META_BYTES)
    if not is_dicom(start):
        read_header(start)  # names what the file is instead
        raise ImageError("not_an_image", "The file is no DICOM file.")
    if _syntax_of(start) == DeflatedExplicitVRLittleEndian:
        raise ImageError(
            "unsupported_format", "The DICOM file is deflated as a whole; write it again uncompressed (dcmconv)."
        )
    file.seek(0)
    hush_pydicom()
    try:
        return dcmread(file, stop_before_pixels=True, specific_tags=list(names))
    except Exception as error:  # pydicom raises whatever the bytes lead it to, values in the message
        raise ImageError("corrupt", f"The DICOM header cannot be read ({type(error).__name__}).") from None


def hush_pydicom() -> None:
    """Silence pydicom's warnings in this process: they quote values of the header, which may tell of a patient."""
    # A filter, not catch_warnings, which would put back other threads' filters in the wrong order. Handlers that
    # somebody gives pydicom's own logger still get everything.
    logging.getLogger("pydicom").propagate = False
    warnings.filterwarnings("ignore", category=UserWarning, module=r"pydicom\.")


def _syntax_of(data: bytes) -> str:
    """Return the transfer syntax UID that the file meta information gives."""
    for tag, value in _meta_elements(data):
        if tag == _TRANSFER_SYNTAX:
            return value.rstrip(b"\0 ").decode("ascii", "replace")
    raise ImageError("corrupt", "The DICOM file does not say how it is encoded (no transfer syntax).")


def _meta_elements(data: bytes) -> Iterator[tuple[tuple[int, int], bytes]]:
    position = _META_START
    while position + 12 <= len(data):
        group, element, vr, length = struct.unpack_from("<HH2sH", data, position)
        if group != 2:
            return
        if vr in _LONG_VRS:
            (length,) = struct.unpack_from("<I", data, position + 8)
            position += 4
        elif vr not in _SHORT_VRS:
            return
        position += 8 + length
        yield (group, element), data[position - length : position]


def _element_at(data: bytes, position: int, implicit: bool, little: bool) -> tuple[tuple[int, int], str, int]:
    """Return the tag, value representation ("" where it is implicit) and length of the element at a position."""
    order = "<" if little else ">"
    if position + (8 if implicit else 12) > len(data):
        return (0, 0), "", 0
    group, element = struct.unpack_from(f"{order}HH", data, position)
    if implicit:
        return (group, element), "", struct.unpack_from(f"{order}I", data, position + 4)[0]
    vr = data[position + 4 : position + 6].decode("ascii", "replace")
    return (group, element), vr, struct.unpack_from(f"{order}I", data, position + 8)[0]


def _without_pixels(attributes: Dataset, cut: bool) -> ImageError:
    kind_of_object = UID(str(value_of(attributes.file_meta, "MediaStorageSOPClassUID") or ""))
    if cut or "Rows" in attributes or "ImageStorage" in kind_of_object.keyword:
        return ImageError("truncated", "The DICOM file ends before its pixels.")
    modality = text(attributes, "Modality")
    kind = f" (modality {modality})" if modality.isalnum() and len(modality) <= 8 else ""
    return ImageError("no_pixels", f"The DICOM file holds no image{kind}: a report, document, plan or directory.")


def _copy_frame_attributes(attributes: Dataset) -> None:
    """Copy how to show the values from the functional groups, where an enhanced object keeps it."""
    for groups in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for macro in _GROUP_MACROS:
            group = first_item(attributes, groups)
            item = None if group is None else first_item(group, macro)
            if item is not None:
                given = item.keys()  # raw: elements would be converted, and pydicom may fail on one that is not wanted
                attributes.update({tag: item.get_item(tag) for tag in given if keyword_for_tag(tag) in _ATTRIBUTES})


def _check_frames(attributes: Dataset) -> None:
    frames = whole_number(attributes, "NumberOfFrames", 1)
    if frames > 1:
        raise ImageError(
            "several_frames", f"The DICOM file has {frames:,} frames; one image is expected. Export the frame alone."
        )


def _check_depth(header: DicomHeader) -> None:
    if header.rows < 1 or header.columns < 1:
        raise ImageError("corrupt", "The DICOM header gives no rows or columns.")
    if header.bits_allocated not in (8, 16):
        raise ImageError(
            "unsupported_format", f"The pixels have {header.bits_allocated} bits allocated; 8 and 16 are read."
        )
    if not 1 <= header.bits_stored <= header.high_bit + 1 <= header.bits_allocated:
        raise ImageError(
            "corrupt",
            f"The DICOM header gives {header.bits_stored} bits stored up to bit {header.high_bit} of "
            f"{header.bits_allocated} allocated, which cannot be.",
        )
