"""Whether a finding at a new site lies near the same finding at a reference site, or near images without it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medvlm_probe.errors import InputError, unknown_name
from medvlm_probe.metrics.embedding_inputs import Images, images_of
from medvlm_probe.metrics.group_jackknife import class_jackknife
from medvlm_probe.metrics.pair_sums import quotient
from medvlm_probe.metrics.pairwise import BLOCK_SIZE, Points, Space, distance_blocks, points_of
from medvlm_probe.metrics.proportions import proportion
from medvlm_probe.types import BoolArray, Estimate, FloatArray, IntArray

TOO_FEW = 10


@dataclass(frozen=True)
class CrossSiteDistances:
    """One label's positives at a new site, held against the reference site's positives and negatives.

    Pairs of images of one group (a patient seen at both sites) are left out. A class that is widely spread is far from
    every image, so `difference` and `nearer_to_positives` are to be read beside what the new site's negatives show
    (`negatives_nearer_to_positives`): a model that carries over has the two far apart.

    Attributes:
        label, site, reference: what was compared.
        n_positive, n_negative: images of the new site; n_groups: groups of its positives.
        n_reference_positive, n_reference_negative: images of the reference site.
        too_few: fewer than 10 positives at the new site, or positives or negatives at the reference site.
        to_positives, to_negatives: mean distance of the new site's positives to the reference's positives, and to its
            negatives, at least 0.
        difference: to_positives - to_negatives; below 0 where the new positives lie nearer to the positives.
        nearer_to_positives: share of the new site's positives whose mean distance to the reference's positives is below
            that to its negatives, in [0, 1]; its interval takes the reference as given.
        negatives_nearer_to_positives: the same share of the new site's negatives.
    """

    label: str
    site: str
    reference: str
    n_positive: int
    n_negative: int
    n_groups: int
    n_reference_positive: int
    n_reference_negative: int
    too_few: bool
    to_positives: Estimate
    to_negatives: Estimate
    difference: Estimate
    nearer_to_positives: Estimate
    negatives_nearer_to_positives: Estimate

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON objects; undefined numbers are None."""
        return {k: v.to_json() if isinstance(v, Estimate) else v for k, v in vars(self).items()}


def cross_site_distances(
    embeddings: ArrayLike,
    labels: ArrayLike,
    sites: ArrayLike,
    groups: ArrayLike | None,
    reference: str,
    *,
    label_names: Sequence[str] | None = None,
    space: Space = "l2",
    block_size: int = BLOCK_SIZE,
) -> tuple[CrossSiteDistances, ...]:
    """Return, for each label and each site but the reference, where the site's positives lie in the reference's space.

    Means are over pairs of images of different groups; intervals are jackknifes over the groups of both sites, the new
    positives, and the rarer class of the reference, each a stratum of its own.

    Args:
        embeddings: image vectors before normalisation, (n, d).
        labels: 1, 0 or NaN, (n,) or (n, L).
        sites: (n,) names; images with an empty name are left out.
        groups: the independently sampled group (patient) of each image, (n,); None makes each image its own.
        reference: one of the sites.
        label_names: L names.
        space: `l2` or `raw`.
        block_size: of the distances; no result depends on it.

    Raises:
        UnknownNameError: a reference that is no site.
        InputError: as `class_distances`.
    """
    images = images_of(embeddings, labels, groups, label_names=label_names)
    names = np.asarray(sites)
    if names.shape != images.groups.shape:
        raise InputError(f"Sites of shape {names.shape} do not fit {len(images.groups)} embeddings: expected one each.")
    names = names.astype(str)[images.order]
    if reference not in names:
        raise unknown_name("site", reference, set(names.tolist()) - {""})
    points = points_of(images.embeddings, space, images.order)
    old = np.flatnonzero(names == reference)
    by_site = []
    for site in np.unique(names[(names != reference) & (names != "")]):
        new = np.flatnonzero(names == site)
        sums = _sums_between(points, images, new, old, block_size)
        by_site.append([_compare(k, str(site), reference, images, new, old, sums) for k in range(len(images.names))])
    return tuple(entry for entries in zip(*by_site, strict=True) for entry in entries)


@dataclass(frozen=True)
class _Sums:
    """Sums of distances: of each new image to the reference's positives and negatives, of each reference image to the
    new positives; (n_new, L), (n_new, L), (n_old, L)."""

    to_positives: NDArray[np.float64]
    to_negatives: NDArray[np.float64]
    from_positives: NDArray[np.float64]


