"""A policy: rules in plain words and triggers in the same words, read from TOML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from medvlm_probe.audit.rules import CONFIDENCE, FORMS, PLANNED, Rule, count, parse_rule, percentage
from medvlm_probe.audit.trigger_rules import TRIGGER_FORMS, Trigger, parse_trigger
from medvlm_probe.errors import InputError, unknown_name
from medvlm_probe.runs import parse_toml

MAX_RULES = 200

_KEYS = ("name", "rule", "trigger", "confidence", "planned")


@dataclass(frozen=True)
class Policy:
    """Rules with a name, and the triggers that stop use or call for retraining once the model is in use."""

    name: str
    rules: tuple[Rule, ...]
    triggers: tuple[Trigger, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return what the policy asks for as JSON values."""
        return {
            "name": self.name,
            "rules": [vars(rule) for rule in self.rules],
            "triggers": [trigger.to_json() for trigger in self.triggers],
        }


def default_policy() -> Policy:
    """Return the policy that ships: the questions that a proof of concept should ask."""
    text = resources.files("medvlm_probe.audit").joinpath("default_policy.toml").read_text(encoding="utf-8")
    return parse_policy(text, "the default policy")


def read_policy(path: Path) -> Policy:
    """Read a policy file.

    Raises:
        InputError: the file cannot be read, is no TOML, or holds a rule that is none.
        UnknownNameError: a rule about something that cannot be measured.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"Cannot read the policy '{path}': {getattr(error, 'strerror', 'it is no UTF-8')}.") from error
    return parse_policy(text, f"policy '{path.name}'")


def parse_policy(text: str, source: str) -> Policy:
    """Return the policy that TOML text holds; `source` names it in errors, which are those of `read_policy`."""
    try:
        given = parse_toml(text)
    except ValueError as error:
        raise InputError(f"{source.capitalize()} is no valid TOML: {error}.") from error
    unknown = sorted(set(given) - set(_KEYS))
    if unknown:
        raise unknown_name(f"key in {source}", unknown[0], _KEYS)
    rules = given.get("rule")
    if not isinstance(rules, list) or not 0 < len(rules) <= MAX_RULES:
        raise InputError(
            f"{source.capitalize()} has no [[rule]] (or more than {MAX_RULES}). Write one: rule = {FORMS}."
        )
    triggers = given.get("trigger", [])
    if not isinstance(triggers, list) or len(triggers) > MAX_RULES:
        raise InputError(f"{source.capitalize()}: write each trigger as [[trigger]], at most {MAX_RULES} of them.")
    confidence = percentage(given.get("confidence", 100 * CONFIDENCE), source)
    planned = count(given.get("planned", PLANNED), source)
    name = str(given.get("name", "policy"))
    asked = tuple(_rule(entry, confidence, planned, f"Rule {k} of {source}") for k, entry in enumerate(rules, 1))
    watched = tuple(
        _trigger(entry, confidence, planned, f"Trigger {k} of {source}") for k, entry in enumerate(triggers, 1)
    )
    return Policy(name, asked, watched)


def _rule(entry: Any, confidence: float, planned: int, where: str) -> Rule:
    words, because, people = _entry(entry, "rule", (), planned, where)
    try:
        return parse_rule(words, confidence=confidence, because=because, planned=people)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _trigger(entry: Any, confidence: float, planned: int, where: str) -> Trigger:
    words, because, people = _entry(entry, "when", ("do",), planned, where)
    try:
        return parse_trigger(words, str(entry.get("do", "")), confidence=confidence, because=because, planned=people)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _entry(entry: Any, key: str, more: tuple[str, ...], planned: int, where: str) -> tuple[str, str, int]:
    """Return an entry's words, why it is there, and the people it is planned with."""
    if not isinstance(entry, Mapping) or not isinstance(entry.get(key), str):
        forms = FORMS if key == "rule" else TRIGGER_FORMS
        raise InputError(f'{where} has no words: {key} = "...", such as {forms}.')
    known = (key, *more, "because", "planned")
    unknown = sorted(set(entry) - set(known))
    if unknown:
        raise unknown_name(f"key in {where[0].lower()}{where[1:]}", unknown[0], known)
    return entry[key], str(entry.get("because", "")), count(entry.get("planned", planned), where)
