"""Bones as line integrals: ribs (posterior and anterior arcs), spine, clavicles, scapulae; and rib fractures."""

from __future__ import annotations

import numpy as np

from medvlm_probe.cohort.phantom.anatomy import AXIS, N_TABLE, Table
from medvlm_probe.cohort.phantom.case import Finding
from medvlm_probe.cohort.phantom.scene import Field, Ink, Scene, ramp, smooth, table_index

_FIRST_RIB = -0.74


def _rib_table(scene: Scene, thickness: float, rng: np.random.Generator) -> Table:
    """Return a rib's density over a table of phase: a tube with dense cortex, each rib a little different."""
    phase = np.arange(N_TABLE, dtype=np.float32) / 128.0
    number, within = np.floor(phase).astype(int), phase % 1.0 - 0.5
    half = (thickness * (1 + 0.10 * rng.normal(size=20)))[number]
    offset = (0.05 * rng.normal(size=20))[number]
    density = (1 + 0.12 * rng.normal(size=20))[number]
    r = (within - offset) / half
    tube = np.sqrt(np.clip(1 - r * r, 0, 1))
    cortex = np.exp(-(((np.abs(r) - 0.86) / 0.16) ** 2)) * (0.55 + 0.25 * (r > 0))
    profile: Table = density * (0.62 * tube + 0.5 * cortex * (np.abs(r) < 1.15))
    return profile.astype(np.float32)


def ribs(scene: Scene, rng: np.random.Generator, fractures: list[Finding]) -> Field:
    """Return the ribs' attenuation; fractures shift, part or thicken single ribs and are marked."""
    chest = scene.chest
    w = scene.u * np.float32(1 / chest.half_width)
    stretch = 1 + np.float32(0.55) * np.clip(scene.y + np.float32(0.2), -0.4, 0.6)
    bow = np.float32(chest.rib_slope) * (np.float32(1.5) * w * w * w - np.float32(0.42) * w) * stretch
    y = scene.y - bow
    callus: Field | None = None
    for finding in fractures:
        y, callus = _fracture(scene, finding, y, callus, rng)
    per_unit = 1 / chest.rib_spacing
    phase = (y - np.float32(_FIRST_RIB + chest.rib_phase)) * np.float32(per_unit)
    index = np.clip(phase * 128 + 128, 0, N_TABLE - 1).astype(np.int32)
    reach = ramp(scene.d_wall + np.float32(0.035), 0.03)
    out: Field = _rib_table(scene, 0.24, rng).take(index) * reach * ramp(scene.u - np.float32(0.10), 0.08)
    y_front = scene.y - np.float32(0.10) + (w - 1) * np.float32(0.55)
    index = np.clip(
        (y_front - np.float32(_FIRST_RIB + chest.rib_phase)) * np.float32(128 * per_unit * 0.96) + 90, 0, N_TABLE - 1
    )
    front = _rib_table(scene, 0.27, rng).take(index.astype(np.int32))
    fade = ramp(w - np.float32(0.62), 0.35) * ramp(scene.y + np.float32(0.55), 0.2)
    out += np.float32(0.55) * front * fade * reach
    out *= (np.float32(1) + np.float32(0.35) * np.clip(-w + np.float32(0.6), 0, 1)) * np.float32(chest.rib_density)
    out *= ramp(np.float32(0.62) - scene.y, 0.3)
    if callus is not None:
        out += callus
    return out


