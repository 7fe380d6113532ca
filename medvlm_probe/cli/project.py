"""`medvlm-probe project`: a cohort's embeddings as a picture, coloured by label, site, abnormality or domain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from medvlm_probe.cli.options import (
    COMPUTE,
    DATA,
    BatchSizeOption,
    CohortOption,
    DeviceOption,
    JsonOption,
    MaxFailuresOption,
    ModelOption,
    NoColorOption,
    OutOption,
    PrecisionOption,
    QuietOption,
    SeedOption,
    Space,
    SplitOption,
    SplitsOption,
    UncertaintyOption,
    VerboseOption,
    WorkersOption,
)
from medvlm_probe.cli.output import Output, make_output

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from matplotlib.figure import Figure

    from medvlm_probe.cohort.cohort import Cohort
    from medvlm_probe.embeddings.projection import Projection
    from medvlm_probe.embeddings.projection_groups import Colouring

SLOW_ABOVE = 2_000


def project(
    context: typer.Context,
    by: Annotated[
        list[str] | None,
        typer.Option(
            "--by",
            help="label (a panel each), site, abnormal, domain, or one label; repeatable, a figure each. "
            "Default: label, and site where there are several.",
            rich_help_panel=DATA,
        ),
    ] = None,
    cohort: CohortOption = "phantom",
    model: ModelOption = "phantom-clip",
    split: SplitOption = None,
    splits: SplitsOption = None,
    uncertainty: UncertaintyOption = None,
    method: Annotated[
        Literal["pca", "umap", "tsne"],
        typer.Option("--method", help="pca, or as illustrations umap and tsne (slow).", rich_help_panel=COMPUTE),
    ] = "pca",
    space: Annotated[
        Space, typer.Option("--space", help="Project normalised vectors (l2) or raw ones.", rich_help_panel=COMPUTE)
    ] = "l2",
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    batch_size: BatchSizeOption = "auto",
    workers: WorkersOption = None,
    max_failures: MaxFailuresOption = "5%",
    out: OutOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    no_color: NoColorOption = False,
) -> None:
    """Draw a cohort's embeddings on a plane: PCA, or UMAP and t-SNE as illustrations. Nothing is measured on it.

    Example: medvlm-probe project --by site --by cardiomegaly
    """
    import time

    from medvlm_probe.cli.steps import Compute, embed_cohort, resolved_config, write_quarantine
    from medvlm_probe.cohort.catalog import load_cohort
    from medvlm_probe.embeddings.projection import project as project_vectors
    from medvlm_probe.embeddings.projection_groups import colouring
    from medvlm_probe.runs import open_run

    output = make_output(as_json=as_json, quiet=quiet, no_color=no_color)
    compute = Compute.parse(device, precision, batch_size, workers, max_failures)
    loaded = load_cohort(cohort, uncertainty=uncertainty, split=split, splits=splits)
    wanted = list(dict.fromkeys(by)) if by else _default_colours(loaded)
    for name in wanted:
        colouring(loaded, name)
    run = open_run("project", resolved_config(context), out)
    done = embed_cohort(output, loaded, model, compute)
    n = len(done.cohort)
    if method != "pca" and n > SLOW_ABOVE:
        output.say(f"{method} of {n:,} images runs on one thread and takes up to a minute or two for 10,000.")
    start = time.monotonic()
    projection = project_vectors(done.embedded.vectors, method=method, space=space, seed=seed)
    seconds = {"projection": round(time.monotonic() - start, 3)}
    colourings = [colouring(done.cohort, name) for name in wanted]
    result = projection.to_json() | {
        "colourings": [{"by": c.name, "groups": c.counts()} for c in colourings],
        "seen_in_training": done.seen.to_json(),
    }
    paths = write_quarantine(run, done.embedded)
    paths += _write(run.path, done.cohort, projection, colourings, result, done.note)
    run.write_provenance(done.provenance() | {"seeds": {method: seed}, "seconds": seconds})
    if as_json:
        output.json(result)
    else:
        _print(output, projection, colourings, [done.seen.reason, done.note])
    output.wrote([*paths, run.path / "run.json"])


def _default_colours(cohort: Cohort) -> list[str]:
    wanted = ["label"] if cohort.labels else []
    if len(set(cohort.sites().tolist()) - {""}) > 1:
        wanted.append("site")
    return wanted


def _write(
    folder: Path,
    cohort: Cohort,
    projection: Projection,
    colourings: list[Colouring],
    result: dict[str, Any],
    note: str,
) -> list[Path]:
    """Write the coordinates with what they are coloured by, the JSON and a figure for each colouring."""
    import pandas as pd

    from medvlm_probe.cli.distance_files import write_figure
    from medvlm_probe.plots.projection import projection_scatter
    from medvlm_probe.runs import write_csv, write_json

    table = pd.DataFrame({"image": cohort.table["image"]})
    table[["x", "y"]] = projection.coordinates
    for coloured in colourings:
        for column in coloured.table.columns:
            table[column] = coloured.table[column].to_numpy()
    write_csv(folder / "coordinates.csv", table)
    write_json(folder / "project.json", result)
    written = [folder / "coordinates.csv", folder / "project.json"]
    small_print = " ".join(filter(None, [projection.sentence, note]))
    figures = {c.name: _figure(table, projection, c, small_print) for c in colourings}
    if not figures:
        figures["all"] = projection_scatter(table, projection.axes_words, note=small_print)
    for name, figure in figures.items():
        written += write_figure(folder / f"{projection.method}_{name}", figure)
    return written


def _figure(table: pd.DataFrame, projection: Projection, coloured: Colouring, note: str) -> Figure:
    from medvlm_probe.plots.projection import projection_by_label, projection_scatter

    if coloured.panels:
        columns = list(coloured.table.columns)
        return projection_by_label(table, columns, projection.axes_words, labels_words=coloured.words, note=note)
    return projection_scatter(table, projection.axes_words, by=coloured.name, labels_words=coloured.words, note=note)


def _print(output: Output, projection: Projection, colourings: list[Colouring], lines: list[str]) -> None:
    vectors = "L2-normalised" if projection.space == "l2" else "raw"
    rows = []
    for coloured in colourings:
        for entry in coloured.counts():
            name = coloured.words.get(str(entry["group"]), str(entry["group"]))
            unknown = f"{entry['n_unknown']:,}" if entry["n_unknown"] else ""
            rows.append((name, coloured.name, f"{entry['n_images']:,}", unknown))
    title = f"{projection.method.upper()} of {len(projection.coordinates):,} {vectors} embeddings"
    if rows:
        output.table(title, ("Group", "Coloured by", "Images", "Unknown"), rows)
    else:
        output.line(title)
    if projection.variance_shares is not None:
        first, second = (f"{100 * share:.1f} %" for share in projection.variance_shares)
        output.line(f"The axes hold {first} and {second} of the variance.")
    output.line(f"{projection.sentence} An illustration: no statistic is computed on these coordinates.")
    for line in filter(None, lines):
        output.line(line)
