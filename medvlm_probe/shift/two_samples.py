"""A reference and a site as two samples of patients, and the permutations that all two-sample tests share.

Patients are what was sampled, so each patient counts once: every statistic gives an image the weight 1 / (images of its
patient), and a permutation gives whole patients to the two samples anew, as many to each as there were.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medvlm_probe.errors import InputError
from medvlm_probe.metrics.embedding_inputs import checked_embeddings
from medvlm_probe.metrics.pairwise import Points, Space, points_of
from medvlm_probe.metrics.permutation import sequential_p_value
from medvlm_probe.types import BoolArray, Estimate, FloatArray, IntArray

MIN_GROUPS = 3
"""Fewest groups of a sample that can be compared: two give one pair, and no interval."""

ENOUGH_EXCEEDANCES = 200
"""A test whose permuted statistic was as large as its own so often draws no more: its p-value is known to 7 %."""

PERMUTATIONS_AT_ONCE = 256
NULL_LEVELS = (0.05, 0.5, 0.95)


@dataclass(frozen=True, eq=False)
class TwoSamples:
    """Embeddings of both samples in group order, without the patients who are in both.

    Attributes:
        points: all images, in group order, centred together, (n,).
        groups: ascending codes 0 ... G - 1, (n,).
        of_site: which groups are the site's, (G,).
        rows: the row of each image among the reference's rows followed by the site's, (n,).
        n_reference: rows that the reference was given with.
        n_shared_groups: groups found in both samples, which are left out of both.
        n_left_out: images left out with them.
    """

    points: Points
    groups: NDArray[np.int64]
    of_site: BoolArray
    rows: NDArray[np.int64]
    n_reference: int
    n_shared_groups: int
    n_left_out: int

    @property
    def n_groups(self) -> tuple[int, int]:
        """Groups of the reference and of the site."""
        at_site = int(self.of_site.sum())
        return len(self.of_site) - at_site, at_site

    @property
    def image_of_site(self) -> BoolArray:
        """Which images are the site's, (n,)."""
        return self.of_site[self.groups]

    @property
    def weights(self) -> NDArray[np.float64]:
        """Each image's weight, 1 / (images of its group), (n,)."""
        return image_weights(self.groups)

    def group_means(self, values: FloatArray) -> NDArray[np.floating]:
        """Return the mean over each group's images of values (n, ...), as (G, ...), in the values' precision."""
        return mean_by_group(values, self.groups)

    def take(self, kept: BoolArray) -> TwoSamples:
        """Return the samples with some of the groups only, (G,)."""
        images = np.flatnonzero(kept[self.groups])
        codes = np.cumsum(kept) - 1
        return TwoSamples(
            self.points.take(images),
            codes[self.groups[images]],
            self.of_site[kept],
            self.rows[images],
            self.n_reference,
            self.n_shared_groups,
            self.n_left_out,
        )


def two_samples(
    reference: ArrayLike,
    site: ArrayLike,
    reference_groups: ArrayLike | None = None,
    site_groups: ArrayLike | None = None,
    *,
    space: Space = "l2",
) -> TwoSamples:
    """Return both samples in one order, with the groups that are in both left out and counted.

    Args:
        reference: image vectors before normalisation, (n, d).
        site: the same of the other sample, (m, d).
        reference_groups: patients, (n,); None makes each image its own, in no other sample.
        site_groups: patients, (m,).
        space: `l2` or `raw`.

    Raises:
        InputError: vectors that are not finite or of two widths, or fewer than three groups of a sample.
    """
    first, second = checked_embeddings(reference), checked_embeddings(site)
    if first.shape[1] != second.shape[1]:
        raise InputError(
            f"Embeddings of {first.shape[1]} and of {second.shape[1]} dimensions: expected both samples from one model."
        )
    codes, of_site, shared = joined_groups(reference_groups, site_groups, len(first), len(second))
    kept = np.flatnonzero(~shared[codes])
    kept = kept[np.argsort(codes[kept], kind="stable")]
    used, groups = np.unique(codes[kept], return_inverse=True)
    points = points_of(np.concatenate([first, second]), space, kept)
    return TwoSamples(
        points,
        groups.astype(np.int64),
        of_site[used],
        kept,
        len(first),
        int(shared.sum()),
        len(codes) - len(kept),
    )


