"""The recipe dicom/v1: from the bytes of a DICOM file to an 8-bit grey or RGB image of the same width and height.

What is read, and what is refused before anything is decoded:

- DICOM files only (128 bytes of preamble, then DICM), told by their first bytes; a data set without is refused, because
  its encoding would have to be guessed. PNG, JPEG and TIFF are read as by png/v1. Deflated files are refused.
- One image: reports, documents, plans and directories have no pixels, and several frames are refused. Any modality is
  read, so that a mistake in a cohort is seen rather than hidden.
- 8 or 16 bits allocated, of which 1 to 16 are stored, signed or not. Floating point, 1 and 32 bits are refused.
- Rows x columns is held against the pixel limit. Uncompressed pixels must have the length that rows and columns need
  (less than a pixel a row more counts as padding). In compressed ones the size within the JPEG must be the header's.
- JPEG (baseline, extended, lossless), JPEG-LS, JPEG 2000 and RLE are decoded by pydicom's plug-ins, tried in a fixed
  order; baseline and 8-bit extended JPEG, JPEG 2000 and RLE need nothing but Pillow and pydicom. Compressed values that
  exceed the bits stored are refused.

What a stored value becomes:

1. Bits of a cell outside the bits stored (old overlays, garbage) are masked; two's complement where signed.
2. The modality LUT: the Modality LUT Sequence, else slope x value + intercept, else the value itself.
3. The values of interest: the first VOI LUT, else the first window (LINEAR, LINEAR_EXACT or SIGMOID, as PS3.3
   C.11.2.1 writes them), else the full range of values that the stored bits allow. A window that no window can be
   (width 0) counts as none. A VOI LUT's white is the largest number of the bits that its entries use, because many
   files declare 16 bits for entries of 12.
   The full range, unlike the darkest and brightest pixel that many viewers take, does not depend on the single image:
   a burnt-in marker or a dead pixel changes nothing else, and a JPEG of 8 bits comes out as it is. Where it would leave
   99 % of the pixels (the 0.5 and 99.5 percentiles) within 16 of 255 levels, the file is refused: it was never meant to
   be seen without a window.
4. 0 to 1 becomes 0 to 255, rounded to the nearest.
5. MONOCHROME1, or a Presentation LUT Shape of INVERSE, inverts, once.
6. Padding (Pixel Padding Value, with its Range Limit) is black, whatever the window, and takes no part in percentiles.

Colour: RGB and YBR become RGB, palettes are expanded, more than 8 bits lose their low bits; windows do not apply. Three
equal channels become grey. Overlays, shutters, ICC profiles and aspect ratios are not applied; nothing is resized.

Variants, to see how much the choice in 3 matters (they differ in nothing else):

- `dicom/v1:window2`: the second window, where there are two; else as dicom/v1.
- `dicom/v1:full-range`: the full range that the stored bits allow, whatever windows there are.
- `dicom/v1:percentile-A-B`: of the image's own values without padding, the percentile A becomes 0 and B 255, clipped.
"""

from __future__ import annotations

import numpy as np
from PIL import Image
from pydicom.pixels.processing import apply_color_lut

from medvlm_probe.cohort import grey_levels
from medvlm_probe.cohort.dicom_display import DEFAULT_RENDERING, Rendering, grey_table
from medvlm_probe.cohort.dicom_header import PALETTE_ATTRIBUTES, DicomHeader, read_attributes, read_dicom_header
from medvlm_probe.cohort.dicom_pixels import Cells, stored_cells
from medvlm_probe.cohort.image_headers import ImageHeader
from medvlm_probe.cohort.png_recipe import MAX_PIXELS, check_size, merged
from medvlm_probe.errors import ImageError

__all__ = ["Rendering", "checked_header", "decode", "read_attributes"]

_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_PALETTE = "PALETTE COLOR"


def checked_header(data: bytes, max_pixels: int = MAX_PIXELS) -> ImageHeader:
    """Return the header of a DICOM file that the recipe accepts; raises ImageError."""
    header = _checked(data, max_pixels)
    return ImageHeader("DICOM", header.columns, header.rows, header.bits_stored, header.samples)


def decode(data: bytes, max_pixels: int = MAX_PIXELS, rendering: Rendering = DEFAULT_RENDERING) -> Image.Image:
    """Return the image in mode "L" or "RGB", 8 bit, at its stored width and height.

    Raises:
        ImageError: the file is not usable; `reason` is a key of `images.REASONS`. No message tells of the patient.
    """
    header = _checked(data, max_pixels)
    cells = stored_cells(data, header)
    if header.photometric == _PALETTE:
        return _with_palette(cells, header)
    if header.samples == 3:
        greys = (cells >> max(header.bits_stored - 8, 0)).astype(np.uint8)
        return merged(tuple(Image.fromarray(np.ascontiguousarray(greys[..., channel])) for channel in range(3)))
    table = grey_table(header, rendering, lambda: grey_levels.histogram(cells, 2**header.bits_allocated))
    return Image.fromarray(grey_levels.look_up(table, cells))


def _checked(data: bytes, max_pixels: int) -> DicomHeader:
    header = read_dicom_header(data)
    check_size(header.columns, header.rows, max_pixels)
    samples = 3 if header.photometric in _COLOUR else 1
    if header.photometric not in (*_GREY, *_COLOUR, _PALETTE):
        raise ImageError(
            "unsupported_format", "The photometric interpretation is not read; grey, RGB, YBR and palette are."
        )
    if header.samples != samples:
        raise ImageError(
            "corrupt",
            f"The DICOM header gives {header.samples} channels, its photometric interpretation {samples}.",
        )
    if samples == 3 and (header.bits_stored < 8 or header.signed):
        raise ImageError("unsupported_format", "Colour pixels of fewer than 8 bits or with a sign are not read.")
    return header


def _with_palette(cells: Cells, header: DicomHeader) -> Image.Image:
    if any(name not in header.attributes for name in PALETTE_ATTRIBUTES):
        raise ImageError("unsupported_format", "The DICOM file's palette is segmented or missing.")
    codes = np.arange(2**header.bits_allocated, dtype=cells.dtype).reshape(1, -1) & (2**header.bits_stored - 1)
    try:
        palette = apply_color_lut(codes, header.attributes)[0]
    except Exception as error:  # whatever pydicom makes of tables that are none
        raise ImageError("corrupt", f"The DICOM file's palette cannot be read ({type(error).__name__}).") from error
    high_bytes = (palette >> 8 * (palette.itemsize - 1)).astype(np.uint8)
    tables = (np.ascontiguousarray(high_bytes[:, channel]) for channel in range(3))
    return merged(tuple(Image.fromarray(grey_levels.look_up(table, cells)) for table in tables))
