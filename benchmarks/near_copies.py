"""What looking for near copies costs: beside decoding alone, and beside comparing all pairs of hashes.

    python -m benchmarks.near_copies [COHORT]

The first part reads a cohort (default: phantoms as PNG files of 512 pixels). The second searches the hashes of blends
of its thumbnails, more than the cohort holds; of the smallest set all pairs are compared too, as the plain way. Blends
are more alike than radiographs are, so the search has more pairs to look at than it would have.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.table import Row
from medvlm_probe.cohort.catalog import load_cohort
from medvlm_probe.cohort.cohort import Cohort
from medvlm_probe.cohort.near_copies import find_near_copies
from medvlm_probe.cohort.perceptual_hash import GUARANTEED_DISTANCE, distances, hashes, near_pairs, thumbnail
from medvlm_probe.cohort.phantom_export import export_phantoms
from medvlm_probe.cohort.phantom_source import PhantomImages

SIZES = (10_000, 50_000, 100_000)
RESULT = Path(__file__).resolve().parents[1] / "figures" / "benchmarks" / "near_copies.json"


def reading(cohort: Cohort) -> tuple[dict[str, Any], NDArray[np.uint8]]:
    """Return the seconds of decoding, of thumbnails and of the search, and the thumbnails."""
    spent, pixels = np.zeros(2), []
    for row in range(len(cohort)):
        start = time.perf_counter()
        image, _ = cohort.source.read_with_key(row)
        decoded = time.perf_counter()
        pixels.append(thumbnail(image))
        spent += (decoded - start, time.perf_counter() - decoded)
    start = time.perf_counter()
    find_near_copies(np.stack(pixels))
    search = time.perf_counter() - start
    row = {
        "cohort": cohort.name,
        "n_images": len(cohort),
        "decode_seconds": round(spent[0], 2),
        "thumbnail_seconds": round(spent[1], 2),
        "search_seconds": round(search, 2),
        "over_decoding_alone": round((spent.sum() + search) / spent[0], 3),
    }
    return row, np.stack(pixels)


def blends(pixels: NDArray[np.uint8], n: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return n thumbnails, each a blend of two with some noise."""
    first, second = rng.integers(0, len(pixels), (2, n))
    weights = rng.uniform(0.3, 0.7, (n, 1, 1)).astype(np.float32)
    mixed = weights * pixels[first] + (1 - weights) * pixels[second] + rng.normal(0, 4, (n, 32, 32))
    return np.clip(mixed, 0, 255).astype(np.uint8)


def all_pairs(words: NDArray[np.uint32]) -> int:
    """Return how many pairs lie within the guaranteed distance, looking at all of them."""
    found = 0
    for row in range(len(words) - 1):
        found += int((distances(words[row][None], words[row + 1 :]) <= GUARANTEED_DISTANCE).sum())
    return found


def searching(pixels: NDArray[np.uint8], sizes: Sequence[int] = SIZES) -> list[dict[str, Any]]:
    """Return the seconds of the search in sets of hashes, with those of all pairs for the smallest."""
    rng, rows = np.random.default_rng(0), []
    for n in sizes:
        words = hashes(blends(pixels, n, rng))
        start = time.perf_counter()
        pairs = near_pairs(words, words, symmetric=True)
        row: dict[str, Any] = {"n": n, "n_near": len(pairs), "seconds": round(time.perf_counter() - start, 4)}
        if n == sizes[0]:
            start = time.perf_counter()
            expected = all_pairs(words)
            near = distances(words[pairs[:, 0]], words[pairs[:, 1]]) <= GUARANTEED_DISTANCE
            row |= {
                "all_pairs_seconds": round(time.perf_counter() - start, 4),
                "same_pairs": int(near.sum()) == expected,
            }
        rows.append(row)
    return rows


def measure(spec: str | None, sizes: Sequence[int] = SIZES) -> dict[str, Any]:
    """Return both parts; without a cohort, of phantoms as files."""
    with tempfile.TemporaryDirectory() as folder:
        if spec is None:
            drawn = load_cohort("phantom:n=40,size=512").source
            assert isinstance(drawn, PhantomImages)
            spec = f"{folder}/files"
            export_phantoms(drawn.cases, Path(spec), size=512)
        row, pixels = reading(load_cohort(spec))
    return {"reading": row, "searching": searching(pixels, sizes)}


def rows(quick: bool) -> list[Row]:
    """Return the row of the search among as many hashes as all pairs are compared of."""
    found = measure(None, (2_000,) if quick else SIZES[:1])["searching"][0]
    return [
        Row(
            "near copies",
            f"{found['n']:,} hashes",
            found["seconds"],
            "comparing all pairs",
            found["all_pairs_seconds"],
            agreement="the same pairs" if found["same_pairs"] else "other pairs",
        )
    ]


def main(specs: list[str]) -> None:
    found = measure(specs[0] if specs else None)
    print(json.dumps(found, indent=2))
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
