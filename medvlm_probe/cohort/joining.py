"""Several cohorts joined into one table, each as a site: no file is opened here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medvlm_probe.cohort.cohort import Cohort
from medvlm_probe.cohort.labels import CHEXPERT_LABELS, display_name
from medvlm_probe.cohort.manifest import MANIFEST_COLUMNS, UncertaintyPolicy
from medvlm_probe.errors import InputError

OWN_SITES = "-"
"""The site name that leaves a cohort its own."""


@dataclass(frozen=True, eq=False)
class Joined:
    """Cohorts as one table.

    Attributes:
        table: the rows of all cohorts in the order given, columns as `Cohort.table`; `image` as each cohort has it.
        part: for each row the number of its cohort (n,).
        labels: the union of the labels: CheXpert's in their order, then others as they come.
        words: each label's name for people.
        uncertainty: what -1 becomes.
        notes: what joining changed or could not tell, a sentence each.
    """

    table: pd.DataFrame
    part: NDArray[np.int64]
    labels: tuple[str, ...]
    words: dict[str, str]
    uncertainty: UncertaintyPolicy
    notes: tuple[str, ...]


def join_cohorts(
    cohorts: Sequence[Cohort], *, sites: Sequence[str] = (), uncertainty: UncertaintyPolicy | None = None
) -> Joined:
    """Join cohorts; a single one passes through.

    A label that a cohort lacks is unknown there, never absent. Of several cohorts, one without sites gets its name as
    site. A patient or study id that occurs in several cohorts at different sites stands for different people, and gets
    its site in front; at the same site it is the same patient. Extra columns are kept where they exist; where one
    cohort's label is another's extra column, the latter gets its cohort's name in front.

    Args:
        cohorts: at least one.
        sites: one name a cohort, `OWN_SITES` for none; empty for the cohorts' own.
        uncertainty: what -1 becomes; None takes the cohorts' policy, which must then be the same.

    Raises:
        InputError: sites that do not fit, cohorts of the same name without sites, or policies that differ.
    """
    names = _site_names(cohorts, sites)
    notes: list[str] = []
    labels = _union(cohort.labels for cohort in cohorts)
    labels = (*(x for x in CHEXPERT_LABELS if x in labels), *(x for x in labels if x not in CHEXPERT_LABELS))
    tables = [_renamed_extras(cohort, labels, notes) for cohort in cohorts]
    for table, name in zip(tables, names, strict=True):
        if name:
            table["site"] = name
    if len(cohorts) > 1:
        for kind in ("patient", "study"):
            _tell_apart(cohorts, tables, kind, notes)
    columns = _union(table.columns for table in tables)
    order = [name for name in MANIFEST_COLUMNS if name in columns]
    extra = [name for name in columns if name not in {*MANIFEST_COLUMNS, *labels}]
    joined = pd.DataFrame(
        {
            **{name: _joined_column(name, tables) for name in order},
            **{label: _joined_label(label, cohorts) for label in labels},
            **{name: _joined_column(name, tables) for name in extra},
        }
    )
    return Joined(
        table=joined,
        part=np.repeat(np.arange(len(cohorts)), [len(cohort) for cohort in cohorts]),
        labels=labels,
        words=_words(cohorts, labels),
        uncertainty=_policy(cohorts, uncertainty),
        notes=(*notes, *_absent_notes(cohorts, labels), *_split_notes(joined)),
    )


def _site_names(cohorts: Sequence[Cohort], given: Sequence[str]) -> list[str]:
    """Return the site that each cohort's rows get; "" leaves them their own."""
    if given and len(given) != len(cohorts):
        raise InputError(
            f"{len(given)} sites were named for {len(cohorts)} cohorts. Name one a cohort, in the same order; "
            f"'{OWN_SITES}' leaves a cohort its own."
        )
    names = ["" if name == OWN_SITES else name.strip() for name in given] or [""] * len(cohorts)
    if len(cohorts) > 1:
        names = [
            name or ("" if _has(cohort, "site") else cohort.name) for name, cohort in zip(names, cohorts, strict=True)
        ]
    twice = next((name for name in names if name and names.count(name) > 1 and not given), None)
    if twice:
        raise InputError(f"Two cohorts without sites are both called '{twice}'. Name their sites: --site A --site B.")
    return names


def _has(cohort: Cohort, column: str) -> bool:
    return column in cohort.table and bool(cohort.table[column].notna().any())


def _renamed_extras(cohort: Cohort, labels: Sequence[str], notes: list[str]) -> pd.DataFrame:
    clashing = [name for name in cohort.extra if name in labels]
    for name in clashing:
        notes.append(f"Column '{name}' of {cohort.name} is no label there; it is kept as '{cohort.name}_{name}'.")
    return cohort.table.rename(columns={name: f"{cohort.name}_{name}" for name in clashing})


