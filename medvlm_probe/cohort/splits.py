"""Splits made by group, stratified over labels and sites: the same for any order of the rows."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medvlm_probe.cohort.cohort import Cohort
from medvlm_probe.cohort.stratify import stratified_parts
from medvlm_probe.errors import ImageError, InputError

if TYPE_CHECKING:
    from medvlm_probe.cohort.images import ImageSource

GIVEN_SPLIT = "given_split"
"""The extra column that keeps the manifest's own splits where a split file takes their place."""

FEW_GROUPS = 10
"""Labels with fewer positive groups than this in a part are named in the notes."""

_HASH_WORKERS = 8


@dataclass(frozen=True, eq=False)
class Splits:
    """Which part each image belongs to.

    Attributes:
        shares: part to its wanted share of the images.
        seed: of the ties.
        assigned: content key to part.
        cohort: name, fingerprint, n_images, group_kind of the cohort that was split.
        counts: what came out: `trait` ("images", a label, "site: NAME"), `part`, n_images, n_groups, share, wanted.
        notes: what could not be met and what people should know, a sentence each.
    """

    shares: Mapping[str, float]
    seed: int
    assigned: Mapping[str, str]
    cohort: Mapping[str, Any]
    counts: pd.DataFrame
    notes: tuple[str, ...]


def parse_shares(text: str) -> dict[str, float]:
    """Read `train=.7,val=.15,test=.15`.

    Raises:
        InputError: no two parts, a name that is none or comes twice, shares outside (0, 1) or with another sum than 1.
    """
    shares: dict[str, float] = {}
    for item in text.split(","):
        name, _, number = (part.strip() for part in item.partition("="))
        try:
            share = float(number)
        except ValueError:
            share = -1.0
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name) or name in shares or not 0 < share < 1:
            raise InputError(f"Parts '{text}': expected different names with shares, as in train=.7,val=.15,test=.15.")
        shares[name] = share
    if len(shares) < 2 or abs(sum(shares.values()) - 1) > 1e-6:
        raise InputError(
            f"Parts '{text}': expected two parts or more whose shares add up to 1, not {sum(shares.values()):g}."
        )
    return shares


def make_splits(cohort: Cohort, shares: Mapping[str, float], seed: int = 0, *, within: str | None = None) -> Splits:
    """Split a cohort by group (patient, else study, else image), alike in labels, sites and labels at sites.

    Images with the same content keep together too, whoever they are said to show. Ties are broken by a hash of the seed
    and the group's contents, so that the order of the rows does not matter. Images that cannot be read belong nowhere.

    Args:
        cohort: any cohort; -1 counts as its uncertainty policy says, an unknown label as not positive.
        shares: part to share; as `parse_shares` reads them.
        seed: another number gives other, equally good parts.
        within: divide this split of the cohort alone; the other images keep the splits that they have.

    Raises:
        InputError: shares that are no shares, fewer groups than parts, or with `within` a part that is named as one of
            the other splits, or other images without a split.
        UnknownNameError: `within` is no split of the cohort.
    """
    shares = parse_shares(",".join(f"{name}={share!r}" for name, share in shares.items()))
    keys = content_keys(cohort.source)
    others = _kept_splits(cohort, keys, within, shares)
    divided = np.array([key != "" and key not in others for key in keys], dtype=np.bool_)
    usable = cohort.select(divided)
    kept = [key for key, chosen in zip(keys, divided.tolist(), strict=True) if chosen]
    n_ids = int(np.unique(usable.groups()).size)
    groups = _joined_by_content(usable.groups(), kept)
    order = _group_order(groups, kept, seed)
    groups = order[groups]
    n_groups = int(groups.max(initial=-1)) + 1
    if n_groups < len(shares):
        raise InputError(f"{n_groups:,} groups of images cannot be divided into {len(shares)} parts.")
    traits = _traits(usable)
    sizes = np.bincount(groups, minlength=n_groups)
    columns = [np.bincount(groups, weights=column, minlength=n_groups) for column in traits.values()]
    matrix = np.stack(columns, axis=1).astype(np.int64) if columns else np.zeros((n_groups, 0), np.int64)
    names = list(shares)
    parts = stratified_parts(sizes, matrix, np.array(list(shares.values())))[groups]
    counts = _counts(traits, groups, parts, shares)
    return Splits(
        shares=shares,
        seed=seed,
        assigned=others | {key: names[part] for key, part in zip(kept, parts.tolist(), strict=True)},
        cohort={
            "name": cohort.name,
            "fingerprint": cohort.fingerprint,
            "n_images": len(cohort),
            "group_kind": cohort.group_kind,
        },
        counts=counts,
        notes=tuple(_notes(cohort, counts, n_unreadable=keys.count(""), n_joined=n_ids - n_groups)),
    )


def with_splits(cohort: Cohort, assigned: Mapping[str, str]) -> Cohort:
    """Return the cohort with its splits replaced; the manifest's own are kept in the extra column `given_split`.

    Images that cannot be read are in no split.

    Args:
        cohort: any cohort.
        assigned: content key to split, for every readable image; keys of other images are passed over.

    Raises:
        InputError: images that are in no split.
    """
    keys = content_keys(cohort.source)
    missing = [row for row, key in enumerate(keys) if key and key not in assigned]
    if missing:
        first = cohort.table["image"].iloc[missing[0]]
        raise InputError(
            f"{len(missing):,} of {len(cohort):,} images are not in the split file, the first is {first}. It was made "
            "for other images: make one for these with medvlm-probe cohort split."
        )
    table = cohort.table.copy()
    table[GIVEN_SPLIT] = table.pop("split") if "split" in table else None
    table["split"] = [assigned.get(key) for key in keys]
    return replace(cohort, table=table)