def joined_groups(
    reference_groups: ArrayLike | None, site_groups: ArrayLike | None, n: int, m: int
) -> tuple[NDArray[np.int64], BoolArray, BoolArray]:
    """Return codes of n + m rows, (n + m,), and by code whether a group is the site's and whether it is in both, (G,).

    Raises:
        InputError: groups that do not fit, or fewer than three groups in one sample alone.
    """
    ids = []
    for which, given, size in (("reference", reference_groups, n), ("site", site_groups, m)):
        # A sample without groups gets names that no patient of the other one can have.
        values = np.array([f"\0{which} {i}" for i in range(size)]) if given is None else np.asarray(given).astype(str)
        if values.shape != (size,):
            raise InputError(f"Groups of shape {values.shape} do not fit the {size} images of the {which}.")
        ids.append(values)
    codes = np.unique(np.concatenate(ids), return_inverse=True)[1].astype(np.int64)
    n_codes = int(codes.max(initial=-1)) + 1
    in_reference = np.bincount(codes[:n], minlength=n_codes) > 0
    in_site = np.bincount(codes[n:], minlength=n_codes) > 0
    shared = in_reference & in_site
    counts = (int((in_reference & ~shared).sum()), int((in_site & ~shared).sum()))
    if min(counts) < MIN_GROUPS:
        raise InputError(
            f"The reference has {counts[0]} patients and the site {counts[1]}, besides {int(shared.sum())} in both: "
            f"a comparison needs at least {MIN_GROUPS} of each."
        )
    return codes, in_site, shared


def image_weights(groups: IntArray) -> NDArray[np.float64]:
    """Return 1 / (images of its group) for each image, (n,); groups are codes."""
    return np.asarray(1.0 / np.bincount(groups)[groups])


def mean_by_group(values: FloatArray, groups: IntArray) -> NDArray[np.floating]:
    """Return the means of values (n, ...) over ascending group codes 0 ... G - 1, (G, ...)."""
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    if len(starts) == len(groups):
        return values
    sizes = np.diff(np.append(starts, len(groups))).astype(values.dtype)
    return np.asarray(np.add.reduceat(values, starts, axis=0) / sizes.reshape(-1, *[1] * (values.ndim - 1)))


@dataclass(frozen=True, eq=False)
class SitePermutations:
    """B draws of which groups are the site's, drawn once and used by every test; stored as bits.

    Attributes:
        packed: uint8 (B, ceil(G / 8)).
        n_groups: G.
    """

    packed: NDArray[np.uint8]
    n_groups: int

    def __len__(self) -> int:
        return len(self.packed)

    def blocks(self, size: int = PERMUTATIONS_AT_ONCE) -> Iterator[BoolArray]:
        """Yield masks of the site's groups, bool (b, G)."""
        for start in range(0, len(self.packed), size):
            yield np.unpackbits(self.packed[start : start + size], axis=1, count=self.n_groups).astype(bool)


def site_permutations(of_site: BoolArray, n_permutations: int, rng: np.random.Generator) -> SitePermutations:
    """Draw B times which groups are the site's, as many as there are.

    Args:
        of_site: (G,).
        n_permutations: B; 9,999 or more for a p-value that people read.
        rng: draws them.
    """
    if n_permutations < 1:
        raise InputError(f"{n_permutations} permutations: expected at least 1.")
    n_groups = len(of_site)
    packed = np.empty((n_permutations, (n_groups + 7) // 8), dtype=np.uint8)
    for start in range(0, n_permutations, PERMUTATIONS_AT_ONCE):
        part = packed[start : start + PERMUTATIONS_AT_ONCE]
        masks = np.broadcast_to(of_site, (len(part), n_groups))
        part[:] = np.packbits(rng.permuted(masks, axis=1), axis=1)
    return SitePermutations(packed, n_groups)


@dataclass(frozen=True, eq=False)
class ShiftTest:
    """What a two-sample test found.

    Attributes:
        statistic: larger is further apart.
        effect: what is to be read, with its interval; its unit is the test's own.
        p_value: one-sided, in (0, 1], (1 + b) / (1 + B), or 200 / L where the 200th exceedance came after L draws.
        null: the statistic's 5 %, 50 % and 95 % quantiles among the permutations drawn.
        n_permutations: drawn until the p-value was settled.
        settings: what else the numbers rest on, in a few words.
    """

    statistic: float
    effect: Estimate
    p_value: float
    null: tuple[float, float, float]
    n_permutations: int
    settings: str


@dataclass(frozen=True, eq=False)
class Null:
    """The p-value of a statistic, and the permuted values that were drawn for it, (L,)."""

    p_value: float
    values: NDArray[np.float64]

    @property
    def quantiles(self) -> tuple[float, float, float]:
        """The 5 %, 50 % and 95 % quantiles of the permuted values."""
        low, middle, high = np.quantile(self.values, NULL_LEVELS)
        return float(low), float(middle), float(high)


def against_null(observed: float, blocks: Iterable[FloatArray], *, relative_tolerance: float = 1e-6) -> Null:
    """Draw permuted values until the p-value is settled.

    Args:
        observed: the statistic, larger being more extreme.
        blocks: permuted values, computed as they are asked for.
        relative_tolerance: of float32 sums; values so little below the observed one count as ties.
    """
    drawn: list[NDArray[np.float64]] = []

    def recorded() -> Iterator[NDArray[np.float64]]:
        for block in blocks:
            drawn.append(np.asarray(block, dtype=np.float64))
            yield drawn[-1]

    p_value, _ = sequential_p_value(
        observed, recorded(), n_exceedances=ENOUGH_EXCEEDANCES, relative_tolerance=relative_tolerance
    )
    return Null(p_value, np.concatenate(drawn))
