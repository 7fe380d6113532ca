"""One audit: every question asked in turn, and what could not be answered noted with the reason."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from medvlm_probe.audit.age_probe import Childlike
from medvlm_probe.audit.calibration import examine_calibration
from medvlm_probe.audit.crowding import examine_crowding
from medvlm_probe.audit.data_shift import examine_shift
from medvlm_probe.audit.evidence import AuditEvidence
from medvlm_probe.audit.facts import SAMPLED, examine_facts
from medvlm_probe.audit.inputs import AuditInputs, people
from medvlm_probe.audit.label_frequency import estimate_frequencies
from medvlm_probe.audit.outlying import examine_outliers
from medvlm_probe.audit.performance_by_site import examine_performance
from medvlm_probe.audit.policy import Policy
from medvlm_probe.audit.practice import examine_practice
from medvlm_probe.audit.repair import NOT_ASKED as REPAIR_NOT_ASKED
from medvlm_probe.audit.repair import Repair
from medvlm_probe.audit.shift_by_label import examine_shift_by_label
from medvlm_probe.audit.sizes import examine_sizes
from medvlm_probe.audit.traps import find_traps
from medvlm_probe.audit.triggers import examine_triggers
from medvlm_probe.audit.verdicts import Explanation, JudgedOn, check_labels, judge
from medvlm_probe.audit.what_moved import identify
from medvlm_probe.audit.why import NOT_ASKED as WHY_NOT_ASKED
from medvlm_probe.audit.why import Why
from medvlm_probe.audit.without_labels import estimate_without_labels
from medvlm_probe.errors import InputError

Found = TypeVar("Found")


@dataclass(frozen=True)
class Settings:
    """How thoroughly an audit looks.

    Attributes:
        n_permutations: of every permutation test; tests stop sooner once a p-value is clearly large.
        n_sampled: images of each side that are opened for their facts; 0 opens none.
        logit_scale: of the model.
        childlike: see `traps.find_traps`.
        seen: sentences on images that the model has seen in training.
        explanations: see `verdicts.JudgedOn`.
        why: computes the attribution; None where it was not asked for.
        repair: measures repairs; None where it was not asked for.
        counts: of images and people; None counts the rows of both sides.
        instead: question to how it is answered where it is not from images of both sides: given how it would be.
    """

    n_permutations: int = 9_999
    n_sampled: int = SAMPLED
    logit_scale: float = 1.0
    childlike: Childlike | None = None
    seen: Sequence[str] = ()
    explanations: Mapping[str, Explanation] | None = None
    why: Callable[[AuditInputs], Why] | None = None
    repair: Callable[[AuditInputs], Repair] | None = None
    counts: Mapping[str, int | str] | None = None
    instead: Mapping[str, Callable[[Callable[[], Any]], Any]] = field(default_factory=dict)


@dataclass
class _Interview:
    """Asks questions, and keeps the seconds and the reasons of what was not answered."""

    say: Callable[[str], None]
    instead: Mapping[str, Callable[[Callable[[], Any]], Any]]
    skipped: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def ask(self, name: str, question: Callable[[], Found]) -> Found | None:
        started = time.perf_counter()
        try:
            return self.instead[name](question) if name in self.instead else question()
        except InputError as error:
            self.skipped[name] = str(error)
            return None
        finally:
            self.seconds[name] = time.perf_counter() - started
            self.say(f"{name.replace('_', ' ')}: {self.seconds[name]:.1f} s")


def examine(
    inputs: AuditInputs, policy: Policy, settings: Settings, *, say: Callable[[str], None] = lambda _: None
) -> AuditEvidence:
    """Ask every question and judge the policy.

    Args:
        inputs: both sides.
        policy: the rules.
        settings: how thoroughly to look.
        say: told how far it is.

    Raises:
        UnknownNameError: the policy names a label that there is not.
    """
    check_labels(policy, inputs.labels)
    interview = _Interview(say, settings.instead)
    ask = interview.ask
    facts = ask(
        "facts",
        lambda: examine_facts(inputs, n_permutations=settings.n_permutations, n_sampled=settings.n_sampled),
    )
    shift = ask("shift", lambda: examine_shift(inputs, n_permutations=settings.n_permutations))
    what_moved = ask("what_moved", lambda: identify(inputs))
    by_label = ask("shift_by_label", lambda: examine_shift_by_label(inputs, n_permutations=settings.n_permutations))
    label_shift = ask("label_shift", lambda: estimate_frequencies(inputs))
    outliers = ask("outliers", lambda: examine_outliers(inputs, logit_scale=settings.logit_scale))
    crowding = ask("crowding", lambda: examine_crowding(inputs))
    performance = ask("performance", lambda: examine_performance(inputs))
    calibration = ask("calibration", lambda: examine_calibration(inputs))
    moved = what_moved.found.shift if what_moved is not None else None
    label_free = ask("label_free", lambda: estimate_without_labels(inputs, moved))
    believed = not inputs.by_label_only and not (what_moved is not None and what_moved.look_moved)
    sizes = ask("sample_sizes", lambda: examine_sizes(inputs, performance, label_shift if believed else None))
    practice = ask(
        "practice",
        lambda: examine_practice(
            inputs, performance, label_shift, believed=believed, outliers=None if inputs.by_label_only else outliers
        ),
    )
    why = ask("why", lambda: _why(inputs, settings))
    repair = ask("repair", lambda: _repair(inputs, settings))
    traps = find_traps(inputs, facts, childlike=settings.childlike, seen=settings.seen)
    judged_on = JudgedOn(inputs, shift, outliers, calibration, settings.explanations, interview.skipped, practice)
    triggers = ask("triggers", lambda: examine_triggers(policy, judged_on))
    return AuditEvidence(
        facts=facts,
        shift=shift,
        what_moved=what_moved,
        label_shift=label_shift,
        why=why,
        outliers=outliers,
        performance=performance,
        calibration=calibration,
        label_free=label_free,
        sample_sizes=sizes,
        practice=practice,
        repair=repair,
        traps=traps,
        verdicts=judge(policy, judged_on),
        policy=policy.name,
        skipped=interview.skipped,
        words={label: inputs.words(label) for label in inputs.labels},
        counts=_counts(inputs) if settings.counts is None else settings.counts,
        seconds=interview.seconds,
        notes=inputs.notes,
        shift_by_label=by_label,
        crowding=crowding,
        triggers=triggers,
    )


def _why(inputs: AuditInputs, settings: Settings) -> Why:
    if settings.why is None:
        raise InputError(WHY_NOT_ASKED)
    return settings.why(inputs)


def _repair(inputs: AuditInputs, settings: Settings) -> Repair:
    if settings.repair is None:
        raise InputError(REPAIR_NOT_ASKED)
    return settings.repair(inputs)


def _counts(inputs: AuditInputs) -> dict[str, int | str]:
    return {
        "group": inputs.site.cohort.group_kind,
        "reference_images": len(inputs.whole_reference),
        "reference_people": people(inputs.whole_reference.groups),
        "compared_images": len(inputs.reference),
        "chosen_on_images": len(inputs.chosen_on),
        "site_images": len(inputs.site),
        "site_people": people(inputs.site.groups),
        "left_out_as_the_reference_s": inputs.n_shared,
    }
