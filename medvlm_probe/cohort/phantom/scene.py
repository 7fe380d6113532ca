"""The film's grids in the anatomy's plane, and the lungs' outline on them: what all that draws has in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from medvlm_probe.cohort.phantom.anatomy import (
    N_TABLE,
    Chest,
    Pose,
    apex_profiles,
    dome_profiles,
    heart_profiles,
    mediastinum_profiles,
    wall_profile,
)
from medvlm_probe.cohort.phantom.case import Box

Field = NDArray[np.floating]
Window = tuple[slice, slice]
Point = tuple[float, float]

_TO_TABLE = np.float32((N_TABLE - 1) / 2.56)


@lru_cache(maxsize=8)
def _film_grid(size: int) -> Field:
    return ((np.arange(size, dtype=np.float32) + 0.5) * 2 / size - 1).astype(np.float32)


def table_index(coordinate: Field) -> NDArray[np.int32]:
    """Return the entries of a profile table for coordinates in the anatomy's plane."""
    index = ((coordinate + np.float32(1.28)) * _TO_TABLE).astype(np.int32)
    return np.clip(index, 0, N_TABLE - 1, out=index)


def ramp(distance: Field, width: float) -> Field:
    """Return 0 below -width/2, 1 above width/2, linear between: an edge without aliasing."""
    out = distance * np.float32(1 / width)
    out += np.float32(0.5)
    return np.clip(out, 0, 1, out=out)


def smooth(value: Field) -> Field:
    """Return the smooth step of values clipped to [0, 1]."""
    t: Field = np.clip(value, 0, 1)
    return t * t * (3 - 2 * t)


@lru_cache(maxsize=4)
def _noise_template(resolution: int) -> Field:
    """Return a tileable field of clouds of several scales, mean 0, standard deviation 1, (resolution, resolution)."""
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([20240, resolution])))
    frequency = (
        np.hypot(*np.meshgrid(np.fft.fftfreq(resolution), np.fft.fftfreq(resolution), indexing="ij")) * resolution
    )
    spectrum = np.fft.fft2(rng.normal(size=(resolution, resolution)))
    spectrum *= np.where(frequency < 3, 0, 1 / np.maximum(frequency, 1) ** 1.35) * np.exp(-((frequency / 60) ** 2))
    noise = np.fft.ifft2(spectrum).real
    template: Field = ((noise - noise.mean()) / noise.std()).astype(np.float32)
    return template


@dataclass
class Scene:
    """Grids and layers of one film while it is drawn.

    Attributes:
        x, y: anatomy's coordinates of each pixel; u: |x| from the spine; m: x from the mediastinum's midline.
        ky, ku: table entries for y and u with the side's offset added; left: True on the patient's left.
        edge: width of an antialiased edge.
    """

    size: int
    chest: Chest
    pose: Pose
    x: Field
    y: Field
    u: Field
    m: Field
    left: NDArray[np.bool_]
    ky: NDArray[np.int32]
    ku: NDArray[np.int32]
    km: NDArray[np.int32]
    edge: float
    d_wall: Field
    d_dome: Field
    d_apex: Field
    lung: Field
    air: Field
    heart: Field
    mediastinum: Field
    masks: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    boxes: dict[str, list[Box]] = field(default_factory=dict)

    def to_pixels(self, points: Sequence[Point] | Field, scale: float = 1.0) -> list[Point]:
        """Return film coordinates (column, row) of points of the anatomy, times `scale`."""
        p = np.asarray(points, dtype=float)
        c, s = np.cos(self.pose.tilt), np.sin(self.pose.tilt)
        film_x = self.pose.scale * (c * p[:, 0] - s * p[:, 1]) + self.pose.dx
        film_y = self.pose.scale * (s * p[:, 0] + c * p[:, 1]) + self.pose.dy
        half = self.size * scale / 2
        return list(zip(((film_x + 1) * half - 0.5).tolist(), ((film_y + 1) * half - 0.5).tolist(), strict=True))

    def window(self, x0: float, x1: float, y0: float, y1: float) -> Window:
        """Return the slices (rows, columns) of the film that hold a box of the anatomy's plane."""
        corners = np.asarray(self.to_pixels([(x0, y0), (x0, y1), (x1, y0), (x1, y1)]))
        low = np.floor(corners.min(axis=0)).astype(int) - 1
        high = np.ceil(corners.max(axis=0)).astype(int) + 2
        low, high = np.clip(low, 0, self.size), np.clip(high, 0, self.size)
        return slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0]))

    def clouds(self, rng: np.random.Generator, window: Window | None = None, zoom: float = 1.0) -> Field:
        """Return cloudy noise (mean 0, sd 1) on a window; larger `zoom` gives finer clouds, the same at every size."""
        template = _noise_template(256)
        rows, columns = window or (slice(0, self.size), slice(0, self.size))
        step = 224 / self.size * zoom
        offset = rng.integers(0, 256, size=2)
        row = ((np.arange(rows.start, rows.stop) * step).astype(np.int64) + offset[0]) & 255
        column = ((np.arange(columns.start, columns.stop) * step).astype(np.int64) + offset[1]) & 255
        return template[np.ix_(row, column)]

    def mark(self, label: str, shape: NDArray[np.bool_], window: Window | None = None) -> None:
        """Add one instance of a finding: its pixels to the label's mask, its extent to the label's boxes."""
        rows, columns = np.flatnonzero(shape.any(axis=1)), np.flatnonzero(shape.any(axis=0))
        if not len(rows):
            return
        window = window or (slice(0, self.size), slice(0, self.size))
        mask = self.masks.setdefault(label, np.zeros((self.size, self.size), bool))
        mask[window] |= shape
        x, y = int(columns[0]), int(rows[0])
        box = (x + window[1].start, y + window[0].start, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1)
        self.boxes.setdefault(label, []).append(box)


