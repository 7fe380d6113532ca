"""Soft tissue as line integrals: chest wall, shoulders, arms, breasts, heart, mediastinum, abdomen, airways."""

from __future__ import annotations

import numpy as np

from medvlm_probe.cohort.phantom.anatomy import AXIS, Table
from medvlm_probe.cohort.phantom.scene import Field, Scene, ramp, smooth, table_index


def _body_profile(scene: Scene) -> Table:
    """Return the half width of neck, shoulders and trunk for each y."""
    y, chest = AXIS, scene.chest
    trunk = chest.half_width + 0.13 + 0.5 * chest.fat + 0.05 * np.clip(y, -1, 1) ** 2
    shoulder = 0.19 + 0.05 * chest.fat + 1.25 * np.clip((y + 0.93) / 0.42, 0, 1.2) ** 0.8
    flank = np.maximum(trunk, 1.4 - 6.5 * (y + 0.55))
    width: Table = np.where(y < -0.55, np.minimum(shoulder, 1.4), flank)
    return width.astype(np.float32)


def soft_tissue(scene: Scene) -> tuple[Field, Field]:
    """Return the attenuation without bones and vessels, and the body's outline (0 outside, 1 inside)."""
    chest, y, u = scene.chest, scene.y, scene.u
    row = table_index(y)
    d_body = _body_profile(scene).take(row) - u
    body = ramp(d_body, 0.03)
    arm = ramp(u - (1.10 + 0.25 * chest.fat), 0.05) * ramp(y + 0.6, 0.1)
    round_edge = np.sqrt(np.clip(d_body * np.float32(1 / 0.22), 0, 1))
    shoulders = np.clip((-0.30 - AXIS) / 0.5, 0, 1) ** 1.2
    abdomen = np.clip((AXIS - 0.30) / 0.6, 0, 1)
    wall = (0.62 + 1.4 * chest.fat + 0.42 * shoulders + 0.15 * abdomen).astype(np.float32).take(row)
    attenuation = body * round_edge * wall
    attenuation += arm * np.float32(0.9)

    interior = np.sqrt(np.clip(1 - (u * np.float32(0.92 / (chest.half_width + 0.05))) ** 2, 0.02, 1))
    depth = (1.15 + 0.45 * abdomen - 0.55 * np.clip((-0.45 - AXIS) / 0.35, 0, 1)).astype(np.float32).take(row)
    inside = ramp(scene.d_wall + np.float32(0.03), 0.06)
    silhouette = np.maximum(scene.heart, scene.mediastinum)
    open_lung = scene.air * (1 - np.float32(0.66) * silhouette)
    attenuation += interior * depth * inside * (1 - np.float32(0.86) * open_lung)
    centre = np.exp(-((u * np.float32(1 / 0.26)) ** 2))
    attenuation += silhouette * (np.float32(0.15) + np.float32(0.14) * centre)
    if chest.breast > 0.05:
        attenuation += _breasts(scene)
    attenuation -= _airways(scene)
    attenuation -= _stomach_gas(scene)
    return np.maximum(attenuation, 0), body


def _breasts(scene: Scene) -> Field:
    """Return the shadow of the breasts: thickest towards their lower edge, which is sharp."""
    chest = scene.chest
    y = scene.y - np.float32(chest.breast_y)
    radius = np.float32(0.20 + 0.30 * chest.breast)
    r2 = ((scene.u - np.float32(0.50 * chest.half_width / 0.7)) / (radius * 1.25)) ** 2 + (
        np.where(y > 0, y, y * 0.55) / radius
    ) ** 2
    return np.clip(1 - r2, 0, 1) ** np.float32(0.6) * np.float32(0.9 * chest.breast)


def _airways(scene: Scene) -> Field:
    """Return what the air in trachea and main bronchi takes away."""
    carina = scene.chest.carina
    window = scene.window(-0.30, 0.30, -1.1, carina + 0.2)
    x, y = scene.m[window] + np.float32(0.35 * scene.chest.midline), scene.y[window]
    out = np.zeros_like(scene.y)
    trachea = np.clip(1 - (x * np.float32(1 / 0.047)) ** 2, 0, 1) * ramp(carina - y, 0.06)
    below = y - carina
    branch = np.clip(1 - ((np.abs(x) - below * np.where(x < 0, 0.75, 1.05)) * np.float32(1 / 0.034)) ** 2, 0, 1)
    branch = branch * ramp(below, 0.03) * ramp(np.float32(0.15) - below, 0.1)
    out[window] = np.float32(0.30) * np.sqrt(trachea) + np.float32(0.20) * np.sqrt(branch)
    return out


def _stomach_gas(scene: Scene) -> Field:
    """Return what the gas bubble under the left dome takes away."""
    gas = scene.chest.gas
    out = np.zeros_like(scene.y)
    if gas < 0.04:
        return out
    top = scene.chest.dome[1] + 0.04
    window = scene.window(0.05, 0.60, top - 0.05, top + 0.4)
    radius = 0.07 + 0.35 * gas
    r2 = ((scene.x[window] - np.float32(0.30)) / np.float32(radius * 1.3)) ** 2
    r2 += ((scene.y[window] - np.float32(top + 0.8 * radius)) / np.float32(0.8 * radius)) ** 2
    out[window] = (
        np.float32(0.55) * smooth((1 - r2) * np.float32(1.5)) * ramp(-scene.d_dome[window] - np.float32(0.02), 0.02)
    )
    return out
