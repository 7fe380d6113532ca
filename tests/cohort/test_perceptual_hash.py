"""Perceptual hashes, the search for near ones, and what counts as a near copy."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from scipy.fft import dctn
from scipy.ndimage import gaussian_filter

from medvlm_probe.cohort import near_copies, perceptual_hash
from medvlm_probe.cohort.catalog import load_cohort
from medvlm_probe.cohort.near_copies import MIN_CORRELATION, aligned_correlation, find_near_copies
from medvlm_probe.cohort.perceptual_hash import (
    ALL_BITS,
    BAND_BITS,
    GUARANTEED_DISTANCE,
    MAX_DISTANCE,
    N_BANDS,
    distances,
    hashes,
    near_pairs,
    thumbnail,
)


def bits_of(words: np.ndarray) -> np.ndarray:
    """Return the bits of hashes (n, 6) one by one (n, 126)."""
    return ((words[:, :, None] >> np.arange(BAND_BITS, dtype=np.uint32)) & 1).reshape(len(words), N_BANDS * BAND_BITS)


def random_hashes(rng: np.random.Generator, n: int) -> np.ndarray:
    """Hashes with many near pairs: a few centres, each with some bits flipped."""
    centres = rng.integers(0, 2, (max(1, n // 8), N_BANDS * BAND_BITS))
    bits = centres[rng.integers(0, len(centres), n)]
    for row in bits:
        row[rng.choice(bits.shape[1], rng.integers(0, 22), replace=False)] ^= 1
    return (bits.reshape(n, N_BANDS, BAND_BITS) << np.arange(BAND_BITS)).sum(axis=2).astype(np.uint32)


def test_the_hash_equals_its_definition(rng: np.random.Generator) -> None:
    images = rng.integers(0, 256, (5, 32, 32), dtype=np.uint8)
    words = hashes(images)
    assert words.shape == (5, 6)
    for image, word in zip(images, words, strict=True):
        coefficients = dctn(image.astype(np.float64), norm="ortho")
        square = [(u + v, u, v) for u in range(16) for v in range(16)]
        lowest = np.array([coefficients[u, v] for _, u, v in sorted(square)[1:127]])
        expected = lowest > np.median(lowest)
        # Frequency k is bit k // 6 of band k % 6.
        assert (bits_of(word[None])[0].reshape(6, 21).T.reshape(-1) == expected).all()


def test_a_negative_has_the_inverted_hash(rng: np.random.Generator) -> None:
    images = rng.integers(0, 256, (20, 32, 32), dtype=np.uint8)
    assert (hashes(255 - images) == hashes(images) ^ ALL_BITS).all()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(0, 120), m=st.integers(0, 60))
def test_every_near_pair_is_found(seed: int, n: int, m: int) -> None:
    rng = np.random.default_rng(seed)
    index = random_hashes(rng, n) if n else np.zeros((0, N_BANDS), np.uint32)
    queries = np.concatenate([random_hashes(rng, m), index[:10]]) if m else index[:10]
    distance = (bits_of(queries)[:, None] != bits_of(index)[None]).sum(axis=2)
    bands = (bits_of(queries)[:, None] != bits_of(index)[None]).reshape(len(queries), n, N_BANDS, BAND_BITS).sum(axis=3)
    found = near_pairs(queries, index)
    expected = np.argwhere((distance <= MAX_DISTANCE) & (bands.min(axis=2, initial=99) <= 1))
    assert found.tolist() == expected.tolist()
    sure = {tuple(pair) for pair in np.argwhere(distance <= GUARANTEED_DISTANCE).tolist()}
    assert sure <= {tuple(pair) for pair in found.tolist()}
    assert (distances(queries[found[:, 0]], index[found[:, 1]]) == distance[found[:, 0], found[:, 1]]).all()
    symmetric = near_pairs(index, index, symmetric=True)
    assert symmetric.tolist() == [pair for pair in near_pairs(index, index).tolist() if pair[0] < pair[1]]


def test_blocks_change_nothing(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    index = random_hashes(rng, 300)
    whole = near_pairs(index, index)
    monkeypatch.setattr(perceptual_hash, "_BLOCK", 7)
    assert (near_pairs(index, index) == whole).all()
    assert len(whole) > 1000


def test_the_thumbnail_is_grey_and_square() -> None:
    colour = Image.fromarray(np.stack([np.full((300, 200), value, np.uint8) for value in (10, 200, 30)], axis=2))
    small = thumbnail(colour)
    assert small.shape == (32, 32)
    assert (small == np.asarray(colour.convert("L"))[0, 0]).all()


def test_the_correlation_equals_its_definition(rng: np.random.Generator) -> None:
    """Against scipy's filters, away from the edges, where both handle the border in their own way."""
    smooth = gaussian_filter(rng.normal(size=(2, 32, 32)), (0, 3, 3))
    images = (smooth * 400 + 128).astype(np.float32)
    ours = near_copies._band_passed(images, 0, 0).reshape(2, 32, 32)
    theirs = gaussian_filter(images, (0, 0.7, 0.7), truncate=8) - gaussian_filter(images, (0, 2, 2), truncate=8)
    for one, other in zip(ours[:, 10:22, 10:22], theirs[:, 10:22, 10:22], strict=True):
        assert np.allclose(one - one.mean(), other - other.mean(), atol=0.02)
    flat = near_copies._band_passed(images, 0, 0)
    assert aligned_correlation(images[:1], images[1:])[0] == pytest.approx(np.corrcoef(flat)[0, 1], abs=1e-5)


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "jpeg": lambda image: reencoded(image, 50),
    "half": lambda image: image.resize((image.width // 2, image.height // 2), Image.Resampling.BICUBIC),
    "double": lambda image: image.resize((image.width * 2, image.height * 2), Image.Resampling.BICUBIC),
    "16 bit and back": lambda image: Image.fromarray((np.asarray(image).astype(np.uint16) * 257 >> 8).astype(np.uint8)),
    "crop": lambda image: cropped(image, 0.02, 0.02),
    "crop of two sides": lambda image: cropped(image, 0.02, 0.0),
    "gamma": lambda image: curved(image, lambda grey: grey**0.8),
    "window": lambda image: curved(image, lambda grey: np.clip((grey - 0.08) / 0.8, 0, 1)),
    "mirrored": ImageOps.mirror,
    "inverted": ImageOps.invert,
}
LEAST_RECALL = {"crop": 0.98, "crop of two sides": 0.92, "window": 0.99}


def reencoded(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(io.BytesIO(buffer.getvalue())).convert("L")


def cropped(image: Image.Image, near: float, far: float) -> Image.Image:
    w, h = image.size
    return image.crop((round(near * w), round(near * h), w - round(far * w), h - round(far * h)))


def curved(image: Image.Image, curve: Callable[[np.ndarray], np.ndarray]) -> Image.Image:
    return Image.fromarray(np.rint(255 * curve(np.asarray(image) / 255)).astype(np.uint8))


@pytest.fixture(scope="module")
def phantoms() -> list[Image.Image]:
    cohort = load_cohort("phantom:sites=reference+portable,n=24,size=160")
    _, first = np.unique(cohort.groups(), return_index=True)
    return [cohort.source.read(int(row)) for row in first]


@pytest.mark.parametrize("change", CHANGES)
def test_changed_phantoms_are_found_and_other_patients_are_not(phantoms: list[Image.Image], change: str) -> None:
    n = len(phantoms)
    pixels = np.stack([thumbnail(image) for image in [*phantoms, *map(CHANGES[change], phantoms)]])
    found = find_near_copies(pixels)
    pairs = {tuple(pair) for pair in found.pairs.tolist()}
    assert sum((row, row + n) in pairs for row in range(n)) >= 0.9 * n
    assert {(one % n, other % n) for one, other in pairs} == {(row % n, row % n) for row, _ in pairs}
    assert (found.correlation >= MIN_CORRELATION).all()
    named = set(found.change)
    assert named == ({change} if change in ("mirrored", "inverted") else {"same way up"})


def test_images_without_contrast_are_like_nothing() -> None:
    flat = np.full((40, 32, 32), 7, np.uint8)
    flat[:20] = 200
    assert len(find_near_copies(flat).pairs) == 0
    assert len(find_near_copies(flat[:0]).pairs) == 0


@pytest.fixture(scope="module")
def radiographs(shared_dir: Path) -> tuple[list[Image.Image], list[str]]:
    """Every fourth radiograph of Indiana, and every third of the other sites, with their patients."""
    images: list[Image.Image] = []
    patients: list[str] = []
    for name, step in (("iu_xray", 4), ("multisite", 3)):
        cohort = load_cohort(str(shared_dir / "real_cxr" / name))
        rows = np.flatnonzero(cohort.sites() != "indiana") if name == "multisite" else np.arange(len(cohort))
        images += [cohort.source.read(int(row)).convert("L") for row in rows[::step]]
        patients += cohort.table["patient"].iloc[rows[::step]].tolist()
    return images, patients


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
def test_changed_radiographs_are_found_and_other_patients_are_not(
    radiographs: tuple[list[Image.Image], list[str]], change: str
) -> None:
    images, patients = radiographs
    n = len(images)
    pixels = np.stack([thumbnail(image) for image in [*images, *map(CHANGES[change], images)]])
    pairs = {tuple(pair) for pair in find_near_copies(pixels).pairs.tolist()}
    recall = np.mean([(row, row + n) in pairs for row in range(n)])
    others = [(one, other) for one, other in pairs if patients[one % n] != patients[other % n]]
    assert recall >= LEAST_RECALL.get(change, 0.998), f"recall {recall:.4f}"
    assert others == []
