"""`medvlm-probe export`: a cohort's embeddings as files for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medvlm_probe.cli.options import (
    OUTPUT,
    BatchSizeOption,
    CohortOption,
    DeviceOption,
    ExportFormat,
    JsonOption,
    MaxFailuresOption,
    ModelOption,
    NoColorOption,
    PrecisionOption,
    QuietOption,
    SplitOption,
    SplitsOption,
    VerboseOption,
    WorkersOption,
)
from medvlm_probe.cli.output import make_output


def export(
    cohort: CohortOption = "phantom",
    model: ModelOption = "phantom-clip",
    split: SplitOption = None,
    splits: SplitsOption = None,
    file_format: Annotated[
        ExportFormat,
        typer.Option(
            "--format", help="parquet, csv, or npy with a table of its rows beside it.", rich_help_panel=OUTPUT
        ),
    ] = "parquet",
    out: Annotated[
        Path | None,
        typer.Option("--out", help="The file to write. Default: embeddings.FORMAT.", rich_help_panel=OUTPUT),
    ] = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    batch_size: BatchSizeOption = "auto",
    workers: WorkersOption = None,
    max_failures: MaxFailuresOption = "5%",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    no_color: NoColorOption = False,
) -> None:
    """Write a cohort's embeddings with the manifest's ids and labels. Report texts are never written.

    Example: medvlm-probe export --cohort manifest.csv --format parquet --out embeddings.parquet
    """
    from medvlm_probe.cli.steps import Compute, embed_cohort
    from medvlm_probe.cohort.catalog import load_cohort

    output = make_output(as_json=as_json, quiet=quiet, no_color=no_color)
    compute = Compute.parse(device, precision, batch_size, workers, max_failures)
    done = embed_cohort(output, load_cohort(cohort, split=split, splits=splits), model, compute)
    from medvlm_probe.embeddings.export import export_embeddings

    path = out or Path(f"embeddings.{file_format}")
    written = export_embeddings(done.embedded, done.given, path, file_format)
    if as_json:
        output.json({"files": [str(item) for item in written], "images": done.embedded.n_used})
    output.wrote(written)
