"""The files of `embed-dist`: tidy tables as CSV, everything as JSON, figures as SVG and PNG."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvlm_probe.runs import write_bytes_atomically, write_csv, write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from medvlm_probe.embeddings.distances import DistanceAnalysis

FIGURE_FORMATS = ("svg", "png")


def write_distances(
    folder: Path,
    analysis: DistanceAnalysis,
    result: Mapping[str, Any],
    words: Mapping[str, str],
    group_words: str,
    note: str,
    *,
    draw_sites: bool,
) -> list[Path]:
    """Write what `embed-dist` found; returns the files written.

    Args:
        folder: the run's folder.
        analysis: what was measured.
        result: all of it for machines.
        words: label to the words that people read.
        group_words: what the groups are, in the plural.
        note: small print of every figure.
        draw_sites: draw each site beside the others, and their distances to the reference site.
    """
    from medvlm_probe.embeddings.distance_tables import (
        cross_site_table,
        crowding_table,
        distance_table,
        histogram_table,
        ratio_table,
    )
    from medvlm_probe.plots.crowding import cross_site, crowding_heat_map
    from medvlm_probe.plots.distances import distance_distributions, distance_forest

    tables = {
        "distances": distance_table(analysis),
        "histograms": histogram_table(analysis),
        "crowding": crowding_table(analysis),
    }
    if analysis.cross_site:
        tables["cross_site"] = cross_site_table(analysis)
    written = []
    for name, table in tables.items():
        write_csv(folder / f"{name}.csv", table)
        written.append(folder / f"{name}.csv")
    write_json(folder / "embed-dist.json", dict(result))
    written.append(folder / "embed-dist.json")

    pooled = tables["distances"][tables["distances"]["site"] == ""]
    figures: dict[str, Figure] = {}
    if len(tables["histograms"]):
        figures["distances"] = distance_distributions(
            tables["histograms"],
            pooled[pooled["quantity"].isin(("intra_positive", "intra_negative", "inter"))].rename(
                columns={"quantity": "kind"}
            ),
            space=analysis.space,
            labels_words=words,
            group_words=group_words,
            note=note or None,
        )
    figures |= {
        "crowding": crowding_heat_map(
            tables["crowding"], n_neighbors=analysis.crowding.n_neighbors, labels_words=words, note=note or None
        ),
    }
    if draw_sites and analysis.by_site:
        figures["ratio_by_site"] = distance_forest(
            ratio_table(analysis), quantity="ratio", labels_words=words, note=note or None
        )
    if draw_sites and analysis.cross_site and analysis.reference is not None:
        figures["cross_site"] = cross_site(
            tables["cross_site"], reference=analysis.reference, labels_words=words, note=note or None
        )
    return written + [path for name, figure in figures.items() for path in write_figure(folder / name, figure)]


def write_figure(path: Path, figure: Figure) -> list[Path]:
    """Write a figure as SVG for print and PNG for a look; `path` has no suffix. Returns the files written."""
    from medvlm_probe.plots.style import figure_bytes

    written = []
    for file_format in FIGURE_FORMATS:
        target = path.with_name(f"{path.name}.{file_format}")
        write_bytes_atomically(target, figure_bytes(figure, file_format))
        written.append(target)
    return written
