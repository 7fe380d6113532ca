"""What `audit` prints and writes: verdicts first, a sentence a question, JSON, CSVs, figures, the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvlm_probe.cli.output import Output, number
from medvlm_probe.runs import write_bytes_atomically, write_csv, write_json

if TYPE_CHECKING:
    import pandas as pd

    from medvlm_probe.audit.evidence import AuditEvidence
    from medvlm_probe.audit.inputs import AuditInputs
    from medvlm_probe.audit.verdicts import Verdict
    from medvlm_probe.cohort.pseudonyms import PseudonymKey
    from medvlm_probe.runs import RunFolder

MARKS = {"pass": "pass", "fail": "FAIL", "not enough evidence": "not enough evidence"}
LISTED = 50
"""Most unusual images that the list names."""


@dataclass(frozen=True)
class Written:
    """The result as JSON, and the files written."""

    result: dict[str, Any]
    paths: list[Path]


def print_audit(output: Output, found: AuditEvidence, note: str = "") -> None:
    """Print the verdicts, then a sentence a question, then the traps."""
    rows = [(v.rule, MARKS[v.verdict], _bounds(v), _people(v)) for v in found.verdicts]
    output.table(
        f"Policy '{found.policy}': {found.overall}",
        ("Rule", "Verdict", "Value [bounds]", "People"),
        rows,
        caption="Bounds are one-sided at the rule's confidence. Fewer people than planned never pass; under 10 nothing "
        "is shown.",
    )
    for trap in found.traps:
        output.line(f"Trap. {trap.sentence}")
    for name, sentence in found.sentences().items():
        output.line(f"{name.replace('_', ' ').capitalize()}. {sentence}")
    if note:
        output.line(note)


def write_audit(
    run: RunFolder,
    found: AuditEvidence,
    inputs: AuditInputs,
    key: PseudonymKey,
    provenance: Mapping[str, Any],
    note: str = "",
) -> Written:
    """Write audit.json, tidy CSVs, figures, the page and run.json.

    Args:
        run: its folder.
        found: the evidence.
        inputs: for the list of unusual images.
        key: of the pseudonyms.
        provenance: without paths.
        note: small print of every figure.
    """
    from medvlm_probe.audit.repair_journal import forget_parts
    from medvlm_probe.cli.audit_figures import audit_figures
    from medvlm_probe.cli.audit_tables import audit_tables
    from medvlm_probe.report.cards import audit_cards

    cards = audit_cards(inputs.site.cohort.card, inputs.reference.cohort.card, provenance)
    result = found.to_json(provenance) | {"cards": cards}
    paths = [run.path / "audit.json"]
    write_json(paths[0], result)
    tables = audit_tables(found)
    if found.outliers is not None:
        tables["unusual_images"] = unusual_images(inputs, found, key)
    for name, table in tables.items():
        if len(table):
            paths.append(run.path / f"{name}.csv")
            write_csv(paths[-1], table)
    figures = audit_figures(found, tables, note)
    for name, svg in figures.items():
        paths.append(run.path / f"{name}.svg")
        write_bytes_atomically(paths[-1], svg.encode())
    seconds = {name: round(value, 2) for name, value in found.seconds.items()}
    paths.append(_page(run.path, result | {"seconds": seconds}, figures))
    run.write_provenance({**provenance, "seconds": seconds}, files=paths)
    forget_parts(run.path)
    return Written(result, [*paths, run.path / "run.json"])


def unusual_images(inputs: AuditInputs, found: AuditEvidence, key: PseudonymKey) -> pd.DataFrame:
    """Return the site's most outlying images under pseudonyms: image, patient, p_value, score; the most unusual first.

    A pseudonym can be traced back with the key alone, which stays on this machine.
    """
    import numpy as np
    import pandas as pd

    outliers = found.outliers
    if outliers is None:
        return pd.DataFrame()
    order = np.argsort(-outliers.site_scores, kind="stable")[:LISTED]
    table = inputs.site.cohort.table
    kind = inputs.site.cohort.group_kind
    return pd.DataFrame(
        {
            "image": [key.pseudonym("image", str(table["image"].iloc[row])) for row in order],
            kind if kind != "image" else "group": [
                key.pseudonym(kind, str(table[kind].iloc[row])) if kind != "image" else "" for row in order
            ],
            "p_value": outliers.p_values[order],
            "score": outliers.site_scores[order],
            "beyond_reference": outliers.site_scores[order] > outliers.threshold,
        }
    )


def _page(folder: Path, result: Mapping[str, Any], figures: Mapping[str, str]) -> Path:
    from medvlm_probe.report.audit_page import audit_page

    path = folder / "audit.html"
    page = audit_page(result, figures, title="Audit of a new site")
    write_bytes_atomically(path, page.encode())
    return path


def _bounds(verdict: Verdict) -> str:
    found = verdict.bounds
    if found is None:
        return "–"
    return f"{number(found.value)} [{number(found.low)}, {number(found.high)}]{'' if found.reliable else '?'}"


def _people(verdict: Verdict) -> str:
    return "–" if verdict.n_people is None else f"{verdict.n_people:,} of {verdict.planned:,} planned"
