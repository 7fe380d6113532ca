"""The page of runs without an audit: a section each, then limits and provenance."""

from __future__ import annotations

from collections.abc import Sequence

from medvlm_probe.report.audit_page import LIMITS
from medvlm_probe.report.page import render
from medvlm_probe.report.provenance import PHANTOMS, is_phantom
from medvlm_probe.report.run_sections import Run, run_sections


def runs_page(runs: Sequence[Run], *, title: str, small_cells: bool | None = None) -> str:
    """Return the page of runs of the commands in `RUNS`: one HTML file that needs nothing else.

    Args:
        runs: in the order to show them, at least one.
        title: of the page.
        small_cells: show counts under ten people; None for phantoms only.

    Raises:
        InputError: a figure is no SVG.
    """
    return render(
        "runs.html.j2",
        title=title,
        phantoms=PHANTOMS if any(is_phantom(run.record) for run in runs) else "",
        runs=run_sections(runs, small_cells=small_cells),
        limits=LIMITS,
    )
