"""Support devices: pacemaker and leads, tubes, lines, sternal wires, monitor leads. Drawn as ink, thin and dense."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from medvlm_probe.cohort.phantom.case import Finding
from medvlm_probe.cohort.phantom.scene import Field, Ink, Point, Scene


def curve(points: list[Point], n: int = 24) -> list[Point]:
    """Return a smooth line (Catmull-Rom) through points."""
    p = np.asarray([points[0], *points, points[-1]], dtype=float)
    t = np.linspace(0, 1, max(2, n // (len(points) - 1)), endpoint=False)[:, None]
    pieces = [
        0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
        for a, b, c, d in zip(p, p[1:], p[2:], p[3:], strict=False)
    ]
    return [(float(x), float(y)) for x, y in [*np.concatenate(pieces), p[-1]]]


def _pacemaker(scene: Scene, finding: Finding, ink: Ink, rng: np.random.Generator) -> None:
    chest = scene.chest
    sign = -1.0 if finding.side == "right" else 1.0
    x, y = sign * (0.50 + 0.06 * rng.random()), -0.44 + 0.08 * rng.random()
    a, b = 0.085 + 0.015 * rng.random(), 0.075
    outline = [
        (x + a * np.cos(t), y + b * np.sin(t) * (1.15 if np.sin(t) > 0 else 0.8)) for t in np.linspace(0, 2 * np.pi, 20)
    ]
    ink.polygon(outline, 0.85)
    ink.line([(x - 0.6 * a, y - 0.045), (x + 0.6 * a, y - 0.045)], 0.03, 0.6)
    m = chest.midline
    route = [(x - sign * 0.06, y - 0.06), (sign * 0.30, -0.56), (m - 0.08, -0.42), (m - 0.10, -0.10)]
    apex = (m + 0.72 * chest.heart_left, chest.heart_bottom - 0.20)
    ink.line(curve([*route, (m - 0.06, 0.24), (m + 0.15, 0.33), apex]), 0.012, 0.8)
    if finding.grade:
        ink.line(
            curve(
                [
                    (x - sign * 0.05, y - 0.05),
                    *[(px + 0.015, py) for px, py in route[1:]],
                    (m - 0.12, 0.16),
                    (m - 0.03, 0.10),
                ]
            ),
            0.012,
            0.8,
        )


def _central_line(scene: Scene, finding: Finding, ink: Ink, rng: np.random.Generator) -> None:
    m = scene.chest.midline
    sign = -1.0 if finding.side == "right" else 1.0
    if rng.random() < 0.5:
        start = [(sign * 0.16, -0.98), (sign * 0.15, -0.72), (m + (-0.08 if sign < 0 else 0.06), -0.50)]
    else:
        start = [(sign * 0.62, -0.62), (sign * 0.36, -0.53), (sign * 0.16, -0.52)]
    end = [(m - 0.075, -0.36), (m - 0.095, -0.12 + 0.10 * rng.random())]
    ink.line(curve([*start, *end]), 0.013, 0.62)


def _endotracheal_tube(scene: Scene, finding: Finding, ink: Ink, rng: np.random.Generator) -> None:
    m, tip = 0.65 * scene.chest.midline, scene.chest.carina - rng.uniform(0.08, 0.22)
    lean = 0.02 * rng.normal()
    path = curve([(m + lean, -1.15), (m + 0.3 * lean, -0.75), (m, tip)])
    for offset in (-0.018, 0.018):
        ink.line([(x + offset, y) for x, y in path], 0.008, 0.42)
    ink.line([(x + 0.012, y) for x, y in path], 0.009, 0.75)


def _nasogastric_tube(scene: Scene, finding: Finding, ink: Ink, rng: np.random.Generator) -> None:
    m = scene.chest.midline
    stomach = scene.chest.dome[1]
    path = [(0.03 * rng.normal(), -1.15), (m + 0.03, -0.5), (m + 0.045, 0.0), (m + 0.06, stomach - 0.08)]
    ink.line(curve([*path, (0.20, stomach + 0.14), (0.30 + 0.08 * rng.random(), stomach + 0.26)]), 0.013, 0.62)


def _sternal_wires(scene: Scene, finding: Finding, ink: Ink, rng: np.random.Generator) -> None:
    m = 0.5 * scene.chest.midline
    for number in range(5 + int(rng.integers(2))):
        y = -0.40 + 0.118 * number + 0.012 * rng.normal()
        x = m + 0.012 * rng.normal()
        loop = [
            (x + 0.036 * np.cos(t), y + 0.024 * np.sin(t) + 0.010 * np.cos(t)) for t in np.linspace(0, 2 * np.pi, 13)
        ]
        ink.line(loop, 0.010, 0.85)
        ink.line([(x, y + 0.02), (x + 0.012, y + 0.045)], 0.012, 0.9)


def _ecg_leads(scene: Scene, finding: Finding, ink: Ink, rng: np.random.Generator) -> None:
    w = scene.chest.half_width
    for x, y in ((-0.62 * w, -0.30), (0.62 * w, -0.30), (0.75 * w, 0.30)):
        cx, cy = x + 0.06 * rng.normal(), y + 0.06 * rng.normal()
        ink.disc((cx, cy), 0.030, 0.34)
        ink.disc((cx, cy), 0.015, 0.80)
        leave = (cx + 0.35 * rng.normal(), 1.1 if rng.random() < 0.6 else -1.1)
        ink.line(curve([(cx, cy), (cx + 0.12 * rng.normal(), 0.5 * (cy + leave[1])), leave]), 0.010, 0.42)


_DRAW: dict[str, Callable[[Scene, Finding, Ink, np.random.Generator], None]] = {
    "pacemaker": _pacemaker,
    "central_line": _central_line,
    "endotracheal_tube": _endotracheal_tube,
    "nasogastric_tube": _nasogastric_tube,
    "sternal_wires": _sternal_wires,
    "ecg_leads": _ecg_leads,
}


def device(scene: Scene, finding: Finding, out: Field, rng: np.random.Generator) -> None:
    """Draw one device and mark it."""
    ink = Ink(scene, 2)
    _DRAW[finding.variant](scene, finding, ink, rng)
    layer = ink.layer()
    out += np.float32(1.05) * layer
    scene.mark("support_devices", layer > 0.12)
