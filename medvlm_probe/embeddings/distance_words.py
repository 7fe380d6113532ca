"""What distances mean, in one plain sentence a label."""

from __future__ import annotations

from collections.abc import Mapping

from medvlm_probe.embeddings.distances import N_NEIGHBORS, DistanceAnalysis
from medvlm_probe.metrics.separability import ClassDistances

LEVEL = 0.05


def distance_sentences(analysis: DistanceAnalysis, words: Mapping[str, str], group_words: str) -> list[str]:
    """Return a sentence per label: what the numbers mean, and whether they could be chance.

    Args:
        analysis: what was measured.
        words: label to the words that people read.
        group_words: what was permuted, in the plural (`"patients"`).
    """
    return [
        label_sentence(entry, words[entry.label], group_words) + _sites_alone(analysis, position)
        for position, entry in enumerate(analysis.pooled)
    ]


def label_sentence(entry: ClassDistances, words: str, group_words: str) -> str:
    """Return the sentence of one label.

    It says "not chance" where the Holm-corrected permutation p-value of the energy distance is below 0.05, "could be
    chance" where it is not, and nothing of either where there are under 10 positives.
    """
    if entry.n_positive == 0 or entry.n_negative == 0:
        missing = "positive" if entry.n_positive == 0 else "negative"
        return f"{words}: no image is {missing}, so there is nothing to compare."
    images = f"{entry.n_positive:,} positive image{'s' if entry.n_positive > 1 else ''}"
    if entry.too_few:
        return f"{words}: {images}, too few to say whether the label has a place of its own in this space."
    p = entry.energy_distance.p_adjusted
    if p != p:
        return f"{words}: the {group_words} are of too different sizes to be permuted, so chance cannot be ruled out."
    neighbours = _neighbours(entry)
    if p >= LEVEL:
        return (
            f"{words}: its images lie no further from the others than relabelled {group_words} would "
            f"(p = {p:.2g}): this could be chance.{neighbours}"
        )
    percent = 100 * (entry.ratio.value - 1)
    return (
        f"{words}: an image with it and one without lie {percent:.1f} % further apart than two of one kind, "
        f"which relabelled {group_words} rarely reach (p = {p:.2g}): not chance{_size(entry)}.{neighbours}"
    )


def _sites_alone(analysis: DistanceAnalysis, position: int) -> str:
    """Name the sites where a label that could be chance over all sites is none: pooling can hide a difference."""
    if analysis.pooled[position].energy_distance.p_adjusted < LEVEL:
        return ""
    p_values = {site: entries[position].energy_distance.p_adjusted for site, entries in analysis.by_site.items()}
    found = [f"{site} (p = {p:.2g})" for site, p in p_values.items() if p < LEVEL]
    return f" Taken alone, a difference shows at {' and '.join(found)}." if found else ""


def _size(entry: ClassDistances) -> str:
    """Say that a separation is slight where the interval of the ratio stays below 1.05."""
    return ", but slight: the two overlap" if entry.ratio.high < 1.05 else ""


def _neighbours(entry: ClassDistances) -> str:
    purity = entry.neighbour_purity
    if purity.value != purity.value:
        return ""
    return (
        f" Of the {N_NEIGHBORS} images nearest to a positive one, {100 * purity.value:.0f} % are positive, "
        f"against {100 * entry.prevalence:.0f} % of all."
    )
