"""Why a site moved: which acquisition transform, applied to the reference, brings its embeddings closest to the site's.

The share that a transform T explains is 1 - MMD^2(T(reference), site) / MMD^2(reference, site): 1 where T makes the
reference look like the site, 0 where it does nothing, below 0 where it leads away. The best of many transforms is
chosen on one half of the patients and measured on the other, both ways and over several splits, so that the search
cannot flatter itself. Beside it stand what the same search finds by chance, with a half of the reference as the site,
and what another mix of the reference's own patients explains, alone and together with the transform: a site with sicker
patients looks like whichever transform makes films look sicker, but then the transform adds nothing to the mix.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from medvlm_probe.errors import InputError
from medvlm_probe.shift.attribution_shares import Kernels, Shares, Splits, draw_splits, joined, reweighted
from medvlm_probe.shift.attribution_sums import (
    Discrepancies,
    Sample,
    discrepancies,
    family_of,
    half_of,
    kernel_means,
    sides,
    squared_mmd,
    without_own,
)
from medvlm_probe.shift.mmd import median_bandwidth
from medvlm_probe.shift.two_samples import TwoSamples, two_samples
from medvlm_probe.types import Estimate, FloatArray

Verdict = Literal[
    "no distance",
    "acquisition",
    "acquisition and other patients",
    "other patients",
    "not these transforms",
    "not enough evidence",
]

MIN_GROUPS = 20
"""Fewest patients of either side: halves of ten."""

N_SPLITS = 10
N_CONTROLS = 40
CHANCE_LEVEL = 0.95
MIN_SHARE = 0.10
"""A transform that may explain less than this share is not called a reason."""

CLEAR_LEAD = 0.20
NEARLY_ALL = 0.70
"""Where another mix of patients explains something too, a transform that explains this is still called the reason."""

MIN_PAIR_GAIN = 0.05
"""A pair of transforms that may explain less than this much more than one transform is not considered."""

MIN_MIX_SHARE = 0.40
"""Another mix of the reference's patients that may explain less than this share is not called the reason."""


@dataclass(frozen=True)
class TransformShare:
    """What one transform explains, measured on all patients.

    Attributes:
        name: `resolution/v1@96`; steps joined by a plus are applied in turn.
        distance: squared MMD between the transformed reference and the site; smaller is closer.
        share: of the squared MMD explained, at most 1; larger is better.
    """

    name: str
    distance: Estimate
    share: Estimate

    @property
    def family(self) -> str:
        """The transforms without their levels: `resolution`, `resolution + jpeg`."""
        return family_of(self.name)


@dataclass(frozen=True)
class Parts:
    """Shares of the distance explained, each by what was chosen on one half of the patients, measured on the other.

    Attributes:
        best: by the best transform.
        mix: by re-weighting the reference's patients, without a transform.
        both: by the transform that is best once its patients are re-weighted, and that re-weighting.
        transform_adds: `both` less `mix`, paired: what no other mix of the reference's patients explains.
        mix_adds: `both` less `best`, paired: what other patients explain beyond the transform.
        beats_mix: `best` less `mix`, paired. Re-weighting costs precision, so a transform that explains all alone can
            look worse together with a mix.
    """

    best: Estimate
    mix: Estimate
    both: Estimate
    transform_adds: Estimate
    mix_adds: Estimate
    beats_mix: Estimate


@dataclass(frozen=True)
class Attribution:
    """Which transforms explain a site's distance, and whether that is more than chance and other patients would.

    Attributes:
        distance: squared MMD between reference and site, unit vectors, RBF kernel.
        transforms: every transform on all patients, the closest first.
        best: name of the one that is closest on all patients; a pair only where pairs are considered.
        families: family to how often it was chosen, among the halves of all splits; they add up to 1.
        families_with_mix: the same where the reference's patients are re-weighted at once.
        parts: what the chosen transform and another mix of patients explain, cross-fitted.
        chance: the 95 % quantile, over splits of the reference, of what the best transform explains where a half of the
            reference stands for the site, as a share of `distance`; at 0 or below transforms only lead away.
        pair_adds: what the best of all, pairs among them, explains beyond the best single transform, paired and each
            chosen and measured on its own half; None where no pair was tried. Where it may be less than 5 %, pairs are
            not considered: nothing but `transforms` and `chance` knows of them.
        bandwidth: of the kernel, the median distance between patients.
        verdict: see `verdict_of`.
    """

    distance: Estimate
    transforms: tuple[TransformShare, ...]
    best: str
    families: Mapping[str, float]
    families_with_mix: Mapping[str, float]
    parts: Parts
    chance: float
    pair_adds: Estimate | None
    bandwidth: float
    verdict: Verdict

    def best_of_each(self) -> tuple[TransformShare, ...]:
        """Return each family's closest transform, the closest first."""
        found: dict[str, TransformShare] = {}
        for entry in self.transforms:
            found.setdefault(entry.family, entry)
        return tuple(found.values())


