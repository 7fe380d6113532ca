"""The recipe dicom/v1: what stored values become, held against PS3.3 written out and against pydicom's functions."""

from __future__ import annotations

import io
import math
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from dicom_files import COMPRESSIONS, dataset_of, file_of, in_jpeg, little_bytes, native, table_item
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.data.data_manager import DATA_ROOT
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut, convert_color_space, pixel_array

from medvlm_probe.cohort import dicom_pixels
from medvlm_probe.cohort.dicom_recipe import DEFAULT_RENDERING, Rendering, decode
from medvlm_probe.cohort.images import REASONS
from medvlm_probe.cohort.phantom import SITES, Phantom, draw, sample_cases
from medvlm_probe.cohort.recipes import RECIPES, recipe_named
from medvlm_probe.cohort.recipes import decode as decode_by
from medvlm_probe.errors import ImageError

RNG = np.random.default_rng(5)
TWELVE = RNG.integers(0, 4096, (20, 31), dtype=np.uint16)
WINDOW = {"WindowCenter": 2000, "WindowWidth": 3000}
LIBJPEG = pytest.mark.skipif(find_spec("libjpeg") is None, reason="needs the plug-ins of the extra dicom")
LOSSLESS = [pytest.param(name, marks=LIBJPEG) if name == "JPEG lossless" else name for name in COMPRESSIONS]
BUNDLED = [path for path in sorted(Path(DATA_ROOT).rglob("*")) if path.is_file() and path.suffix != ".pyc"]


def greys(data: bytes, rendering: Rendering = DEFAULT_RENDERING) -> np.ndarray[Any, Any]:
    image = decode(data, rendering=rendering)
    assert image.mode == "L"
    return np.asarray(image)


def reason_of(data: bytes, **options: Any) -> str:
    with pytest.raises(ImageError) as caught:
        decode(data, **options)
    assert caught.value.reason in REASONS
    assert "Doe" not in str(caught.value)
    return caught.value.reason


def linear(values: np.ndarray[Any, Any], centre: float, width: float) -> np.ndarray[Any, Any]:
    """PS3.3 C.11.2.1.2.1, word for word, value by value; 0 to 255, not rounded."""

    def shown(x: float) -> float:
        if x <= centre - 0.5 - (width - 1) / 2:
            return 0
        if x > centre - 0.5 + (width - 1) / 2:
            return 255
        return ((x - (centre - 0.5)) / (width - 1) + 0.5) * 255

    return np.vectorize(shown, otypes=[float])(values)


def stretched(values: np.ndarray[Any, Any], low: float, high: float) -> np.ndarray[Any, Any]:
    return np.clip((values - low) / (high - low), 0, 1) * 255


def assert_shows(found: np.ndarray[Any, Any], exact: np.ndarray[Any, Any]) -> None:
    np.testing.assert_allclose(found, exact, rtol=0, atol=0.5 + 1e-6)


def by_pydicom(path: Path) -> np.ndarray[Any, Any]:
    """The picture by pydicom's own functions, its output range brought to 0 to 255."""
    dataset = pydicom.dcmread(path)
    if dataset.SamplesPerPixel == 3:
        colour = pixel_array(dataset)
        return (colour >> 8 * (colour.itemsize - 1)).astype(np.uint8)
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        colour = apply_color_lut(dataset.pixel_array, dataset)
        return (colour >> 8 * (colour.itemsize - 1)).astype(np.uint8)
    signed, bits = dataset.PixelRepresentation, dataset.BitsStored
    ends = np.array([-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] if signed else [0, 2**bits - 1])
    low, high = ends * float(dataset.get("RescaleSlope") or 1) + float(dataset.get("RescaleIntercept") or 0)
    values = apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset)
    shown = np.clip((values - low) / (high - low), 0, 1) * 255
    return 255 - shown if dataset.PhotometricInterpretation == "MONOCHROME1" else shown


