"""The recipe png/v1: from the bytes of a PNG or JPEG to an 8-bit grey or RGB image of the same width and height.

- Only PNG and JPEG are decoded, told by their first bytes. Size and depth are checked before anything is decoded.
- 16 bits become 8 by their high byte (v >> 8): the full range is kept, nothing depends on the single image, and both
  usual ways to widen 8 bits (v * 257, v * 256) come back exactly. A 16-bit image of which 16 grey levels or fewer would
  remain is refused: it holds 10- or 12-bit values that were never scaled to the full range. sBIT, gamma and colour
  profiles are ignored: the PNG standard stores samples scaled to the full range whatever sBIT says.
- Palettes are expanded; transparency (an alpha channel or tRNS) is composed on black.
- RGB whose three channels are equal everywhere becomes grey. Real colour stays RGB.
- EXIF orientation is not applied, so boxes and masks given in stored pixels stay right. CMYK, lossless and 12-bit JPEGs
  and animated PNGs are refused. Nothing is resized or cropped.
"""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image, JpegImagePlugin, PngImagePlugin

from medvlm_probe.cohort.image_headers import ImageHeader, check_whole, read_header
from medvlm_probe.errors import ImageError

RECIPE = "png/v1"

MAX_PIXELS = 100_000_000
MIN_SIDE = 16
_LEAST_LEVELS = 16
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
        ImageError: as `read_header`, and `too_many_pixels` or `too_small`.
    """
    header = read_header(data)
    size = f"{header.width:,} x {header.height:,} pixels"
    if header.width * header.height > max_pixels:
        raise ImageError("too_many_pixels", f"The header gives {size}; at most {max_pixels:,} pixels are decoded.")
    if min(header.width, header.height) < MIN_SIDE:
        raise ImageError("too_small", f"The image has {size}; each side needs at least {MIN_SIDE}.")
    return header


def decode(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Return the image in mode "L" or "RGB", 8 bit, at its stored width and height.

    Raises:
        ImageError: the file is not usable; `reason` is a key of `images.REASONS`.
    """
    header = checked_header(data, max_pixels)
    check_whole(data, header)
    stored = _decoded(data, header)
    image = _grey(stored, header) if header.channels == 1 and stored.mode != "P" else _colour(stored, header)
    if header.bits == 16 and _brightest(image) < _LEAST_LEVELS:
        raise ImageError(
            "dark_16_bit",
            "The image is 16-bit but its brightest pixel is below 1/16 of the range: 10- or 12-bit values stored "
            "unscaled. Export it scaled to the full range.",
        )
    return image


def _decoded(data: bytes, header: ImageHeader) -> Image.Image:
    # The decoder's own class: no other format can be reached, and Pillow's process-wide pixel limit, which only
    # Image.open applies, cannot warn or fail below the limit that was checked against the header.
    decoder = PngImagePlugin.PngImageFile if header.format == "PNG" else JpegImagePlugin.JpegImageFile
    try:
        image: Image.Image = decoder(io.BytesIO(data))
        image.load()
    except _DECODER_ERRORS as error:
        reason = "truncated" if "truncated" in str(error) else "decode_failed"
        raise ImageError(reason, f"The {header.format} cannot be decoded ({type(error).__name__}).") from error
    return image


def _grey(stored: Image.Image, header: ImageHeader) -> Image.Image:
    transparent = stored.info.get("transparency")
    if header.bits == 16:
        values = np.asarray(stored)
        grey = (values >> 8).astype(np.uint8)
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
    first, *others = channels
    if all(first.tobytes() == other.tobytes() for other in others):
        return first
    return Image.merge("RGB", channels)


def _brightest(image: Image.Image) -> int:
    return int(np.asarray(image).max())
