"""What a projection is coloured by: labels, sites, normal against abnormal, domains of labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from medvlm_probe.cohort.cohort import Cohort, resolve_labels
from medvlm_probe.cohort.labels import DOMAINS, display_name
from medvlm_probe.errors import InputError, ProbeError, unknown_name
from medvlm_probe.metrics.classification import any_present

KINDS = ("label", "site", "abnormal", "domain")
NO_FINDING = "no_finding"
NORMAL, ABNORMAL = "no finding", "abnormal"


@dataclass(frozen=True, eq=False)
class Colouring:
    """One way to colour images.

    Attributes:
        name: what was asked for, `label`, `site`, `abnormal`, `domain` or a label.
        table: a row an image. Where `panels` is true a column of 1, 0 or NaN each for things that an image may have
            several of; else the single column `name` of texts, "" where not known.
        panels: see `table`.
        words: column, or text in the column, to what people read, in the order to draw them.
    """

    name: str
    table: pd.DataFrame
    panels: bool
    words: Mapping[str, str] = field(default_factory=dict)

    def counts(self) -> list[dict[str, object]]:
        """Return each group's name, its images, and those where it is not known."""
        if self.panels:
            columns = [(name, self.table[name]) for name in self.table.columns]
            return [
                {"group": name, "n_images": int((column == 1).sum()), "n_unknown": int(column.isna().sum())}
                for name, column in columns
            ]
        column = self.table[self.name]
        n_unknown = int((column == "").sum())
        names = [name for name in self.words if (column == name).any()]
        names += sorted(set(column) - {*names, ""})
        return [{"group": name, "n_images": int((column == name).sum()), "n_unknown": n_unknown} for name in names]


def colouring(cohort: Cohort, by: str) -> Colouring:
    """Return how a cohort's images are coloured.

    Args:
        cohort: the images that are drawn.
        by: `label` (all labels, a panel each), `site`, `abnormal`, `domain` (`DOMAINS`, a panel each), or one label in
            any spelling.

    Raises:
        InputError: the cohort has no labels or no sites to colour by.
        UnknownNameError: neither a kind nor a label.
    """
    if by == "site":
        sites = cohort.sites()
        if not (sites != "").any():
            raise InputError(f"Cohort '{cohort.name}' names no sites, so --by site has nothing to show.")
        return Colouring("site", pd.DataFrame({"site": sites.astype(object)}), panels=False)
    if not cohort.labels:
        raise InputError(f"Cohort '{cohort.name}' has no labels, so --by {by} has nothing to show.")
    if by == "abnormal":
        return _abnormal(cohort)
    if by == "domain":
        return _domains(cohort)
    return _labels(cohort, by, cohort.labels if by == "label" else _one_label(cohort, by))


def _one_label(cohort: Cohort, name: str) -> tuple[str, ...]:
    try:
        return resolve_labels(cohort, [name])
    except ProbeError:
        raise unknown_name("--by", name, [*KINDS, *cohort.labels]) from None


def _labels(cohort: Cohort, by: str, labels: Sequence[str]) -> Colouring:
    table = pd.DataFrame(cohort.targets(labels).astype(np.float64), columns=list(labels))
    name = by if by == "label" else labels[0]
    return Colouring(name, table, panels=True, words={label: cohort.card.words(label) for label in labels})


def _abnormal(cohort: Cohort) -> Colouring:
    """Normal is what "no finding" says; where it says nothing, a finding makes an image abnormal. Without that label,
    an image is normal where all labels are known to be absent."""
    findings = [label for label in cohort.labels if label not in {NO_FINDING, *DOMAINS["device"]}]
    found = any_present(cohort.targets(findings)) if findings else np.full(len(cohort), np.nan)
    if NO_FINDING in cohort.labels:
        normal = cohort.targets([NO_FINDING])[:, 0]
        abnormal = np.where(np.isnan(normal), np.where(found == 1, 1.0, np.nan), 1.0 - normal)
    else:
        abnormal = found
    names = np.select([abnormal == 1, abnormal == 0], [ABNORMAL, NORMAL], default="").astype(object)
    words = {NORMAL: "No finding", ABNORMAL: "Abnormal"}
    return Colouring("abnormal", pd.DataFrame({"abnormal": names}), panels=False, words=words)


def _domains(cohort: Cohort) -> Colouring:
    members = {domain: [label for label in labels if label in cohort.labels] for domain, labels in DOMAINS.items()}
    members = {domain: labels for domain, labels in members.items() if labels}
    if not members:
        known = ", ".join(label for labels in DOMAINS.values() for label in labels)
        raise InputError(f"Cohort '{cohort.name}' has no label of any domain ({known}).")
    table = pd.DataFrame({domain: any_present(cohort.targets(labels)) for domain, labels in members.items()})
    return Colouring("domain", table, panels=True, words={domain: display_name(domain) for domain in members})
