"""Findings of the pleural space: effusion, pneumothorax, thickening and plaques."""

from __future__ import annotations

import numpy as np

from medvlm_probe.cohort.phantom.case import Finding
from medvlm_probe.cohort.phantom.findings_lung import sides
from medvlm_probe.cohort.phantom.scene import Field, Scene, ramp, smooth


def effusion(scene: Scene, finding: Finding, out: Field, rng: np.random.Generator) -> None:
    """Draw fluid over the dome that climbs the lateral wall (meniscus) and blunts the costophrenic angle."""
    chest = scene.chest
    for number, sign in enumerate(sides(finding)):
        side = 0 if sign < 0 else 1
        grade = finding.grade if number == 0 else max(0, finding.grade - int(rng.integers(2)))
        angle = chest.dome[side] + chest.dome_height[side] * 0.55
        level = angle - (0.075, 0.22, 0.48)[grade] * rng.uniform(0.85, 1.2)
        window = scene.window(min(0.0, 1.1 * sign), max(0.0, 1.1 * sign), level - 0.35, angle + 0.35)
        wall = np.clip(scene.d_wall[window], 0, None)
        climb = np.float32((0.10, 0.13, 0.16)[grade]) * np.exp(-wall * np.float32(1 / (0.07, 0.09, 0.12)[grade]))
        below = scene.y[window] - (np.float32(level + 0.035) - climb)
        behind = np.maximum(scene.heart[window], scene.mediastinum[window])
        fluid = ramp(below, 0.035) * scene.lung[window] * (scene.x[window] * np.float32(sign) > 0)
        fluid *= 1 - np.float32(0.85) * behind
        deep = np.clip(below * np.float32(4.0) + np.float32(0.75), 0, 1.15)
        out[window] += np.float32((0.50, 0.62, 0.78)[grade]) * fluid * deep
        scene.mark("pleural_effusion", fluid > 0.5, window)


def pneumothorax(scene: Scene, finding: Finding, rng: np.random.Generator) -> tuple[Field, Field]:
    """Return the pleural line's attenuation, and what of vessels is left: 0 outside the retracted lung, else 1."""
    sign = sides(finding)[0]
    grade = finding.grade
    depth = (0.095, 0.17, 0.32)[grade] * rng.uniform(0.85, 1.15)
    t = np.clip((np.float32(0.35) - scene.y) * np.float32(1 / 1.05), 0, 1)
    gap = np.float32(depth) * (np.float32(0.22 + 0.20 * grade) + t)
    wave = np.float32(0.010) * np.sin(scene.y * np.float32(9 + 4 * rng.random()) + np.float32(6 * rng.random()))
    from_edge = np.minimum(scene.d_wall, scene.d_apex * np.float32(0.75))
    inward = from_edge - gap - wave
    own = scene.x * np.float32(sign) > 0
    kept = np.where(own, ramp(inward, 2 * scene.edge), np.float32(1))
    width = max(0.9 * scene.edge, 0.0085)
    line = np.exp(-((inward * np.float32(1 / width)) ** 2)) * scene.lung * own
    haze = smooth(inward * np.float32(12)) * own * scene.lung * np.float32((0.02, 0.05, 0.16)[grade])
    scene.mark("pneumothorax", (kept < 0.5) & (scene.lung > 0.5))
    return np.float32((0.16, 0.22, 0.26)[grade]) * line + haze, kept


def pleural_other(scene: Scene, finding: Finding, out: Field, rng: np.random.Generator) -> None:
    """Draw pleural thickening along apex or lateral wall, or calcified plaques."""
    for sign in sides(finding):
        own = scene.x * np.float32(sign) > 0
        grade = finding.grade
        if finding.variant == "plaques":
            _plaques(scene, grade, sign, out, rng)
            continue
        thick = np.float32((0.030, 0.046, 0.070)[grade] * rng.uniform(0.9, 1.15))
        rough = thick * (np.float32(1) + np.float32(0.30) * scene.clouds(rng, None, 1.4))
        if finding.variant == "apical":
            near = scene.d_apex - rough * np.float32(1.25)
            extent = ramp(np.float32(-0.42) - scene.y, 0.12)
        else:
            low = scene.chest.dome[0 if sign < 0 else 1]
            near = scene.d_wall - rough
            extent = ramp(scene.y - np.float32(low - 0.62), 0.16) * ramp(np.float32(low + 0.12) - scene.y, 0.10)
        band = ramp(-near, 0.016) * extent * own * scene.lung
        out += np.float32((0.34, 0.42, 0.52)[grade]) * band
        scene.mark("pleural_other", band > 0.3)


def _plaques(scene: Scene, grade: int, sign: float, out: Field, rng: np.random.Generator) -> None:
    """Draw flat calcifications with irregular, dense edges."""
    dome = scene.chest.dome[0 if sign < 0 else 1]
    for _ in range((2, 3, 5)[grade]):
        x, y = sign * rng.uniform(0.26, 0.54), rng.uniform(-0.25, dome - 0.10)
        rx, ry = rng.uniform(0.05, 0.085), rng.uniform(0.025, 0.045)
        window = scene.window(x - 2 * rx, x + 2 * rx, y - 3 * ry, y + 3 * ry)
        dx, dy = scene.x[window] - np.float32(x), scene.y[window] - np.float32(y)
        lean = np.float32(rng.uniform(-0.7, 0.7))
        r2 = (dx * np.float32(1 / rx)) ** 2 + ((dy + lean * dx) * np.float32(1 / ry)) ** 2
        edge = r2 + np.float32(0.35) * scene.clouds(rng, window, 2.2)
        inside = ramp(1 - edge, 0.35)
        rim = np.exp(-(((edge - np.float32(0.75)) * np.float32(3)) ** 2))
        shade = (np.float32(0.55) * inside + np.float32(0.45) * rim) * scene.lung[window]
        out[window] += np.float32((0.30, 0.38, 0.48)[grade]) * shade
        if shade.size:
            scene.mark("pleural_other", shade > 0.2, window)
