"""What the directory of a TIFF file says: size and depth, where its pixels lie, and what is refused before decoding."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from medvlm_probe.cohort.image_headers import ImageHeader
from medvlm_probe.errors import ImageError

TIFF_SIGNATURES = (b"II*\x00", b"MM\x00*")

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER = 256, 257, 258, 259, 262, 266
_ORIENTATION, _SAMPLES, _PLANAR, _TILE_WIDTH, _TILE_HEIGHT, _SAMPLE_FORMAT = 274, 277, 284, 322, 323, 339
_OFFSETS, _LENGTHS = (273, 324), (279, 325)  # of strips, of tiles

_TYPE_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
_WHOLE_NUMBERS = {1: "B", 3: "H", 4: "I"}
_JPEG = 7
_COMPRESSIONS = {1: "none", 5: "LZW", _JPEG: "JPEG", 8: "deflate", 32946: "deflate", 32773: "PackBits"}
_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB, _PALETTE, _YCBCR = 0, 1, 2, 3, 6
_SAMPLES_OF = {_MIN_IS_WHITE: (1,), _MIN_IS_BLACK: (1, 2), _RGB: (3, 4), _PALETTE: (1,), _YCBCR: (3,)}
_MOST_TILE_PIXELS = 1 << 24


@dataclass(frozen=True)
class TiffHeader:
    """A TIFF's own statement about its pixels.

    Attributes:
        image: format, width, height, bits and channels.
        inverted: whether 0 is white.
        display_tags: offset and replacement of the values that say how to show the samples (0 is white, turned film),
            so that a decoder gives the samples as they are stored.
        segments: offset and length of each strip or tile.
    """

    image: ImageHeader
    inverted: bool
    display_tags: tuple[tuple[int, bytes], ...]
    segments: tuple[tuple[int, int], ...]


def read_tiff_header(data: bytes) -> TiffHeader:
    """Return the header of a TIFF with one page.

    Raises:
        ImageError: `truncated`, `corrupt`, `several_frames` or `unsupported_format`.
    """
    directory = _Directory(data)
    photometric = directory.number(_PHOTOMETRIC, _MIN_IS_WHITE)
    compression = directory.number(_COMPRESSION, 1)
    samples = directory.number(_SAMPLES, 1)
    bits = set(directory.numbers(_BITS) or (1,))
    width, height = directory.number(_WIDTH, 0), directory.number(_HEIGHT, 0)
    if width == 0 or height == 0:
        raise ImageError("corrupt", "The TIFF's header gives no width or height.")
    if directory.more_pages:
        raise ImageError("several_frames", "The TIFF has several pages; one image is expected. Save the page alone.")
    if set(directory.numbers(_SAMPLE_FORMAT)) - {1}:
        raise ImageError("unsupported_format", "The TIFF holds floating point or signed values; unsigned are read.")
    if compression not in _COMPRESSIONS:
        known = ", ".join(dict.fromkeys(_COMPRESSIONS.values()))
        raise ImageError("unsupported_format", f"The TIFF's compression ({compression}) is not read; {known} are.")
    if samples not in _SAMPLES_OF.get(photometric, ()) or (photometric == _YCBCR and compression != _JPEG):
        what = f"photometric interpretation {photometric} with {samples} channels"
        raise ImageError("unsupported_format", f"The TIFF is of {what}; grey, RGB and palette TIFFs are read.")
    depth = bits.pop()
    if bits or depth not in (1, 2, 4, 8, 16) or (depth < 8 and samples > 1) or (depth == 16 and samples % 2 == 0):
        raise ImageError("unsupported_format", "The TIFF's depth is not read; 1, 2, 4, 8 and 16 bits a channel are.")
    if directory.number(_FILL_ORDER, 1) != 1 or (depth == 16 and directory.number(_PLANAR, 1) != 1):
        raise ImageError("unsupported_format", "The TIFF's order of bits or channels is not read; save it again.")
    if directory.number(_TILE_WIDTH, 0) * directory.number(_TILE_HEIGHT, 0) > _MOST_TILE_PIXELS:
        raise ImageError("unsupported_format", f"The TIFF's tiles are larger than {_MOST_TILE_PIXELS:,} pixels.")
    inverted = photometric == _MIN_IS_WHITE
    neutral = {_ORIENTATION: 1, _PHOTOMETRIC: _MIN_IS_BLACK if inverted else photometric}
    return TiffHeader(
        ImageHeader("TIFF", width, height, depth, samples),
        inverted,
        tuple(directory.replacement(tag, value) for tag, value in neutral.items() if directory.numbers(tag)),
        directory.segments(),
    )


def check_tiff_whole(data: bytes, header: TiffHeader) -> None:
    """Refuse a TIFF of which a strip or tile lies beyond the file's end (ImageError, `truncated`)."""
    if any(offset + length > len(data) for offset, length in header.segments):
        raise ImageError("truncated", "The TIFF ends before its last pixels.")


def as_stored(data: bytes, header: TiffHeader) -> bytes:
    """Return the file without its instructions on how to show the samples."""
    neutral = bytearray(data)
    for offset, value in header.display_tags:
        neutral[offset : offset + len(value)] = value
    return bytes(neutral)


class _Directory:
    """The first image file directory: tag to (type, count, offset of the value)."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._order = "<" if data.startswith(b"II") else ">"
        (start,) = self._unpack("I", 4)
        (n,) = self._unpack("H", start)
        self.entries: dict[int, tuple[int, int, int]] = {}
        for position in range(start + 2, start + 2 + 12 * n, 12):
            tag, kind, count = self._unpack("HHI", position)
            size = _TYPE_SIZES.get(kind, 1) * count
            self.entries[tag] = kind, count, position + 8 if size <= 4 else self._unpack("I", position + 8)[0]
        self.more_pages = self._unpack("I", start + 2 + 12 * n) != (0,)

    def numbers(self, tag: int) -> tuple[int, ...]:
        if tag not in self.entries:
            return ()
        kind, count, offset = self.entries[tag]
        if kind not in _WHOLE_NUMBERS:
            raise ImageError("corrupt", f"The TIFF's tag {tag} is no whole number.")
        if offset + count * _TYPE_SIZES[kind] > len(self._data):
            raise ImageError("truncated", "The TIFF ends within its header.")
        return self._unpack(f"{count}{_WHOLE_NUMBERS[kind]}", offset)

    def number(self, tag: int, default: int) -> int:
        return (self.numbers(tag) or (default,))[0]

    def replacement(self, tag: int, value: int) -> tuple[int, bytes]:
        kind, _, offset = self.entries[tag]
        return offset, struct.pack(self._order + _WHOLE_NUMBERS[kind], value)

    def segments(self) -> tuple[tuple[int, int], ...]:
        for offsets, lengths in zip(_OFFSETS, _LENGTHS, strict=True):
            if offsets in self.entries:
                pairs = tuple(zip(self.numbers(offsets), self.numbers(lengths), strict=False))
                if len(pairs) == self.entries[offsets][1] > 0:
                    return pairs
        raise ImageError("corrupt", "The TIFF's header does not say where its pixels lie.")

    def _unpack(self, form: str, offset: int) -> tuple[int, ...]:
        try:
            return struct.unpack_from(self._order + form, self._data, offset)
        except struct.error as error:
            raise ImageError("truncated", "The TIFF ends within its header.") from error