def content_keys(source: ImageSource) -> list[str]:
    """Return the content key of each row, "" where the image cannot be read; files are hashed by several threads."""

    def key(row: int) -> str:
        try:
            return source.content_key(row)
        except ImageError:
            return ""

    with ThreadPoolExecutor(min(_HASH_WORKERS, os.cpu_count() or 1)) as pool:
        return list(pool.map(key, range(len(source))))


def _kept_splits(cohort: Cohort, keys: list[str], within: str | None, shares: Mapping[str, float]) -> dict[str, str]:
    """Return content key to split of the images outside `within`, none without it."""
    if within is None:
        return {}
    cohort.select_split(within)
    splits = cohort.splits().tolist()
    others = {key: split for key, split in zip(keys, splits, strict=True) if key and split != within}
    if "" in others.values():
        raise InputError(
            f"Images of cohort '{cohort.name}' have no split at all, so '{within}' cannot be divided alone."
        )
    taken = sorted(set(shares) & set(others.values()))
    if taken:
        raise InputError(f"Part '{taken[0]}' is a split of the cohort's other images already. Give it another name.")
    return others


def _joined_by_content(groups: NDArray[np.int64], keys: list[str]) -> NDArray[np.int64]:
    """Return group codes where groups that share an image's content are one."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    codes, contents = pd.factorize(np.array(keys, dtype=object))
    n_groups = int(groups.max(initial=-1)) + 1
    n = n_groups + len(contents)
    edges = coo_array((np.ones(len(groups), np.int8), (groups, n_groups + codes)), shape=(n, n))
    _, component = connected_components(edges, directed=False)
    joined, _ = pd.factorize(component[:n_groups][groups])
    return np.asarray(joined, dtype=np.int64)


def _group_order(groups: NDArray[np.int64], keys: list[str], seed: int) -> NDArray[np.int64]:
    """Return each group's place in the order of a hash over the seed and its images' contents."""
    frame = pd.DataFrame({"group": groups, "key": keys}).drop_duplicates().sort_values(["group", "key"])
    joined = frame.groupby("group", sort=True)["key"].agg("".join)
    digests = [hashlib.sha256(f"{seed} {text}".encode()).hexdigest() for text in joined]
    return np.argsort(np.argsort(np.array(digests, dtype=object))).astype(np.int64)


def _traits(cohort: Cohort) -> dict[str, NDArray[np.bool_]]:
    """Return what the parts should be alike in: labels, sites, and labels at each site where there are several."""
    positive = cohort.targets() == 1
    sites = cohort.sites()
    names = sorted(set(sites.tolist()))
    traits = {label: positive[:, column] for column, label in enumerate(cohort.labels)}
    if len(names) < 2:
        return traits
    traits |= {_site_words(site): sites == site for site in names}
    at_sites = {
        f"{label} at {site or 'no site'}": positive[:, column] & (sites == site)
        for column, label in enumerate(cohort.labels)
        for site in names
    }
    return traits | {name: rows for name, rows in at_sites.items() if rows.any()}


def _site_words(site: str) -> str:
    return f"site: {site or 'not known'}"


def _counts(
    traits: Mapping[str, NDArray[np.bool_]],
    groups: NDArray[np.int64],
    parts: NDArray[np.int64],
    shares: Mapping[str, float],
) -> pd.DataFrame:
    rows = []
    everything = {"images": np.ones(len(groups), np.bool_), **traits}
    for trait, has in everything.items():
        total = int(has.sum())
        for number, (part, wanted) in enumerate(shares.items()):
            here = has & (parts == number)
            n = int(here.sum())
            share = n / total if total else np.nan
            rows.append((trait, part, n, int(np.unique(groups[here]).size), share, wanted))
    return pd.DataFrame(rows, columns=["trait", "part", "n_images", "n_groups", "share", "wanted"])


def _notes(cohort: Cohort, counts: pd.DataFrame, *, n_unreadable: int, n_joined: int) -> Iterable[str]:
    if cohort.group_kind == "image":
        yield "No patient or study is given: images of one patient may stand in several parts."
    if n_joined:
        yield f"{n_joined:,} groups were joined with others that hold an image of the same content."
    if n_unreadable:
        yield f"{n_unreadable:,} images cannot be read and are in no part."
    labels = counts[counts["trait"].isin(cohort.labels)]
    for label, rows in labels.groupby("trait", sort=False):
        lacking = rows.loc[rows["n_groups"] == 0, "part"].tolist()
        n_groups = int(rows["n_groups"].sum())
        if lacking and n_groups:
            yield f"{label}: none of its {n_groups} positive group(s) could be put into {', '.join(lacking)}."
    few = labels[(labels["n_groups"] > 0) & (labels["n_groups"] < FEW_GROUPS)]
    if len(few):
        listed = ", ".join(dict.fromkeys(few["trait"]))
        yield f"Fewer than {FEW_GROUPS} positive groups in some part: {listed}. Intervals will be wide there."
