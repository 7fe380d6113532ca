"""TIFF in the recipe png/v1: every layout written by hand or by Pillow becomes its pixels, and the rest a reason."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from medvlm_probe.cohort.images import REASONS
from medvlm_probe.cohort.png_recipe import checked_header, decode
from medvlm_probe.errors import ImageError

RNG = np.random.default_rng(8)
GREY = RNG.integers(0, 256, (20, 31), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (20, 31)).astype(np.uint16)
COLOUR = RNG.integers(0, 256, (20, 31, 3), dtype=np.uint8)


def by_pillow(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "TIFF", **options)
    return buffer.getvalue()


def by_hand(samples: np.ndarray[Any, Any], bits: int, photometric: int, order: str = "<", **tags: Any) -> bytes:
    """Write an uncompressed TIFF of one strip; `tags` are `t274=6` and replace what is written by default."""
    height, width = samples.shape[:2]
    if bits >= 8:
        data = samples.astype(f"{order}u{bits // 8}").tobytes()
    else:
        digits = (samples[..., None] >> np.arange(bits - 1, -1, -1)) & 1
        data = b"".join(np.packbits(row.reshape(-1).astype(np.uint8)).tobytes() for row in digits)
    channels = 1 if samples.ndim == 2 else samples.shape[2]
    entries: dict[int, tuple[int, ...]] = {
        256: (width,),
        257: (height,),
        258: (bits,) * channels,
        259: (1,),
        262: (photometric,),
        273: (8,),
        277: (channels,),
        278: (height,),
        279: (len(data),),
        284: (1,),
    }
    entries |= {int(name[1:]): value if isinstance(value, tuple) else (value,) for name, value in tags.items()}
    start = 8 + len(data) + len(data) % 2
    extra_start = start + 2 + 12 * len(entries) + 4
    directory, extra = struct.pack(order + "H", len(entries)), b""
    for tag in sorted(entries):
        values = entries[tag]
        size, code, kind = (4, "I", 4) if max(values) > 65535 or tag in (273, 279) else (2, "H", 3)
        packed = struct.pack(f"{order}{len(values)}{code}", *values)
        if size * len(values) > 4:
            packed, extra = struct.pack(order + "I", extra_start + len(extra)), extra + packed
        directory += struct.pack(order + "HHI", tag, kind, len(values)) + packed.ljust(4, b"\0")
    signature = b"II*\0" if order == "<" else b"MM\0*"
    return (signature + struct.pack(order + "I", start) + data).ljust(start, b"\0") + directory + b"\0" * 4 + extra


def assert_decodes_to(data: bytes, expected: np.ndarray[Any, Any]) -> None:
    image = decode(data)
    assert image.mode == ("L" if expected.ndim == 2 else "RGB")
    np.testing.assert_array_equal(np.asarray(image), expected)


def reason_of(data: bytes, **options: Any) -> str:
    with pytest.raises(ImageError) as caught:
        decode(data, **options)
    assert caught.value.reason in REASONS
    return caught.value.reason


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_grey_and_grey_whose_0_is_white(bits: int, order: str) -> None:
    samples = RNG.integers(0, 2**bits, (20, 31))
    samples[0, :2] = 0, 2**bits - 1
    shown = samples >> 8 if bits == 16 else samples * (255 // (2**bits - 1))
    assert_decodes_to(by_hand(samples, bits, 1, order), shown.astype(np.uint8))
    assert_decodes_to(by_hand(samples, bits, 0, order), (255 - shown).astype(np.uint8))


@pytest.mark.parametrize("order", ["<", ">"])
def test_colour_and_palette(order: str) -> None:
    assert_decodes_to(by_hand(COLOUR, 8, 2, order), COLOUR)
    assert_decodes_to(by_hand(np.dstack([GREY] * 3), 8, 2, order), GREY)
    deep = RNG.integers(0, 65536, (20, 31, 3))
    assert_decodes_to(by_hand(deep, 16, 2, order), (deep >> 8).astype(np.uint8))
    palette = RNG.integers(0, 256, (3, 256))
    flat = tuple((palette * 257).ravel().tolist())
    assert_decodes_to(by_hand(GREY, 8, 3, order, t320=flat), palette.T[GREY].astype(np.uint8))


def test_transparency_is_composed_on_black() -> None:
    alpha = RNG.integers(0, 256, (20, 31), dtype=np.uint8)
    on_black = np.floor(COLOUR * (alpha[..., None] / 255.0) + 0.5).astype(np.uint8)
    assert_decodes_to(by_hand(np.dstack([COLOUR, alpha]), 8, 2, t338=2), on_black)
    grey_on_black = np.floor(GREY * (alpha / 255.0) + 0.5).astype(np.uint8)
    assert_decodes_to(by_hand(np.dstack([GREY, alpha]), 8, 1, t338=2), grey_on_black)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits"])
def test_compressions_without_loss(compression: str | None) -> None:
    for samples in (GREY, COLOUR, DEEP):
        data = by_pillow(Image.fromarray(samples), compression=compression)
        assert_decodes_to(data, (samples >> 8).astype(np.uint8) if samples is DEEP else samples)


def test_jpeg_within_tiff() -> None:
    smooth = np.add.outer(np.arange(40), np.arange(60)).astype(np.uint8)
    for samples in (smooth, np.dstack([smooth, smooth[::-1], smooth[:, ::-1]])):
        data = by_pillow(Image.fromarray(samples), compression="jpeg", quality=95)
        assert_decodes_to(data, np.asarray(Image.open(io.BytesIO(data)).convert("L" if samples.ndim == 2 else "RGB")))


def test_tiles() -> None:
    whole = RNG.integers(0, 256, (32, 48), dtype=np.uint8)
    tiles = b"".join(whole[row : row + 16, column : column + 16].tobytes() for row in (0, 16) for column in (0, 16, 32))
    offsets, lengths = tuple(range(8, 8 + 6 * 256, 256)), (256,) * 6
    data = bytearray(by_hand(whole, 8, 1, t322=16, t323=16, t324=offsets, t325=lengths))
    data[8 : 8 + len(tiles)] = tiles
    # Strips and tiles exclude each other: the entries of strips are made private ones.
    for tag in (273, 278, 279):
        position = bytes(data).index(struct.pack("<HH", tag, 4 if tag != 278 else 3), 8 + len(tiles))
        data[position : position + 2] = struct.pack("<H", tag + 65000 - 273)
    assert_decodes_to(bytes(data), whole)
    huge = by_hand(whole, 8, 1, t322=60_000, t323=60_000, t324=8, t325=256)
    assert reason_of(huge) == "unsupported_format"


def test_orientation_is_not_applied() -> None:
    for orientation in range(1, 9):
        assert_decodes_to(by_hand(GREY, 8, 1, t274=orientation), GREY)


def test_12_bits_stored_unscaled_in_16_are_refused_in_both_polarities() -> None:
    dark = RNG.integers(0, 4096, (20, 31))
    assert reason_of(by_hand(dark, 16, 1)) == reason_of(by_hand(dark, 16, 0)) == "dark_16_bit"


def test_percentiles_stretch_the_stored_values() -> None:
    low, high = np.percentile(DEEP, (2, 98), method="inverted_cdf")
    exact = np.clip((DEEP - float(low)) / (high - low), 0, 1) * 255
    for photometric, expected in ((1, exact), (0, 255 - exact)):
        found = np.asarray(decode(by_hand(DEEP, 16, photometric), percentiles=(2, 98)))
        np.testing.assert_allclose(found, expected, atol=0.5 + 1e-6)
    dark = decode(by_hand(DEEP >> 4, 16, 1), percentiles=(2, 98))
    assert dark.getextrema() == (0, 255)
    low, high = np.percentile(GREY, (10, 90), method="inverted_cdf")
    found = np.asarray(decode(by_pillow(Image.fromarray(GREY)), percentiles=(10, 90)))
    np.testing.assert_allclose(found, np.clip((GREY - float(low)) / (high - low), 0, 1) * 255, atol=0.5 + 1e-6)
    np.testing.assert_array_equal(np.asarray(decode(by_hand(COLOUR, 8, 2), percentiles=(2, 98))), COLOUR)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (by_pillow(Image.fromarray(GREY), save_all=True, append_images=[Image.fromarray(GREY)]), "several_frames"),
        (by_pillow(Image.fromarray(GREY.astype(np.float32))), "unsupported_format"),
        (by_pillow(Image.fromarray(GREY.astype(np.int32))), "unsupported_format"),
        (by_pillow(Image.fromarray(COLOUR).convert("CMYK")), "unsupported_format"),
        (by_pillow(Image.fromarray(COLOUR).convert("LAB")), "unsupported_format"),
        (by_pillow(Image.fromarray(GREY).convert("1"), compression="group4"), "unsupported_format"),
        (by_hand(GREY, 8, 1, t339=2), "unsupported_format"),
        (by_hand(GREY, 8, 1, t266=2), "unsupported_format"),
        (by_hand(GREY, 8, 1, t258=12), "unsupported_format"),
        (by_hand(COLOUR, 8, 6), "unsupported_format"),
        (by_hand(GREY, 8, 1, t256=0), "corrupt"),
        (by_hand(GREY, 8, 1, t257=8), "too_small"),
        (by_hand(GREY, 8, 1, t256=60_000, t257=60_000), "too_many_pixels"),
        (by_hand(GREY, 8, 1, t273=100_000), "truncated"),
        (by_hand(GREY, 8, 1, t279=100_000), "truncated"),
        (by_hand(GREY, 8, 1)[:100], "truncated"),
        (b"II*\0", "truncated"),
        (b"MM\0*\0\0\0\x08", "truncated"),
        (b"II+\0\x08\0\0\0", "unsupported_format"),
    ],
)
def test_reasons(data: bytes, reason: str) -> None:
    assert reason_of(data) == reason


def test_the_header_is_read_without_decoding() -> None:
    header = checked_header(by_hand(DEEP, 16, 0, ">"))
    assert (header.format, header.width, header.height, header.bits, header.channels) == ("TIFF", 31, 20, 16, 1)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_files_decode_or_raise_image_error_and_nothing_else(data: st.DataObject) -> None:
    files = [
        by_hand(GREY, 8, 0),
        by_hand(DEEP, 16, 1, ">"),
        by_pillow(Image.fromarray(COLOUR), compression="tiff_lzw"),
        by_pillow(Image.fromarray(COLOUR), compression="jpeg"),
        by_pillow(Image.fromarray(COLOUR).quantize(7), compression="packbits"),
    ]
    damaged = bytearray(data.draw(st.sampled_from(files)))
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(damaged) - 1))
        if data.draw(st.booleans()):
            damaged[position] = data.draw(st.integers(0, 255))
        else:
            damaged[position : position + data.draw(st.integers(1, 40))] = data.draw(st.binary(max_size=40))
    outcome = ""
    try:
        outcome = decode(bytes(damaged), max_pixels=1_000_000).mode
    except ImageError as error:
        outcome = error.reason
    assert outcome in {"L", "RGB", *REASONS}
