"""`medvlm-probe cohort split`: divide a cohort by patient, alike in labels and sites, into a file that can be kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medvlm_probe.cli.options import (
    JsonOption,
    NoColorOption,
    QuietOption,
    UncertaintyOption,
    VerboseOption,
)
from medvlm_probe.cli.output import Output, make_output

if TYPE_CHECKING:
    from medvlm_probe.cohort.splits import Splits


def split_cohort(
    cohort: Annotated[
        str, typer.Argument(help="phantom, a manifest (.csv, .parquet), a data card (.md) or a folder of images.")
    ] = "phantom",
    parts: Annotated[
        str, typer.Option("--parts", help="Names and shares; the shares add up to 1.")
    ] = "train=.7,val=.15,test=.15",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Another number gives other, equally good parts.")] = 0,
    split: Annotated[
        str | None, typer.Option("--split", help="Divide this split alone; the other images keep theirs.")
    ] = None,
    uncertainty: UncertaintyOption = None,
    out: Annotated[Path, typer.Option("--out", help="The split file to write, JSON.")] = Path("splits.json"),
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    no_color: NoColorOption = False,
) -> None:
    """Divide a cohort by patient (else study, else image), stratified over labels and sites.

    With --split only that split is divided, and the other images keep theirs. The file names images by content alone.

    Example: medvlm-probe cohort split manifest.csv --parts train=.7,val=.15,test=.15 --out splits.json
    """
    from medvlm_probe.cohort.catalog import load_cohort
    from medvlm_probe.cohort.split_files import write_splits
    from medvlm_probe.cohort.splits import make_splits, parse_shares

    output = make_output(as_json=as_json, quiet=quiet, no_color=no_color)
    shares = parse_shares(parts)
    loaded = load_cohort(cohort, uncertainty=uncertainty)
    output.say(f"Splitting cohort '{loaded.name}': {len(loaded):,} images, told apart by content, read once.")
    splits = make_splits(loaded, shares, seed, within=split)
    digest = write_splits(out, splits)
    if as_json:
        output.json(
            {
                "file": str(out),
                "assignments_sha256": digest,
                "shares": shares,
                "seed": seed,
                "counts": splits.counts.astype(object).where(splits.counts.notna(), None).to_dict(orient="records"),
                "notes": list(splits.notes),
            }
        )
    else:
        _print(output, splits, loaded.labels)
    output.wrote([out])
    output.say(f"Use it: --splits {out} --split {next(iter(shares))}")


def _print(output: Output, splits: Splits, labels: tuple[str, ...]) -> None:
    shown = splits.counts[
        splits.counts["trait"].isin(["images", *labels]) | splits.counts["trait"].str.startswith("site: ")
    ]
    rows = []
    for trait, part in shown.groupby("trait", sort=False):
        cells = (
            f"{n:,} ({share:.1%})" if n else "0"
            for n, share in zip(part["n_images"].tolist(), part["share"].tolist(), strict=True)
        )
        rows.append((str(trait), *cells))
    columns = ("", *(f"{part} ({share:.1%})" for part, share in splits.shares.items()))
    output.table(f"Images, and images positive for each label, in each part (seed {splits.seed})", columns, rows)
    for note in splits.notes:
        output.warn(note)
