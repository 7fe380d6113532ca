"""The recipe png/v1: from the bytes of a PNG, JPEG or TIFF to an 8-bit grey or RGB image of the same width and height.

- Only PNG, JPEG and TIFF are decoded, told by their first bytes. Size and depth are checked before anything is decoded.
- 16 bits become 8 by their high byte (v >> 8): the full range is kept, nothing depends on the single image, and both
  usual ways to widen 8 bits (v * 257, v * 256) come back exactly. A 16-bit image of which 16 grey levels or fewer would
  remain is refused: it holds 10- or 12-bit values that were never scaled to the full range. sBIT, gamma and colour
  profiles are ignored: the PNG standard stores samples scaled to the full range whatever sBIT says.
- Palettes are expanded; transparency (an alpha channel or tRNS) is composed on black.
- RGB whose three channels are equal everywhere becomes grey. Real colour stays RGB.
- EXIF orientation is not applied, so boxes and masks given in stored pixels stay right. CMYK, lossless and 12-bit JPEGs
  and animated PNGs are refused. Nothing is resized or cropped.
- TIFF: grey, RGB or palette of 1 to 16 bits, one page, in strips or tiles, uncompressed or with LZW, deflate, PackBits
  or JPEG. Where 0 is white, the picture is inverted, after 16 bits have become 8. Its orientation is not applied.
  Several pages, floating point, signed values, fax compression, CMYK and BigTIFF are refused.
- The variants `png/v1:percentile-A-B` stretch grey images: of the stored values, the percentile A becomes 0 and B 255,
  in a straight line and clipped, in place of the high byte (and a dark 16-bit image is not refused). Colour is left as
  it is.
- The recipe `jpeg/draft/v1` differs in JPEGs alone: they are decoded at a half, a quarter or an eighth of their width
  and height, the smallest that leaves both sides at least 512 pixels, by dropping frequencies. That is several times
  faster, and gives nearly, not exactly, what decoding and then shrinking gives.
"""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, JpegImagePlugin, PngImagePlugin, TiffImagePlugin

from medvlm_probe.cohort import grey_levels
from medvlm_probe.cohort.image_headers import ImageHeader, check_whole, read_header
from medvlm_probe.cohort.tiff_header import (
    TIFF_SIGNATURES,
    TiffHeader,
    as_stored,
    check_tiff_whole,
    read_tiff_header,
)
from medvlm_probe.errors import ImageError

MAX_PIXELS = 100_000_000
MIN_SIDE = 16
_LEAST_LEVELS = 16
_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16", "I;16B")
_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    LookupError,
    TypeError,
    EOFError,
    OverflowError,
    struct.error,
    zlib.error,
)


