"""`medvlm-probe audit`: may this model be run on a new hospital's radiographs? Evidence, and a policy's verdicts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medvlm_probe.cli.options import (
    DATA,
    OUTPUT,
    BatchSizeOption,
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
    SplitOption,
    UncertaintyOption,
    VerboseOption,
    WorkersOption,
)
from medvlm_probe.cli.output import Output, make_output
from medvlm_probe.errors import InputError, PolicyError

if TYPE_CHECKING:
    from collections.abc import Callable

    from medvlm_probe.audit.age_probe import Childlike
    from medvlm_probe.audit.examine import Settings
    from medvlm_probe.audit.inputs import AuditInputs
    from medvlm_probe.audit.policy import Policy
    from medvlm_probe.audit.repair import Repair
    from medvlm_probe.audit.verdicts import Explanation
    from medvlm_probe.audit.why import Why
    from medvlm_probe.cli.steps import Compute, EmbeddedCohort
    from medvlm_probe.cohort.cohort import Cohort
    from medvlm_probe.models.contract import VisionLanguageModel
    from medvlm_probe.types import Scores
    from medvlm_probe.zero_shot.predict import Task

THOROUGHNESS = "How thoroughly to look"


def audit(
    context: typer.Context,
    cohort: Annotated[
        str,
        typer.Option("--cohort", help="The new site: a manifest, data card, folder, NAME:FOLDER or phantom:OPTIONS.",
                     rich_help_panel=DATA),
    ] = "phantom:sites=community",
    reference: Annotated[
        str,
        typer.Option("--reference", help="What it is compared with; best with labels, and not seen in training. Or the "
                     "sketch that another hospital sent: NAME.sketch.", rich_help_panel=DATA),
    ] = "phantom:sites=reference",
    model: ModelOption = "phantom-clip",
    policy: Annotated[
        Path | None,
        typer.Option("--policy", help="A TOML file of rules. Default: the questions of a proof of concept.",
                     rich_help_panel=DATA),
    ] = None,
    label: LabelOption = None,
    site: Annotated[
        str | None, typer.Option("--site", help="Only this site's images of the cohort.", rich_help_panel=DATA)
    ] = None,
    split: SplitOption = None,
    reference_site: Annotated[
        str | None, typer.Option("--reference-site", help="Only this site of the reference.", rich_help_panel=DATA)
    ] = None,
    reference_split: Annotated[
        str | None,
        typer.Option("--reference-split", help="Only this split of the reference, such as test.", rich_help_panel=DATA),
    ] = None,
    uncertainty: UncertaintyOption = None,
    prompts: Annotated[
        str, typer.Option("--prompts", help="Prompts that score the labels; see 'prompts'.", rich_help_panel=DATA)
    ] = "radiology",
    ages_from: Annotated[
        str | None,
        typer.Option("--ages-from", help="A cohort with ages, to learn from what children look like where the new site "
                     "gives none. Default: the reference.", rich_help_panel=DATA),
    ] = None,
    explanations: Annotated[
        Path | None,
        typer.Option("--explanations", help="A folder of 'grad-cam' on images with regions, for rules about "
                     "explanations.", rich_help_panel=DATA),
    ] = None,
    why: Annotated[
        bool,
        typer.Option("--why", help="Find the acquisition transforms that explain the distance: a pass of the model for "
                     "each, once.", rich_help_panel=THOROUGHNESS),
    ] = False,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Measure what repairs it, by labels spent; with --why, with and without other "
                     "acquisitions.", rich_help_panel=THOROUGHNESS),
    ] = False,
    fine_tune: Annotated[
        bool,
        typer.Option("--fine-tune", help="Of the repairs, those too that train: prompts (CalibPrompt), the last block. "
                     "Minutes to hours; an estimate comes first.", rich_help_panel=THOROUGHNESS),
    ] = False,
    reread: Annotated[
        Path | None,
        typer.Option("--reread", help="For --repair, labels of the site read again: a CSV of image and labels. "
                     "Default: errors are simulated.", rich_help_panel=THOROUGHNESS),
    ] = None,
    permutations: Annotated[
        int, typer.Option("--permutations", min=99, help="Of each test.", rich_help_panel=THOROUGHNESS)
    ] = 9_999,
    opened: Annotated[
        int,
        typer.Option("--opened", min=0, help="Images of each side that are opened for size and exposure.",
                     rich_help_panel=THOROUGHNESS),
    ] = 200,
    pseudonym_key: Annotated[
        Path | None,
        typer.Option("--pseudonym-key", help="Key of the pseudonyms of unusual images. Default: one of this machine.",
                     rich_help_panel=OUTPUT),
    ] = None,
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
    """Audit a new site against a reference: what moved, whether the model still works, what a policy says of it.

    Exit code 3 when a rule of the policy fails. What is written holds no path, report text or patient: unusual images
    stand there under pseudonyms, and cells of fewer than ten people are left out.

    Example: medvlm-probe audit --cohort new_hospital.csv --reference iu_xray.csv --model biomedclip --out audit/
    """
    from medvlm_probe.audit.examine import examine
    from medvlm_probe.audit.policy import default_policy, read_policy
    from medvlm_probe.cli.audit_files import print_audit, write_audit
    from medvlm_probe.cli.audit_repair import repairer
    from medvlm_probe.cli.audit_sketch import Case, given_sketch, sketch_case
    from medvlm_probe.cli.steps import Compute
    from medvlm_probe.cohort.pseudonyms import read_key
    from medvlm_probe.runs import open_run

    output = make_output(as_json=as_json, quiet=quiet, no_color=no_color)
    rules = read_policy(policy) if policy is not None else default_policy()
    compute = Compute.parse(device, precision, batch_size, workers, max_failures)
    studied = _explanations(explanations) if explanations is not None else None
    given = given_sketch(context.params)
    sides = [_cohort(cohort, site, split, uncertainty, "the cohort")]
    if given is None:
        sides.append(_cohort(reference, reference_site, reference_split, uncertainty, "the reference"))
    marks = [side.fingerprint for side in sides] + ([given.fingerprint] if given else [])
    run = open_run("audit", _config(context, marks, rules), out)
    key = read_key(pseudonym_key)
    names = ("new-site", "reference")
    embedded = [_embedded(output, side, model, compute, name) for side, name in zip(sides, names, strict=False)]
    if given is not None:
        case = sketch_case(output, embedded[0], given, prompts, label, studied, seed)
    else:
        here, there = embedded
        task = _task(output, here, there, prompts, label)
        inputs = _inputs(here, there, task, seed)
        childlike = _childlike(output, inputs, ages_from, here.model, model, compute)
        repairs = repairer(
            output, inputs, here, there, task, compute, why=why, fine_tune=fine_tune, reread=reread, folder=run.path
        )
        asked = repairs if repair or fine_tune or reread else None
        settings = _settings(output, here, there, task, compute, childlike, studied, permutations, opened, why, asked)
        case = Case(inputs, settings, _provenance(here, there, task, seed), _note(here, there))
    for note in case.inputs.notes:
        output.warn(note)
    output.say(
        f"Auditing {len(case.inputs.site):,} images against {len(case.inputs.whole_reference):,}: half of these serve "
        "choices, half are compared with. Tests take a minute for each 5,000 images."
    )
    found = examine(case.inputs, rules, case.settings, say=lambda text: output.say(f"  {text}"))
    written = write_audit(run, found, case.inputs, key, case.provenance, case.note)
    if as_json:
        output.json(written.result)
    else:
        print_audit(output, found, case.note)
    output.wrote(written.paths)
    failed = [verdict.rule for verdict in found.verdicts if verdict.verdict == "fail"]
    if failed:
        more = f" and {len(failed) - 3} more" if len(failed) > 3 else ""
        raise PolicyError(
            f"The policy '{found.policy}' failed: {len(failed)} of {len(found.verdicts)} rules do not hold "
            f"({'; '.join(failed[:3])}{more})."
        )


def _cohort(spec: str, site: str | None, split: str | None, uncertainty: Any, what: str) -> Cohort:
    """Return the images that are asked for."""
    from medvlm_probe.cohort.catalog import load_cohort
    from medvlm_probe.errors import unknown_name

    found = load_cohort(spec, uncertainty=uncertainty)
    if split is not None:
        found = found.select_split(split)
    if site is not None:
        sites = found.sites()
        if site not in sites:
            raise unknown_name(f"site of {what}", site, set(sites.tolist()) - {""})
        found = found.select(sites == site)
    return found


def _embedded(output: Output, cohort: Cohort, model: str, compute: Compute, name: str) -> EmbeddedCohort:
    """Return a side's embeddings; it is called by its role, since a cohort's name may be that of a folder."""
    from dataclasses import replace

    from medvlm_probe.cli.steps import embed_cohort

    return embed_cohort(output, replace(cohort, name=name), model, compute)


def _task(
    output: Output, here: EmbeddedCohort, there: EmbeddedCohort, prompts: str, label: list[str] | None
) -> Task | None:
    """Return what is scored: the reference's labels, or the site's where the reference has none."""
    from medvlm_probe.zero_shot.predict import resolve_task

    cohort = there.cohort if there.cohort.labels else here.cohort
    if not cohort.labels:
        output.warn("Neither side has labels: the data are audited, not the model.")
        return None
    return resolve_task(cohort, prompts, label, None)


def _inputs(here: EmbeddedCohort, there: EmbeddedCohort, task: Task | None, seed: int) -> AuditInputs:
    from medvlm_probe.audit.inputs import make_inputs

    labels = task.labels if task else ()
    parts = [(side.cohort, side.embedded.vectors, _scores(side, task), side.embedded.keys) for side in (there, here)]
    return make_inputs(parts[0], parts[1], labels, seed=seed)


def _scores(side: EmbeddedCohort, task: Task | None) -> Scores | None:
    from medvlm_probe.zero_shot.predict import zero_shot_scores

    return None if task is None else zero_shot_scores(side.embedded.vectors, side.cohort, side.model, task)


def _settings(
    output: Output,
    here: EmbeddedCohort,
    there: EmbeddedCohort,
    task: Task | None,
    compute: Compute,
    childlike: Childlike | None,
    explanations: dict[str, Explanation] | None,
    permutations: int,
    opened: int,
    why: bool,
    repairs: Callable[[AuditInputs], Repair] | None,
) -> Settings:
    from medvlm_probe.audit.examine import Settings
    from medvlm_probe.cli.audit_repair import scorer

    score = scorer(here, task)

    def attributed(given: AuditInputs) -> Why:
        from medvlm_probe.audit.why import examine_why

        return examine_why(
            given,
            here.model,
            score,
            precision=there.embedded.precision,
            workers=compute.workers,
            say=lambda text: output.say(f"  {text}"),
        )

    seen = [
        f"{name}: {side.seen.reason}"
        for name, side in (("New site", here), ("Reference", there))
        if side.seen.n_seen or side.seen.n_possible
    ]
    return Settings(
        n_permutations=permutations,
        n_sampled=opened,
        logit_scale=here.model.logit_scale,
        childlike=childlike,
        seen=seen,
        explanations=explanations,
        why=attributed if why else None,
        repair=repairs,
    )


def _childlike(
    output: Output, inputs: AuditInputs, ages_from: str | None, model: VisionLanguageModel, name: str, compute: Compute
) -> Childlike | None:
    """Return what an age probe says of a site without ages; None where there are ages, or nothing to learn from."""
    from medvlm_probe.audit.age_probe import compare_ages, fit_age_probe
    from medvlm_probe.audit.facts import manifest_facts

    reference, site = inputs.whole_reference, inputs.site
    if manifest_facts(site.cohort)["age"].notna().any():
        return None
    cohort, vectors, groups = reference.cohort, reference.vectors, reference.groups
    if ages_from is not None:
        taught = _embedded(output, _cohort(ages_from, None, None, None, "--ages-from"), name, compute, "ages")
        cohort, vectors, groups = taught.cohort, taught.embedded.vectors, taught.cohort.groups()
    try:
        probe = fit_age_probe(vectors, manifest_facts(cohort)["age"].to_numpy(), groups)
    except InputError as error:
        if ages_from is not None:
            raise
        output.say(f"No age probe: {error}")
        return None
    return compare_ages(probe, (reference.vectors, reference.groups), (site.vectors, site.groups))


def _explanations(folder: Path) -> dict[str, Explanation]:
    """Return what a heat-map study found of each label, from the folder of `grad-cam`."""
    from medvlm_probe.audit.verdicts import Explanation
    from medvlm_probe.runs import parse_json

    path = folder / "grad-cam.json"
    try:
        entries = parse_json(path.read_bytes())["labels"]
        return {e["label"]: Explanation(e["controls"]["verdict"], int(e["n_with_region"])) for e in entries}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"'{folder.name}' holds no grad-cam.json of a heat-map study. Name the folder of one."
        ) from error


_BY_NAME = ("model", "prompts", "explanations", "ages_from", "reread")
"""Options that name a place: results of two places are told apart without writing either."""


def _config(context: typer.Context, marks: list[str], policy: Policy) -> dict[str, Any]:
    """Return what decides the results, with nothing in it that names a file or a folder.

    Args:
        context: the options.
        marks: fingerprints of the cohort and of the reference.
        policy: the rules.
    """
    from medvlm_probe.runs import sha256_json

    elsewhere = {
        "out",
        "as_json",
        "quiet",
        "verbose",
        "no_color",
        "workers",
        "explanations",
        "pseudonym_key",
        "ages_from",
        "reread",
    }
    config = {
        name: list(value) if isinstance(value, tuple | list) else value
        for name, value in sorted(context.params.items())
        if name not in elsewhere
    }
    config |= {
        "cohort": marks[0],
        "reference": marks[1],
        "model": str(config["model"]).replace("\\", "/").rsplit("/", 1)[-1],
        "prompts": str(config["prompts"]).replace("\\", "/").rsplit("/", 1)[-1],
        "policy": sha256_json(policy.to_json()),
        "explanations": context.params["explanations"] is not None,
        "ages_from": context.params["ages_from"] is not None,
        "reread": context.params["reread"] is not None,
        "given": sha256_json({name: str(context.params[name]) for name in _BY_NAME}),
    }
    return config


def _provenance(here: EmbeddedCohort, there: EmbeddedCohort, task: Task | None, seed: int) -> dict[str, Any]:
    site, reference = here.provenance(), there.provenance()
    facts = {key: value for key, value in site.items() if key not in ("cohort", "images", "seen_in_training")}
    for name, part in (("site", site), ("reference", reference)):
        facts[name] = {key: part[key] for key in ("cohort", "images", "seen_in_training")}
    facts["prompts"] = None if task is None else {"set": task.prompts.name, "score": task.kind}
    return facts | {"seed": seed}


def _note(here: EmbeddedCohort, there: EmbeddedCohort) -> str:
    """Return the small print of both sides, once."""
    return " ".join(dict.fromkeys(filter(None, (here.note, there.note))))
