"""A patient's chest as numbers: sizes and positions in the anatomy's own plane, and how findings change them.

The plane is centred on the chest: x in [-1, 1] runs to the patient's left (to the film's right), y in [-1, 1] down.
One unit is half the film's width, about 20 cm.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.cohort.phantom.case import Case, stream
from medvlm_probe.cohort.phantom.sites import SITES

Table = NDArray[np.floating]

N_TABLE = 2048
"""Entries of a profile table over [-1.28, 1.28]; fine enough for films of 1024 pixels."""

AXIS: Table = np.linspace(-1.28, 1.28, N_TABLE, dtype=np.float32)
"""The coordinate that each entry of a profile table stands for."""


@dataclass(frozen=True)
class Chest:
    """Sizes and positions; pairs are (patient's right, patient's left)."""

    half_width: float
    apex: tuple[float, float]
    dome: tuple[float, float]
    dome_height: tuple[float, float]
    narrow: float
    fat: float
    midline: float
    heart_right: float
    heart_left: float
    heart_top: float
    heart_bottom: float
    heart_peak: float
    mediastinum: float
    knob: float
    knob_y: float
    uncoil: float
    rib_spacing: float
    rib_phase: float
    rib_slope: float
    rib_density: float
    clavicle: tuple[float, float]
    breast: float
    breast_y: float
    gas: float
    carina: float


@dataclass(frozen=True)
class Pose:
    """How the patient stands before the film: shift in half widths, tilt in radians, scale."""

    dx: float
    dy: float
    tilt: float
    scale: float


def _grade(case: Case, kind: str) -> tuple[float, str, str]:
    """Return how severe a finding is (0 absent, about .4, .7, 1), its side and its variant."""
    for finding in case.findings:
        if finding.kind == kind:
            return (0.42, 0.7, 1.0)[finding.grade], finding.side, finding.variant
    return 0.0, "", ""


def chest_of(case: Case) -> Chest:
    """Return the chest of a case: the patient's habitus, the image's breath, and what the findings displace."""
    rng = stream(case.site, case.seed, case.index, "chest", case.prevalence)
    z = np.clip(rng.normal(size=40), -2.2, 2.2).tolist()
    film = stream(case.site, case.seed, case.index, "breath", case.prevalence, case.image_index)
    female = case.sex == "F"
    old = (case.age - 50) / 30
    breath = float(film.normal(0.0, 0.025)) + SITES[case.site].inspiration
    half_width = (0.68 if female else 0.72) + 0.025 * z[0]
    apex = -0.76 + 0.03 * z[1]
    dome = 0.46 + 0.055 * z[2] - breath
    domes = [dome - 0.035 + 0.02 * z[3], dome + 0.02 * z[4] + 0.01]

    loss, loss_side, loss_variant = _grade(case, "atelectasis")
    shift = 0.0
    if loss:
        lift = (0.10 if loss_variant == "lobar" else 0.07) * loss
        for side, sign in ((0, -1), (1, 1)):
            if loss_side in (("right", "left")[side], "bilateral"):
                domes[side] -= lift
                shift += 0.06 * loss * sign * (loss_variant == "lobar")
    air, air_side, _ = _grade(case, "pneumothorax")
    if air == 1.0:
        shift += 0.05 if air_side == "right" else -0.05
    fluid, fluid_side, _ = _grade(case, "pleural_effusion")
    if fluid == 1.0 and fluid_side != "bilateral":
        shift += 0.03 if fluid_side == "right" else -0.03

    wide, _, wide_variant = _grade(case, "enlarged_cardiomediastinum")
    tortuous = wide_variant == "tortuous"
    mediastinum = 0.135 + 0.013 * z[5] + 0.008 * old + (0.02 if tortuous else 0.062) * wide
    knob = 0.050 + 0.014 * z[6] + 0.014 * old + (0.055 if tortuous else 0.035) * wide
    uncoil = max(0.0, 0.014 * z[7] + 0.016 * old + (0.075 if tortuous else 0.015) * wide)
    width = case.ctr * 2 * half_width
    midline = 0.012 * z[8] + shift + float(film.normal(0, 0.01))
    left_share = float(np.clip(0.68 + 0.04 * z[9], 0.58, 0.76))
    return Chest(
        half_width=half_width,
        apex=(apex + 0.01 * z[10], apex + 0.01 * z[11]),
        dome=(domes[0], domes[1]),
        dome_height=(0.19 + 0.02 * z[12], 0.19 + 0.02 * z[13]),
        narrow=0.44 + 0.03 * z[14],
        fat=max(0.0, 0.10 + 0.045 * z[15]),
        midline=midline,
        heart_right=width * (1 - left_share),
        heart_left=width * left_share,
        heart_top=-0.10 + 0.03 * z[16] - 0.10 * (case.ctr - 0.45),
        heart_bottom=domes[1] + 0.11,
        heart_peak=0.70 + 0.05 * z[17],
        mediastinum=mediastinum,
        knob=knob,
        knob_y=-0.33 + 0.03 * z[18],
        uncoil=uncoil,
        rib_spacing=0.172 + 0.008 * z[19],
        rib_phase=0.06 * z[20],
        rib_slope=0.25 + 0.08 * z[21] + (0.06 if case.view == "PA" else -0.06),
        rib_density=(0.21 + 0.05 * z[22]) * (1.0 - 0.15 * max(0.0, old)),
        clavicle=(-0.57 + 0.035 * z[23] - breath * 0.6, -0.57 + 0.035 * z[24] - breath * 0.6),
        breast=max(0.0, 0.22 + 0.13 * z[25]) if female else 0.0,
        breast_y=0.30 + 0.06 * z[26],
        gas=max(0.0, 0.12 + 0.12 * z[27]),
        carina=-0.20 + 0.02 * z[28],
    )


def pose_of(case: Case) -> Pose:
    """Return how the patient of one image stands; it differs between a patient's images."""
    site = SITES[case.site]
    z = np.clip(
        stream(case.site, case.seed, case.index, "pose", case.prevalence, case.image_index).normal(size=4), -2.2, 2.2
    )
    return Pose(
        dx=float(site.offset * z[0]),
        dy=float(0.02 + site.offset * z[1]),
        tilt=float(np.radians(site.rotation * z[2])),
        scale=float(1.05 * np.exp(0.055 * z[3])) * (1.03 if case.view == "AP" else 1.0),
    )


