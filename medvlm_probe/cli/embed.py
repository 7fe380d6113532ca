"""`medvlm-probe embed`: put a cohort's embeddings into the store."""

from __future__ import annotations

import typer

from medvlm_probe.cli.options import (
    AddressOption,
    BatchSizeOption,
    CohortOption,
    DeviceOption,
    EngineOption,
    ImageCacheOption,
    JsonOption,
    MaxFailuresOption,
    ModelOption,
    ModelWorkersOption,
    NoColorOption,
    OutOption,
    PrecisionOption,
    QuietOption,
    SplitOption,
    SplitsOption,
    VerboseOption,
    WorkersOption,
)
from medvlm_probe.cli.output import make_output


def embed(
    context: typer.Context,
    cohort: CohortOption = "phantom",
    model: ModelOption = "phantom-clip",
    split: SplitOption = None,
    splits: SplitsOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    batch_size: BatchSizeOption = "auto",
    workers: WorkersOption = None,
    engine: EngineOption = "local",
    address: AddressOption = None,
    model_workers: ModelWorkersOption = None,
    image_cache: ImageCacheOption = None,
    max_failures: MaxFailuresOption = "5%",
    out: OutOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    no_color: NoColorOption = False,
) -> None:
    """Send a cohort's images through a model once; every later command reads the embeddings.

    Images that are already in the store are not computed again. Killed at any moment, the same command goes on.
    Over several machines: --engine ray --address HOST:PORT; the images must be where every machine reads them.

    Example: medvlm-probe embed --cohort s3://bucket/manifest.csv --model local:biomedclip --engine ray
    """
    from medvlm_probe.cli.steps import Compute, embed_cohort, resolved_config, write_quarantine
    from medvlm_probe.cohort.catalog import load_cohort
    from medvlm_probe.embeddings.engines import EngineOptions, open_engine
    from medvlm_probe.runs import open_run

    output = make_output(as_json=as_json, quiet=quiet, no_color=no_color)
    compute = Compute.parse(device, precision, batch_size, workers, max_failures)
    loaded = load_cohort(cohort, split=split, splits=splits)
    with open_engine(engine, EngineOptions(model, device, address, model_workers, workers)) as opened:
        done = embed_cohort(output, loaded, model, compute, opened, image_cache)
    run = open_run("embed", resolved_config(context), out)
    paths = write_quarantine(run, done.embedded)
    run.write_provenance(done.provenance())
    counts = {
        "images": done.embedded.n_given,
        "embedded": done.embedded.n_used,
        "computed_now": done.embedded.n_computed,
        "quarantined": len(done.embedded.quarantine),
        "dimensions": done.model.embedding_dim,
        "precision": done.embedded.precision,
        "seen_in_training": done.seen.to_json(),
    }
    if as_json:
        output.json(counts)
    else:
        output.line(
            f"{counts['embedded']:,} of {counts['images']:,} images have embeddings of {counts['dimensions']} "
            f"dimensions ({counts['precision']}); {counts['quarantined']:,} in quarantine."
        )
        output.line(done.seen.reason)
    output.wrote([*paths, run.path / "run.json"])
