"""The rules of the report labeler, read from `rules.toml` and compiled once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from medvlm_probe.cohort.report_labeler.phrases import compile_phrases
from medvlm_probe.errors import InputError
from medvlm_probe.runs import parse_toml

RULES_FILE = "rules.toml"


@dataclass(frozen=True)
class LabelRules:
    """What is looked for, for one label.

    Attributes:
        label: its name.
        mentions: phrases that name it. uncertain_mentions: phrases that name it and leave it open by themselves.
        excluded: contexts in which a mention is none. absent: statements that it is absent.
    """

    label: str
    mentions: re.Pattern[str]
    uncertain_mentions: re.Pattern[str]
    excluded: re.Pattern[str]
    absent: re.Pattern[str]


@dataclass(frozen=True)
class Rules:
    """All rules. `by_label` may hold more than `labels`: what counts only against `no_finding`."""

    labels: tuple[str, ...]
    by_label: tuple[LabelRules, ...]
    no_finding: str
    against_no_finding: tuple[str, ...]
    implied: Mapping[str, tuple[str, ...]]
    negation_before: re.Pattern[str]
    negation_after: re.Pattern[str]
    pseudo_negations: re.Pattern[str]
    uncertainty_before: re.Pattern[str]
    uncertainty_after: re.Pattern[str]
    not_asserted_before: re.Pattern[str]
    not_asserted_after: re.Pattern[str]
    terminators: re.Pattern[str]
    negation_terminators: re.Pattern[str]
    uncertainty_after_terminators: re.Pattern[str]
    read_sections: tuple[str, ...]
    skipped_sections: tuple[str, ...]
    spellings: Mapping[str, str]


@cache
def shipped_rules() -> Rules:
    """Return the rules that come with the tool."""
    return rules_of(resources.files(__package__).joinpath(RULES_FILE).read_text("utf-8"))


def rules_of(text: str) -> Rules:
    """Return the rules that a TOML text states; `rules.toml` says what stands where.

    Raises:
        InputError: no TOML, a part missing or unknown, or a phrase that is not written as phrases are.
    """
    try:
        data: dict[str, Any] = parse_toml(text)
    except ValueError as error:
        raise InputError(f"The rules are no TOML: {error}.") from error
    try:
        rules = _rules(data)
    except KeyError as error:
        raise InputError(f"The rules lack the entry {error}.") from error
    known = {entry.label for entry in rules.by_label}
    named = {*rules.against_no_finding, *(cause for causes in rules.implied.values() for cause in causes)}
    if named - known:
        raise InputError(f"The rules name labels without phrases: {', '.join(sorted(named - known))}.")
    return rules


def _rules(data: Mapping[str, Any]) -> Rules:
    negation, uncertainty, not_asserted = data["negation"], data["uncertainty"], data["not_asserted"]
    return Rules(
        labels=tuple(data["labels"]),
        by_label=tuple(_label_rules(name, entry) for name, entry in data["label"].items()),
        no_finding=data["no_finding"]["label"],
        against_no_finding=tuple(data["no_finding"]["unless"]),
        implied={label: tuple(causes) for label, causes in data["implied"].items()},
        negation_before=compile_phrases(negation["before"]),
        negation_after=compile_phrases(negation["after"]),
        pseudo_negations=compile_phrases(negation["not_one"]),
        uncertainty_before=compile_phrases(uncertainty["before"]),
        uncertainty_after=compile_phrases(uncertainty["after"]),
        not_asserted_before=compile_phrases(not_asserted["before"]),
        not_asserted_after=compile_phrases(not_asserted["after"]),
        terminators=compile_phrases(data["scope"]["ends_at"]),
        negation_terminators=compile_phrases([*data["scope"]["ends_at"], *negation["ends_also_at"]]),
        uncertainty_after_terminators=compile_phrases([*data["scope"]["ends_at"], *uncertainty["after_ends_also_at"]]),
        read_sections=tuple(data["sections"]["read"]),
        skipped_sections=tuple(data["sections"]["skipped"]),
        spellings=dict(data["spelling"]),
    )


def _label_rules(name: str, entry: Mapping[str, Any]) -> LabelRules:
    unknown = set(entry) - {"mentions", "uncertain_mentions", "excluded", "absent"}
    if unknown:
        raise InputError(f"The rules of '{name}' hold unknown parts: {', '.join(sorted(unknown))}.")
    return LabelRules(
        label=name,
        mentions=compile_phrases(entry["mentions"]),
        uncertain_mentions=compile_phrases(entry.get("uncertain_mentions", ())),
        excluded=compile_phrases(entry.get("excluded", ())),
        absent=compile_phrases(entry.get("absent", ())),
    )
