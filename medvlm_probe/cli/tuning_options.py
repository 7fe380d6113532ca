"""Options of the commands that fit something: which split has which role."""

from __future__ import annotations

from typing import Annotated

import typer

from medvlm_probe.cli.options import DATA

TrainFromOption = Annotated[
    str | None,
    typer.Option("--train-from", help="Split to fit on. Needed; no result uses it.", rich_help_panel=DATA),
]
ValidationFromOption = Annotated[
    str | None,
    typer.Option(
        "--validation-from",
        help="Split that decides when to stop. Default: 15% of the training split's patients, held back.",
        rich_help_panel=DATA,
    ),
]