def checked_header(data: bytes, max_pixels: int = MAX_PIXELS) -> ImageHeader:
    """Return the header of a file that the recipe accepts.

    Raises:
        ImageError: as `read_header` and `read_tiff_header`, and `too_many_pixels` or `too_small`.
    """
    header = read_tiff_header(data).image if data.startswith(TIFF_SIGNATURES) else read_header(data)
    check_size(header.width, header.height, max_pixels)
    return header


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Refuse what is too large to decode or too small to be a radiograph (ImageError)."""
    size = f"{width:,} x {height:,} pixels"
    if width * height > max_pixels:
        raise ImageError("too_many_pixels", f"The header gives {size}; at most {max_pixels:,} pixels are decoded.")
    if min(width, height) < MIN_SIDE:
        raise ImageError("too_small", f"The image has {size}; each side needs at least {MIN_SIDE}.")


def decode(
    data: bytes,
    max_pixels: int = MAX_PIXELS,
    percentiles: tuple[float, float] | None = None,
    draft_side: int | None = None,
) -> Image.Image:
    """Return the image in mode "L" or "RGB", 8 bit, at its stored width and height unless a `draft_side` is given.

    Args:
        data: the file's bytes.
        max_pixels: the largest width x height that is decoded.
        percentiles: the ends, 0 to 100, that grey images are stretched between; None stretches nothing.
        draft_side: JPEGs are decoded as small as leaves both sides at least so long.

    Raises:
        ImageError: the file is not usable; `reason` is a key of `images.REASONS`.
    """
    header = checked_header(data, max_pixels)
    tiff = read_tiff_header(data) if header.format == "TIFF" else None
    if tiff is None:
        check_whole(data, header)
    else:
        check_tiff_whole(data, tiff)
    stored = _decoded(data, header, tiff, draft_side)
    is_grey = header.channels == 1 and stored.mode != "P"
    image = _grey(stored, header, percentiles) if is_grey else _colour(stored, header)
    if percentiles is not None and header.bits < 16 and image.mode == "L":
        image = Image.fromarray(_stretched(np.asarray(image), 8, percentiles))
    if percentiles is None and header.bits == 16 and _brightest(image) < _LEAST_LEVELS:
        raise ImageError(
            "dark_16_bit",
            "The image is 16-bit but its brightest pixel is below 1/16 of the range: 10- or 12-bit values stored "
            "unscaled. Export it scaled to the full range.",
        )
    return ImageChops.invert(image) if tiff is not None and tiff.inverted else image


def _decoded(data: bytes, header: ImageHeader, tiff: TiffHeader | None, draft_side: int | None) -> Image.Image:
    # The decoder's own class: no other format can be reached, and Pillow's process-wide pixel limit, which only
    # Image.open applies, cannot warn or fail below the limit that was checked against the header.
    image: Image.Image
    try:
        if tiff is not None:
            image = TiffImagePlugin.TiffImageFile(io.BytesIO(as_stored(data, tiff)))
        elif header.format == "PNG":
            image = PngImagePlugin.PngImageFile(io.BytesIO(data))
        else:
            image = JpegImagePlugin.JpegImageFile(io.BytesIO(data))
            if draft_side is not None:
                image.draft(None, (draft_side, draft_side))
        image.load()
    except _DECODER_ERRORS as error:
        reason = "truncated" if "truncated" in str(error) else "decode_failed"
        raise ImageError(reason, f"The {header.format} cannot be decoded ({type(error).__name__}).") from error
    if image.mode not in _MODES:
        raise ImageError("unsupported_format", f"The {header.format} is of a kind that is not read ({image.mode}).")
    return image


def _grey(stored: Image.Image, header: ImageHeader, percentiles: tuple[float, float] | None) -> Image.Image:
    transparent = stored.info.get("transparency")
    if header.bits == 16:
        values = np.asarray(stored)
        grey = (values >> 8).astype(np.uint8) if percentiles is None else _stretched(values, 16, percentiles)
    else:
        stored = stored.convert("L")
        if transparent is None:
            return stored
        grey = np.array(stored)
        values = grey
        most = 2**header.bits - 1
        transparent = min(transparent, most) * 255 // most  # Pillow gives the stored sample, but 255 for a 1 in one bit
    if transparent is not None:
        grey[values == transparent] = 0
    return Image.fromarray(grey)


def _colour(stored: Image.Image, header: ImageHeader) -> Image.Image:
    image = stored
    if "transparency" in stored.info:
        if header.bits == 16:
            raise ImageError("unsupported_format", "The PNG is 16-bit RGB with a transparent colour; remove it (tRNS).")
        image = stored.convert("RGBA")
    elif stored.mode == "P":
        image = stored.convert("RGB")
    channels = image.split()
    if image.mode in ("LA", "RGBA"):
        *colours, alpha = channels
        black = Image.new("L", image.size)
        opaque = alpha.getextrema() == (255, 255)
        channels = tuple(colours) if opaque else tuple(Image.composite(channel, black, alpha) for channel in colours)
    return merged(channels)


def merged(channels: tuple[Image.Image, ...]) -> Image.Image:
    """Return one channel where all are equal everywhere, else the RGB image of three."""
    first, *others = channels
    if all(first.tobytes() == other.tobytes() for other in others):
        return first
    return Image.merge("RGB", channels)


def _stretched(values: NDArray[np.unsignedinteger], bits: int, percentiles: tuple[float, float]) -> NDArray[np.uint8]:
    levels = np.arange(2**bits, dtype=np.float64)
    ends = grey_levels.percentile_ends(levels, grey_levels.histogram(values, 2**bits), percentiles)
    return grey_levels.look_up(grey_levels.to_bytes(grey_levels.linear(levels, *ends)), values)


def _brightest(image: Image.Image) -> int:
    return int(np.asarray(image).max())