def attribute_shift(
    reference: ArrayLike,
    site: ArrayLike,
    transformed: Mapping[str, ArrayLike],
    *,
    reference_groups: ArrayLike | None = None,
    site_groups: ArrayLike | None = None,
    rng: np.random.Generator,
    n_splits: int = N_SPLITS,
    n_controls: int = N_CONTROLS,
) -> Attribution:
    """Return which of the transforms brings the reference's embeddings closest to the site's, and how close.

    Each patient counts once, as in the two-sample tests; patients of both sides are left out. Cost: three kernels
    between the samples for each transform.

    Args:
        reference: image vectors before normalisation, (n, d).
        site: the same of the other site, (m, d).
        transformed: transform to the vectors of the reference's images under it, (n, d) each, in the same rows; names
            with a plus are pairs, such as `attribution_pairs.promising_pairs` names.
        reference_groups: patients, (n,); None makes each image its own.
        site_groups: patients, (m,).
        rng: draws the splits and the images behind the bandwidth.
        n_splits: splits of the patients into halves.
        n_controls: splits of the reference for the control.

    Raises:
        InputError: vectors that do not fit, no transform, or under 20 patients on a side.
    """
    samples = two_samples(reference, site, reference_groups, site_groups)
    _check(samples, transformed)
    bandwidth = median_bandwidth(samples.points, samples.groups, rng)
    untouched, other, view = sides(samples, reference, site)
    splits = draw_splits(untouched.n_groups, other.n_groups, n_splits, rng)
    halves = half_of(np.ones((untouched.n_groups, n_controls)), rng)
    of_site = without_own(kernel_means(other, other, bandwidth))

    def kernels_of(moved: Sample) -> Kernels:
        own = without_own(kernel_means(moved, moved, bandwidth))
        return Kernels(own, of_site, kernel_means(moved, other, bandwidth))

    kernels = kernels_of(untouched)
    base = _measured(kernels, splits)
    apart = squared_mmd(kernels.reference, kernels.reference, kernels.reference, halves, 1 - halves)
    found: dict[str, Discrepancies] = {}
    gains, tried = [], []
    for name, vectors in transformed.items():
        moved = view(vectors)
        own = kernels_of(moved)
        found[name] = _measured(own, splits)
        tried.append(squared_mmd(own.reference, own.site, own.across, splits.a, splits.b))
        to_others = kernel_means(moved, untouched, bandwidth)
        gains.append(apart - squared_mmd(own.reference, kernels.reference, to_others, halves, 1 - halves))

    makes = Shares(len(samples.groups))
    shares = [
        TransformShare(name, makes.distance(_all(f)), makes.share(_all(f), _all(base))) for name, f in found.items()
    ]
    shares.sort(key=lambda entry: entry.distance.value)
    picked = _Picked(list(found), np.stack(tried), found)
    plain = joined([base] * (2 * n_splits), range(1, 1 + 2 * n_splits))
    singles = [name for name in found if "+" not in name]
    pair_adds = None
    considered = list(found)
    if 0 < len(singles) < len(found):
        pair_adds = makes.added(picked.best(considered)[0], picked.best(singles)[0], plain)
        considered = considered if pair_adds.low > MIN_PAIR_GAIN else singles
    best, chosen = picked.best(considered)
    mix, _ = reweighted(kernels, splits)
    both, chosen_with_mix = _both(
        splits, picked.closest_of_each_family(considered), lambda name: kernels_of(view(transformed[name]))
    )
    distance = makes.distance(base)
    parts = Parts(
        best=makes.share(best, plain),
        mix=makes.share(mix, plain),
        both=makes.share(both, plain),
        transform_adds=makes.added(both, mix, plain),
        mix_adds=makes.added(both, best, plain),
        beats_mix=makes.added(best, mix, plain),
    )
    chance = float(np.quantile(np.max(gains, axis=0), CHANCE_LEVEL) / abs(distance.value))
    return Attribution(
        distance=distance,
        transforms=tuple(shares),
        best=next(entry.name for entry in shares if entry.name in considered),
        families=_frequencies(chosen),
        families_with_mix=_frequencies(chosen_with_mix),
        parts=parts,
        chance=chance,
        pair_adds=pair_adds,
        bandwidth=bandwidth,
        verdict=verdict_of(distance, parts, chance),
    )


