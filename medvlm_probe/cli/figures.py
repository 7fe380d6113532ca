"""`medvlm-probe figures radiology`: a published study on any cohort and model, with what it lacked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from medvlm_probe.cli.calibprompt import calibprompt
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
    UncertaintyOption,
    VerboseOption,
    WorkersOption,
)
from medvlm_probe.cli.output import Output, interval, make_output, number

if TYPE_CHECKING:
    from medvlm_probe.report.radiology_study import RadiologyStudy

app = typer.Typer(no_args_is_help=True, help="The tables and figures of a published study, on any cohort and model.")
app.command("calibprompt")(calibprompt)

SHARES = {"train": 0.5, "calib": 0.2, "test": 0.3}
BIOMEDCLIP_STUDY = ("biomedclip", "iu_xray")
SEPARATION_COLUMNS = {
    "ratio": "Distance ratio ↑",
    "silhouette": "Silhouette ↑",
    "davies_bouldin": "Davies-Bouldin ↓",
    "fisher_ratio": "Fisher ratio ↑",
    "knn_accuracy": "kNN accuracy ↑",
    "probe_accuracy": "Probe accuracy ↑",
}
COLUMNS = {
    "macro_auroc": "Macro AUROC",
    "macro_f1": "Macro F1",
    "exact_match": "Exact match",
    "label_ranking_average_precision": "LRAP",
    "coverage_error": "Coverage error",
}
LEGACY_COLUMNS = {
    "inter": "Inter",
    "intra": "Intra",
    "ratio": "Ratio",
    "null_ratio": "Null ratio",
    "macro_f1": "Macro F1",
    "exact_match": "Exact match",
    "label_ranking_average_precision": "LRAP",
    "coverage_error": "Coverage error",
}


@app.command("radiology")
def radiology(
    context: typer.Context,
    cohort: CohortOption = "phantom",
    model: ModelOption = "phantom-clip",
    within: Annotated[
        str | None,
        typer.Option("--within", help="Use this split alone, re-split by patient: images the model has not seen.",
                     rich_help_panel=DATA),
    ] = None,
    uncertainty: UncertaintyOption = None,
    prompts: Annotated[
        str, typer.Option("--prompts", help="A prompt set with negatives.", rich_help_panel=DATA)
    ] = "radiology",
    fine_tune: Annotated[
        bool,
        typer.Option("--fine-tune/--no-fine-tune", help="Also fine-tune the image tower.", rich_help_panel=COMPUTE),
    ] = True,
    epochs: Annotated[
        int, typer.Option("--epochs", min=1, help="Most epochs of fine-tuning.", rich_help_panel=COMPUTE)
    ] = 4,
    last_blocks: Annotated[
        int | None,
        typer.Option("--last-blocks", min=1, help="Fine-tune only so many last blocks.", rich_help_panel=COMPUTE),
    ] = None,
    rate: Annotated[
        float, typer.Option("--rate", min=0.0, help="Learning rate of the image tower.", rich_help_panel=COMPUTE)
    ] = 1e-4,
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
    """Run the study of BiomedCLIP on IU-Xray anew: zero-shot, linear probe, fine-tuning, held-out images, baselines.

    Example: medvlm-probe figures radiology --out figures/biomedclip_radiology
    """
    from medvlm_probe.cli.radiology_files import write_study
    from medvlm_probe.cli.steps import Compute, embed_cohort, resolved_config, write_quarantine
    from medvlm_probe.cohort.catalog import load_cohort
    from medvlm_probe.cohort.splits import make_splits, with_splits
    from medvlm_probe.runs import open_run

    output = make_output(as_json=as_json, quiet=quiet, no_color=no_color)
    compute = Compute.parse(device, precision, batch_size, workers, max_failures)
    loaded = load_cohort(cohort, uncertainty=uncertainty, split=within)
    parted = with_splits(loaded, make_splits(loaded, SHARES, seed).assigned)
    run = open_run("figures-radiology", resolved_config(context), out)
    done = embed_cohort(output, parted, model, compute)

    from medvlm_probe.report.radiology_settings import (
        Parts,
        fine_tuned_setting,
        linear_probe_setting,
        prior_of,
        zero_shot_setting,
    )
    from medvlm_probe.report.radiology_study import radiology_study
    from medvlm_probe.tuning.fine_tune_settings import FineTuneSettings

    parts = Parts.of(done.cohort)
    vectors = done.embedded.vectors
    settings = [zero_shot_setting(vectors, done.cohort, done.model, parts, prompts)]
    labels = settings[0].scores.labels
    settings.append(linear_probe_setting(vectors, done.cohort, done.model, parts, labels, seed))
    if fine_tune:
        output.say(f"Fine-tuning on {int(parts.train.sum()):,} images, at most {epochs} epochs ...")
        settings.append(
            fine_tuned_setting(
                vectors,
                tuple(done.embedded.keys),
                done.cohort,
                done.model,
                parts,
                labels,
                FineTuneSettings(epochs=epochs, last_blocks=last_blocks, rate=rate, head_rate=rate, seed=seed),
                run.path / "checkpoints",
            )
        )
    shown = done.cohort.select(parts.test)
    study = radiology_study(
        settings,
        shown,
        prior=prior_of(done.cohort, labels, parts.train),
        n_train=int(parts.train.sum()),
        n_calib=int(parts.calib.sum()),
        compare_with_published=(done.model.name, loaded.name) == BIOMEDCLIP_STUDY,
        seed=seed,
    )
    words = {name: shown.card.words(name) for name in labels}
    result = study.to_json() | {"seen_in_training": done.seen.to_json()}
    paths = write_quarantine(run, done.embedded)
    paths += write_study(run.path, study, settings, done.cohort, result, words, done.note)
    seconds = {setting.name: round(setting.seconds, 3) for setting in settings}
    run.write_provenance(done.provenance() | {"seeds": {"study": seed}, "seconds": seconds})
    if as_json:
        output.json(result)
    else:
        _print(output, study, settings, done.note)
        output.line(done.seen.reason)
    output.wrote([*paths, run.path / "run.json"])


def _print(output: Output, study: RadiologyStudy, settings: list[Any], note: str) -> None:
    from medvlm_probe.cli.performance_files import BASELINE_WORDS
    from medvlm_probe.report.radiology_settings import SETTING_WORDS

    corrected = study.table[study.table["definition"] == "corrected"]
    words = SETTING_WORDS | BASELINE_WORDS
    rows = [
        (words[str(name)], *(_cell(corrected, str(name), metric) for metric in COLUMNS))
        for name in dict.fromkeys(corrected["setting"])
    ]
    output.table(
        f"On {study.n_test:,} held-out images (fitted on {study.n_train:,}, thresholds on {study.n_calib:,})",
        ("", *COLUMNS.values()),
        rows,
        caption="value [95 % interval]",
    )
    output.table(
        "Separation of labels in the embedding space",
        ("", *SEPARATION_COLUMNS.values(), "Fitting, s"),
        [
            (words[s.name], *(_cell(corrected, s.name, m) for m in SEPARATION_COLUMNS), number(s.seconds, 1))
            for s in settings
        ],
        caption="Means over labels. Distance ratio: between over within, 1 without separation; accuracies are balanced "
        "and on held-out patients, 0.5 by chance. The linear probe has zero-shot's embeddings.",
    )
    old = study.table[study.table["definition"] == "published"]
    output.table(
        "By the published definitions (no intervals there)",
        ("", *LEGACY_COLUMNS.values()),
        [(words[s.name], *(_cell(old, s.name, metric) for metric in LEGACY_COLUMNS)) for s in settings],
    )
    compared = old[old["published_value"].notna()]
    if len(compared):
        shown = [
            (words[s.name], *(_published(compared, s.name, metric) for metric in LEGACY_COLUMNS)) for s in settings
        ]
        output.table("As published", ("", *LEGACY_COLUMNS.values()), shown)
    output.table(
        "Which statements survive",
        ("Statement", "Difference", "Verdict"),
        [(claim.text, interval(claim.difference, 3), claim.verdict) for claim in study.claims],
    )
    if note:
        output.line(note)


def _cell(table: Any, setting: str, metric: str) -> str:
    found = table[(table["setting"] == setting) & (table["metric"] == metric)]
    if not len(found):
        return "–"
    row = found.iloc[0]
    value = number(float(row["value"]), 2)
    low, high = float(row.get("low", "nan")), float(row.get("high", "nan"))
    return value if low != low else f"{value} [{number(low, 2)}, {number(high, 2)}]"


def _published(table: Any, setting: str, metric: str) -> str:
    found = table[(table["setting"] == setting) & (table["metric"] == metric)]
    return number(float(found.iloc[0]["published_value"]), 3) if len(found) else "–"