def _sums_between(points: Points, images: Images, new: IntArray, old: IntArray, block_size: int) -> _Sums:
    marks = [
        np.ascontiguousarray(mask, dtype=np.float32)
        for mask in (images.labels[old] == 1, images.labels[old] == 0, images.labels[new] == 1)
    ]
    n_labels = len(images.names)
    sums = _Sums(np.zeros((len(new), n_labels)), np.zeros((len(new), n_labels)), np.zeros((len(old), n_labels)))
    blocks = distance_blocks(
        points.take(new), images.groups[new], points.take(old), images.groups[old], block_size=block_size
    )
    for block in blocks:
        block.clear_same_group()
        sums.to_positives[block.rows] += block.distances @ marks[0][block.columns]
        sums.to_negatives[block.rows] += block.distances @ marks[1][block.columns]
        sums.from_positives[block.columns] += block.distances.T @ marks[2][block.rows]
    for values in (sums.to_positives, sums.to_negatives, sums.from_positives):
        values *= points.unit
    return sums


def _compare(
    k: int, site: str, reference: str, images: Images, new: IntArray, old: IntArray, sums: _Sums
) -> CrossSiteDistances:
    new_label, old_label = images.labels[new, k], images.labels[old, k]
    new_groups, old_groups = images.groups[new], images.groups[old]
    n_codes = int(images.groups.max(initial=-1)) + 1

    def counted(groups: IntArray, mask: BoolArray) -> NDArray[np.float64]:
        return np.bincount(groups[mask], minlength=n_codes).astype(np.float64)

    here = counted(new_groups, new_label == 1)
    there = {value: counted(old_groups, old_label == value) for value in (1, 0)}
    fewest = min(int((counts > 0).sum()) for counts in (here, *there.values()))
    rarer = min(there.values(), key=lambda counts: int((counts > 0).sum()))
    units = np.flatnonzero((here > 0) | (there[1] > 0) | (there[0] > 0))
    strata = np.where(here > 0, 0, np.where(rarer > 0, 1, 2))[units]

    means, without = {}, {}
    for value, row_sums in ((1, sums.to_positives[:, k]), (0, sums.to_negatives[:, k])):
        positive, target = new_label == 1, old_label == value
        total = row_sums[positive].sum()
        lost = np.bincount(new_groups[positive], row_sums[positive], minlength=n_codes) + np.bincount(
            old_groups[target], sums.from_positives[target, k], minlength=n_codes
        )
        n_pairs = here.sum() * there[value].sum() - here @ there[value]
        lost_pairs = here * (there[value].sum() - there[value]) + there[value] * (here.sum() - here)
        means[value] = float(quotient(total, n_pairs))
        without[value] = quotient(total - lost[units], n_pairs - lost_pairs[units])

    n_positive = int(here.sum())

    def estimate(value: float, leave_one_out: FloatArray, log: bool) -> Estimate:
        return class_jackknife(value, leave_one_out, strata, n=n_positive, fewest=fewest, log=log)

    to_positives = quotient(sums.to_positives[:, k], (there[1].sum() - there[1])[new_groups])
    to_negatives = quotient(sums.to_negatives[:, k], (there[0].sum() - there[0])[new_groups])
    defined = ~np.isnan(to_positives) & ~np.isnan(to_negatives)

    def share(mask: BoolArray) -> Estimate:
        rows = mask & defined
        return proportion(to_positives[rows] < to_negatives[rows], new_groups[rows])

    counts = (n_positive, int(there[1].sum()), int(there[0].sum()))
    return CrossSiteDistances(
        label=images.names[k],
        site=site,
        reference=reference,
        n_positive=n_positive,
        n_negative=int((new_label == 0).sum()),
        n_groups=int((here > 0).sum()),
        n_reference_positive=counts[1],
        n_reference_negative=counts[2],
        too_few=min(counts) < TOO_FEW,
        to_positives=estimate(means[1], without[1], True),
        to_negatives=estimate(means[0], without[0], True),
        difference=estimate(means[1] - means[0], without[1] - without[0], False),
        nearer_to_positives=share(new_label == 1),
        negatives_nearer_to_positives=share(new_label == 0),
    )