class Ink:
    """A layer that lines and shapes are drawn on, finer than the film and averaged down to it."""

    def __init__(self, scene: Scene, factor: int = 2) -> None:
        self._scene = scene
        self._factor = factor
        self._image = Image.new("L", (scene.size * factor, scene.size * factor))
        self._draw = ImageDraw.Draw(self._image)

    def _width(self, width: float) -> int:
        return max(1, round(width * self._scene.pose.scale * self._scene.size * self._factor / 2))

    def line(self, points: Sequence[Point], width: float, value: float) -> None:
        """Draw a line through anatomy points; width in anatomy units, value in [0, 1]."""
        self._draw.line(
            self._scene.to_pixels(points, self._factor),
            fill=round(255 * value),
            width=self._width(width),
            joint="curve",
        )

    def segments(self, start: Field, end: Field, widths: Field, value: float) -> None:
        """Draw many straight lines at once: points (n, 2), widths (n,)."""
        a, b = self._scene.to_pixels(start, self._factor), self._scene.to_pixels(end, self._factor)
        unit = self._scene.pose.scale * self._scene.size * self._factor / 2
        thickness = np.maximum(1, np.rint(widths * unit)).astype(int).tolist()
        fill, line = round(255 * value), self._draw.line
        for p, q, width in zip(a, b, thickness, strict=True):
            line((p, q), fill, width)

    def polygon(self, points: Sequence[Point], value: float) -> None:
        """Fill a polygon of anatomy points."""
        self._draw.polygon(self._scene.to_pixels(points, self._factor), fill=round(255 * value))

    def disc(self, centre: Point, radius: float, value: float) -> None:
        """Fill a disc."""
        x, y = self._scene.to_pixels([centre], self._factor)[0]
        r = max(0.6, radius * self._scene.pose.scale * self._scene.size * self._factor / 2)
        self._draw.ellipse((x - r, y - r, x + r, y + r), fill=round(255 * value))

    def layer(self) -> Field:
        """Return the layer on the film's grid, in [0, 1]."""
        return np.asarray(self._image.reduce(self._factor), dtype=np.float32) * np.float32(1 / 255)


def make_scene(chest: Chest, pose: Pose, size: int) -> Scene:
    """Return the grids and the outlines of lungs, heart and mediastinum for a chest in a pose."""
    film = _film_grid(size)
    c, s = np.float32(np.cos(pose.tilt) / pose.scale), np.float32(np.sin(pose.tilt) / pose.scale)
    px, py = (film - np.float32(pose.dx))[None, :], (film - np.float32(pose.dy))[:, None]
    x, y = c * px + s * py, c * py - s * px
    u, m = np.abs(x), x - np.float32(chest.midline)
    left = x > 0
    side = left * np.int32(N_TABLE)
    row, column = table_index(y), table_index(u)
    ky, ku = row + side, column + side
    km = row + (m > 0) * np.int32(N_TABLE)
    edge = 2.0 / (size * pose.scale) * 1.3
    d_wall = wall_profile(chest).take(row) - u
    domes = dome_profiles(chest)
    # Under the heart the two domes are one sheet; without this the midline shows a step.
    apart = np.clip(u * np.float32(1 / 0.16), 0, 1)
    d_dome = apart * domes.ravel().take(ku) + (1 - apart) * domes.mean(axis=0).take(column) - y
    d_apex = y - apex_profiles(chest).ravel().take(ku)
    lung = ramp(np.minimum(np.minimum(d_wall, d_dome), d_apex), max(edge, 0.014))
    absm = np.abs(m)
    mediastinum = ramp(mediastinum_profiles(chest).ravel().take(km) - absm, max(edge, 0.016))
    heart = ramp(heart_profiles(chest).ravel().take(km) - absm, max(edge, 0.020))
    depth = np.clip(np.minimum(d_wall, d_apex * np.float32(1.4)) * np.float32(1 / 0.30), 0, 1)
    air = lung * (np.float32(0.42) + np.float32(0.58) * np.sqrt(depth * (2 - depth)))
    return Scene(
        size=size, chest=chest, pose=pose, x=x, y=y, u=u, m=m, left=left, ky=ky, ku=ku, km=km, edge=edge,
        d_wall=d_wall, d_dome=d_dome, d_apex=d_apex, lung=lung, air=air, heart=heart, mediastinum=mediastinum,
    )  # fmt: skip
