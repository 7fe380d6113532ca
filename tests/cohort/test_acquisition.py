"""Acquisition transforms: nothing at neutral, more damage at each level, one size, each against its meaning."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from medvlm_probe.cohort.acquisition import ACQUISITIONS, acquire, acquisition_names, chained, parse_steps
from medvlm_probe.cohort.acquisition_source import AcquiredImages, acquired
from medvlm_probe.cohort.catalog import load_cohort
from medvlm_probe.cohort.phantom_source import PhantomImages
from medvlm_probe.errors import InputError, UnknownNameError

KEY = "0" * 64
NAMES = sorted(ACQUISITIONS)


@pytest.fixture(scope="module")
def films() -> list[Image.Image]:
    """Phantoms: a square, and a film higher than wide."""
    source = load_cohort("phantom:sites=reference,n=2,size=224").source
    return [source.read(0), source.read(1).resize((180, 256))]


def _damage(image: Image.Image, changed: Image.Image) -> float:
    return float(np.abs(np.asarray(image, dtype=float) - np.asarray(changed, dtype=float)).mean())


def _apply(image: Image.Image, name: str, level: float, key: str = KEY) -> Image.Image:
    return acquire(image, (ACQUISITIONS[name].step(level),), key)


@pytest.mark.parametrize("name", NAMES)
def test_damage_grows_from_nothing_and_the_frame_stays(name: str, films: list[Image.Image]) -> None:
    entry = ACQUISITIONS[name]
    assert 3 <= len(entry.levels) <= 5
    for film in films:
        assert _apply(film, name, entry.neutral).tobytes() == film.tobytes()
        before = film.tobytes()
        by_side: dict[bool, list[tuple[int, float]]] = {True: [], False: []}
        for level in entry.levels:
            changed = _apply(film, name, level, key="b")
            assert (changed.size, changed.mode) == (film.size, "L")
            assert changed.tobytes() == _apply(film, name, level, key="b").tobytes()
            severity = entry.severity(level)
            by_side[severity > 0].append((abs(severity), _damage(film, changed)))
        assert film.tobytes() == before
        for side in by_side.values():
            damages = [damage for _, damage in sorted(side)]
            assert damages == sorted(damages)
            assert [severity for severity, _ in sorted(side)] == list(range(1, len(side) + 1))
        assert max(damage for side in by_side.values() for _, damage in side) > 0.2


def test_severities_by_hand() -> None:
    assert [ACQUISITIONS["gamma"].severity(level) for level in (0.5, 0.7, 1, 1.4, 2)] == [-2, -1, 0, 1, 2]
    assert [ACQUISITIONS["resolution"].severity(level) for level in (160, 128, 96, 64, 32)] == [1, 2, 3, 4, 5]
    assert [ACQUISITIONS["noise"].severity(level) for level in (8000, 2000, 500, 125)] == [1, 2, 3, 4]


def test_noise_is_that_of_the_photons() -> None:
    for size in (224, 448):
        black = Image.new("L", (size, size), 60)
        counted = np.asarray(_apply(black, "noise", 2000), dtype=float)
        photons = 2000 * (224 / size) ** 2 * np.exp(-3 * 60 / 255)
        assert counted.std() == pytest.approx(255 / 3 / np.sqrt(photons), rel=0.03)
        assert counted.mean() == pytest.approx(60, abs=0.3)
    assert _apply(black, "noise", 2000).tobytes() != _apply(black, "noise", 2000, key="other").tobytes()


def test_lengths_follow_the_frame(films: list[Image.Image]) -> None:
    dot = np.zeros((449, 449), dtype=np.uint8)
    dot[224, 224] = 255
    wide = np.asarray(_apply(Image.fromarray(dot).resize((449, 449)), "blur", 0.5), dtype=float)
    offsets = np.arange(449) - 224
    row = wide[224] / wide[224].sum()
    assert np.sqrt(row @ offsets**2) == pytest.approx(0.5 * 449 / 224, abs=0.12)
    shrunk = films[0].resize((96, 96), Image.Resampling.BICUBIC).resize((224, 224), Image.Resampling.BICUBIC)
    assert _apply(films[0], "resolution", 96).tobytes() == shrunk.tobytes()
    assert _apply(films[0].resize((90, 120)), "resolution", 96).tobytes() == films[0].resize((90, 120)).tobytes()
    border = np.asarray(_apply(Image.new("L", (100, 200), 9), "collimation", 10))
    assert (border == 9).sum() == 80 * 160
    assert (border[20:180, 10:90] == 9).all()


def test_greys_by_hand() -> None:
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None, :].repeat(16, axis=0))
    grey = np.arange(256) / 255
    for name, level, expected in (
        ("gamma", 2.0, grey**2),
        ("contrast", 2.0, np.clip(2 * grey - 0.5, 0, 1)),
        ("window", 20, np.clip(grey - 0.2, 0, 1)),
    ):
        assert np.abs(np.asarray(_apply(ramp, name, level))[0] / 255 - expected).max() <= 0.5 / 255 + 1e-9
    buffer = io.BytesIO()
    ramp.save(buffer, "JPEG", quality=25)
    assert _apply(ramp, "jpeg", 25).tobytes() == Image.open(io.BytesIO(buffer.getvalue())).convert("L").tobytes()


def test_inversion_takes_its_share_and_nests() -> None:
    flat = Image.new("L", (16, 16), 10)
    chosen = {
        level: {k for k in range(400) if np.asarray(_apply(flat, "inversion", level, str(k)))[0, 0] == 245}
        for level in ACQUISITIONS["inversion"].levels
    }
    assert chosen[10] < chosen[25] < chosen[50] < chosen[100]
    assert len(chosen[100]) == 400
    assert len(chosen[25]) == pytest.approx(100, abs=26)


def test_aspect_stretches_and_turns_stay_centred() -> None:
    y, x = np.mgrid[:200, :200]
    disc = Image.fromarray(((np.hypot(x - 99.5, y - 99.5) < 40) * 255).astype(np.uint8))
    for level, axis in ((1.4, 0), (0.7, 1)):
        mask = np.asarray(_apply(disc, "aspect", level)) > 127
        long, short = mask.any(axis=axis).sum(), mask.any(axis=1 - axis).sum()
        assert long / short == pytest.approx(max(level, 1 / level), rel=0.03)
    half = Image.fromarray(((x < 100) * 255).astype(np.uint8))
    for key in ("a", "b", "c", "d"):
        turned = np.asarray(_apply(half, "rotation", 24, key)) > 127
        assert turned.mean() == pytest.approx(0.5, abs=0.01)
        edge = turned.sum(axis=1)
        assert abs(np.polyfit(np.arange(200), edge, 1)[0]) == pytest.approx(np.tan(np.radians(24)), abs=0.08)


def test_names_read_back_and_chain(films: list[Image.Image]) -> None:
    for name in acquisition_names():
        (step,) = parse_steps(name)
        assert step.name == name
    assert acquisition_names(("blur",)) == ("blur/v1@0.5", "blur/v1@1", "blur/v1@2", "blur/v1@4")
    both = parse_steps("blur/v1@1+jpeg/v1@25")
    assert acquire(films[0], both, KEY).tobytes() == _apply(_apply(films[0], "blur", 1), "jpeg", 25).tobytes()
    grey = films[0]
    colour = Image.merge("RGB", [grey, grey.point(lambda g: g // 2), grey])
    for name in acquisition_names():
        changed = acquire(colour, parse_steps(name), KEY)
        assert (changed.mode, changed.size) == ("RGB", colour.size)
        assert changed.split()[0].tobytes() == acquire(grey, parse_steps(name), KEY).tobytes()


@pytest.mark.parametrize("name", ["blur/v2@1", "blur/v1@x", "blur/v1", "blur/v1@9", "jpeg/v1@-1", "blur/v1@nan"])
def test_what_cannot_be_asked_for(name: str) -> None:
    with pytest.raises(InputError, match="expected NAME/vVERSION@LEVEL"):
        parse_steps(name)


def test_chains_are_in_the_order_of_a_film() -> None:
    assert chained(["jpeg/v1@25", "contrast/v1@0.7"]) == "contrast/v1@0.7+jpeg/v1@25"
    assert chained(["resolution/v1@96+jpeg/v1@25", "blur/v1@1"]) == "blur/v1@1+resolution/v1@96+jpeg/v1@25"
    everything = chained(acquisition_names())
    assert sorted(everything.split("+")) == sorted(acquisition_names())
    assert chained(["blur/v1@1"]) == "blur/v1@1"


def test_unknown_transforms_name_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean blur"):
        parse_steps("blurr/v1@1")


def test_a_cohort_through_a_transform() -> None:
    cohort = load_cohort("phantom:sites=reference,n=4,size=64")
    assert isinstance(cohort.source, PhantomImages)
    moved = acquired(cohort, "noise/v1@500")
    assert moved.source.recipe == "phantom/v1+noise/v1@500"
    assert moved.source.settings == cohort.source.settings
    assert moved.fingerprint != cohort.fingerprint
    assert len(moved.source) == 4
    part = moved.select([2, 0])
    image, key = part.source.read_with_key(0)
    assert key == cohort.source.content_key(2) == part.source.content_key(0)
    assert image.tobytes() == acquire(cohort.source.read(2), parse_steps("noise/v1@500"), key).tobytes()
    assert part.source.read(0).tobytes() == image.tobytes()
    again = AcquiredImages(moved.source, "blur/v1@1")
    assert again.recipe == "phantom/v1+noise/v1@500+blur/v1@1"
    with pytest.raises(InputError):
        replace(moved.source, transform="blur/v1@77")
