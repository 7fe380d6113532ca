"""Reads reports by rules: what is mentioned, whether it is negated or uncertain, and what the sentences add up to.

The rules are data (`rules.toml`); this file knows no radiology. The approach is that of NegEx (Chapman et al. 2001) and
of the CheXpert labeler (Irvin et al. 2019): a cue reaches from where it stands to the next word that ends its scope,
and of several mentions of a label the strongest counts, present before uncertain before absent.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.cohort.report_labeler.rules import LabelRules, Rules
from medvlm_probe.cohort.report_labeler.sentences import SentenceReader

Reading = Literal["present", "uncertain", "absent"]
Span = tuple[int, int]

VALUES: Mapping[Reading, float] = {"present": 1.0, "uncertain": -1.0, "absent": 0.0}
_STRENGTH: Mapping[Reading, int] = {"present": 2, "uncertain": 1, "absent": 0}


@dataclass(frozen=True)
class Evidence:
    """Why a label got its value.

    Attributes:
        label: the label. reading: what this place says of it.
        phrase: the words found, "" where another label implies it or nothing was found.
        cue: the words that negate it or make it uncertain, or how it is implied; "" for none.
        sentence: the sentence as it was read.
    """

    label: str
    reading: Reading
    phrase: str
    cue: str
    sentence: str


@dataclass(frozen=True)
class Reach:
    """A cue and the stretch of its sentence that it governs, low to high."""

    cue: Span
    low: int
    high: int
    forward: bool


@dataclass(frozen=True)
class _Cues:
    """The cues of one sentence, by what they do."""

    negated: list[Reach]
    uncertain: list[Reach]
    not_asserted: list[Reach]


class ReportLabeler:
    """Gives a report its labels. Reads nothing but the text that it is handed, and keeps none of it."""

    def __init__(self, rules: Rules, *, hierarchy: bool = True) -> None:
        self.labels = rules.labels
        self._rules = rules
        self._hierarchy = rules.implied if hierarchy else {}
        self._reader = SentenceReader.of(rules.read_sections, rules.skipped_sections, rules.spellings)

    def label(self, reports: Sequence[str]) -> NDArray[np.float32]:
        """Return 1 present, 0 absent, -1 uncertain or NaN not mentioned, (n, labels) in the order of `labels`."""
        values = np.full((len(reports), len(self.labels)), np.nan, dtype=np.float32)
        for row, report in enumerate(reports):
            for label, evidence in self.explain(report).items():
                values[row, self.labels.index(label)] = VALUES[evidence[0].reading]
        return values

    def explain(self, report: str) -> dict[str, list[Evidence]]:
        """Return the evidence for every label that the report speaks of, that which decided first."""
        found: dict[str, list[Evidence]] = {}
        sentences = list(self._reader.sentences(report))
        for sentence in sentences:
            for evidence in self._read_sentence(sentence):
                found.setdefault(evidence.label, []).append(evidence)
        for label, causes in self._hierarchy.items():
            found.setdefault(label, []).extend(
                Evidence(label, best.reading, "", f"implied by {cause}", best.sentence)
                for cause in causes
                for best in [_strongest(found.get(cause, []))]
                if best is not None and best.reading != "absent"
            )
        decided = {
            label: sorted(evidence, key=lambda one: -_STRENGTH[one.reading])
            for label, evidence in found.items()
            if evidence
        }
        if sentences:
            decided |= self._no_finding(decided)
        return {label: decided[label] for label in self.labels if label in decided}

    def _no_finding(self, decided: Mapping[str, Sequence[Evidence]]) -> dict[str, list[Evidence]]:
        """Return the reading of the label that says that nothing was found: absent where anything counts against it."""
        name = self._rules.no_finding
        against = [decided[label][0] for label in self._rules.against_no_finding if label in decided]
        against = [one for one in against if one.reading != "absent"]
        if against:
            first = against[0]
            cue = f"{first.label} is {first.reading}"
            return {name: [Evidence(name, "absent", first.phrase, cue, first.sentence)]}
        return {name: [Evidence(name, "present", "", "nothing that counts as a finding", "")]}

    def _read_sentence(self, sentence: str) -> Iterator[Evidence]:
        cues: _Cues | None = None
        for rules in self._rules.by_label:
            statements = list(rules.absent.finditer(sentence))
            mentions = list(_mentions(rules, sentence))
            if not (statements or mentions):
                continue
            cues = cues or self._cues(sentence)
            for match in statements:
                if not any(_overlap(match.span(), reach.cue) for reach in cues.negated):
                    yield Evidence(rules.label, "absent", match[0], "", sentence)
            for start, end, always_uncertain in mentions:
                reading, cue = _judge((start, end), cues)
                if reading is None:
                    continue
                if reading == "present" and always_uncertain:
                    reading = "uncertain"
                yield Evidence(rules.label, reading, sentence[start:end], sentence[slice(*cue)], sentence)

    def _cues(self, sentence: str) -> _Cues:
        rules = self._rules
        ends = _spans(rules.terminators, sentence)
        negation_ends = _spans(rules.negation_terminators, sentence)
        masked = _spans(rules.pseudo_negations, sentence)
        size = len(sentence)
        return _Cues(
            negated=[
                *_forward(_spans(rules.negation_before, sentence, masked), negation_ends, size),
                *_backward(_spans(rules.negation_after, sentence, masked), negation_ends),
            ],
            uncertain=[
                *_forward(_spans(rules.uncertainty_before, sentence), ends, size),
                *_backward(
                    _spans(rules.uncertainty_after, sentence), _spans(rules.uncertainty_after_terminators, sentence)
                ),
            ],
            not_asserted=[
                *_forward(_spans(rules.not_asserted_before, sentence, masked), ends, size),
                *_backward(_spans(rules.not_asserted_after, sentence), ends),
            ],
        )


def _spans(expression: re.Pattern[str], sentence: str, masked: Sequence[Span] = ()) -> list[Span]:
    spans = (match.span() for match in expression.finditer(sentence))
    return [span for span in spans if not any(_overlap(span, other) for other in masked)]


def _forward(cues: Sequence[Span], ends: Sequence[Span], size: int) -> Iterator[Reach]:
    """Yield how far each cue reaches: to the next word that ends a scope."""
    for cue in cues:
        yield Reach(cue, cue[1], min((start for start, _ in ends if start >= cue[1]), default=size), forward=True)


def _backward(cues: Sequence[Span], ends: Sequence[Span]) -> Iterator[Reach]:
    """Yield how far each cue reaches: back to the word before it that ended a scope."""
    for cue in cues:
        yield Reach(cue, max((end for _, end in ends if end <= cue[0]), default=0), cue[0], forward=False)


def _mentions(rules: LabelRules, sentence: str) -> Iterator[tuple[int, int, bool]]:
    """Yield (start, end, whether uncertain by itself) of the mentions that lie in no excluded context."""
    excluded: list[Span] | None = None
    for expression, uncertain in ((rules.mentions, False), (rules.uncertain_mentions, True)):
        for match in expression.finditer(sentence):
            if excluded is None:
                excluded = [other.span() for other in rules.excluded.finditer(sentence)]
            if not any(_overlap(match.span(), span) for span in excluded):
                yield *match.span(), uncertain


def _judge(mention: Span, cues: _Cues) -> tuple[Reading | None, Span]:
    """Return what a mention says, and the cue that decides; None where it is not asserted at all."""
    cue = _reached(mention, cues.not_asserted)
    if cue is not None:
        return None, cue
    cue = _reached(mention, cues.negated)
    if cue is not None:
        return "absent", cue
    cue = _reached(mention, cues.uncertain)
    if cue is not None:
        return "uncertain", cue
    return "present", (0, 0)


def _reached(mention: Span, cues: Sequence[Reach]) -> Span | None:
    """Return the first cue that reaches the mention.

    Forward it must reach the mention's end ("heart is not enlarged" is reached from within), backward its beginning.
    """
    for reach in cues:
        at = mention[1] if reach.forward else mention[0] + 1
        if reach.low < at <= reach.high:
            return reach.cue
    return None


def _overlap(a: Span, b: Span) -> bool:
    return a[0] < b[1] and b[0] < a[1]


def _strongest(evidence: Sequence[Evidence]) -> Evidence | None:
    return max(evidence, key=lambda one: _STRENGTH[one.reading], default=None)