def _tell_apart(cohorts: Sequence[Cohort], tables: list[pd.DataFrame], kind: str, notes: list[str]) -> None:
    """Put the site in front of ids that several cohorts have at different sites; `tables` are changed."""
    homes = [_homes(table, kind, cohort.name) for cohort, table in zip(cohorts, tables, strict=True)]
    pairs = pd.concat([home.reset_index() for home in homes], ignore_index=True)
    distinct = pairs.drop_duplicates()
    clashing = set(distinct["id"][distinct["id"].duplicated()])
    same = pairs["id"][pairs.duplicated() & ~pairs["id"].isin(clashing)].nunique()
    if same:
        notes.append(f"{_count(same, kind)} in several cohorts at the same site: taken as the same {kind}.")
    if not clashing:
        return
    taken = set(pairs["id"]) - clashing
    for table, home in zip(tables, homes, strict=True):
        prefixed = {name: f"{home[name]}-{name}" for name in home.index if name in clashing}
        if taken & set(prefixed.values()):
            raise InputError(f"Cannot tell {kind} ids of different sites apart. Name other sites with --site.")
        if prefixed:
            table[kind] = table[kind].map(lambda name, new=prefixed: new.get(name, name))
    notes.append(f"{_count(len(clashing), f'{kind} id')} occurred at different sites and got the site in front.")


def _homes(table: pd.DataFrame, kind: str, name: str) -> pd.Series:
    """Return each id's site, indexed by id; `name` for ids at several sites of a cohort, or at none that is known.

    Within a cohort an id is one patient, wherever the patient was.
    """
    if kind not in table:
        return pd.Series([], index=pd.Index([], name="id", dtype=object), name="site", dtype=object)
    sites = table["site"] if "site" in table else pd.Series(None, index=table.index, dtype=object)
    pairs = pd.DataFrame({"id": table[kind], "site": sites.fillna(name)}).dropna(subset=["id"]).drop_duplicates()
    pairs.loc[pairs["id"].duplicated(keep=False), "site"] = name
    return pairs.drop_duplicates().set_index("id")["site"]


def _joined_column(name: str, tables: Sequence[pd.DataFrame]) -> pd.Series:
    dtype = np.float32 if name == "age" else object
    parts = [
        table[name].astype(dtype) if name in table else pd.Series(np.nan, index=table.index, dtype=dtype)
        for table in tables
    ]
    return pd.concat(parts, ignore_index=True)


def _joined_label(label: str, cohorts: Sequence[Cohort]) -> NDArray[np.float32]:
    parts = [
        cohort.table[label].to_numpy(dtype=np.float32) if label in cohort.labels else np.full(len(cohort), np.nan)
        for cohort in cohorts
    ]
    return np.concatenate(parts).astype(np.float32)


def _union(names: Iterable[Iterable[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(name) for group in names for name in group))


def _words(cohorts: Sequence[Cohort], labels: Sequence[str]) -> dict[str, str]:
    """Return each label's name, from the first card that has one."""
    given: dict[str, str] = {}
    for cohort in reversed(cohorts):
        given.update({label: words for label, words in cohort.card.labels.items() if label in cohort.labels})
    return {label: given.get(label, display_name(label)) for label in labels}


def _policy(cohorts: Sequence[Cohort], given: UncertaintyPolicy | None) -> UncertaintyPolicy:
    policies = _union([cohort.uncertainty] for cohort in cohorts)
    if given is None and len(policies) > 1:
        listed = ", ".join(f"{cohort.name} {cohort.uncertainty}" for cohort in cohorts)
        raise InputError(
            f"The cohorts treat uncertain labels (-1) differently: {listed}. Choose one with --uncertainty; the -1 "
            "themselves are kept in the manifest."
        )
    return given or cohorts[0].uncertainty


def _absent_notes(cohorts: Sequence[Cohort], labels: Sequence[str]) -> list[str]:
    notes = []
    for cohort in cohorts:
        absent = [label for label in labels if label not in cohort.labels]
        if absent:
            missing = f" for {', '.join(absent)}" if cohort.labels else ""
            notes.append(f"{cohort.name} has no labels{missing}: unknown there, not absent.")
    return notes


def _split_notes(table: pd.DataFrame) -> list[str]:
    if "split" not in table or "patient" not in table:
        return []
    pairs = table[["patient", "split"]].dropna().drop_duplicates()
    n = int(pairs["patient"][pairs["patient"].duplicated()].nunique())
    if not n:
        return []
    return [f"{_count(n, 'patient')} in more than one split: a leak. Keep one cohort's splits, or make new ones."]


def _count(n: int, noun: str) -> str:
    plural = "studies" if noun == "study" else f"{noun}s"
    return f"{n:,} {noun if n == 1 else plural}"
