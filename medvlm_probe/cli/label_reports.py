"""`medvlm-probe label-reports`: the 14 CheXpert labels from the text of a cohort's reports, by rules."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medvlm_probe.cli.options import (
    COMPUTE,
    DATA,
    OUTPUT,
    CohortOption,
    JsonOption,
    NoColorOption,
    QuietOption,
    SplitOption,
    SplitsOption,
    VerboseOption,
)
from medvlm_probe.cli.output import Output, make_output
from medvlm_probe.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from medvlm_probe.cohort.cohort import Cohort
    from medvlm_probe.cohort.report_labeler.engine import Evidence

LABELS_FILE = "labels.csv"
_COUNTED = {"n_present": 1.0, "n_uncertain": -1.0, "n_absent": 0.0}


def label_reports(
    context: typer.Context,
    cohort: CohortOption = "phantom",
    split: SplitOption = None,
    splits: SplitsOption = None,
    hierarchy: Annotated[
        bool,
        typer.Option(
            "--hierarchy/--no-hierarchy",
            help="Let a finding imply what it is a kind of, as CheXpert does: atelectasis is a lung opacity.",
            rich_help_panel=COMPUTE,
        ),
    ] = True,
    explain: Annotated[
        str | None,
        typer.Option(
            "--explain",
            metavar="STUDY|ROW",
            help="Show on the terminal, and nowhere else, which words of one report decided what.",
            rich_help_panel=DATA,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="The CSV to write. Default: labels.csv in runs/label-reports/HASH.", rich_help_panel=OUTPUT
        ),
    ] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    no_color: NoColorOption = False,
) -> None:
    """Read labels from reports: 1 present, 0 absent, -1 uncertain, empty where the report does not say.

    The file names images and studies and holds no report text; `cohort import --labels-file` and `label-agreement` read
    it.

    Example: medvlm-probe label-reports --cohort manifest.csv --out labels.csv
    """
    import time

    from medvlm_probe.cohort.catalog import load_cohort
    from medvlm_probe.cohort.report_labeler.cohort_reports import label_cohort, reports_of, row_named
    from medvlm_probe.cohort.report_labeler.engine import ReportLabeler
    from medvlm_probe.cohort.report_labeler.rules import shipped_rules

    output = make_output(as_json=as_json, quiet=quiet, no_color=no_color)
    if out is not None and out.suffix.lower() != ".csv":
        raise InputError(f"--out {out}: expected the name of a CSV file to write, such as labels.csv.")
    loaded = load_cohort(cohort, split=split, splits=splits)
    labeler = ReportLabeler(shipped_rules(), hierarchy=hierarchy)
    reports = reports_of(loaded)
    if explain is not None:
        if as_json or out is not None or not sys.stdout.isatty():
            raise InputError(
                "--explain prints report text, which is patient data: it goes to a terminal only. Leave out --json and "
                "--out, and do not redirect it."
            )
        _explain(output, labeler.explain(reports[row_named(loaded, explain)]), labeler.labels)
        return
    different = len(set(reports) - {""})
    output.say(f"Cohort {loaded.name}: {len(loaded):,} images, {different:,} different reports to read.")
    start = time.monotonic()
    labels = label_cohort(loaded, labeler)
    seconds = time.monotonic() - start
    counts = _counts(labels)
    path = _write(context, out, loaded, labels, different, seconds)
    result: dict[str, Any] = {"labels": counts, "n_images": len(loaded), "n_reports": different, "file": str(path)}
    if as_json:
        output.json(result)
    else:
        rows = [
            (loaded.card.words(str(entry["label"])), *(f"{entry[name]:,}" for name in (*_COUNTED, "n_not_mentioned")))
            for entry in counts
        ]
        output.table(
            f"Images by what their report says ({different:,} reports, {different / max(seconds, 1e-9):,.0f} a second)",
            ("Label", "Present", "Uncertain", "Absent", "Not mentioned"),
            rows,
            caption="A report is not the truth: compare with other labels of the same images by label-agreement.",
        )
    output.wrote([path])


def _write(
    context: typer.Context, out: Path | None, cohort: Cohort, labels: pd.DataFrame, different: int, seconds: float
) -> Path:
    import pandas as pd

    from medvlm_probe.cli.steps import resolved_config
    from medvlm_probe.runs import open_run, write_csv

    keys = cohort.table[[name for name in ("image", "study") if name in cohort.table]].reset_index(drop=True)
    table = pd.concat([keys, labels.astype("Int8")], axis=1)
    if out is not None:
        write_csv(out, table, exact=True)
        return out
    run = open_run("label-reports", resolved_config(context))
    write_csv(run.path / LABELS_FILE, table, exact=True)
    run.write_provenance(
        {
            "cohort": {"name": cohort.name, "fingerprint": cohort.fingerprint},
            "images": {"given": len(cohort), "used": len(cohort)},
            "reports": different,
            "seconds": {"reading": round(seconds, 3)},
        }
    )
    return run.path / LABELS_FILE


def _counts(labels: pd.DataFrame) -> list[dict[str, str | int]]:
    return [
        {
            "label": str(name),
            **{count: int((column == value).sum()) for count, value in _COUNTED.items()},
            "n_not_mentioned": int(column.isna().sum()),
        }
        for name, column in labels.items()
    ]


def _explain(output: Output, found: dict[str, list[Evidence]], labels: tuple[str, ...]) -> None:
    for label in labels:
        for position, one in enumerate(found.get(label, [])):
            decides = "decides" if position == 0 else "also"
            words = [f"'{one.phrase}'"] if one.phrase else []
            words += [f"({one.cue})"] if one.cue else []
            sentence = f": {one.sentence}" if one.sentence else ""
            output.line(" ".join([f"{label}: {one.reading}", *words, f"[{decides}]"]) + sentence)
    silent = [label for label in labels if label not in found]
    output.line(f"Not mentioned: {', '.join(silent) or 'none'}.")
