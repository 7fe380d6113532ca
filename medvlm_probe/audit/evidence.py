"""Everything that an audit found, one field a question, and its JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medvlm_probe.audit.calibration import Calibration
from medvlm_probe.audit.crowding import LabelsCrowding
from medvlm_probe.audit.data_shift import DataShift
from medvlm_probe.audit.facts import FactsFound
from medvlm_probe.audit.label_frequency import LabelFrequencies
from medvlm_probe.audit.outlying import Outlying
from medvlm_probe.audit.performance_by_site import Performance
from medvlm_probe.audit.practice import Practice
from medvlm_probe.audit.repair import Repair
from medvlm_probe.audit.shift_by_label import ShiftByLabel
from medvlm_probe.audit.sizes import SampleSizes
from medvlm_probe.audit.sketch_answers import SketchShift
from medvlm_probe.audit.traps import Trap
from medvlm_probe.audit.triggers import Triggers
from medvlm_probe.audit.verdicts import Verdict
from medvlm_probe.audit.what_moved import WhatMoved
from medvlm_probe.audit.why import Why
from medvlm_probe.audit.without_labels import LabelFree

QUESTIONS: Mapping[str, str] = {
    "facts": "What was examined, and how was it acquired?",
    "shift": "Has the data moved?",
    "what_moved": "What moved?",
    "shift_by_label": "Whose images moved?",
    "label_shift": "How frequent are the findings?",
    "why": "Why did it move?",
    "outliers": "Is an image unlike anything seen?",
    "crowding": "Do labels crowd together?",
    "performance": "Does it still work?",
    "calibration": "Can its confidence be believed?",
    "label_free": "What can be told without labels?",
    "sample_sizes": "How sure must we be?",
    "practice": "What happens in practice?",
    "repair": "What repairs it?",
    "triggers": "When must it be stopped, or trained anew?",
}
"""The questions by their key in the JSON, in the order in which they are asked."""


@dataclass(frozen=True, eq=False)
class AuditEvidence:
    """What an audit found; a question that could not be answered is None and stands in `skipped` with the reason.

    Attributes:
        words: label to the words that people read.
        counts: images and people of the reference's halves and of the site.
        seconds: by question.
        notes: what people should know about the whole audit, a sentence each.
    """

    facts: FactsFound | None
    shift: DataShift | SketchShift | None
    what_moved: WhatMoved | None
    label_shift: LabelFrequencies | None
    why: Why | None
    outliers: Outlying | None
    performance: Performance | None
    calibration: Calibration | None
    label_free: LabelFree | None
    sample_sizes: SampleSizes | None
    practice: Practice | None
    repair: Repair | None
    traps: tuple[Trap, ...]
    verdicts: tuple[Verdict, ...]
    policy: str
    skipped: Mapping[str, str]
    words: Mapping[str, str]
    counts: Mapping[str, int | str]
    seconds: Mapping[str, float]
    notes: tuple[str, ...] = ()
    shift_by_label: ShiftByLabel | None = None
    crowding: LabelsCrowding | None = None
    triggers: Triggers | None = None

    def sentences(self) -> dict[str, str]:
        """Return one plain sentence for each question, in the order in which they are asked."""
        worded = {"label_shift", "performance", "sample_sizes", "practice", "shift_by_label", "crowding"}
        found = {}
        for name in QUESTIONS:
            answer = getattr(self, name)
            if answer is None:
                found[name] = f"Not answered: {self.skipped.get(name, 'it was not asked.')}"
            else:
                found[name] = answer.sentence(self.words) if name in worded else answer.sentence
        if self.label_shift is not None and self.what_moved is not None:
            found["label_shift"] = self.label_shift.sentence(self.words, look_moved=self.what_moved.look_moved)
        if self.repair is not None and any(trap.kind == "shortcut" for trap in self.traps):
            found["repair"] += " As labels differ in acquisition here, what learns from them may learn just that."
        return found

    @property
    def overall(self) -> str:
        """`fail` where any rule fails, `pass` where all pass, else `not enough evidence`."""
        outcomes = {verdict.verdict for verdict in self.verdicts}
        if "fail" in outcomes:
            return "fail"
        return "pass" if outcomes == {"pass"} else "not enough evidence"

    def to_json(self, provenance: Mapping[str, Any]) -> dict[str, Any]:
        """Return the JSON of the audit: verdicts, an entry a question (None where skipped), sentences, provenance.

        Args:
            provenance: of model, cohorts and computation, without paths.
        """
        answers = {name: getattr(self, name) for name in QUESTIONS}
        lists = {"label_shift", "label_free", "performance"}
        label_shift, performance = self.label_shift, self.performance
        return {
            "overall": self.overall,
            "policy": self.policy,
            "verdicts": [verdict.to_json() for verdict in self.verdicts],
            "sentences": self.sentences(),
            "questions": dict(QUESTIONS),
            "traps": [trap.to_json() for trap in self.traps],
            **{name: answer.to_json() if answer else None for name, answer in answers.items() if name not in lists},
            "label_shift": [entry.to_json() for entry in label_shift.labels] if label_shift else [],
            "label_free": self.label_free.to_json() if self.label_free else [],
            "performance": performance.to_json() if performance else [],
            "worst_groups": [worst.to_json() for worst in performance.worst] if performance else [],
            "labels_left_out": {
                name: dict(answer.left_out)
                for name, answer in (("label_shift", label_shift), ("label_free", self.label_free))
                if answer
            },
            "skipped": dict(self.skipped),
            "words": dict(self.words),
            "counts": dict(self.counts),
            "notes": list(self.notes),
            "provenance": dict(provenance),
        }