def _fracture(
    scene: Scene, finding: Finding, y: Field, callus: Field | None, rng: np.random.Generator
) -> tuple[Field, Field]:
    """Displace a rib (by shifting the field that ribs are looked up in), or add a healing rib's callus; mark it."""
    chest = scene.chest
    callus = np.zeros_like(y) if callus is None else callus
    sign = 1.0 if finding.side == "left" else -1.0
    number = {"middle": 4, "lower": 6}[finding.zone] + int(rng.integers(-1, 2))
    for neighbour in range(1 if finding.grade < 2 else 2 + int(rng.integers(2))):
        head = _FIRST_RIB + chest.rib_phase + (number + neighbour - 0.5) * chest.rib_spacing
        at = (0.60 + 0.30 * rng.random()) * chest.half_width
        w = at / chest.half_width
        stretch = 1 + 0.55 * float(np.clip(head + 0.1 + 0.2, -0.4, 0.6))
        centre = head + chest.rib_slope * (1.5 * w**3 - 0.42 * w) * stretch
        slope = chest.rib_slope * (4.5 * w**2 - 0.42) / chest.half_width
        half = 0.11
        window = scene.window(sign * at - half, sign * at + half, centre - half, centre + half)
        if window[0].stop - window[0].start < 4 or window[1].stop - window[1].start < 4:
            continue
        along = scene.u[window] - np.float32(at)
        across = scene.y[window] - np.float32(centre) - np.float32(slope) * along
        near = smooth(1.6 - np.abs(across) * np.float32(1.6 / (0.62 * chest.rib_spacing)))
        step = (0.030, 0.044, 0.058)[finding.grade]
        if finding.variant == "displaced":
            tilt = along + np.float32(0.5) * across
            beyond = ramp(tilt, 0.012) * smooth((np.float32(0.11) - np.abs(along)) * np.float32(14))
            y[window] += np.float32(step * (1 if rng.random() < 0.5 else -1)) * beyond * near
            gap = np.exp(-((tilt * np.float32(1 / 0.010)) ** 2)) * near
            callus[window] -= np.float32(0.9 * chest.rib_density) * gap * (np.abs(across) < 0.30 * chest.rib_spacing)
            shape = (np.abs(along) < 0.055) & (np.abs(across) < 0.5 * chest.rib_spacing)
        else:
            radius = (0.036, 0.046, 0.056)[finding.grade]
            r2 = (along / np.float32(radius * 1.25)) ** 2 + (across / np.float32(radius)) ** 2
            bump = np.clip(1 - r2, 0, 1) ** np.float32(0.7)
            callus[window] += np.float32((0.17, 0.25, 0.34)[finding.grade]) * bump
            line = np.exp(-(((along + 0.3 * across) * np.float32(1 / 0.008)) ** 2))
            callus[window] -= np.float32(0.5 * chest.rib_density) * line * (r2 < 0.8)
            shape = r2 < 1
        scene.mark("fracture", shape, window)
    return y, callus


def spine(scene: Scene, rng: np.random.Generator) -> Field:
    """Return the vertebral column: bodies, darker discs, pedicles and spinous processes."""
    phase = float(rng.uniform(0, 1))
    spacing = 0.118 * (1 + 0.30 * np.clip(AXIS + 0.2, -0.6, 0.8))
    turns = np.cumsum(np.r_[0, np.diff(AXIS)] / spacing) + phase
    within = np.abs(turns % 1.0 - 0.5)
    body = 0.72 + 0.28 / (1 + np.exp((within - 0.39) * 45)) + 0.16 * np.exp(-(((within - 0.36) / 0.05) ** 2))
    width = 0.082 + 0.014 * np.clip(AXIS + 0.2, -0.5, 0.8) - 0.010 * (within < 0.28)
    row = table_index(scene.y)
    out = body.astype(np.float32).take(row) * ramp(width.astype(np.float32).take(row) - scene.u, max(scene.edge, 0.022))
    knobs = np.exp(-(((within - 0.12) / 0.09) ** 2)).astype(np.float32).take(row)
    pedicle = np.exp(-(((AXIS - 0.058) / 0.014) ** 2)).astype(np.float32)
    process = np.exp(-((AXIS / 0.012) ** 2)).astype(np.float32)
    column = table_index(scene.u)
    out += knobs * (np.float32(0.30) * pedicle.take(column) + np.float32(0.26) * process.take(column))
    return out * np.float32(0.30)


def clavicles_and_scapulae(scene: Scene, rng: np.random.Generator) -> Field:
    """Return the clavicles, and the scapulae's faint medial borders."""
    ink = Ink(scene, 1)
    for side, sign in ((0, -1.0), (1, 1.0)):
        y = scene.chest.clavicle[side]
        a = 0.13 + 0.05 * rng.random()
        bone = [
            (sign * (0.075 + 0.58 * t), y - a * t + 0.035 * np.sin(2 * np.pi * t) * (1 - 0.4 * t))
            for t in np.linspace(0, 1, 9)
        ]
        ink.line(bone, 0.066, 0.85)
        ink.line(bone, 0.036, 0.55)
        ink.disc(bone[0], 0.045, 0.75)
        x = scene.chest.half_width + 0.015 + 0.05 * rng.random()
        blade = [
            (sign * (x + 0.02), -0.58),
            (sign * (x - 0.035), -0.30),
            (sign * (x + 0.035), 0.02),
            (sign * (x + 0.22), -0.35),
        ]
        ink.polygon(blade, 0.20)
        ink.line(blade[:3], 0.016, 0.42)
    return np.float32(0.36) * ink.layer()
