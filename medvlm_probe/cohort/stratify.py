"""Dividing groups into parts of wanted shares, alike in labels and sites: iterative stratification of groups.

Sechidis, Tsoumakas and Vlahavas (2011), "On the stratification of multi-label data": the rarest label that is still to
be given out goes first, each of its examples to the part that lacks most of it. Here an example is a group (a patient)
that counts with all its images, sites (and labels at sites) count as labels, no part takes more images than its share,
and whatever a rare label still lacks at the end is mended by moving single groups.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.errors import InputError

ALGORITHM = "iterative stratification of groups"
VERSION = 1

IntArray = NDArray[np.int64]
FloatVector = NDArray[np.float64]


def stratified_parts(sizes: IntArray, traits: IntArray, shares: FloatVector) -> IntArray:
    """Return each group's part (G,), 0..P-1.

    The number of images of every part lies within one (largest) group of its share. A trait that P groups or more have
    is in every part where moving single groups can do it. Groups must come in an order that has nothing to do with
    their traits (a hash's): ties go to the earlier group and the earlier part.

    Args:
        sizes: images of each group (G,), at least 1.
        traits: how many images of each group have each trait (G, T): positives of a label, a site, a label at a site.
        shares: of the parts (P,), positive, with sum 1.

    Raises:
        InputError: shapes that do not fit, shares that are no shares, an empty group.
    """
    if traits.ndim != 2 or sizes.shape != traits.shape[:1] or (sizes < 1).any():
        raise InputError(
            f"Sizes {sizes.shape} and traits {traits.shape} must be of the same groups, none of them empty."
        )
    if (shares <= 0).any() or abs(float(shares.sum()) - 1) > 1e-6:
        raise InputError(f"Shares {shares.tolist()}: each must be above 0, and their sum 1.")
    parts = _given_out(sizes, traits, shares)
    _give_every_part_some(parts, traits, shares)
    _even_out(parts, sizes, traits, shares)
    return parts


def _given_out(sizes: IntArray, traits: IntArray, shares: FloatVector) -> IntArray:
    n_parts = len(shares)
    parts = np.full(len(sizes), -1, np.int64)
    room = shares * sizes.sum()
    wanted = shares[:, None] * traits.sum(axis=0)  # (P, T), what each part still lacks
    has = traits > 0
    members = [np.flatnonzero(column) for column in has.T]
    left = has.sum(axis=0)  # groups of each trait that have no part yet
    absent = np.ones((n_parts, traits.shape[1]), bool)

    def give(group: int, trait: int | None) -> None:
        open_parts = room > 1e-9
        if not open_parts.any():
            open_parts[np.argmax(room)] = True
        chosen = open_parts
        if trait is not None:
            urgent = absent[:, trait] & (absent[:, trait].sum() >= left[trait])
            chosen = urgent if urgent.any() else open_parts
        need = room if trait is None else wanted[:, trait]
        candidates = np.flatnonzero(chosen)
        part = int(max(candidates.tolist(), key=lambda p: (need[p], room[p], -p)))
        parts[group] = part
        room[part] -= sizes[group]
        wanted[part] -= traits[group]
        own = has[group]
        absent[part] &= ~own
        left[:] -= own

    while True:
        open_traits = np.flatnonzero(left > 0)
        if not open_traits.size:
            break
        trait = int(open_traits[np.argmin(left[open_traits])])
        waiting = members[trait][parts[members[trait]] < 0]
        # Groups with many images of the trait first: what is left over in the end is small.
        for group in waiting[np.argsort(-traits[waiting, trait], kind="stable")].tolist():
            give(group, trait)
    for group in np.flatnonzero(parts < 0)[np.argsort(-sizes[parts < 0], kind="stable")].tolist():
        give(group, None)
    return parts


def _give_every_part_some(parts: IntArray, traits: IntArray, shares: FloatVector) -> None:
    """Move single groups into parts that lack a trait altogether, where no part loses its last group of any."""
    has = traits > 0
    counts = np.stack([has[parts == part].sum(axis=0) for part in range(len(shares))])
    for trait in np.argsort(has.sum(axis=0), kind="stable").tolist():
        for part in np.flatnonzero(counts[:, trait] == 0).tolist():
            movable = [
                group
                for group in np.flatnonzero(has[:, trait]).tolist()
                if (counts[parts[group]][has[group]] > 1).all()
            ]
            if movable:
                group = min(movable, key=lambda g: int(has[g].sum()))
                counts[parts[group]] -= has[group]
                counts[part] += has[group]
                parts[group] = part


def _even_out(parts: IntArray, sizes: IntArray, traits: IntArray, shares: FloatVector) -> None:
    """Move groups from parts that are too large until each lies within one group of its share.

    Each move lowers the sum of squared deviations, so this ends.
    """
    has = traits > 0
    counts = np.stack([has[parts == part].sum(axis=0) for part in range(len(shares))])
    excess = np.bincount(parts, weights=sizes, minlength=len(shares)) - shares * sizes.sum()
    while np.abs(excess).max() > sizes.max():
        giver, taker = int(np.argmax(excess)), int(np.argmin(excess))
        own = np.flatnonzero(parts == giver)
        last = (has[own] & (counts[giver] == 1)).sum(axis=1)
        group = int(own[np.lexsort((has[own].sum(axis=1), last))[0]])
        counts[giver] -= has[group]
        counts[taker] += has[group]
        excess[giver] -= sizes[group]
        excess[taker] += sizes[group]
        parts[group] = taker
