"""The page of an audit: verdict and reasons first, then every question, limits, provenance and the two cards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medvlm_probe.report.audit_tables import QUESTIONS, Question, tables_for
from medvlm_probe.report.cells import Cell, TableStyle, value_text
from medvlm_probe.report.inline_svg import PageFigure, page_figure
from medvlm_probe.report.page import render
from medvlm_probe.report.provenance import PHANTOMS, SUBJECTS, Fact, card_facts, is_phantom, name_of, provenance_facts
from medvlm_probe.report.run_sections import Run, run_sections
from medvlm_probe.report.tables import Table, make_table
from medvlm_probe.report.words import heading

PASS, FAIL, UNSURE = "pass", "fail", "not enough evidence"
NOT_QUESTIONS = frozenset({
    "overall", "verdicts", "policy", "questions", "sentences", "traps", "labels_left_out", "skipped", "words", "counts",
    "notes", "limits", "seconds", "provenance", "cards",
})  # fmt: skip
REASONS = 6
LIMITS = (
    "This page reports measurements on the images that were given. It is no certificate, and no proof for images of "
    "another time, scanner or group of patients.",
    "Labels are taken as given. Where they come from reports, errors of the labels count as errors of the model.",
    "An interval covers chance in the choice of patients, not errors in labels, in the choice of patients, or in the "
    "cards below.",
    "Shown differences are associations. That a difference in acquisition explains a distance does not prove that it "
    "caused an error.",
)


@dataclass(frozen=True)
class Verdict:
    """One rule's outcome: its words, the verdict, the value with its bounds, why, and why the rule is there."""

    rule: str
    verdict: str
    value: Cell
    reason: str
    because: str

    @property
    def kind(self) -> str:
        """The verdict as a class of the style sheet."""
        return {PASS: "pass", FAIL: "fail"}.get(self.verdict, "unsure")


@dataclass(frozen=True)
class Section:
    """One question's part of the page; `left_out` says which labels have no answer, and why."""

    key: str
    asks: str
    means: str
    sentence: str
    figures: tuple[PageFigure, ...]
    tables: tuple[Table, ...]
    left_out: tuple[str, ...]


def audit_page(
    result: Mapping[str, Any],
    figures: Mapping[str, str],
    *,
    title: str,
    small_cells: bool | None = None,
    runs: Sequence[Run] = (),
) -> str:
    """Return an audit's page: one HTML file that needs no network, no script and no other file.

    Args:
        result: the JSON of the audit (`AuditEvidence.to_json`), as `audit.json` holds it, and where they are known
            `cards`: title to a data card or model card, and `seconds`: question to its time. Questions that this
            version does not know are shown after the others.
        figures: name to SVG. A figure belongs to the question whose key its name begins with.
        title: of the page.
        small_cells: show counts under ten people; None where all images are phantoms, who are nobody.
        runs: of other commands, shown after the questions.

    Raises:
        InputError: a figure is no SVG.
    """
    record = result.get("provenance") or {}
    small = is_phantom(record) if small_cells is None else small_cells
    style = TableStyle(labels=dict(result.get("words") or {}), small_cells=small)
    questions = [*QUESTIONS, *_unknown_questions(result)]
    drawn = _figures(figures, [question.key for question in questions])
    sections = [_section(question, result, drawn.get(question.key, ()), style) for question in questions]
    verdicts = [_verdict(entry, style) for entry in result.get("verdicts") or ()]
    outcome = str(result.get("overall") or overall(verdicts))
    return render(
        "audit.html.j2",
        title=title,
        phantoms=PHANTOMS if is_phantom(record) else "",
        outcome=outcome,
        outcome_words=_outcome_words(outcome, verdicts, str(result.get("policy") or "")),
        verdicts=verdicts,
        reasons=_reasons(verdicts),
        traps=[_trap(entry) for entry in result.get("traps") or ()],
        examined=_examined(result),
        sections=[section for section in sections if section is not None],
        other_figures=drawn.get("", ()),
        runs=run_sections(runs, len(figures) + 1, small_cells=small_cells),
        limits=[*LIMITS, *(str(note) for note in result.get("limits") or ())],
        notes=[str(note) for note in result.get("notes") or ()],
        provenance=provenance_facts(record, result.get("seconds") or {}),
        cards=[(str(name), card_facts(card)) for name, card in (result.get("cards") or {}).items()],
    )


def overall(verdicts: Sequence[Verdict]) -> str:
    """Return `fail` where any rule fails, `pass` where all pass, else `not enough evidence`."""
    found = {verdict.verdict for verdict in verdicts}
    return FAIL if FAIL in found else PASS if found == {PASS} else UNSURE


