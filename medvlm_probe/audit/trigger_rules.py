"""A trigger in plain words, such as `outlier share > 0.20` or `recall(cardiomegaly) below this audit's`.

A trigger is a rule turned round: it names what must not happen once the model is in use, and what to do if it does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from medvlm_probe.audit.rules import CONFIDENCE, PLANNED, Rule, parse_rule
from medvlm_probe.errors import InputError, unknown_name

Action = Literal["stop", "retrain"]
ACTIONS: tuple[Action, ...] = ("stop", "retrain")
ALARMS = ("outliers", "calibration")
"""The sequential tests of `monitor`."""

TRIGGER_FORMS = (
    "'outlier share > 0.20', 'recall(cardiomegaly) below this audit's', 'shift beyond 0.05 by mmd' or "
    "'alarm by outliers'"
)

_ALARM = re.compile(r"^alarm by (?P<test>[a-z]+)$")
_AUDIT = re.compile(r"^(?P<what>.+?) (?P<side>below|above|beyond) this audit'?s(?P<rest>( .*)?)$")
_NUMBER = re.compile(r"^(?P<what>[^<>=]+?)\s*(?P<side>[<>])\s*(?P<rest>[^<>=]+)$")
_BEYOND = re.compile(r"^shift beyond \S+.*$")
_TURNED = {"below": ">=", "<": ">=", "above": "<=", ">": "<="}


@dataclass(frozen=True)
class Trigger:
    """One trigger.

    Attributes:
        text: as the policy gives it.
        action: `stop` using the model, or `retrain` it.
        holds: the rule that must hold; the trigger is met where the rule is shown not to. None for an alarm.
        alarm: the test of `monitor` that it waits for; "" for rules.
        from_audit: the rule's limit is not given: it is the bound that an audit found.
        because: why it is there.
    """

    text: str
    action: Action
    holds: Rule | None
    alarm: str = ""
    from_audit: bool = False
    because: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {**vars(self), "holds": vars(self.holds) if self.holds else None}


def parse_trigger(
    text: str, do: str, *, confidence: float = CONFIDENCE, because: str = "", planned: int = PLANNED
) -> Trigger:
    """Return the trigger that a line of words holds.

    Args:
        text: such as `outlier share > 0.20 with 95 % confidence`.
        do: what follows: `stop` or `retrain`.
        confidence: where the text names none.
        because: why the trigger is there.
        planned: people that the evidence needs; an audit sets no limit on fewer.

    Raises:
        InputError: no trigger, or a limit or confidence out of range.
        UnknownNameError: an unknown action, test, subject or shift measure.
    """
    if do not in ACTIONS:
        raise unknown_name("action of a trigger (do)", do, ACTIONS)
    action: Action = "stop" if do == "stop" else "retrain"
    words = " ".join(text.replace("\u2019", "'").split())
    lowered = words.lower()
    alarm = _ALARM.match(lowered)
    if alarm:
        if alarm["test"] not in ALARMS:
            raise unknown_name("test of the monitor", alarm["test"], ALARMS)
        return Trigger(words, action, None, alarm=alarm["test"], because=because)
    rule, from_audit = _turned_round(lowered, words)
    holds = parse_rule(rule, confidence=confidence, because=because, planned=planned)
    return Trigger(words, action, holds, from_audit=from_audit, because=because)


def _turned_round(lowered: str, words: str) -> tuple[str, bool]:
    """Return the rule that must hold, and whether its limit is the audit's (0 stands for it)."""
    audit = _AUDIT.match(lowered)
    if audit and audit["side"] == "beyond" and audit["what"] == "shift":
        return f"no shift beyond 0{audit['rest']}", True
    if audit and audit["side"] != "beyond":
        return f"{audit['what']} {_TURNED[audit['side']]} 0{audit['rest']}", True
    if _BEYOND.match(lowered):
        return f"no {lowered}", False
    number = _NUMBER.match(lowered)
    if number:
        return f"{number['what']} {_TURNED[number['side']]} {number['rest']}", False
    raise InputError(f"'{words}' is no trigger. Write one such as {TRIGGER_FORMS}.")
