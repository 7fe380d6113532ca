"""Where the time goes between a 5-megapixel file and a model's pixels, and whether threads share it.

    python -m benchmarks.decode [--quick]

Processor milliseconds an image, medians, by format and step: read, hash, check (header, checksums), decompress, to 8
bits (window, high byte), resize (and crop), normalise. Beside them: the resize and normalisation of the same image as
three channels, which must give the same bits; the image out of `--image-cache`, which reads and hashes the original and
decodes 224 pixels; and what a decoder that reduces JPEGs to a half or less would take, which gives other pixels and so
is no part of the recipes. Then the wall milliseconds an image by one thread, by threads and by processes, in turn: how
far decoding in threads is held up by the interpreter's lock. Writes figures/benchmarks/decode.csv and
decode_workers.csv (`--quick`: small images, nothing written).
"""

from __future__ import annotations

import argparse
import hashlib
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin, PngImagePlugin
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import get_encoder
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLosslessSV1

from benchmarks.embed_throughput import write_radiographs
from medvlm_probe.cohort import recipes
from medvlm_probe.cohort.dicom_header import read_dicom_header
from medvlm_probe.cohort.dicom_pixels import stored_cells
from medvlm_probe.cohort.image_headers import check_whole, read_header
from medvlm_probe.cohort.images import FileImages
from medvlm_probe.cohort.png_recipe import MAX_PIXELS
from medvlm_probe.cohort.storage import read_local
from medvlm_probe.embeddings.image_cache import CachedImages
from medvlm_probe.embeddings.threads import available_cores
from medvlm_probe.models.image_transform import EvalTransform, build_transform

FIGURES = Path(__file__).resolve().parents[1] / "figures" / "benchmarks"
RECIPE = recipes.recipe_named(recipes.DICOM)
BITS = 12
CR_IMAGE = "1.2.840.10008.5.1.4.1.1.1"
TRANSFORM: dict[str, Any] = {"size": (224, 224), "interpolation": "bicubic"}


def write_formats(folder: Path, height: int, width: int) -> dict[str, str]:
    """Write one radiograph in every format; return the file names. DICOM files and 16-bit PNGs have 12 true bits."""
    (path,) = write_radiographs(folder / "source", 1, height, width)
    grey = Image.open(path)
    grain = np.random.default_rng(1).integers(0, 16, (height, width), dtype=np.uint16)
    cells = np.asarray(grey).astype(np.uint16) * 16 + grain
    grey.save(folder / "8.png")
    Image.fromarray(cells * 16).save(folder / "16.png")
    grey.save(folder / "grey.jpg", quality=90)
    grey.convert("RGB").save(folder / "rgb.jpg", quality=90)
    (folder / "native.dcm").write_bytes(dicom_file(cells, cells.tobytes(), ExplicitVRLittleEndian))
    (folder / "lossless.dcm").write_bytes(dicom_file(cells, encapsulate([lossless_jpeg(cells)]), JPEGLosslessSV1))
    (folder / "2000.dcm").write_bytes(dicom_file(cells, encapsulate([jpeg_2000(cells)]), JPEG2000Lossless))
    return {
        "PNG, 8 bits": "8.png",
        "PNG, 16 bits": "16.png",
        "JPEG, grey": "grey.jpg",
        "JPEG, RGB of equal channels": "rgb.jpg",
        "DICOM, uncompressed": "native.dcm",
        "DICOM, JPEG lossless": "lossless.dcm",
        "DICOM, JPEG 2000": "2000.dcm",
    }


def dicom_file(cells: NDArray[np.uint16], pixels: bytes, syntax: str) -> bytes:
    """Return a DICOM file of 12 bits stored, with a window."""
    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID, data.Modality = CR_IMAGE, "2.25.1", "CR"
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
    data.Rows, data.Columns = cells.shape
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, BITS, BITS - 1
    data.WindowCenter, data.WindowWidth = 2048, 3600
    data.file_meta = FileMetaDataset()
    data.file_meta.MediaStorageSOPClassUID, data.file_meta.MediaStorageSOPInstanceUID = CR_IMAGE, "2.25.1"
    data.file_meta.TransferSyntaxUID = syntax
    data.PixelData = pixels
    data["PixelData"].VR = "OB" if UID(syntax).is_encapsulated else "OW"
    data["PixelData"].is_undefined_length = UID(syntax).is_encapsulated
    buffer = io.BytesIO()
    data.save_as(buffer, enforce_file_format=True, implicit_vr=False, little_endian=True)
    return buffer.getvalue()


