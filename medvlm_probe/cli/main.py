"""The console script: commands, and how an error that a user can cause ends one."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, NoReturn

import typer

from medvlm_probe import __version__
from medvlm_probe.cli import (
    audit,
    calibration,
    cohort,
    doctor,
    embed,
    embed_dist,
    export,
    figures,
    fine_tune,
    grad_cam,
    label_agreement,
    label_reports,
    linear_probe,
    models,
    monitor,
    project,
    prompts,
    report,
    sketch,
    tune,
    zero_shot,
)
from medvlm_probe.errors import ProbeError, visible

INTERRUPTED, TERMINATED = 130, 143
_KEPT = "What was finished is kept: the same command goes on from there."

app = typer.Typer(
    name="medvlm-probe",
    help="Find out where a medical vision-language model fails before a hospital trusts it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command("audit")(audit.audit)
app.command("embed-dist")(embed_dist.embed_dist)
app.command("zero-shot")(zero_shot.zero_shot)
app.command("calibration")(calibration.calibration)
app.command("linear-probe")(linear_probe.linear_probe)
app.command("fine-tune")(fine_tune.fine_tune)
app.command("tune")(tune.tune)
app.command("project")(project.project)
app.command("embed")(embed.embed)
app.command("export")(export.export)
app.command("label-reports")(label_reports.label_reports)
app.command("label-agreement")(label_agreement.label_agreement)
app.add_typer(cohort.app, name="cohort")
app.add_typer(figures.app, name="figures")
app.add_typer(grad_cam.app, name="grad-cam")
app.add_typer(models.app, name="models")
app.add_typer(prompts.app, name="prompts")
app.add_typer(sketch.app, name="sketch")
app.command("report")(report.report)
app.command("monitor")(monitor.monitor)
app.command("doctor")(doctor.doctor)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"medvlm-probe {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Find out where a medical vision-language model fails before a hospital trusts it."""


def main() -> None:
    """Run the command line.

    Exit codes: 0, 2 bad usage or input, 3 an audit's policy failed, 1 our fault, 130 interrupted, 143 terminated.
    """
    try:
        with _ended_by_sigterm():
            app()
    except ProbeError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print(f"Interrupted. {_KEPT}", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # Python would complain once more when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if {"--verbose", "-v"} & set(sys.argv):
            raise
        print(
            f"This is a fault of medvlm-probe ({type(error).__name__}: {visible(str(error))}).\n"
            "Run again with --verbose for the traceback, and report it without patients' data.",
            file=sys.stderr,
        )
        sys.exit(1)


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the command as an exception does, so that files written aside are removed."""

    def end(*_: object) -> NoReturn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the way out is not left a second time
        print(f"Terminated. {_KEPT}", file=sys.stderr)
        sys.exit(TERMINATED)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
