"""`medvlm-probe embed-dist`: how far a label's positives lie from its negatives in a model's embedding space."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from medvlm_probe.cli.options import (
    COMPUTE,
    DATA,
    BatchSizeOption,
    CohortOption,
    DeviceOption,
    JsonOption,
    LabelOption,
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
from medvlm_probe.cli.output import Output, interval, make_output, number, p_value
from medvlm_probe.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from medvlm_probe.embeddings.distances import DistanceAnalysis
    from medvlm_probe.metrics.separability import ClassDistances

COLUMNS = ("Label", "Pos. / neg.", "Groups", "Within pos.", "Within neg.", "Between", "Ratio", "p", "p Holm")


def embed_dist(
    context: typer.Context,
    label: LabelOption = None,
    cohort: CohortOption = "phantom",
    model: ModelOption = "phantom-clip",
    split: SplitOption = None,
    splits: SplitsOption = None,
    by: Annotated[
        Literal["site"] | None,
        typer.Option("--by", help="Draw each site, and compare the others with --reference.", rich_help_panel=DATA),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option("--reference", help="Reference site. Default with --by site: the largest.", rich_help_panel=DATA),
    ] = None,
    uncertainty: UncertaintyOption = None,
    space: Annotated[
        Space, typer.Option("--space", help="Compare normalised vectors (l2) or raw ones.", rich_help_panel=COMPUTE)
    ] = "l2",
    legacy: Annotated[
        bool,
        typer.Option(
            "--legacy",
            help="Add the published study's definition: first listed label, raw vectors, unweighted centroids.",
            rich_help_panel=COMPUTE,
        ),
    ] = False,
    permutations: Annotated[
        int, typer.Option("--permutations", min=99, help="Permutations of each test.", rich_help_panel=COMPUTE)
    ] = 9_999,
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
    """Measure how far images with a label lie from those without it, with intervals and permutation tests.

    Example: medvlm-probe embed-dist --label cardiomegaly
    """
    import time

    from medvlm_probe.cli.distance_files import write_distances
    from medvlm_probe.cli.steps import Compute, embed_cohort, largest_site, resolved_config, write_quarantine
    from medvlm_probe.cohort.catalog import load_cohort
    from medvlm_probe.cohort.cohort import resolve_labels
    from medvlm_probe.runs import open_run

    output = make_output(as_json=as_json, quiet=quiet, no_color=no_color)
    compute = Compute.parse(device, precision, batch_size, workers, max_failures)
    loaded = load_cohort(cohort, uncertainty=uncertainty, split=split, splits=splits)
    chosen = resolve_labels(loaded, label)
    if not chosen:
        raise InputError(f"Cohort '{loaded.name}' has no labels to compare. Add a column of 1 and 0 for each label.")
    if by == "site" and reference is None:
        reference = largest_site(loaded)
    run = open_run("embed-dist", resolved_config(context), out)
    done = embed_cohort(output, loaded, model, compute)

    from medvlm_probe.embeddings.distance_words import distance_sentences
    from medvlm_probe.embeddings.distances import analyse_distances

    start = time.monotonic()
    analysis = analyse_distances(
        done.embedded.vectors,
        done.cohort.targets(),
        labels=done.cohort.labels,
        groups=done.cohort.groups(),
        sites=done.cohort.sites(),
        chosen=chosen,
        reference=reference,
        space=space,
        legacy=legacy,
        n_permutations=permutations,
        seed=seed,
    )
    seconds = {"analysis": round(time.monotonic() - start, 3)}
    words = {name: done.cohort.card.words(name) for name in done.cohort.labels}
    group_words = {"patient": "patients", "study": "studies", "image": "images"}[done.cohort.group_kind]
    sentences = distance_sentences(analysis, words, group_words)
    result = analysis.to_json() | {"seen_in_training": done.seen.to_json()}
    paths = write_quarantine(run, done.embedded)
    paths += write_distances(run.path, analysis, result, words, group_words, done.note, draw_sites=by == "site")
    run.write_provenance(done.provenance() | {"seeds": {"permutations": seed}, "seconds": seconds})
    if as_json:
        output.json(result)
    else:
        _print(output, analysis, words, group_words, [*sentences, done.seen.reason], done.note)
    output.wrote([*paths, run.path / "run.json"])


def _print(
    output: Output,
    analysis: DistanceAnalysis,
    words: Mapping[str, str],
    group_words: str,
    sentences: list[str],
    note: str,
) -> None:
    digits = _digits(analysis)
    rows = []
    for position, entry in enumerate(analysis.pooled):
        rows.append(_row(words[entry.label] + (" (too few)" if entry.too_few else ""), entry, digits))
        for site, entries in analysis.by_site.items():
            at_site = entries[position]
            rows.append(_row(f"  at {site}" + (" (too few)" if at_site.too_few else ""), at_site, digits))
    vectors = "L2-normalised" if analysis.space == "l2" else "raw"
    output.table(
        f"Mean Euclidean distance between {vectors} embeddings of different {group_words}",
        tuple(group_words.capitalize() if column == "Groups" else column for column in COLUMNS),
        rows,
        caption="value [95 % interval]; ? the interval is unreliable at this size; p: energy distance, whole "
        f"{group_words} permuted within sites; Holm over the labels{' and sites' if analysis.by_site else ''}",
    )
    for sentence in sentences:
        output.line(sentence)
    if analysis.legacy is not None:
        old = analysis.legacy
        null = f"{number(old.null_ratio)} [{number(old.null_low)}, {number(old.null_high)}]"
        output.line(
            f"Published definition (first listed label, raw vectors): intra {number(old.intra)}, "
            f"inter {number(old.inter)}, ratio {number(old.ratio)} (p = {p_value(old.p_value)}). "
            f"Classes permuted among {group_words} give a ratio of {null}."
        )
    if note:
        output.line(note)


def _digits(analysis: DistanceAnalysis) -> int:
    """Return how many decimals show a distance to two significant digits, at least two."""
    distances = [entry.intra_negative.value for entry in analysis.pooled if entry.intra_negative.value > 0]
    return max(2, 1 - math.floor(math.log10(min(distances)))) if distances else 2


def _row(name: str, entry: ClassDistances, digits: int) -> tuple[str, ...]:
    return (
        name,
        f"{entry.n_positive:,} / {entry.n_negative:,}",
        f"{entry.n_groups:,}",
        interval(entry.intra_positive, digits),
        interval(entry.intra_negative, digits),
        interval(entry.inter, digits),
        interval(entry.ratio, 2),
        p_value(entry.energy_distance.p_value),
        p_value(entry.energy_distance.p_adjusted),
    )
