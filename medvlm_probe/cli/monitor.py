"""`medvlm-probe monitor`: watch a site over time, with a false-alarm rate that holds at every look."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from medvlm_probe.cli.options import (
    COMPUTE,
    DATA,
    OUTPUT,
    BatchSizeOption,
    DeviceOption,
    JsonOption,
    MaxFailuresOption,
    ModelOption,
    NoColorOption,
    OutOption,
    PrecisionOption,
    QuietOption,
    SeedOption,
    UncertaintyOption,
    VerboseOption,
    WorkersOption,
)
from medvlm_probe.cli.output import make_output
from medvlm_probe.errors import InputError


def monitor(
    context: typer.Context,
    state: Annotated[
        Path, typer.Option("--state", help="The file that carries the tests on.", rich_help_panel=DATA)
    ] = Path("monitor.jsonl"),
    reference: Annotated[
        str | None,
        typer.Option("--reference", help="A cohort as --cohort elsewhere, or a .sketch; the same one each time.",
                     rich_help_panel=DATA),
    ] = None,
    batch: Annotated[
        str | None,
        typer.Option("--batch", help="A cohort: the images that arrived. Default: say how it stands.",
                     rich_help_panel=DATA),
    ] = None,
    model: ModelOption = "phantom-clip",
    reference_split: Annotated[
        str | None, typer.Option("--reference-split", help="Use only this split of it.", rich_help_panel=DATA)
    ] = None,
    batch_split: Annotated[
        str | None, typer.Option("--batch-split", help="Use only this split of it.", rich_help_panel=DATA)
    ] = None,
    uncertainty: UncertaintyOption = None,
    prompts: Annotated[
        str,
        typer.Option("--prompts", help="What makes probabilities; none: outliers alone.", rich_help_panel=DATA),
    ] = "radiology",
    in_order: Annotated[
        bool,
        typer.Option("--in-order", help="The batch's rows are in the order of arrival.", rich_help_panel=DATA),
    ] = False,
    policy: Annotated[
        Path | None,
        typer.Option("--policy", help="A TOML file with triggers to stop or retrain. Default: the audit's own.",
                     rich_help_panel=DATA),
    ] = None,
    pseudonym_key: Annotated[
        Path | None,
        typer.Option("--pseudonym-key", help="The secret that makes pseudonyms of patients.", rich_help_panel=DATA),
    ] = None,
    outlier_score: Annotated[
        str,
        typer.Option("--outlier-score", help="mahalanobis, knn, residual, ...", rich_help_panel=COMPUTE),
    ] = "mahalanobis",
    alpha: Annotated[
        float, typer.Option("--alpha", help="Chance of ever raising a false alarm.", rich_help_panel=COMPUTE)
    ] = 0.05,
    simulate: Annotated[
        bool,
        typer.Option("--simulate", help="Only say how soon a change to this batch would be noticed; count nothing.",
                     rich_help_panel=OUTPUT),
    ] = False,
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
) -> None:  # fmt: skip
    """Count a batch of images, and say whether the site has changed: at any time, however often one looks.

    The first call settles the reference, the model and the rate of false alarms. Killed at any moment, the same
    command goes on, and a batch counts once.

    Example: medvlm-probe monitor --state site.jsonl --reference reference.csv --batch january.csv
    """
    from medvlm_probe.audit.monitor import Monitor, batch_record
    from medvlm_probe.audit.monitor_files import append_record, read_state, start_state
    from medvlm_probe.audit.monitor_triggers import seen_triggers
    from medvlm_probe.audit.policy import default_policy, read_policy
    from medvlm_probe.cli.monitor_run import (
        Watch,
        print_simulation,
        print_state,
        print_triggers,
        tell_repeats,
        write_monitor,
    )
    from medvlm_probe.cli.steps import Compute
    from medvlm_probe.runs import open_run

    output = make_output(as_json=as_json, quiet=quiet, no_color=no_color)
    compute = Compute.parse(device, precision, batch_size, workers, max_failures)
    facts: dict[str, Any] = {}
    rules = read_policy(policy) if policy is not None else default_policy()
    if batch is None and (simulate or not state.exists()):
        raise InputError("Name the images that arrived with --batch.")
    if batch is not None and reference is None:
        raise InputError("Name the reference that batches are held against with --reference, the same one each time.")
    if batch is None:
        held = read_state(state)
        monitored, counted = Monitor(held.records), None
    else:
        watch = Watch(output, model, compute, prompts, outlier_score, uncertainty, pseudonym_key)
        given = watch.reference(str(reference), reference_split, alpha=alpha, seed=seed)
        known = read_state(state) if state.exists() else None
        monitored = Monitor(known.records if known else (given.header,))
        given.refuse_other(monitored.settings)
        arrivals, facts, note = watch.arrivals(given, batch, batch_split)
        if simulate:
            print_simulation(output, monitored, arrivals, seed, as_json=as_json)
            return
        held = known or start_state(state, given.header)
        counted = not monitored.counted(arrivals.digest)
        if counted:
            held = append_record(held, batch_record(monitored, arrivals, in_order=in_order, note=note))
            monitored = Monitor(held.records)
            tell_repeats(output, held.records[-1])
        else:
            output.warn("This batch was counted before; it is not counted again.")
    config = {"settings": dict(monitored.settings), "batches": [record["batch"] for record in monitored.batches]}
    run = open_run("monitor", config, out)
    triggers = seen_triggers(rules, monitored)
    result = monitored.to_json() | {"counted": counted, "triggers": [trigger.to_json() for trigger in triggers]}
    paths = write_monitor(run.path, monitored, result)
    run.write_provenance(facts)
    if as_json:
        output.json(result)
    else:
        print_state(output, monitored)
        print_triggers(output, triggers)
    output.wrote([state, *paths, run.path / "run.json"])
