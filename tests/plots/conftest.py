"""Realistic tables for every figure, and all the texts of a figure as polygons on its page."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from medvlm_probe.cohort.labels import CHEXPERT_LABELS
from medvlm_probe.plots.style import style

SITES = ("reference", "portable", "low_dose", "inverted_archive", "community")
POSITIVES = dict(zip(CHEXPERT_LABELS, (360, 10, 62, 77, 25, 7, 5, 10, 32, 3, 19, 1, 19, 0), strict=True))
LONG = (
    "Enlarged cardiomediastinum as judged by a consensus of three thoracic radiologists",
    "pneumothorax_tension_or_simple_any_side_any_size",
    "Rib",
    "Averyveryverylongsinglewordthatcannotbebrokenatspaces",
)


def distance_tables(labels: tuple[str, ...], scale: float = 1.0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Histograms and estimates; labels with one positive or none have no distance between positives."""
    rng = np.random.default_rng(1)
    bins, estimates = [], []
    for label in labels:
        n = POSITIVES.get(label, 40)
        for kind, centre, images in (
            ("intra_positive", 0.58, n),
            ("intra_negative", 0.62, 573 - n),
            ("inter", 0.66, 573),
        ):
            n_pairs = {"intra_positive": n * (n - 1) // 2, "intra_negative": 4000, "inter": 100 * n}[kind]
            values = np.clip(rng.normal(centre, 0.1, min(n_pairs, 4000)), 0.01, 1.5) * scale
            mean = float(values.mean()) if n_pairs else math.nan
            half = 0.3 * scale / math.sqrt(max(n, 1)) if n > 2 else math.nan
            estimates.append((label, kind, mean, mean - half, mean + half, images, images, n >= 8))
            if n_pairs:
                density, edges = np.histogram(values, bins=40, range=(0, 1.6 * scale), density=True)
                bins += [(label, kind, *bin_) for bin_ in zip(edges[:-1], edges[1:], density, strict=True)]
    return (
        pd.DataFrame(bins, columns=["label", "kind", "left", "right", "density"]),
        pd.DataFrame(estimates, columns=["label", "kind", "value", "low", "high", "n", "n_groups", "reliable"]),
    )


def contrasts(labels: tuple[str, ...], sites: tuple[str, ...] = (), scale: float = 0.05) -> pd.DataFrame:
    """Values with intervals, NaN where there are no positives; a column `site` where sites are given."""
    rng = np.random.default_rng(2)
    rows = []
    for site in sites or ("",):
        for label in labels:
            n = POSITIVES.get(label, 30)
            value = float(rng.normal(0.5 * scale, scale)) if n else math.nan
            half = 3.0 * scale / math.sqrt(n) if n > 1 else math.nan
            rows.append((site, label, value, value - half, value + half, n >= 8, n))
    table = pd.DataFrame(rows, columns=["site", "label", "value", "low", "high", "reliable", "n_positive"])
    return table if sites else table.drop(columns="site")


def crowding(labels: tuple[str, ...]) -> pd.DataFrame:
    """Enrichments of every label among every label's neighbours; NaN for labels with under 6 positives."""
    rng = np.random.default_rng(3)
    rows = []
    for label in labels:
        for neighbour in labels:
            expected = max(POSITIVES.get(neighbour, 40), 1) / 573
            enrichment = float(np.exp(rng.normal(0, 0.6))) if POSITIVES.get(label, 40) > 5 else math.nan
            p_value = 0.001 if abs(math.log(enrichment)) > 0.4 else 0.6
            rows.append((label, neighbour, min(expected * enrichment, 1.0), expected, enrichment, p_value))
    return pd.DataFrame(rows, columns=["label", "neighbour", "share", "expected", "enrichment", "p_adjusted"])


def coordinates(n_groups: int, n: int = 300) -> pd.DataFrame:
    """Points of up to six groups, the first twenty of no known group, one without coordinates."""
    rng = np.random.default_rng(4)
    group = rng.integers(0, n_groups, n)
    names = np.array((*SITES, "a sixth hospital with a long name"), dtype=object)[group]
    names[:20] = None
    table = pd.DataFrame({"x": rng.normal(group, 1.0), "y": rng.normal(0.0, 1.0, n), "site": names})
    table.loc[5, "x"] = math.nan
    return table


@pytest.fixture(scope="session")
def make() -> SimpleNamespace:
    """The builders of tables above, and the labels and sites that they are built for."""
    return SimpleNamespace(
        distance_tables=distance_tables,
        contrasts=contrasts,
        crowding=crowding,
        coordinates=coordinates,
        labels=CHEXPERT_LABELS,
        long=LONG,
        sites=SITES,
    )


@pytest.fixture(scope="session")
def texts_of() -> Callable[[Figure], list[tuple[str, np.ndarray]]]:
    """A function from a figure to its visible texts, as they are written to files, each with its corners in pixels."""
    from matplotlib.text import Text
    from matplotlib.transforms import Affine2D

    def texts(figure: Figure) -> list[tuple[str, np.ndarray]]:
        with style():
            return measured(figure)

    def measured(figure: Figure) -> list[tuple[str, np.ndarray]]:
        figure.draw_without_rendering()
        found = []
        for text in figure.findobj(Text):
            if not text.get_visible() or not text.get_text().strip():
                continue
            slant = text.get_rotation() % 90
            if slant:
                anchor, rotation = text.get_transform().transform(text.get_position()), text.get_rotation()
                text.set_rotation(0)
                upright = text.get_window_extent()
                text.set_rotation(rotation)
                turn = Affine2D().rotate_deg_around(*anchor, rotation)
                found.append((text.get_text(), turn.transform(upright.corners()[[0, 1, 3, 2]])))
            else:
                found.append((text.get_text(), text.get_window_extent().corners()[[0, 1, 3, 2]]))
        return found

    return texts
