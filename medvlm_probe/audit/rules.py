"""A rule in plain words, such as `recall(cardiomegaly) >= 0.80 with 95 % confidence`, read by a parser of our own."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from medvlm_probe.cohort.labels import CHEXPERT_LABELS
from medvlm_probe.errors import InputError, unknown_name

PERFORMANCE = ("recall", "specificity", "precision", "f1", "auroc", "average_precision")
CALIBRATION = ("overconfidence", "ece", "brier")
SHIFT_MEASURES = ("mmd", "classifier", "energy", "frechet", "directions")
SHARES = ("outlier_share", "referred_share")
SUBJECTS = (*PERFORMANCE, *CALIBRATION, "shift", *SHARES)
EACH, RARE = "each_label", "rare_labels"
SETS = (EACH, RARE)

PLANNED = 30
CONFIDENCE = 0.95

KNOWN_LABELS = CHEXPERT_LABELS
"""Labels that a rule may name though a cohort lacks them."""

Operator = Literal[">=", "<=", "usable"]

_RULE = re.compile(
    r"^(?P<subject>[a-z][a-z0-9_ -]*?)\s*(?:\(\s*(?P<of>[^()]*?)\s*\))?\s*(?P<op>>=|<=|≥|≤)\s*"
    r"(?P<number>[+-]?(?:\d+(?:\.\d*)?|\.\d+))\s*(?P<percent>%)?\s*(?P<rest>.*)$"
)
_CONFIDENCE = re.compile(r"^with\s+(?P<level>\d+(?:\.\d+)?)\s*%\s+confidence$")
_BEYOND = re.compile(r"^no shift beyond\s+(?P<number>\d+(?:\.\d*)?|\.\d+)(?:\s+by\s+(?P<of>[a-z_]+))?\s*(?P<rest>.*)$")
_USABLE = re.compile(r"^explanation\s*(?:\(\s*(?P<of>[^()]*?)\s*\))?\s*usable$")
FORMS = "'recall(cardiomegaly) >= 0.80 with 95 % confidence', 'no shift beyond 0.05 by mmd' or 'explanation usable'"


@dataclass(frozen=True)
class Rule:
    """One rule.

    Attributes:
        text: as the policy gives it.
        subject: of `SUBJECTS`, or `explanation`.
        of: a label, `each_label`, `rare_labels`, a shift measure, or "" (all labels together).
        operator: `usable` for explanations.
        limit: the number compared with; 0 for explanations.
        confidence: of the one-sided bound, in (.5, 1).
        because: why the rule is there.
        planned: people that the evidence was planned with (with the finding, for rules about one label); fewer never
            pass.
    """

    text: str
    subject: str
    of: str
    operator: Operator
    limit: float
    confidence: float = CONFIDENCE
    because: str = ""
    planned: int = PLANNED

    @property
    def at_least(self) -> bool:
        """Whether larger is better."""
        return self.operator == ">="


def parse_rule(text: str, *, confidence: float = CONFIDENCE, because: str = "", planned: int = PLANNED) -> Rule:
    """Return the rule that a line of words holds.

    Args:
        text: such as `recall(cardiomegaly) >= 0.80 with 95 % confidence`.
        confidence: where the text names none.
        because: why the rule is there.
        planned: people that the evidence was planned with.

    Raises:
        InputError: no rule, a limit out of range, or a confidence outside 50 to 100 %.
        UnknownNameError: an unknown subject or shift measure.
    """
    words = " ".join(text.split())
    lowered = words.lower()
    usable = _USABLE.match(lowered)
    if usable:
        return Rule(words, "explanation", _snake(usable["of"] or ""), "usable", 0.0, confidence, because, planned)
    beyond = _BEYOND.match(lowered)
    if beyond:
        measure = _measure(beyond["of"] or "mmd")
        level = _confidence(beyond["rest"], confidence, words)
        return Rule(words, "shift", measure, "<=", float(beyond["number"]), level, because, planned)
    match = _RULE.match(lowered)
    if not match:
        raise InputError(f"'{words}' is no rule. Write one such as {FORMS}.")
    subject = _snake(match["subject"])
    if subject not in SUBJECTS:
        raise unknown_name("subject of a rule", subject, SUBJECTS)
    of = _snake(match["of"] or "")
    if subject == "shift":
        of = _measure(of or "mmd")
    elif subject in SHARES and of:
        raise InputError(f"'{words}': {subject.replace('_', ' ')} is of all images; leave the brackets out.")
    elif subject in PERFORMANCE and not of:
        raise InputError(f"'{words}': name the label, {subject}(cardiomegaly), or {subject}(each label).")
    limit = float(match["number"]) / (100 if match["percent"] else 1)
    operator: Operator = ">=" if match["op"] in (">=", "≥") else "<="
    if subject in (*PERFORMANCE, *SHARES) and not 0 <= limit <= 1:
        raise InputError(f"'{words}': the limit must lie between 0 and 1 (or 0 and 100 %).")
    wanted = ">=" if subject in PERFORMANCE else "<="
    if operator != wanted:
        raise InputError(f"'{words}': a rule about {subject.replace('_', ' ')} is written with {wanted}.")
    return Rule(words, subject, of, operator, limit, _confidence(match["rest"], confidence, words), because, planned)


def _confidence(rest: str, default: float, words: str) -> float:
    if not rest:
        return default
    match = _CONFIDENCE.match(rest)
    if not match:
        raise InputError(f"'{words}': '{rest}' is not understood; expected 'with 95 % confidence', or nothing.")
    return percentage(float(match["level"]), f"'{words}'")


def percentage(value: Any, where: str) -> float:
    """Return a confidence given in per cent as a share; raises InputError."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 50 < value < 100:
        raise InputError(f"{where}: a confidence of {value} %; expected more than 50 and less than 100.")
    return float(value) / 100


def count(value: Any, where: str) -> int:
    """Return a number of people that a rule plans with; raises InputError."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(f"{where}: planned = {value}; expected a whole number of people, at least 1.")
    return value


def _measure(name: str) -> str:
    if name not in SHIFT_MEASURES:
        raise unknown_name("shift measure", name, SHIFT_MEASURES)
    return name


def _snake(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.strip().lower()).strip("_")
