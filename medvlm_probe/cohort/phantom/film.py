"""From attenuation to pixels: exponential law, scatter, photon noise, blur, detector curve, window, marker."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from medvlm_probe.cohort.phantom.scene import Field
from medvlm_probe.cohort.phantom.sites import Site

_LOW = 32  # scatter varies slowly: it is blurred on a grid this fine


def scattered(primary: Field) -> Field:
    """Return the primary radiation blurred as widely as scatter spreads."""
    size = primary.shape[0]
    small = np.asarray(Image.fromarray(primary).resize((_LOW, _LOW), Image.Resampling.BOX))
    small = ndimage.gaussian_filter(small, 4.0, mode="nearest", truncate=2.5)
    return np.asarray(Image.fromarray(small).resize((size, size), Image.Resampling.BILINEAR))


def expose(attenuation: Field, site: Site, rng: np.random.Generator) -> Field:
    """Return the optical density that the detector reads (bright is dense): -log of primary, scatter and noise."""
    size = attenuation.shape[0]
    primary = np.exp(-attenuation)
    total = primary + np.float32(site.scatter * rng.uniform(0.8, 1.2)) * scattered(primary)
    if site.blur:
        total = ndimage.gaussian_filter(total, site.blur * size, mode="nearest", truncate=2.5)
    noise = rng.standard_normal((size, size), dtype=np.float32)
    counts = 5200.0 * site.dose * rng.uniform(0.7, 1.4)
    total += noise * np.sqrt(total * np.float32(1 / counts))
    density: Field = -np.log(np.maximum(total, np.float32(1e-3)))
    return density


def develop(density: Field, body: Field, site: Site, rng: np.random.Generator) -> Field:
    """Return display values in [0, 1]: exposure found automatically, then the site's window and curve."""
    step = max(1, density.shape[0] // 56)
    inside = density[::step, ::step][body[::step, ::step] > 0.5]
    low, high = np.percentile(inside, (3.0, 97.0))
    contrast = max(0.55, rng.normal(*site.contrast))
    value = (density - np.float32(low)) * np.float32(1 / max(high - low, 1e-3))
    value = (value - np.float32(0.5)) * np.float32(0.80 * contrast) + np.float32(0.50 + rng.normal(*site.brightness))
    soft = np.float32(0.5) * (
        np.float32(1) + np.tanh((value - np.float32(0.5)) * np.float32(2.3)) * np.float32(1 / np.tanh(1.15))
    )
    gamma = float(np.clip(rng.normal(*site.gamma), 0.6, 1.7))
    shown: Field = np.clip(soft, 0, 1) ** np.float32(gamma)
    return shown


@lru_cache(maxsize=64)
def _text(text: str, height: int) -> Field:
    """Return a text's coverage in [0, 1], cropped to it."""
    font = ImageFont.load_default(size=height)
    left, top, right, bottom = (round(edge) for edge in font.getbbox(text))
    image = Image.new("L", (right - left + 2, bottom - top + 2))
    ImageDraw.Draw(image).text((1 - left, 1 - top), text, fill=255, font=font)
    return np.asarray(image, dtype=np.float32) / 255


def add_marker(value: Field, site: Site, view: str, rng: np.random.Generator) -> None:
    """Draw the side marker in a corner, in place: the letter of the side that it lies on, at some sites with words."""
    if rng.random() > site.marker_share:
        return
    size = value.shape[0]
    on_left = rng.random() < 0.5
    letter = "L" if on_left else "R"
    text = (
        letter
        if site.marker != "text"
        else f"{letter} {view}"
        if rng.random() < 0.5
        else f"{letter} {'PORT' if view == 'AP' else 'CHEST'}"
    )
    glyph = _text(text, max(6, round(size * (0.055 + 0.015 * rng.random()))))
    h, w = glyph.shape
    y = int(size * rng.uniform(0.03, 0.10))
    inset = int(size * rng.uniform(0.03, 0.09))
    x = size - inset - w if on_left else inset
    if site.marker == "disc":
        pad = max(2, size // 60)
        value[max(0, y - pad) : y + h + pad, max(0, x - pad) : x + w + pad] = 0.85
        glyph = -glyph
    patch = value[y : y + h, x : x + w]
    glyph = glyph[: patch.shape[0], : patch.shape[1]]
    target = np.float32(0.97) if glyph.max() > 0 else np.float32(0.1)
    patch += np.abs(glyph) * (target - patch)


def collimate(value: Field, site: Site, rng: np.random.Generator) -> None:
    """Blacken the borders that the collimator shut, in place."""
    size = value.shape[0]
    edges = (rng.random(4) < site.collimation) * rng.uniform(0.01, 0.055, size=4) * size
    top, bottom, left, right = (round(edge) for edge in edges.tolist())
    value[:top] = 0.01
    value[size - bottom :] = 0.01
    value[:, :left] = 0.01
    value[:, size - right :] = 0.01


def archive(value: Field, site: Site) -> NDArray[np.uint16]:
    """Return 12-bit stored values: the display range lies in the site's DICOM window; MONOCHROME1 is inverted."""
    centre, width = site.window
    scaled = np.rint((value * np.float32(width) + np.float32(centre - width / 2)) * 4095)
    stored: NDArray[np.uint16] = scaled.clip(0, 4095).astype(np.uint16)
    return np.subtract(4095, stored, dtype=np.uint16) if site.photometric == "MONOCHROME1" else stored
