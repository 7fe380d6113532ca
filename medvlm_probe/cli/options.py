"""Command-line options that several commands share, each declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from medvlm_probe.cli import completion

Precision = Literal["auto", "float32", "bfloat16", "float16"]
Uncertainty = Literal["ignore", "zeros", "ones"]
Space = Literal["l2", "raw"]
ExportFormat = Literal["parquet", "npy", "csv"]
PhantomFormat = Literal["png", "dicom"]

DATA, COMPUTE, OUTPUT = "What to look at", "How to compute", "What to print and write"

CohortOption = Annotated[
    str,
    typer.Option(
        "--cohort",
        help="phantom, a manifest (.csv, .parquet), a data card (.md), a folder, or NAME:FOLDER.",
        rich_help_panel=DATA,
    ),
]
ModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        help="A name of 'models list', open_clip:NAME/PRETRAINED, hf:REPOSITORY or local:FOLDER.",
        autocompletion=completion.models,
        rich_help_panel=DATA,
    ),
]
SplitOption = Annotated[
    str | None,
    typer.Option(
        "--split", help="Use only this split, for example the one the model has not seen.", rich_help_panel=DATA
    ),
]
SplitsOption = Annotated[
    Path | None,
    typer.Option(
        "--splits",
        help="A split file (from cohort split) in place of the manifest's own splits.",
        rich_help_panel=DATA,
    ),
]
LabelOption = Annotated[
    list[str] | None,
    typer.Option(
        "--label",
        help="A label, for example cardiomegaly; repeatable. Default: all.",
        autocompletion=completion.labels,
        rich_help_panel=DATA,
    ),
]
UncertaintyOption = Annotated[
    Uncertainty | None,
    typer.Option(
        "--uncertainty",
        help="What a label of -1 counts as: unknown (ignore), 0 (zeros) or 1 (ones). Default: the data card's.",
        rich_help_panel=DATA,
    ),
]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.", rich_help_panel=COMPUTE)]
PrecisionOption = Annotated[
    Precision,
    typer.Option("--precision", help="auto takes a fast one and checks it against float32.", rich_help_panel=COMPUTE),
]
BatchSizeOption = Annotated[
    str,
    typer.Option("--batch-size", help="Images a batch; auto halves it when memory runs out.", rich_help_panel=COMPUTE),
]
WorkersOption = Annotated[
    int | None,
    typer.Option("--workers", min=1, help="Threads that decode images. Default: one a core.", rich_help_panel=COMPUTE),
]
EngineOption = Annotated[
    str,
    typer.Option(
        "--engine", help="local, or ray: several processes or machines; the same bytes.", rich_help_panel=COMPUTE
    ),
]
AddressOption = Annotated[
    str | None,
    typer.Option(
        "--address",
        help="With --engine ray: a cluster's HOST:PORT, or auto. Default: one on this machine.",
        rich_help_panel=COMPUTE,
    ),
]
ImageCacheOption = Annotated[
    Path | None,
    typer.Option(
        "--image-cache",
        help="Folder that keeps each image at the model's size, so that another model of that size need not decode it "
        "again. Pictures of patients: only you can read them there.",
        file_okay=False,
        rich_help_panel=COMPUTE,
    ),
]
ModelWorkersOption = Annotated[
    int | None,
    typer.Option(
        "--model-workers",
        min=1,
        help="With --engine ray: copies of the model. Default: one a GPU, or what the cores allow.",
        rich_help_panel=COMPUTE,
    ),
]
MaxFailuresOption = Annotated[
    str,
    typer.Option(
        "--max-failures",
        help="Fail when more images than this cannot be read: a count (10) or a share (5%).",
        rich_help_panel=COMPUTE,
    ),
]
SeedOption = Annotated[
    int, typer.Option("--seed", min=0, help="Seed of permutations and resampling.", rich_help_panel=COMPUTE)
]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", help="Folder for the results. Default: runs/COMMAND/HASH.", rich_help_panel=OUTPUT),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON object, alone on stdout.", rich_help_panel=OUTPUT)
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print results only.", rich_help_panel=OUTPUT)]
VerboseOption = Annotated[
    bool, typer.Option("--verbose", "-v", help="Say more, with tracebacks of faults.", rich_help_panel=OUTPUT)
]
NoColorOption = Annotated[bool, typer.Option("--no-color", help="No colours.", rich_help_panel=OUTPUT)]
ThresholdFromOption = Annotated[
    str | None,
    typer.Option(
        "--threshold-from",
        help="Split to choose thresholds and the prior's frequencies on; no result uses it.",
        rich_help_panel=DATA,
    ),
]
ThresholdRuleOption = Annotated[
    str,
    typer.Option("--threshold-rule", help="youden, f1, or recall:FLOOR such as recall:0.9.", rich_help_panel=COMPUTE),
]