def verdict_of(distance: Estimate, parts: Parts, chance: float) -> Verdict:
    """Return what the shares allow to say, always by their intervals.

    - `no distance`: the distance's interval reaches 0, so there is nothing to explain.
    - `acquisition`: the transform explains more than 10 % and more than chance, and more than another mix of the
      reference's patients does, alone or together with such a mix. Where such a mix alone explains more than 10 %, the
      transform has to explain 20 % more than it, or more than 70 % in all: of sick patients whom the reference hardly
      has no mix can be made, and some transform, such as inverting a part of the films, comes as close.
    - `other patients`: such a mix explains more than 40 %, and adds more than 10 % to what the transform explains. Less
      may be any distance: some of the reference's patients always lie a little to the site's side.
    - `acquisition and other patients`: as `acquisition`, and such a mix adds more than 10 % to the transform.
    - `not these transforms`: the transform explains less than 20 %, or less than chance does.
    - `not enough evidence`: none of these.
    """
    if not distance.low > 0:
        return "no distance"
    mix_adds = parts.mix_adds.low > MIN_SHARE
    more_than_mix = parts.beats_mix.low > 0 or parts.transform_adds.low > 0
    if parts.best.low > max(chance, MIN_SHARE) and more_than_mix:
        if mix_adds:
            return "acquisition and other patients"
        rivalled = parts.mix.low > MIN_SHARE and parts.beats_mix.low <= CLEAR_LEAD
        return "not enough evidence" if rivalled and parts.best.low <= NEARLY_ALL else "acquisition"
    if mix_adds and parts.mix.low > MIN_MIX_SHARE:
        return "other patients"
    return "not these transforms" if parts.best.high < max(chance, 2 * MIN_SHARE) else "not enough evidence"


def _both(
    splits: Splits, candidates: Sequence[str], kernels_of: Callable[[str], Kernels]
) -> tuple[Discrepancies, list[str]]:
    """Return what is left by the transform that is best once patients are re-weighted, and each half's choice, (M,)."""
    found, tried = zip(*(reweighted(kernels_of(name), splits) for name in candidates), strict=True)
    picks = np.argmin(tried, axis=0).tolist()
    return joined([found[k] for k in picks], range(len(picks))), [candidates[k] for k in picks]


@dataclass(frozen=True)
class _Picked:
    """Choices among K transforms: what each leaves in the halves for choices, (K, M), and in those for measuring."""

    names: Sequence[str]
    tried: FloatArray
    found: Mapping[str, Discrepancies]

    def best(self, among: Sequence[str]) -> tuple[Discrepancies, list[str]]:
        """Return what the closest of some names leaves in the other halves, and its name in each, (M,)."""
        rows = [self.names.index(name) for name in among]
        chosen = [among[k] for k in np.argmin(self.tried[rows], axis=0)]
        return joined([self.found[name] for name in chosen], range(1, 1 + len(chosen))), chosen

    def closest_of_each_family(self, among: Sequence[str]) -> list[str]:
        """Return those of some names that are their family's closest in any of the halves."""
        kept: set[str] = set()
        for family in dict.fromkeys(map(family_of, among)):
            kept |= set(self.best([name for name in among if family_of(name) == family])[1])
        return [name for name in self.names if name in kept]


def _frequencies(chosen: Sequence[str]) -> dict[str, float]:
    counts = Counter(family_of(name) for name in chosen)
    return {family: count / len(chosen) for family, count in counts.most_common()}


def _check(samples: TwoSamples, transformed: Mapping[str, ArrayLike]) -> None:
    if not transformed:
        raise InputError("No transform was given: expected at least one, with the reference's embeddings under it.")
    if min(samples.n_groups) < MIN_GROUPS:
        raise InputError(
            f"The reference has {samples.n_groups[0]} patients and the site {samples.n_groups[1]}: finding out why "
            f"they differ needs at least {MIN_GROUPS} of each."
        )


def _measured(kernels: Kernels, splits: Splits) -> Discrepancies:
    """Return the discrepancies on all patients, and on the half that each choice is measured on, (1 + M,)."""
    a, b = (np.pad(half, ((0, 0), (1, 0)), constant_values=1.0) for half in (splits.measured_a, splits.measured_b))
    return discrepancies(kernels.reference, kernels.site, kernels.across, a, b)


def _all(found: Discrepancies) -> Discrepancies:
    """Return the first column, which takes all patients."""
    return joined([found], [0])
