"""The cards in a page's appendix: what is declared of each side's data and of the model, as plain values for JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medvlm_probe.cohort.data_cards import DataCard
from medvlm_probe.models.zoo import find_spec

NOT_DECLARED = "not declared"


def audit_cards(site: DataCard, reference: DataCard, record: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the cards of an audit: title to what the card says.

    Args:
        site, reference: the cohorts' data cards.
        record: the audit's provenance, with the model's name and fingerprint.
    """
    return {
        "Data card: new site": data_card(site),
        "Data card: reference": data_card(reference),
        "Model card": model_card(record),
    }


def data_card(card: DataCard) -> dict[str, Any]:
    """Return what a data card declares; its text, its name and where its files are stay at home."""
    return {
        "title": card.title,
        "task": card.task.replace("_", " "),
        "labels": list(card.labels.values()),
        "uncertainty": card.uncertainty,
        "split": dict(card.split),
        "licence": card.licence,
        "citation": card.citation,
        "access": card.access,
        "known_traps": list(card.known_traps),
    }


def model_card(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is declared of the model that a record names: from the zoo, else that nothing is."""
    model = record.get("model") or {}
    name = str(model.get("name", ""))
    spec = find_spec(name) if name else None
    found = {"name": name, "fingerprint": model.get("fingerprint")}
    if spec is None:
        return found | {"licence": NOT_DECLARED, "trained_on": NOT_DECLARED}
    trained_on = [
        ": ".join(filter(None, [data.dataset, ", ".join([*data.sites, *data.splits]), data.note]))
        for data in spec.trained_on
    ]
    return found | {
        "title": spec.summary,
        "licence": spec.licence,
        "citation": spec.citation,
        "trained_on": trained_on or NOT_DECLARED,
        "notes": [f"{caveat.text} ({caveat.source})" for caveat in spec.caveats],
    }
