"""Where a page's numbers come from: what of a run's record and of the cards may stand on a page, as plain facts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medvlm_probe.report.cells import value_text
from medvlm_probe.report.words import heading

RECORD = (
    "command", "started", "wall_seconds", "model", "cohort", "site", "reference", "reference_sketch", "images", "group",
    "seeds", "seed", "device", "precision", "min_cosine_to_float32", "threads", "batch_size", "recipe", "policy",
    "prompts", "versions", "platform",
)  # fmt: skip
"""The fields of `run.json` that pages show; the configuration stays in the run, as it may name files."""

CARD = (
    "name", "title", "task", "labels", "uncertainty", "recipe", "split", "group", "sites", "n_images", "n_patients",
    "family", "fingerprint", "image_size", "embedding_dim", "context_length", "logit_scale", "trained_on", "seen",
    "licence", "citation", "access", "intended_use", "known_traps", "notes",
)  # fmt: skip


@dataclass(frozen=True)
class Fact:
    """A name and what is to be said of it; `points` are lines below."""

    name: str
    text: str
    points: tuple[str, ...] = ()


SUBJECTS = {"site": "New site", "cohort": "Cohort", "reference": "Reference", "model": "Model"}
"""What a run looked at: fields of its record, and how pages call them."""
COHORTS = ("site", "cohort", "reference")
PHANTOMS = "Phantoms: these radiographs are drawn by a program. Nothing on this page is about patients, or medicine."


def provenance_facts(record: Mapping[str, Any], seconds: Mapping[str, Any]) -> list[Fact]:
    """Return the shown fields of a run's record, and how long each part took."""
    found = [_fact(key, record[key]) for key in RECORD if record.get(key) not in (None, "", {}, [])]
    return found + ([_fact("seconds", seconds)] if seconds else [])


def card_facts(card: Mapping[str, Any]) -> list[Fact]:
    """Return the shown fields of a data card or a model card."""
    return [_fact(key, card[key]) for key in CARD if card.get(key) not in (None, "", {}, [])]


def name_of(value: Any) -> str:
    """Return the name of a cohort or a model as a record gives it; "" where it gives none."""
    if isinstance(value, Mapping):
        return name_of(value.get("title") or value.get("name") or value.get("cohort"))
    return str(value or "")


def is_phantom(record: Mapping[str, Any]) -> bool:
    """Return whether all images that a run looked at are phantoms: by their recipe, else by their cohort's name."""
    sides = [value.get("cohort", value) for key in COHORTS if isinstance(value := record.get(key), Mapping)]
    recipes = [str(side.get("recipe") or f"{side.get('name')}/") for side in sides if isinstance(side, Mapping)]
    return bool(recipes) and all(recipe.startswith("phantom/") for recipe in recipes)


def _fact(key: str, value: Any) -> Fact:
    name = heading(key)
    if key in ("versions", "seconds") and isinstance(value, Mapping):
        return Fact(name, ", ".join(f"{part.replace('_', ' ')} {entry}" for part, entry in value.items()))
    if isinstance(value, Mapping) and isinstance(value.get("cohort"), Mapping):
        value = {**value["cohort"], "images": value.get("images")}
    if isinstance(value, Mapping):
        parts = [f"{heading(k) if k != 'fingerprint' else 'fingerprint'}: {_text(v)}" for k, v in value.items()]
        return Fact(name, "; ".join(parts)) if len(parts) <= 3 else Fact(name, "", tuple(parts))
    if isinstance(value, list) and any(not isinstance(entry, (int, float)) for entry in value):
        return Fact(name, "", tuple(_text(entry) for entry in value))
    return Fact(name, _text(value))


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(
            f"{heading(key).lower()} {_text(entry)}" for key, entry in value.items() if entry not in (None, "", [])
        )
    return value_text(value)
