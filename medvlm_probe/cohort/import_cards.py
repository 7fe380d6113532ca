"""The data card beside an imported manifest: what its sources' cards say, for one cohort or several joined."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from medvlm_probe.cohort.cohort import Cohort
from medvlm_probe.cohort.joining import Joined
from medvlm_probe.cohort.recipes import DICOM, PNG
from medvlm_probe.errors import InputError

WRITTEN_BY = "Written by `medvlm-probe cohort import`."
"""A line of every card that an import writes; such a card may be written again."""


def import_card(
    joined: Joined,
    cohorts: Sequence[Cohort],
    *,
    manifest: str,
    name: str,
    published: Sequence[str],
    labels_file: str | None = None,
) -> str:
    """Return the text of a data card.

    Args:
        joined: the manifest's rows and labels.
        cohorts: what they come from.
        manifest: the manifest's file name.
        name: what several cohorts together are called; a single one keeps its own name.
        published: names of published data sets among the cohorts.
        labels_file: the file that the labels come from, where they are not the source's own.
    """
    import yaml

    cards = [cohort.card for cohort in cohorts]
    single = len(cards) == 1
    same_as = dict.fromkeys(source for card in cards for source in card.same_as)
    same_as.update(dict.fromkeys(() if single else published))
    tasks = {(card.task, cohort.labels) for card, cohort in zip(cards, cohorts, strict=True)}
    templates = {card.prompt_template for card in cards}
    fields: dict[str, Any] = {
        "name": cards[0].name if single else name,
        "title": cards[0].title if single else f"{', '.join(card.title or card.name for card in cards)}",
        "task": "single_label" if len(tasks) == 1 and cards[0].task == "single_label" else "multi_label",
        "labels": joined.words,
        "prompt_template": templates.pop() if len(templates) == 1 else None,
        "uncertainty": joined.uncertainty,
        "importer": "manifest",
        "manifest": manifest,
        "recipe": _recipe(cohorts),
        "split": _splits(joined, cohorts),
        "same_as": list(same_as),
        "licence": _facts(cohorts, "licence"),
        "citation": _facts(cohorts, "citation"),
        "access": _facts(cohorts, "access"),
        "known_traps": [trap if single else f"{card.name}: {trap}" for card in cards for trap in card.known_traps],
    }
    front = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=1000)
    bodies = "\n\n".join(card.body for card in cards if card.body)
    origin = f" The labels come from `{labels_file}`, not as it is told below." if labels_file else ""
    return f"---\n{front}---\n\n{WRITTEN_BY}{origin}\n\n{_table(joined, cohorts)}\n{bodies}\n"


def _facts(cohorts: Sequence[Cohort], field: str) -> str:
    facts = {cohort.card.name: str(getattr(cohort.card, field)) for cohort in cohorts}
    if len(set(facts.values())) == 1:
        return next(iter(facts.values()))
    return "; ".join(f"{name}: {fact}" for name, fact in facts.items())


def _recipe(cohorts: Sequence[Cohort]) -> str | None:
    """Return the recipe that reads every cohort as it was read before; None leaves it to the files' names.

    Raises:
        InputError: there is none.
    """
    given = {cohort.source.recipe for cohort in cohorts}
    if given <= {PNG, DICOM}:
        return DICOM if DICOM in given else None
    if len(given) > 1:
        raise InputError(f"The cohorts are read by different recipes ({', '.join(sorted(given))}); join them by one.")
    return given.pop()


def _splits(joined: Joined, cohorts: Sequence[Cohort]) -> dict[str, str]:
    """Return what the cards say of the splits that occur."""
    occurring = set(joined.table["split"].dropna()) if "split" in joined.table else set()
    given = {split: words for cohort in reversed(cohorts) for split, words in cohort.card.split.items()}
    return {split: words for split, words in given.items() if split in occurring}


def _table(joined: Joined, cohorts: Sequence[Cohort]) -> str:
    rows = "".join(
        f"| {cohort.name} | {int((joined.part == number).sum()):,} |\n" for number, cohort in enumerate(cohorts)
    )
    return f"| source | images |\n|---|--:|\n{rows}"
