"""The recipe png/v1 on PNG and JPEG: what each kind becomes, and which files are refused, with what reason."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from medvlm_probe.cohort.images import REASONS
from medvlm_probe.cohort.png_recipe import decode
from medvlm_probe.errors import ImageError

RNG = np.random.default_rng(3)
GREY = RNG.integers(0, 256, (20, 31), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (20, 31, 3), dtype=np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def raw_png(samples: np.ndarray[Any, Any], bits: int, colour: int, *extra: bytes) -> bytes:
    """Encode samples (h, w) or (h, w, channels) by hand, so that the decoder is not checked against itself."""
    height, width = samples.shape[:2]
    flat = samples.reshape(height, -1)
    if bits == 16:
        lines = [row.astype(">u2").tobytes() for row in flat]
    else:
        digits = (flat[..., None] >> np.arange(bits - 1, -1, -1)) & 1
        lines = [np.packbits(row.reshape(-1).astype(np.uint8)).tobytes() for row in digits]
    data = zlib.compress(b"".join(b"\0" + line for line in lines))
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join([chunk(b"IHDR", header), *extra, chunk(b"IDAT", data), chunk(b"IEND", b"")])


def reason_of(data: bytes, **options: Any) -> str:
    with pytest.raises(ImageError) as caught:
        decode(data, **options)
    assert caught.value.reason in REASONS
    return caught.value.reason


def outcome(data: bytes) -> str:
    try:
        return decode(data, max_pixels=1_000_000).mode
    except ImageError as error:
        return error.reason


def assert_decodes_to(data: bytes, expected: np.ndarray[Any, Any]) -> None:
    image = decode(data)
    assert image.mode == ("L" if expected.ndim == 2 else "RGB")
    np.testing.assert_array_equal(np.asarray(image), expected)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_grey_of_up_to_8_bits_fills_the_range(bits: int) -> None:
    samples = RNG.integers(0, 2**bits, (20, 31))
    assert_decodes_to(raw_png(samples, bits, 0), (samples * (255 // (2**bits - 1))).astype(np.uint8))


def test_16_bits_become_8_by_the_high_byte_in_every_mode() -> None:
    grey = RNG.integers(0, 65536, (20, 31))
    grey[0, 0] = 65535
    colour = RNG.integers(0, 65536, (20, 31, 3))
    opaque = np.full((20, 31, 1), 65535)
    assert_decodes_to(raw_png(grey, 16, 0), (grey >> 8).astype(np.uint8))
    assert_decodes_to(raw_png(colour, 16, 2), (colour >> 8).astype(np.uint8))
    assert_decodes_to(raw_png(np.dstack([grey, opaque]), 16, 4), (grey >> 8).astype(np.uint8))
    assert_decodes_to(raw_png(np.concatenate([colour, opaque], axis=2), 16, 6), (colour >> 8).astype(np.uint8))
    assert_decodes_to(raw_png(np.dstack([grey] * 3), 16, 2), (grey >> 8).astype(np.uint8))


@pytest.mark.parametrize("widened", [257, 256])
def test_8_bits_widened_to_16_come_back_exactly(widened: int) -> None:
    assert_decodes_to(raw_png(GREY.astype(np.int64) * widened, 16, 0), GREY)


def test_scaling_does_not_depend_on_the_single_image() -> None:
    dim = RNG.integers(0, 20000, (20, 31))
    dim[0, 0] = 19999
    bright = dim.copy()
    bright[5, 5] = 65535
    first, second = (np.asarray(decode(raw_png(image, 16, 0))) for image in (dim, bright))
    assert (first != second).sum() == 1


def test_significant_bits_do_not_rescale() -> None:
    twelve = RNG.integers(0, 4096, (20, 31)) << 4
    assert_decodes_to(raw_png(twelve, 16, 0, chunk(b"sBIT", b"\x0c")), (twelve >> 8).astype(np.uint8))


def test_12_bits_stored_unscaled_in_16_are_refused() -> None:
    assert reason_of(raw_png(RNG.integers(0, 4096, (20, 31)), 16, 0)) == "dark_16_bit"
    bright = RNG.integers(0, 4097, (20, 31))
    bright[3, 3] = 4096
    assert decode(raw_png(bright, 16, 0)).mode == "L"


def test_palettes_are_expanded() -> None:
    palette = RNG.integers(0, 256, (4, 3), dtype=np.uint8)
    index = RNG.integers(0, 4, (20, 31))
    for bits in (2, 4, 8):
        assert_decodes_to(raw_png(index, bits, 3, chunk(b"PLTE", palette.tobytes())), palette[index])
    greys = np.repeat(np.uint8([[0], [80], [160], [255]]), 3, axis=1)
    assert_decodes_to(raw_png(index, 2, 3, chunk(b"PLTE", greys.tobytes())), greys[index, 0])


def test_transparency_is_composed_on_black() -> None:
    alpha = RNG.integers(0, 256, (20, 31), dtype=np.uint8)

    def on_black(values: np.ndarray[Any, Any], opacity: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return np.floor(values * (opacity / 255.0) + 0.5).astype(np.uint8)

    assert_decodes_to(raw_png(np.dstack([GREY, alpha]), 8, 4), on_black(GREY, alpha))
    assert_decodes_to(raw_png(np.dstack([COLOUR, alpha]), 8, 6), on_black(COLOUR, alpha[..., None]))
    palette = RNG.integers(0, 256, (3, 3), dtype=np.uint8)
    index = RNG.integers(0, 3, (20, 31))
    opacity = np.uint8([0, 128, 255])
    extra = (chunk(b"PLTE", palette.tobytes()), chunk(b"tRNS", opacity.tobytes()))
    assert_decodes_to(raw_png(index, 8, 3, *extra), on_black(palette[index], opacity[index][..., None]))


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_a_transparent_grey_becomes_black(bits: int) -> None:
    samples = RNG.integers(0, 2**bits, (20, 31))
    samples[0, 0], samples[1, 1] = 2**bits - 1, max(1, 2**bits // 2)
    transparent = int(samples[1, 1])
    shown = np.where(samples == transparent, 0, samples)
    expected = shown >> 8 if bits == 16 else shown * (255 // (2**bits - 1))
    data = raw_png(samples, bits, 0, chunk(b"tRNS", struct.pack(">H", transparent)))
    assert_decodes_to(data, expected.astype(np.uint8))


def test_a_transparent_colour_becomes_black() -> None:
    colour = COLOUR.copy()
    colour[4, 4] = (9, 90, 200)
    key = chunk(b"tRNS", struct.pack(">HHH", 9, 90, 200))
    expected = colour.copy()
    expected[4, 4] = 0
    assert_decodes_to(raw_png(colour, 8, 2, key), expected)
    assert reason_of(raw_png(colour.astype(np.int64) * 257, 16, 2, key)) == "unsupported_format"


def test_colour_stays_colour_and_grey_in_disguise_becomes_grey() -> None:
    assert_decodes_to(raw_png(COLOUR, 8, 2), COLOUR)
    assert_decodes_to(raw_png(np.dstack([GREY] * 3), 8, 2), GREY)
    tinted = np.dstack([GREY] * 3)
    tinted[7, 7, 1] ^= 1
    assert_decodes_to(raw_png(tinted, 8, 2), tinted)


def test_jpeg_grey_and_colour() -> None:
    smooth = np.add.outer(np.arange(40), np.arange(60)).astype(np.uint8)
    grey = encoded(Image.fromarray(smooth), "JPEG", quality=95)
    assert_decodes_to(grey, np.asarray(Image.open(io.BytesIO(grey))))
    disguised = encoded(Image.fromarray(np.dstack([smooth] * 3)), "JPEG", quality=95)
    assert decode(disguised).mode == "L"
    colour = encoded(Image.fromarray(COLOUR), "JPEG", quality=95, progressive=True)
    assert_decodes_to(colour, np.asarray(Image.open(io.BytesIO(colour))))


def test_exif_orientation_is_not_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.fromarray(GREY), "JPEG", exif=exif)
    assert decode(data).size == (31, 20)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty_file"),
        (b"<!DOCTYPE html><html>not found</html>", "not_an_image"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "not_an_image"),
        (b"\0" * 128 + b"DICM" + b"\0" * 20, "unsupported_format"),
        (encoded(Image.fromarray(GREY), "GIF"), "unsupported_format"),
        (encoded(Image.fromarray(GREY), "BMP"), "unsupported_format"),
        (encoded(Image.fromarray(COLOUR), "WEBP"), "unsupported_format"),
        (encoded(Image.fromarray(COLOUR).convert("CMYK"), "JPEG"), "unsupported_format"),
        (encoded(Image.fromarray(GREY[:8]), "PNG"), "too_small"),
        (b"\x89PNG\r\n\x1a\n", "truncated"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "truncated"),
        (b"\xff\xd8\xff", "truncated"),
    ],
)
def test_reasons(data: bytes, reason: str) -> None:
    assert reason_of(data) == reason


def test_animated_png_is_refused() -> None:
    frames = [Image.fromarray(GREY), Image.fromarray(GREY[::-1].copy())]
    data = encoded(frames[0], "PNG", save_all=True, append_images=frames[1:])
    assert reason_of(data) == "unsupported_format"


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("tolerant", [False, True])
def test_truncated_files_are_refused_even_where_another_library_asks_pillow_to_be_tolerant(
    kind: str, tolerant: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", tolerant)
    data = encoded(Image.fromarray(np.tile(GREY, (8, 8))), kind)
    for cut in (1, 5, 30, len(data) // 2, len(data) - 40):
        assert reason_of(data[:-cut]) == "truncated"


def test_too_many_pixels_are_refused_before_decoding() -> None:
    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 0, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    assert reason_of(bomb) == "too_many_pixels"
    assert reason_of(raw_png(GREY, 8, 0), max_pixels=20 * 31 - 1) == "too_many_pixels"
    assert decode(raw_png(GREY, 8, 0), max_pixels=20 * 31).size == (31, 20)


def test_pillows_own_limit_neither_warns_nor_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_decodes_to(raw_png(GREY, 8, 0), GREY)


def test_a_flipped_bit_is_found_by_the_checksum() -> None:
    data = bytearray(raw_png(GREY, 8, 0))
    data[60] ^= 4
    assert reason_of(bytes(data)) == "corrupt"


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_files_decode_or_raise_image_error_and_nothing_else(data: st.DataObject) -> None:
    files = [
        raw_png(GREY, 8, 0),
        raw_png(RNG.integers(0, 65536, (20, 31, 3)), 16, 2),
        encoded(Image.fromarray(COLOUR), "JPEG"),
        encoded(Image.fromarray(COLOUR), "JPEG", progressive=True),
        encoded(Image.fromarray(COLOUR).quantize(7), "PNG"),
    ]
    damaged = bytearray(data.draw(st.sampled_from(files)))
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(damaged) - 1))
        if data.draw(st.booleans()):
            damaged[position] = data.draw(st.integers(0, 255))
        else:
            damaged[position : position + data.draw(st.integers(1, 40))] = data.draw(st.binary(max_size=40))
    assert outcome(bytes(damaged)) in {"L", "RGB", *REASONS}


def test_several_threads_decode_the_same() -> None:
    files = [raw_png(RNG.integers(0, 256, (64, 64)), 8, 0) for _ in range(16)]
    alone = [decode(data).tobytes() for data in files]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda data: decode(data).tobytes(), files * 4))
    assert together == alone * 4