@LIBJPEG
def test_every_file_bundled_with_pydicom_gives_its_pixels_or_a_reason() -> None:
    shown, refused = 0, {}
    for path in BUNDLED:
        data = path.read_bytes()
        try:
            image = decode_by(data, recipe_named("dicom/v1"), 100_000_000)
        except ImageError as error:
            refused[path.name] = error.reason
            continue
        shown += 1
        found = np.asarray(image).astype(float)
        expected = by_pydicom(path).astype(float)
        if expected.ndim == 3 and found.ndim == 2:
            found = np.dstack([found] * 3)
        # Lossy colour JPEGs differ by the decoder that pydicom happens to take first.
        np.testing.assert_allclose(found, expected, atol=2 if "jpeg" in path.name or "SC_rgb" in path.name else 0.51)
    assert set(refused.values()) <= set(REASONS)
    assert shown >= 70
    assert len(refused) >= 100
    known = {
        "CT_small.dcm": "no_window",
        "JPEG-lossy.dcm": "decode_failed",
        "JPEG2000-embedded-sequence-delimiter.dcm": "corrupt",
        "JPEGLSNearLossless_16.dcm": "too_small",
        "MR_truncated.dcm": "truncated",
        "SC_rgb_jpeg.dcm": "corrupt",
        "SC_rgb_rle_2frame.dcm": "several_frames",
        "SC_rgb_rle_32bit.dcm": "unsupported_format",
        "badVR.dcm": "corrupt",
        "examples_ybr_color.dcm": "several_frames",
        "image_dfl.dcm": "unsupported_format",
        "liver_1frame.dcm": "unsupported_format",
        "meta_missing_tsyntax.dcm": "corrupt",
        "ExplVR_LitEndNoMeta.dcm": "no_preamble",
        "reportsi.dcm": "no_pixels",
        "rtplan.dcm": "no_pixels",
        "rtplan_truncated.dcm": "truncated",
        "waveform_ecg.dcm": "no_pixels",
        "MR_small_padded.dcm": "corrupt",
    }
    assert {name: refused.get(name) for name in known} == known


def test_the_same_film_marked_monochrome1_is_inverted(shared_dir: Path) -> None:
    first, second = (path.read_bytes() for path in sorted((shared_dir / "real_cxr/dicom").glob("*.dcm")))
    upright, fake = greys(first), greys(second)
    np.testing.assert_array_equal(upright, 255 - fake)
    # 8 bits without a window come out as the JPEG within has them.
    frame = pydicom.encaps.get_frame(pydicom.dcmread(shared_dir / "real_cxr/dicom/Fake_MONOHR1.dcm").PixelData, 0)
    np.testing.assert_array_equal(255 - fake, np.asarray(Image.open(io.BytesIO(frame))))


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return draw(sample_cases("reference", 1, 4, "balanced")[0], 96)