def wall_profile(chest: Chest) -> Table:
    """Return the lungs' lateral border |x| for each y."""
    top = min(chest.apex)
    t = np.clip((AXIS - top) / (0.62 - top), 0.0, 1.0)
    rise = 1 - (1 - np.clip(t / 0.86, 0, 1)) ** 2.1
    width: Table = chest.half_width * (chest.narrow + (1 - chest.narrow) * rise - 0.04 * np.clip(t - 0.8, 0, 1) ** 2)
    return width.astype(np.float32)


def dome_profiles(chest: Chest) -> Table:
    """Return the diaphragm's height y for each |x|, (2, N_TABLE): right, left."""
    rows = []
    for side in (0, 1):
        s = (AXIS - 0.40 * chest.half_width) / (0.62 * chest.half_width)
        lateral = np.where(s > 0, np.abs(s) ** 2.3, 0.45 * s**2)
        rows.append(chest.dome[side] + chest.dome_height[side] * lateral)
    return np.stack(rows).astype(np.float32)


def apex_profiles(chest: Chest) -> Table:
    """Return the lungs' upper border y for each |x|, (2, N_TABLE)."""
    s = (AXIS - 0.27) / 0.19
    return np.stack([chest.apex[side] + 0.10 * s**2 for side in (0, 1)]).astype(np.float32)


def mediastinum_profiles(chest: Chest) -> Table:
    """Return the mediastinum's half width for each y, (2, N_TABLE), with cava, aortic knob and pulmonary trunk."""
    y = AXIS
    neck = chest.mediastinum * (0.82 + 0.25 * np.clip(y + 0.5, -0.3, 0.5))
    right = neck * 0.95 + 0.015 * np.exp(-(((y + 0.15) / 0.14) ** 2))
    knob = chest.knob * np.exp(-(np.abs((y - chest.knob_y) / 0.095) ** 2.6))
    trunk = 0.030 * np.exp(-(((y + 0.10) / 0.09) ** 2))
    descending = chest.uncoil * np.exp(-(((y - 0.02) / 0.26) ** 2))
    left = neck * 0.78 + knob + trunk + descending
    return np.stack([right, left]).astype(np.float32)


def heart_profiles(chest: Chest) -> Table:
    """Return the heart's border |x - midline| for each y, (2, N_TABLE); the maxima are the heart's half widths."""
    t = np.clip((AXIS - chest.heart_top) / (chest.heart_bottom - chest.heart_top), 0.0, 1.0)
    left_power = np.log(0.5) / np.log(chest.heart_peak)
    left = chest.heart_left * np.clip(np.sin(np.pi * t**left_power), 0, 1) ** 0.72
    right = chest.heart_right * np.clip(np.sin(np.pi * t**1.15), 0, 1) ** 0.62
    return np.stack([right, left]).astype(np.float32)
