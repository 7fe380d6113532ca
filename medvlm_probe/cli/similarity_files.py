"""What `zero-shot --similarity` prints and writes: overlaps of cosines, the modality gap, what clusters follow."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from medvlm_probe.cli.distance_files import write_figure
from medvlm_probe.cli.output import Output, interval, number, p_value
from medvlm_probe.runs import write_csv

if TYPE_CHECKING:
    from medvlm_probe.zero_shot.similarity import SimilarityAnalysis


def print_similarity(
    output: Output, analysis: SimilarityAnalysis, words: Mapping[str, str], group_kind: str, *, by_site: bool
) -> None:
    """Print the overlaps, the modality gap and the clusters.

    Args:
        output: of the command.
        analysis: what was measured.
        words: label to the words that people read.
        group_kind: what the groups are, `patient`, `study` or `image`.
        by_site: a row for each site below each label's.
    """
    group_words = {"patient": "patients", "study": "studies", "image": "images"}[group_kind]
    rows = []
    for entry in analysis.overlaps:
        found = entry.found
        if entry.site and not (by_site and found.n_positive and found.n_negative):
            continue
        name = f"  at {entry.site}" if entry.site else words.get(entry.label, entry.label)
        chance = f"{number(found.chance[0], 2)} to {number(found.chance[1], 2)}"
        counts = f"{found.n_positive:,} / {found.n_negative:,}"
        p_values = p_value(found.p_value), p_value(entry.p_adjusted)
        rows.append((name, counts, interval(found.estimate, 2), chance, *p_values))
    output.table(
        "Overlap of the image-text cosines of positives and negatives",
        ("Label", "Pos. / neg.", "Overlap", "By chance", "p", "p Holm"),
        rows,
        caption=f"1: no threshold tells them apart; 0: one never errs. Value [95 % interval]; ? the interval is "
        f"unreliable at this size; by chance: labels permuted among {group_words} within sites.",
    )
    gap = analysis.gaps[""]
    sites = ", ".join(f"{site} {number(found.value, 2)}" for site, found in analysis.gaps.items() if site)
    output.line(
        f"Modality gap (distance of the mean image from the mean of {analysis.n_texts} label directions, unit "
        f"vectors): {interval(gap, 3)}{f'; at {sites}' if sites else ''}."
    )
    if analysis.clusters:
        output.table(
            f"Do clusters of images (k-means, best of {analysis.n_starts} starts) follow ...",
            ("Target", "k", "Images", "Adjusted Rand", "Chance below", "p", "p Holm", "NMI", "Chance", "p", "p Holm"),
            [
                (
                    words.get(entry.target, entry.target),
                    str(entry.found.n_clusters),
                    f"{entry.found.n_images:,}",
                    interval(entry.found.adjusted_rand, 3),
                    number(entry.found.null_rand_high, 3),
                    p_value(entry.found.p_rand),
                    p_value(entry.p_rand_adjusted),
                    interval(entry.found.mutual_information, 3),
                    number(entry.found.null_information, 3),
                    p_value(entry.found.p_information),
                    p_value(entry.p_information_adjusted),
                )
                for entry in analysis.clusters
            ],
            caption=f"By chance: categories permuted among {group_words} within sites, sites among whole "
            f"{group_words}. Intervals take the clusters as found.",
        )


def write_similarity(
    folder: Path, analysis: SimilarityAnalysis, words: Mapping[str, str], *, note: str = ""
) -> list[Path]:
    """Write `overlaps.csv`, `cosine_densities.csv`, `clusters.csv` and the figure; returns the files written."""
    from medvlm_probe.plots.similarity import cosine_distributions
    from medvlm_probe.zero_shot.similarity import cluster_table, density_table, overlap_table

    tables = {
        "overlaps": overlap_table(analysis),
        "cosine_densities": density_table(analysis),
        "clusters": cluster_table(analysis),
    }
    written = []
    for name, table in tables.items():
        write_csv(folder / f"{name}.csv", table)
        written.append(folder / f"{name}.csv")
    if len(tables["cosine_densities"]):
        figure = cosine_distributions(
            tables["cosine_densities"], tables["overlaps"], labels_words=words, note=note or None
        )
        written += write_figure(folder / "similarity", figure)
    return written