@pytest.mark.parametrize("compression", LOSSLESS)
@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_phantoms_of_every_depth_and_compression_look_like_the_phantom(
    phantom: Phantom, compression: str, bits: int
) -> None:
    cells = (phantom.raw.astype(np.int64) * (2**bits - 1) // 4095).astype(np.uint8 if bits == 8 else np.uint16)
    scale = (2**bits - 1) / 4095
    centre, width = SITES["reference"].window
    window = {"WindowCenter": 4095 * scale * centre + 0.5, "WindowWidth": 4095 * scale * width + 1}
    window = {name: f"{value:.8g}" for name, value in window.items()}
    encode = COMPRESSIONS[compression]
    if compression == "JPEG 2000" and bits in (10, 12):
        pytest.importorskip("openjpeg", reason="Pillow writes JPEG 2000 of 8 and 16 bits only")
    found = greys(encode(cells, bits, **window))
    np.testing.assert_array_equal(found, greys(native(cells, bits, **window)))
    assert np.corrcoef(found.ravel(), phantom.pixels.ravel())[0, 1] > 0.999
    assert np.abs(found.astype(int) - phantom.pixels).max() <= (4 if bits == 8 else 2)
    inverse = encode(cells.max() - cells, bits, PhotometricInterpretation="MONOCHROME1")
    assert np.corrcoef(greys(inverse).ravel(), cells.ravel())[0, 1] > 0.9999


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_phantoms_with_a_sign_look_like_the_phantom(phantom: Phantom, bits: int) -> None:
    raw = phantom.raw.astype(np.int64) * (2**bits - 1) // 4095
    half = 2 ** (bits - 1)
    window = {"WindowCenter": half * 0.9, "WindowWidth": half * 1.4}
    unsigned = greys(native(raw.astype(np.uint16), bits, **window))
    signed = (raw - half).astype(np.int16)
    np.testing.assert_array_equal(
        greys(native(signed, bits, RescaleIntercept=half, RescaleSlope=1, **window)), unsigned
    )
    for compression in ("RLE", "big endian", "implicit"):
        found = greys(COMPRESSIONS[compression](signed, bits, RescaleIntercept=half, RescaleSlope=1, **window))
        np.testing.assert_array_equal(found, unsigned)


@LIBJPEG
def test_a_sign_within_lossless_jpeg() -> None:
    """The code stream knows no sign: it holds the bits stored of the two's complement."""
    signed = (TWELVE.astype(int) - 2048).astype(np.int16)
    bits = (signed.view(np.uint16) & 4095).astype(np.uint16)
    found = greys(COMPRESSIONS["JPEG lossless"](bits, 12, PixelRepresentation=1, **WINDOW))
    np.testing.assert_array_equal(found, greys(native(signed, 12, **WINDOW)))


def test_a_jpeg_baseline_phantom_looks_like_the_phantom(phantom: Phantom) -> None:
    found = greys(in_jpeg(phantom.pixels, 8))
    assert np.corrcoef(found.ravel(), phantom.pixels.ravel())[0, 1] > 0.999
    disguised = greys(in_jpeg(np.dstack([phantom.pixels] * 3), 8, PhotometricInterpretation="YBR_FULL_422"))
    assert np.corrcoef(disguised.ravel(), phantom.pixels.ravel())[0, 1] > 0.999


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_values_become_what_the_standard_says(data: st.DataObject) -> None:
    bits = data.draw(st.integers(4, 16), "bits")
    signed, inverted = data.draw(st.booleans(), "signed"), data.draw(st.booleans(), "inverted")
    slope = data.draw(st.sampled_from([1.0, 0.5, 2.25, -1.0]), "slope")
    intercept = data.draw(st.sampled_from([0.0, -1024.0, 37.5]), "intercept")
    centre, width = data.draw(st.integers(-500, 5000), "centre"), data.draw(st.integers(1, 6000), "width")
    lowest = -(2 ** (bits - 1)) if signed else 0
    stored = np.random.default_rng(bits).integers(lowest, lowest + 2**bits, (16, 17))
    cells = stored.astype(np.int16 if signed else np.uint16)
    garbage = np.random.default_rng(1).integers(0, 2**16, (16, 17)).astype(np.uint16) << bits
    dirty = ((cells.view(np.uint16) & (2**bits - 1)) | (garbage & 0xFFFF)).astype(np.uint16).view(cells.dtype)
    fields = {
        "RescaleSlope": slope,
        "RescaleIntercept": intercept,
        "PhotometricInterpretation": "MONOCHROME1" if inverted else "MONOCHROME2",
    }
    expected = linear(stored * slope + intercept, centre, width)
    expected = 255 - expected if inverted else expected
    for values in (cells, dirty):
        found = greys(native(values, bits, WindowCenter=centre, WindowWidth=width, **fields))
        assert_shows(found, expected)
    ends = np.sort((np.array([lowest, lowest + 2**bits - 1])) * slope + intercept)
    expected = stretched(stored * slope + intercept, *ends)
    found = greys(native(cells, bits, **fields), Rendering(window=0))
    assert_shows(found, 255 - expected if inverted else expected)


def test_window_functions() -> None:
    cells = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    x = cells.astype(float)
    exact = np.clip((x - 2000) / 1500 + 0.5, 0, 1) * 255
    found = greys(native(cells, 12, WindowCenter=2000, WindowWidth=1500, VOILUTFunction="LINEAR_EXACT"))
    assert_shows(found, exact)
    sigmoid = 255 / (1 + np.exp(-4 * (x - 2000) / 1500))
    found = greys(native(cells, 12, WindowCenter=2000, WindowWidth=1500, VOILUTFunction="SIGMOID"))
    assert_shows(found, sigmoid)
    np.testing.assert_array_equal(greys(native(cells, 12, WindowCenter=50, WindowWidth=1)), np.where(x > 49.5, 255, 0))
    assert reason_of(native(cells, 12, **WINDOW, VOILUTFunction="CUBIC")) == "corrupt"


def test_the_first_of_several_windows_and_the_second() -> None:
    several = native(TWELVE, 12, WindowCenter=[2000, 1000], WindowWidth=[3000, 500])
    assert_shows(greys(several), linear(TWELVE, 2000, 3000))
    assert_shows(greys(several, Rendering(window=2)), linear(TWELVE, 1000, 500))
    assert_shows(greys(native(TWELVE, 12, **WINDOW), Rendering(window=2)), linear(TWELVE, 2000, 3000))


def test_a_window_that_none_can_be_counts_as_none() -> None:
    full = stretched(TWELVE.astype(float), 0, 4095)
    assert_shows(greys(native(TWELVE, 12, WindowCenter=0, WindowWidth=0)), full)
    assert_shows(greys(native(TWELVE, 12, WindowCenter="", WindowWidth="")), full)
    first_is_none = native(TWELVE, 12, WindowCenter=[0, 1000], WindowWidth=[0, 500])
    assert_shows(greys(first_is_none), linear(TWELVE, 1000, 500))


def test_voi_and_modality_tables() -> None:
    entries = (np.sqrt(np.linspace(0, 1, 1000)) * 4095).astype(np.uint16)
    expected = np.floor(entries[np.clip(TWELVE.astype(int) - 500, 0, 999)] / 4095 * 255 + 0.5)
    for declared in (12, 16):  # many files declare 16 bits for entries of 12
        data = native(TWELVE, 12, VOILUTSequence=[table_item(entries, 500, declared)], **WINDOW)
        np.testing.assert_array_equal(greys(data), expected)
        np.testing.assert_array_equal(greys(data, Rendering(window=2)), expected)
    dataset = pydicom.dcmread(io.BytesIO(data))
    np.testing.assert_array_equal(np.floor(apply_voi_lut(TWELVE, dataset) / 4095 * 255 + 0.5), expected)
    modality = RNG.integers(0, 65536, 4096).astype(np.uint16)
    data = native(TWELVE, 12, ModalityLUTSequence=[table_item(modality, 0, 16)], WindowCenter=30000, WindowWidth=40000)
    assert_shows(greys(data), linear(modality[TWELVE].astype(float), 30000, 40000))
    signed = (TWELVE.astype(int) - 2048).astype(np.int16)
    data = native(signed, 12, VOILUTSequence=[table_item(entries, -1548, 12, signed=True)])
    np.testing.assert_array_equal(greys(data), expected)
    wrong = table_item(entries, 0, 12)
    wrong.LUTDescriptor = [2000, 0, 12]
    assert reason_of(native(TWELVE, 12, VOILUTSequence=[wrong])) == "corrupt"
    assert reason_of(native(TWELVE, 12, VOILUTSequence=[table_item(entries * 0, 0, 12)])) == "corrupt"


def test_tables_of_enhanced_objects_lie_in_functional_groups() -> None:
    window, rescale, shared = Dataset(), Dataset(), Dataset()
    window.WindowCenter, window.WindowWidth = 2000, 3000
    rescale.RescaleSlope, rescale.RescaleIntercept = 2, -100
    shared.FrameVOILUTSequence, shared.PixelValueTransformationSequence = [window], [rescale]
    data = native(TWELVE, 12, SharedFunctionalGroupsSequence=[shared], NumberOfFrames=1)
    assert_shows(greys(data), linear(TWELVE * 2.0 - 100, 2000, 3000))


def test_polarity_is_inverted_once() -> None:
    upright = greys(native(TWELVE, 12, **WINDOW))
    for fields in (
        {"PhotometricInterpretation": "MONOCHROME1"},
        {"PresentationLUTShape": "INVERSE"},
        {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"},
    ):
        np.testing.assert_array_equal(greys(native(TWELVE, 12, **WINDOW, **fields)), 255 - upright)
    identity = native(TWELVE, 12, **WINDOW, PresentationLUTShape="IDENTITY")
    np.testing.assert_array_equal(greys(identity), upright)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_and_takes_no_part_in_percentiles(photometric: str) -> None:
    cells = RNG.integers(1000, 3000, (20, 31), dtype=np.uint16)
    padded = np.pad(cells, 5, constant_values=4095)
    fields = {"PhotometricInterpretation": photometric}
    for rendering in (Rendering(), Rendering(percentiles=(2, 98))):
        shown = greys(native(padded, 12, PixelPaddingValue=4095, **WINDOW, **fields), rendering)
        np.testing.assert_array_equal(shown[5:-5, 5:-5], greys(native(cells, 12, **WINDOW, **fields), rendering))
        assert shown[:5].max() == shown[:, :5].max() == shown[-5:].max() == shown[:, -5:].max() == 0
    ranged = native(padded, 12, PixelPaddingValue=4095, PixelPaddingRangeLimit=2500, **WINDOW, **fields)
    assert (greys(ranged)[5:-5, 5:-5][cells >= 2500] == 0).all()
    signed = np.where(padded == 4095, -2000, padded.astype(int)).astype(np.int16)
    for value in (-2000, 63536):  # the same bits, written as signed and as unsigned
        dataset = dataset_of(signed, 16, **WINDOW, **fields)
        dataset.add_new("PixelPaddingValue", "SS" if value < 0 else "US", value)
        shown = greys(file_of(dataset, little_bytes(signed)))
        assert shown[:5].max() == 0


def test_percentiles_are_of_the_image_itself() -> None:
    low, high = np.percentile(TWELVE, (2, 98), method="inverted_cdf")
    found = greys(native(TWELVE, 12, **WINDOW), Rendering(percentiles=(2, 98)))
    assert_shows(found, stretched(TWELVE.astype(float), low, high))
    signed = (TWELVE.astype(int) - 2048).astype(np.int16)
    np.testing.assert_array_equal(greys(native(signed, 12), Rendering(percentiles=(2, 98))), found)
    flat = np.full((20, 20), 700, dtype=np.uint16)
    assert greys(native(flat, 12), Rendering(percentiles=(2, 98))).max() == 0


def test_the_full_range_does_not_depend_on_outliers_and_is_refused_where_nothing_would_be_seen() -> None:
    cells = RNG.integers(0, 2000, (40, 40), dtype=np.uint16)
    hot = cells.copy()
    hot[3, 3] = 4095
    assert (greys(native(cells, 12)) != greys(native(hot, 12))).sum() == 1
    narrow = RNG.integers(500, 700, (40, 40), dtype=np.uint16)
    narrow[3, 3] = 4095
    assert reason_of(native(narrow, 12)) == "no_window"
    assert greys(native(narrow, 12), Rendering(percentiles=(0.5, 99.5))).max() == 255
    assert greys(native(narrow, 12, WindowCenter=600, WindowWidth=300)).max() == 255
    assert greys(native((narrow >> 7).astype(np.uint8), 8)).shape == (40, 40)


def test_every_recipe_reads_dicom_or_says_how() -> None:
    data = native(TWELVE, 12, **WINDOW)
    for name, recipe in RECIPES.items():
        if name.startswith("dicom/v1"):
            assert decode_by(data, recipe, 10_000).mode == "L"
        else:
            with pytest.raises(ImageError, match="recipe: dicom/v1") as caught:
                decode_by(data, recipe, 10_000)
            assert caught.value.reason == "unsupported_format"


def test_colour_in_every_layout() -> None:
    colour = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(decode(native(colour, 8))), colour)
    planes = np.ascontiguousarray(np.moveaxis(colour, 2, 0))
    planar = file_of(dataset_of(colour, 8, PlanarConfiguration=1), planes.tobytes())
    np.testing.assert_array_equal(np.asarray(decode(planar)), colour)
    deep = RNG.integers(0, 65536, (20, 30, 3), dtype=np.uint16)
    np.testing.assert_array_equal(np.asarray(decode(native(deep, 16))), deep >> 8)
    ybr = native(colour, 8, PhotometricInterpretation="YBR_FULL")
    np.testing.assert_array_equal(np.asarray(decode(ybr)), convert_color_space(colour, "YBR_FULL", "RGB"))
    grey = np.dstack([colour[..., 0]] * 3)
    np.testing.assert_array_equal(greys(native(grey, 8)), colour[..., 0])
    assert reason_of(native(colour, 8, PhotometricInterpretation="HSV")) == "unsupported_format"
    assert reason_of(native(colour, 8, PhotometricInterpretation="MONOCHROME2")) == "corrupt"


def test_palettes() -> None:
    index = RNG.integers(0, 256, (20, 30), dtype=np.uint8)
    palette = RNG.integers(0, 65536, (256, 3)).astype(np.uint16)
    tables = {}
    for channel, colour in enumerate(("Red", "Green", "Blue")):
        tables[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        tables[f"{colour}PaletteColorLookupTableData"] = palette[:, channel].astype("<u2").tobytes()
    data = native(index, 8, PhotometricInterpretation="PALETTE COLOR", **tables)
    np.testing.assert_array_equal(np.asarray(decode(data)), palette[index] >> 8)
    assert reason_of(native(index, 8, PhotometricInterpretation="PALETTE COLOR")) == "unsupported_format"


def test_a_missing_plug_in_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    data = COMPRESSIONS["JPEG lossless"](TWELVE, 12)
    monkeypatch.setattr(dicom_pixels, "available_plug_ins", lambda syntax: ("pillow",))
    with pytest.raises(ImageError, match=r"pip install 'medvlm-probe\[dicom\]'") as caught:
        decode(data)
    assert caught.value.reason == "no_decoder"
    assert greys(COMPRESSIONS["JPEG 2000"](TWELVE << 4, 16)).shape == TWELVE.shape


@LIBJPEG
def test_the_second_decoder_reads_what_the_first_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    path = next(path for path in BUNDLED if path.name == "GDCMJ2K_TextGBR.dcm")
    assert decode(path.read_bytes()).mode == "RGB"
    monkeypatch.setattr(dicom_pixels, "available_plug_ins", lambda syntax: ("pillow",))
    assert reason_of(path.read_bytes()) == "decode_failed"


def test_numbers_that_are_none_are_refused() -> None:
    assert reason_of(native(TWELVE, 12, RescaleSlope=0, RescaleIntercept=0)) == "corrupt"
    assert reason_of(native(TWELVE, 12, Rows=0)) == "corrupt"
    assert reason_of(native(TWELVE, 12, Rows=None)) == "corrupt"
    assert reason_of(native(TWELVE, 12, BitsStored=17)) == "corrupt"
    assert reason_of(native(TWELVE, 12, HighBit=5)) == "corrupt"
    assert reason_of(native(TWELVE, 12, BitsAllocated=32)) == "unsupported_format"
    assert reason_of(native(TWELVE, 12, NumberOfFrames=3)) == "several_frames"
    dataset = dataset_of(TWELVE, 12)
    dataset.add_new("RescaleSlope", "UN", b"nan ")
    assert reason_of(file_of(dataset, little_bytes(TWELVE))) == "corrupt"


def test_high_bits_that_are_not_the_lowest() -> None:
    shifted = (TWELVE << 4) | RNG.integers(0, 16, TWELVE.shape).astype(np.uint16)
    np.testing.assert_array_equal(greys(native(shifted, 12, HighBit=15, **WINDOW)), greys(native(TWELVE, 12, **WINDOW)))


def test_compressed_values_beyond_the_bits_stored_are_refused() -> None:
    assert reason_of(COMPRESSIONS["JPEG 2000"](TWELVE << 4, 12)) == "corrupt"


def test_sizes_are_checked_before_decoding() -> None:
    assert reason_of(native(TWELVE, 12, Rows=60_000, Columns=60_000)) == "too_many_pixels"
    assert reason_of(native(TWELVE, 12), max_pixels=20 * 31 - 1) == "too_many_pixels"
    assert decode(native(TWELVE, 12, **WINDOW), max_pixels=20 * 31).size == (31, 20)
    assert reason_of(native(TWELVE, 12, Rows=21)) == "truncated"
    assert reason_of(native(TWELVE, 12, Rows=19)) == "corrupt"
    assert reason_of(native(TWELVE, 12, Columns=30)) == "corrupt"
    assert reason_of(native(TWELVE[:8], 12)) == "too_small"
    for compression in ("RLE", "JPEG 2000", "JPEG lossless"):
        assert reason_of(COMPRESSIONS[compression](TWELVE, 16, Rows=4000, Columns=4000)) in ("corrupt", "decode_failed")


@pytest.mark.parametrize("compression", LOSSLESS)
def test_a_file_cut_anywhere_is_refused(compression: str) -> None:
    data = COMPRESSIONS[compression](TWELVE << 4, 16)
    for share in (0.9, 0.7, 0.5, 0.3, 0.2, 0.1, 0.02):
        assert reason_of(data[: math.floor(len(data) * share)]) in ("truncated", "corrupt", "not_an_image", "no_pixels")
    assert reason_of(data[:-40]) == "truncated"


@settings(max_examples=250, deadline=None)
@given(st.data())
def test_damaged_files_decode_or_raise_image_error_and_nothing_else(data: st.DataObject) -> None:
    compression = data.draw(st.sampled_from(sorted(COMPRESSIONS)))
    group = Dataset()
    group.FrameVOILUTSequence = [Dataset()]
    tables = {"VOILUTSequence": [table_item(np.arange(40), 5, 16)], "SharedFunctionalGroupsSequence": [group]}
    damaged = bytearray(COMPRESSIONS[compression](TWELVE[:16, :16] << 4, 16, **tables, **WINDOW, PixelPaddingValue=9))
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(damaged) - 1))
        if data.draw(st.booleans()):
            damaged[position] = data.draw(st.integers(0, 255))
        else:
            damaged[position : position + data.draw(st.integers(1, 40))] = data.draw(st.binary(max_size=40))
    try:
        assert decode_by(bytes(damaged), recipe_named("dicom/v1"), 1_000_000).mode in ("L", "RGB")
    except ImageError as error:
        assert error.reason in REASONS  # noqa: PT017
        assert "Doe" not in str(error)  # noqa: PT017


def test_several_threads_decode_the_same() -> None:
    files = [encode(TWELVE << 4, 16, **WINDOW) for name, encode in COMPRESSIONS.items() if name != "JPEG lossless"]
    alone = [decode(data).tobytes() for data in files]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda data: decode(data).tobytes(), files * 8))
    assert together == alone * 8