def jpeg_2000(cells: NDArray[np.uint16]) -> bytes:
    """Return lossless JPEG 2000."""
    encoded: bytes = get_encoder(JPEG2000Lossless).encode(
        cells,
        rows=cells.shape[0],
        columns=cells.shape[1],
        samples_per_pixel=1,
        photometric_interpretation="MONOCHROME2",
        bits_allocated=16,
        bits_stored=BITS,
        pixel_representation=0,
        number_of_frames=1,
        encoding_plugin="pylibjpeg",
    )
    return encoded


def lossless_jpeg(cells: NDArray[np.uint16]) -> bytes:
    """Return lossless JPEG (ITU T.81, annex H, first-order prediction), with a code of five bits for each size."""
    rows, columns = cells.shape
    values = cells.astype(np.int32)
    predicted = np.empty_like(values)
    predicted[:, 1:], predicted[1:, 0], predicted[0, 0] = values[:, :-1], values[:-1, 0], 2 ** (BITS - 1)
    difference = (values - predicted).ravel()
    size = np.zeros(difference.size, dtype=np.int64)
    for bit in range(16):
        size += np.abs(difference) >= 1 << bit
    extra = np.where(difference > 0, difference, difference + (1 << size) - 1)
    code, length = (size << size) | extra, size + 5
    bits = np.zeros(int(length.sum()), dtype=np.uint8)
    ends = np.cumsum(length)
    for place in range(int(length.max())):  # from the last bit of each code
        there = length > place
        bits[ends[there] - 1 - place] = (code[there] >> place) & 1
    scan = np.packbits(np.concatenate([bits, np.ones(-len(bits) % 8, dtype=np.uint8)])).tobytes()
    frame = bytes([BITS]) + rows.to_bytes(2, "big") + columns.to_bytes(2, "big") + b"\x01\x01\x11\x00"
    table = b"\x00" + bytes([0, 0, 0, 0, 17] + [0] * 11) + bytes(range(17))
    parts = ((0xC3, frame), (0xC4, table), (0xDA, b"\x01\x01\x00\x01\x00\x00"))
    head = b"".join(bytes([0xFF, mark]) + (len(data) + 2).to_bytes(2, "big") + data for mark, data in parts)
    return b"\xff\xd8" + head + scan.replace(b"\xff", b"\xff\x00") + b"\xff\xd9"


def milliseconds(task: Callable[[], Any], repeats: int) -> float:
    """Return the median processor milliseconds of a task."""
    taken = []
    for _ in range(repeats):
        started = time.process_time()
        task()
        taken.append(1000 * (time.process_time() - started))
    return statistics.median(taken)


def steps(folder: Path, name: str, transform: EvalTransform, repeats: int) -> dict[str, Any]:
    """Return the milliseconds of each step for one file."""
    data = (folder / name).read_bytes()
    ms = partial(milliseconds, repeats=repeats)
    image = recipes.decode(data, RECIPE, MAX_PIXELS)
    framed, colour = transform.geometry(image), image.convert("RGB")
    assert torch.equal(transform(image), transform(colour))
    check, decompress = _parts(data, name)
    found: dict[str, Any] = {
        "megabytes": len(data) / 1e6,
        "read": ms(partial(read_local, folder, name)),
        "hash": ms(lambda: hashlib.sha256(data).hexdigest()),
        "check": ms(check),
        "decompress": ms(decompress),
    }
    decode = ms(partial(recipes.decode, data, RECIPE, MAX_PIXELS))
    found |= {
        "to 8 bits": max(0.0, decode - found["check"] - found["decompress"]),
        "resize": ms(partial(transform.geometry, image)),
        "normalise": ms(lambda: torch.from_numpy(transform.grey_levels.take(np.asarray(framed), axis=1))),
    }
    found["total"] = sum(value for step, value in found.items() if step != "megabytes")
    found["resize and normalise, three channels"] = ms(partial(transform, colour))
    files = FileImages(folder, (name,), recipe=recipes.DICOM)
    kept = CachedImages(files, transform.geometry, framed.width, folder / "kept")
    assert kept.read(0).tobytes() == framed.tobytes()
    found["from the image cache"] = ms(lambda: transform(kept.read(0)))
    if name.endswith(".jpg"):
        found["reduced: decompress and resize"] = ms(lambda: transform.geometry(_reduced(data)))
    return found


