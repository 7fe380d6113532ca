"""Findings inside the lungs: opacities, consolidation, pneumonia, atelectasis, edema, nodules. All add attenuation."""

from __future__ import annotations

import numpy as np

from medvlm_probe.cohort.phantom.case import Finding
from medvlm_probe.cohort.phantom.scene import Field, Ink, Scene, Window, ramp, smooth

_ZONE_Y = {"upper": -0.42, "middle": -0.06, "lower": 0.24}


def sides(finding: Finding) -> tuple[float, ...]:
    """Return the signs of x on which a finding lies; bilateral ones lie on both."""
    return {"left": (1.0,), "right": (-1.0,)}.get(finding.side, (-1.0, 1.0))


def _patch_centre(scene: Scene, zone: str, sign: float, rng: np.random.Generator) -> tuple[float, float]:
    """Return a point inside a zone of one lung."""
    dome = scene.chest.dome[0 if sign < 0 else 1]
    y = _ZONE_Y[zone] + 0.10 * (rng.random() - 0.5)
    y = min(y, dome - 0.06)
    low, high = (0.24, 0.40) if zone == "upper" else (0.26, 0.54)
    return sign * float(rng.uniform(low, high)), y


def _ellipse(scene: Scene, x: float, y: float, rx: float, ry: float) -> tuple[Window, Field]:
    """Return a window around an ellipse and the squared distance from its centre in radii."""
    window = scene.window(x - 1.5 * rx, x + 1.5 * rx, y - 1.5 * ry, y + 1.5 * ry)
    r2 = ((scene.x[window] - np.float32(x)) * np.float32(1 / rx)) ** 2
    return window, r2 + ((scene.y[window] - np.float32(y)) * np.float32(1 / ry)) ** 2


def _add(scene: Scene, out: Field, label: str, window: Window, shade: Field, threshold: float) -> None:
    """Add a shadow inside the lungs and mark where it exceeds a share of its maximum."""
    if not shade.size:
        return
    shade = shade * scene.lung[window]
    out[window] += shade
    if shade.max() > 0:
        scene.mark(label, shade > np.float32(threshold) * shade.max(), window)


def opacity(scene: Scene, finding: Finding, out: Field, rng: np.random.Generator) -> None:
    """Draw an unspecific opacity: a hazy patch, or a net of fine lines."""
    for sign in sides(finding):
        x, y = _patch_centre(scene, finding.zone, sign, rng)
        r = (0.15, 0.19, 0.25)[finding.grade] * (0.85 + 0.3 * rng.random())
        window, r2 = _ellipse(scene, x, y, r, r * (0.9 + 0.5 * rng.random()))
        blob = smooth((1.15 - r2) * np.float32(0.9))
        if finding.variant == "reticular":
            net = np.abs(scene.clouds(rng, window, 1.6))
            texture = np.clip(1 - net * np.float32(3.2), 0, 1) * np.float32(1.25) + np.float32(0.15)
            strength = (0.20, 0.30, 0.44)[finding.grade]
        else:
            texture = np.clip(np.float32(0.8) + np.float32(0.35) * scene.clouds(rng, window, 0.9), 0.1, 1.6)
            strength = (0.22, 0.34, 0.52)[finding.grade]
        _add(scene, out, "lung_opacity", window, np.float32(strength) * blob * texture, 0.25)


def consolidation(scene: Scene, finding: Finding, out: Field, rng: np.random.Generator) -> None:
    """Draw a dense segment or lobe with one straight fissure edge and branching air bronchograms."""
    sign = sides(finding)[0]
    x, y = _patch_centre(scene, finding.zone, sign, rng)
    r = (0.15, 0.21, 0.30)[finding.grade] * (0.9 + 0.2 * rng.random())
    window, r2 = _ellipse(scene, x, y, r * 1.15, r)
    ragged = r2 + np.float32(0.22) * scene.clouds(rng, window, 1.0)
    fissure = (scene.y[window] - np.float32(y)) + np.float32(0.25 * sign) * (scene.x[window] - np.float32(x))
    toward = -1.0 if finding.zone == "lower" else 1.0
    blob = smooth((1.1 - ragged) * np.float32(1.9)) * ramp(np.float32(0.55 * r) - np.float32(toward) * fissure, 0.02)
    ink = Ink(scene, 1)
    angle = np.arctan2(y + 0.05, x - sign * 0.12)
    for turn in (-0.5, -0.15, 0.25, 0.6):
        start = (x - 0.75 * r * np.cos(angle), y - 0.75 * r * np.sin(angle))
        bend = (x + 0.1 * r * np.cos(angle + 2 * turn), y + 0.3 * r * np.sin(angle + 2 * turn))
        end = (x + 0.8 * r * np.cos(angle + turn * 1.6), y + 0.8 * r * np.sin(angle + turn * 1.6))
        ink.line([start, bend, end], 0.017, 0.9)
    bronchi = ink.layer()[window]
    strength = (0.36, 0.54, 0.76)[finding.grade]
    _add(scene, out, "consolidation", window, np.float32(strength) * blob * (1 - np.float32(0.62) * bronchi), 0.3)
    _also(scene, "consolidation")