def _outcome_words(outcome: str, verdicts: Sequence[Verdict], policy: str) -> str:
    if not verdicts:
        return "No policy was checked; this page describes, and judges nothing."
    n = {kind: sum(verdict.verdict == kind for verdict in verdicts) for kind in (FAIL, PASS, UNSURE)}
    counts = f"Of {len(verdicts)} rules, {n[FAIL]} failed, {n[PASS]} passed, {n[UNSURE]} had not enough evidence."
    name = f"The policy “{policy}”" if policy else "The policy"
    found = {FAIL: "is not met", PASS: "is met", UNSURE: "is neither met nor broken"}[outcome]
    return f"{name} {found}. {counts}"


def _reasons(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Return what decided, failed rules first; rules without a value and with one reason stand together."""
    order = {FAIL: 0, UNSURE: 1, PASS: 2}
    together: dict[tuple[str, ...], list[Verdict]] = {}
    for verdict in sorted(verdicts, key=lambda verdict: order.get(verdict.verdict, 1)):
        alone = (verdict.rule,) if verdict.value.text else ()
        together.setdefault((verdict.verdict, verdict.reason, *alone), []).append(verdict)
    return [_joined(same) for same in together.values()][:REASONS]


def _joined(same: Sequence[Verdict]) -> Verdict:
    first = same[0]
    if len(same) == 1:
        return first
    return Verdict(f"{first.rule}, and {len(same) - 1} more", first.verdict, Cell(""), first.reason, "")


def _verdict(entry: Mapping[str, Any], style: TableStyle) -> Verdict:
    known = entry.get("value") is not None
    table = make_table([{key: entry.get(key) for key in ("value", "low", "high")}], "", style) if known else None
    cell = table.rows[0][0] if table else Cell("")
    people, planned = entry.get("n_groups"), entry.get("planned")
    counts = f"{people:,} people{f', {planned:,} planned' if planned else ''}" if people and cell.text else ""
    words = (str(entry.get(key) or "") for key in ("reason", "because"))
    return Verdict(str(entry["rule"]), str(entry["verdict"]), Cell(cell.text, cell.kind, counts), *words)


def _section(
    question: Question, result: Mapping[str, Any], figures: Sequence[PageFigure], style: TableStyle
) -> Section | None:
    value = result.get(question.key)
    own = value.get("sentence") if isinstance(value, Mapping) else None
    skipped = (result.get("skipped") or {}).get(question.key)
    sentence = (
        (result.get("sentences") or {}).get(question.key) or own or (f"Not answered: {skipped}" if skipped else "")
    )
    if not value and not sentence and not figures:
        return None
    asks = (result.get("questions") or {}).get(question.key) or question.asks
    left_out = ((result.get("labels_left_out") or {}).get(question.key) or {}).items()
    return Section(
        question.key,
        str(asks),
        question.means,
        str(sentence),
        tuple(figures),
        tuple(tables_for(question, value, style)) if value else (),
        tuple(f"{style.labels.get(label) or heading(label)}: {reason}" for label, reason in left_out),
    )


def _unknown_questions(result: Mapping[str, Any]) -> list[Question]:
    known = {question.key for question in QUESTIONS} | NOT_QUESTIONS
    return [
        Question(key, heading(key), "")
        for key, value in result.items()
        if key not in known and isinstance(value, (Mapping, list)) and value
    ]


def _figures(figures: Mapping[str, str], keys: Sequence[str]) -> dict[str, tuple[PageFigure, ...]]:
    """Return each question's figures, numbered in the order of the page; "" has those that belong to none."""
    by_key: dict[str, list[str]] = {key: [] for key in (*keys, "")}
    longest_first = sorted(keys, key=len, reverse=True)
    for name in figures:
        by_key[next((key for key in longest_first if name.startswith(key)), "")].append(name)
    names = [name for key in (*keys, "") for name in by_key[key]]
    numbers = {name: number for number, name in enumerate(names, start=1)}
    return {
        key: tuple(page_figure(numbers[name], heading(name), figures[name]) for name in mine)
        for key, mine in by_key.items()
    }


def _trap(entry: Any) -> str:
    return (
        str(entry.get("text") or entry.get("sentence") or entry.get("trap"))
        if isinstance(entry, Mapping)
        else str(entry)
    )


def _examined(result: Mapping[str, Any]) -> list[Fact]:
    """Return what was held against what, and how much of it."""
    record = result.get("provenance") or {}
    found = [Fact(words, name_of(record.get(key))) for key, words in SUBJECTS.items()]
    found += [Fact(heading(key), value_text(count)) for key, count in (result.get("counts") or {}).items()]
    for key, words in SUBJECTS.items():
        side = record.get(key)
        seen = side.get("seen_in_training") if isinstance(side, Mapping) else None
        found.append(Fact(f"Seen in training: {words.lower()}", str((seen or {}).get("reason") or "")))
    if result.get("words"):
        found.append(Fact("Labels", ", ".join(str(words) for words in result["words"].values())))
    return [fact for fact in found if fact.text]