def _parts(data: bytes, name: str) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Return the check and the decompression of a file, as the recipes do them."""
    if name.endswith(".dcm"):
        header = read_dicom_header(data)
        return partial(read_dicom_header, data), partial(stored_cells, data, header)
    plug_in: Any = PngImagePlugin.PngImageFile if name.endswith(".png") else JpegImagePlugin.JpegImageFile
    return (lambda: check_whole(data, read_header(data))), (lambda: plug_in(io.BytesIO(data)).load())


def _reduced(data: bytes) -> Image.Image:
    image = JpegImagePlugin.JpegImageFile(io.BytesIO(data))
    image.draft("L", (2 * 224, 2 * 224))
    image.load()
    return image


def decoded(folder: Path, name: str) -> None:
    """Decode a file and make a model's pixels of it, as a worker does."""
    _transform()(recipes.decode(read_local(folder, name), RECIPE, MAX_PIXELS))


@cache
def _transform() -> EvalTransform:
    return build_transform(TRANSFORM)


def by_workers(folder: Path, name: str, n: int, turns: int) -> dict[str, float]:
    """Return wall milliseconds an image by one thread, by threads and by processes, one a core; medians of turns."""
    cores = available_cores()
    pools: dict[str, Executor] = {
        "1 thread": ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,)),
        f"{cores} threads": ThreadPoolExecutor(cores, initializer=torch.set_num_threads, initargs=(1,)),
        f"{cores} processes": ProcessPoolExecutor(cores, initializer=torch.set_num_threads, initargs=(1,)),
    }
    taken: dict[str, list[float]] = {kind: [] for kind in pools}
    for turn in range(turns + 1):
        for kind, pool in pools.items():
            started = time.perf_counter()
            list(pool.map(partial(decoded, folder), [name] * n))
            if turn:  # the first one starts threads and processes
                taken[kind].append(1000 * (time.perf_counter() - started) / n)
    for pool in pools.values():
        pool.shutdown()
    return {kind: statistics.median(values) for kind, values in taken.items()}


def measure(quick: bool) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the table of steps and the table of workers."""
    torch.set_num_threads(1)
    height, width, repeats, n = (320, 256, 1, 2) if quick else (2500, 2048, 7, 12)
    transform = _transform()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary).resolve()
        names = write_formats(folder, height, width)
        stored = [(folder / name).read_bytes() for name in names.values() if name.endswith(".dcm")]
        assert len({recipes.decode(data, RECIPE, MAX_PIXELS).tobytes() for data in stored}) == 1
        table = [{"format": kind, **steps(folder, name, transform, repeats)} for kind, name in names.items()]
        workers = [
            {"format": kind, **by_workers(folder, name, n, 1 if quick else 5)}
            for kind, name in names.items()
            if name in ("8.png", "grey.jpg", "native.dcm")
        ]
    return pd.DataFrame(table), pd.DataFrame(workers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small images, nothing written: to see that it runs")
    quick = parser.parse_args().quick
    tables = measure(quick)
    for name, table in zip(("decode.csv", "decode_workers.csv"), tables, strict=True):
        print(table.to_string(index=False, float_format=lambda value: f"{value:.2f}"))
        if not quick:
            table.to_csv(FIGURES / name, index=False, float_format="%.3f")


if __name__ == "__main__":
    main()