def pneumonia(scene: Scene, finding: Finding, out: Field, rng: np.random.Generator) -> None:
    """Draw patchy infiltrates: several small fluffy shadows that run together."""
    for sign in sides(finding):
        cx, cy = _patch_centre(scene, finding.zone, sign, rng)
        spread = (0.13, 0.17, 0.23)[finding.grade]
        window = scene.window(cx - 2.2 * spread, cx + 2.2 * spread, cy - 2.2 * spread, cy + 2.2 * spread)
        x, y = scene.x[window], scene.y[window]
        shade = np.zeros_like(x)
        for _ in range((5, 8, 12)[finding.grade]):
            px, py = cx + spread * rng.normal() * 0.75, cy + spread * rng.normal() * 0.75
            r = rng.uniform(0.035, 0.065)
            r2 = ((x - np.float32(px)) ** 2 + (y - np.float32(py)) ** 2) * np.float32(1 / r**2)
            shade += np.exp(-r2 * np.float32(0.8))
        fluff = np.clip(np.float32(0.85) + np.float32(0.55) * scene.clouds(rng, window, 1.8), 0.05, 2)
        strength = (0.26, 0.36, 0.46)[finding.grade]
        _add(scene, out, "pneumonia", window, np.float32(strength) * np.minimum(shade, 1.3) * fluff, 0.25)
    _also(scene, "pneumonia")


def atelectasis(scene: Scene, finding: Finding, out: Field, rng: np.random.Generator) -> None:
    """Draw plates (thin bands) above the raised dome, or a collapsed lower lobe: a wedge behind the heart's border."""
    for sign in sides(finding):
        dome = scene.chest.dome[0 if sign < 0 else 1]
        if finding.variant == "lobar":
            width = (0.20, 0.27, 0.34)[finding.grade]
            top = dome - (0.30, 0.38, 0.46)[finding.grade]
            far = sign * (0.12 + 1.4 * width)
            window = scene.window(min(0.0, far), max(0.0, far), top - 0.1, dome + 0.3)
            y, u = scene.y[window], scene.u[window]
            reach = np.float32(0.10) + np.float32(width) * (y - np.float32(top)) * np.float32(1 / (dome + 0.1 - top))
            wedge = ramp(reach - u, 0.022) * ramp(y - np.float32(top), 0.05) * (scene.x[window] * np.float32(sign) > 0)
            wedge *= ramp(u - np.float32(0.07), 0.06)
            shade = np.float32((0.34, 0.48, 0.64)[finding.grade]) * wedge
            _add(scene, out, "atelectasis", window, shade, 0.3)
            continue
        ink = Ink(scene, 2)
        base = dome - 0.10 if finding.zone == "lower" else dome - 0.36
        for number in range((1, 2, 3)[finding.grade] + int(rng.integers(2))):
            x0 = sign * rng.uniform(0.20, 0.34)
            length = rng.uniform(0.20, 0.30) * (1 + 0.12 * finding.grade)
            y0 = base - 0.085 * number + 0.03 * rng.normal()
            slope = rng.uniform(-0.30, 0.25)
            points = [
                (x0 + sign * length * t, y0 + slope * length * t + 0.02 * np.sin(3 * t))
                for t in (0, 0.25, 0.5, 0.75, 1)
            ]
            ink.line(points, (0.018, 0.024, 0.032)[finding.grade] * rng.uniform(0.8, 1.2), 1.0)
        plates = ink.layer()
        full = (slice(0, scene.size), slice(0, scene.size))
        _add(scene, out, "atelectasis", full, np.float32((0.27, 0.36, 0.46)[finding.grade]) * plates, 0.3)
    _also(scene, "atelectasis")


