"""`medvlm-probe report`: one offline page of earlier runs."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medvlm_probe.cli.options import OUTPUT, JsonOption, NoColorOption, QuietOption, VerboseOption
from medvlm_probe.cli.output import make_output
from medvlm_probe.errors import InputError, StoreError

if TYPE_CHECKING:
    from medvlm_probe.report.run_sections import Run

AUDIT = "audit"
AUDIT_TITLE = "Audit of a new site"
RUNS_TITLE = "What medvlm-probe found"


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of earlier runs, at most one audit.")],
    out: Annotated[Path, typer.Option("--out", help="The page to write.", rich_help_panel=OUTPUT)] = Path(
        "report.html"
    ),
    title: Annotated[str | None, typer.Option("--title", help="Of the page.", rich_help_panel=OUTPUT)] = None,
    small_cells: Annotated[
        bool,
        typer.Option(
            "--small-cells",
            help="Show counts of fewer than ten people, and figures that show them; not for pages that leave the "
            "hospital.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    no_color: NoColorOption = False,
) -> None:
    """Put earlier runs on one offline HTML page: an audit's verdicts and questions, and the tables of other runs.

    The page is one file that loads and runs nothing. Images, paths and report texts are not part of it.

    Example: medvlm-probe report runs/audit/0123456789ab --out report.html
    """
    from medvlm_probe.report.audit_page import audit_page
    from medvlm_probe.report.runs_page import runs_page
    from medvlm_probe.runs import write_bytes_atomically

    output = make_output(as_json=as_json, quiet=quiet, no_color=no_color)
    found = [_read(folder) for folder in runs]
    audits = [run for run in found if run.command == AUDIT]
    others = [run for run in found if run.command != AUDIT]
    if len(audits) > 1:
        raise InputError(f"{len(audits)} of the runs are audits; a page has one verdict. Make a page for each audit.")
    shown = True if small_cells else None
    if audits:
        (audit,) = audits
        make = partial(audit_page, audit.result, audit.figures, title=title or AUDIT_TITLE, runs=others)
    else:
        make = partial(runs_page, others, title=title or RUNS_TITLE)
    try:
        page = make(small_cells=shown)
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
        if verbose:
            raise
        raise StoreError(
            f"A run's results hold values that no run writes ({type(error).__name__}). Run its command again; "
            "--verbose shows where."
        ) from error
    write_bytes_atomically(out, page.encode())
    if as_json:
        output.json({"page": out.name, "runs": [run.command for run in found], "bytes": len(page.encode())})
    output.wrote([out])


def _read(folder: Path) -> Run:
    """Return what a run's folder holds.

    Raises:
        InputError: the command's runs have no page.
        StoreError: the folder is none of a run, or its files cannot be read.
    """
    from medvlm_probe.report.run_sections import RUNS, Run

    record = _json(folder / "run.json", folder)
    command = str(record.get("command", ""))
    if command not in {AUDIT, *RUNS}:
        raise InputError(
            f"'{folder}' is a run of '{command}', which has no page. Pages show: {', '.join([AUDIT, *RUNS])}."
        )
    result = _json(folder / f"{command}.json", folder)
    if command == AUDIT:
        result["seconds"] = record.get("seconds", {})  # times are of a run, not of its results
    try:
        figures = {path.stem: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.svg"))}
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"A figure of '{folder}' cannot be read: {error}. Run the command again.") from error
    return Run(command, record, result, figures)


def _json(path: Path, folder: Path) -> dict[str, Any]:
    from medvlm_probe.runs import parse_json

    try:
        found = parse_json(path.read_bytes())
    except FileNotFoundError as error:
        raise StoreError(
            f"'{folder}' is no finished run: it has no {path.name}. Name the folder that a command wrote."
        ) from error
    except (OSError, ValueError) as error:
        raise StoreError(f"{path.name} of '{folder}' cannot be read as JSON. Run the command again.") from error
    if not isinstance(found, dict):
        raise StoreError(f"{path.name} of '{folder}' holds no JSON object. Run the command again.")
    return found
