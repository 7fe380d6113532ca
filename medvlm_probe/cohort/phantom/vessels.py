"""Hila and pulmonary vessels: two trees of tapering branches over the lungs."""

from __future__ import annotations

import numpy as np

from medvlm_probe.cohort.phantom.scene import Field, Ink, Scene, ramp


def pulmonary_vessels(scene: Scene, rng: np.random.Generator, congestion: float) -> Field:
    """Return the vessels' attenuation, before the lungs' outline cuts them.

    Args:
        scene: the film.
        rng: belongs to the patient: the tree is the same on each of the patient's films.
        congestion: 0 normal to 1; widens the vessels, those of the upper lobes most.
    """
    ink = Ink(scene, 2)
    chest = scene.chest
    for sign in (-1.0, 1.0):
        n = 9
        root = np.array([sign * 0.155 + 0.8 * chest.midline, chest.carina + (0.17 if sign < 0 else 0.13)])
        fan = np.linspace(-1.25, 1.35, n) + 0.10 * rng.normal(size=n)
        length = np.where(fan < -0.4, 0.40, 0.36) * (1 + 0.12 * rng.normal(size=n))
        width = (0.020 + 0.010 * (fan > 0.2)) * (1 + 0.15 * rng.normal(size=n))
        width *= 1 + congestion * np.where(fan < 0, 0.75, 0.30)
        _grow(ink, np.tile(root, (n, 1)), fan, length, width, sign, 0, rng)
    layer = ink.layer()
    hilum = np.zeros_like(scene.y)
    density = 0.17 * float(np.clip(1 + 0.35 * rng.normal(), 0.4, 1.8))
    for sign in (-1.0, 1.0):
        x, y = sign * 0.165 + 0.8 * chest.midline, chest.carina + (0.16 if sign < 0 else 0.11)
        window = scene.window(x - 0.2, x + 0.2, y - 0.3, y + 0.3)
        dx = (scene.x[window] - np.float32(x)) - np.float32(0.2 * sign) * (scene.y[window] - np.float32(y))
        r2 = (dx * np.float32(1 / 0.055)) ** 2 + ((scene.y[window] - np.float32(y)) * np.float32(1 / 0.12)) ** 2
        hilum[window] += np.float32(density * (1 + 0.5 * congestion)) * np.exp(-r2)
    return np.float32(0.29 + 0.10 * congestion) * layer + hilum * ramp(scene.d_dome, 0.05)


def _grow(
    ink: Ink, start: Field, angle: Field, length: Field, width: Field, sign: float, level: int, rng: np.random.Generator
) -> None:
    """Draw one generation of branches, all at once, and grow the next from their ends."""
    bend = angle + 0.28 * rng.normal(size=len(angle))
    middle = start + 0.5 * length[:, None] * np.stack([sign * np.cos(angle), np.sin(angle)], axis=1)
    end = middle + 0.5 * length[:, None] * np.stack([sign * np.cos(bend), np.sin(bend)], axis=1)
    value = (0.95, 0.62, 0.40, 0.26)[level]
    ink.segments(start, middle, width, value)
    ink.segments(middle, end, 0.75 * width, 0.85 * value)
    if level == 3:
        return
    fork = 0.34 + 0.14 * rng.random(len(angle))
    origin = np.concatenate([end, end, middle])
    turn = np.concatenate([bend - fork, bend + fork, angle + np.sign(rng.normal(size=len(angle))) * 0.75])
    shorter = length * (0.62 if level else 0.55)
    keep = rng.random(3 * len(angle)) < np.repeat([1.0, 1.0, 0.45], len(angle)) - 0.12 * level
    _grow(
        ink, origin[keep], turn[keep], np.tile(shorter, 3)[keep] * (0.85 + 0.3 * rng.random(int(keep.sum()))),
        np.tile(width * 0.66, 3)[keep], sign, level + 1, rng,
    )  # fmt: skip