def edema(scene: Scene, finding: Finding, out: Field, rng: np.random.Generator) -> None:
    """Draw bat-wing haze around the hila and septal (Kerley B) lines at the lateral bases."""
    chest = scene.chest
    strength = np.float32((0.11, 0.20, 0.36)[finding.grade])
    dy = (scene.y - np.float32(chest.carina + 0.22)) * np.float32(1 / (0.30 + 0.05 * finding.grade))
    dx = (scene.u - np.float32(0.24)) * np.float32(1 / (0.17 + 0.04 * finding.grade))
    haze = np.exp(-dx * dx - dy * dy)
    fluff = np.clip(np.float32(0.8) + np.float32(0.45) * scene.clouds(rng, None, 1.5), 0.1, 2)
    ink = Ink(scene, 2)
    starts, ends = [], []
    for sign in sides(finding):
        dome = chest.dome[0 if sign < 0 else 1]
        for _ in range((7, 11, 16)[finding.grade]):
            y = dome + 0.06 - 0.34 * rng.random()
            x = 0.97 * chest.half_width - 0.03 * rng.random()
            starts.append((sign * x, y))
            ends.append((sign * (x - rng.uniform(0.05, 0.10)), y + 0.012 * rng.normal()))
    ink.segments(np.array(starts), np.array(ends), np.full(len(starts), 0.009), 1.0)
    lines = ink.layer()
    shade = strength * haze * fluff
    if finding.side != "bilateral":
        shade *= np.where(scene.left == (finding.side == "left"), np.float32(1), np.float32(0.25))
    shade += np.float32((0.13, 0.18, 0.23)[finding.grade]) * lines
    full = (slice(0, scene.size), slice(0, scene.size))
    _add(scene, out, "edema", full, shade, 0.3)
    _also(scene, "edema")


def lesion(scene: Scene, finding: Finding, out: Field, rng: np.random.Generator) -> None:
    """Draw one nodule or mass, or several nodules, with lobulated edges."""
    sign = sides(finding)[0]
    count = 1 if finding.variant == "nodule" else 3 + finding.grade + int(rng.integers(2))
    for number in range(count):
        zone = finding.zone if number == 0 else ("upper", "middle", "lower")[int(rng.integers(3))]
        x, y = _patch_centre(scene, zone, sign, rng)
        r = (0.042, 0.062, 0.088)[finding.grade] * rng.uniform(0.88, 1.15)
        if count > 1:
            r = 0.034 + 0.008 * finding.grade + 0.008 * rng.random()
            x, y = x + 0.05 * rng.normal(), y + 0.08 * rng.normal()
        window = scene.window(x - 1.4 * r, x + 1.4 * r, y - 1.4 * r, y + 1.4 * r)
        dx, dy = scene.x[window] - np.float32(x), scene.y[window] - np.float32(y)
        angle = np.arctan2(dy, dx)
        lobes = 1 + 0.07 * np.sin(3 * angle + 6 * rng.random()) + 0.05 * np.sin(5 * angle + 6 * rng.random())
        t = np.sqrt(dx * dx + dy * dy) / (np.float32(r) * lobes.astype(np.float32))
        ball = np.sqrt(np.clip(1 - t * t, 0, 1)) * ramp(1 - t, 0.25)
        strength = (0.30, 0.40, 0.50)[finding.grade] if count == 1 else (0.27, 0.33, 0.40)[finding.grade]
        _add(scene, out, "lung_lesion", window, np.float32(strength) * ball, 0.15)
    _also(scene, "lung_lesion")


def _also(scene: Scene, label: str) -> None:
    """Mark a finding as lung opacity too, as CheXpert's hierarchy has it."""
    if label not in scene.masks:
        return
    parent = scene.masks.setdefault("lung_opacity", np.zeros((scene.size, scene.size), bool))
    parent |= scene.masks[label]
    boxes = scene.boxes.setdefault("lung_opacity", [])
    boxes.extend(box for box in scene.boxes[label] if box not in boxes)
