"""`medvlm-probe prompts list | show | audit`: the texts that stand for labels, and what is wrong with them."""

from __future__ import annotations

from typing import Annotated

import typer

from medvlm_probe.cli.options import DeviceOption, JsonOption, ModelOption, NoColorOption, QuietOption, VerboseOption
from medvlm_probe.cli.output import make_output

app = typer.Typer(no_args_is_help=True, help="Prompt sets: list them, show one, audit one with a model.")

PromptsArgument = Annotated[str, typer.Argument(help="bare, chexzero, radiology, or a TOML file.")]


@app.command("list")
def list_sets(
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    no_color: NoColorOption = False,
) -> None:
    """List the prompt sets that come with the tool.

    Example: medvlm-probe prompts list
    """
    from medvlm_probe.zero_shot.prompts import load_prompts, shipped_prompt_sets

    output = make_output(as_json=as_json, quiet=quiet, no_color=no_color)
    sets = [load_prompts(name) for name in shipped_prompt_sets()]
    if as_json:
        fields = [
            {"name": s.name, "title": s.title, "labels": list(s.labels), "negatives": s.has_negatives} for s in sets
        ]
        output.json({"prompt_sets": fields})
        return
    rows = [
        (s.name, s.title, str(len(s.labels)), str(sum(len(p.positive) + len(p.negative) for p in s.labels.values())),
         "yes" if s.has_negatives else "no")
        for s in sets
    ]  # fmt: skip
    output.table("Prompt sets", ("Name", "What it is", "Labels", "Texts", "Negatives"), rows)
    output.say("Show one: medvlm-probe prompts show NAME. Your own: --prompts FILE.toml.")


@app.command("show")
def show(
    prompts: PromptsArgument = "radiology",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    no_color: NoColorOption = False,
) -> None:
    """Show a prompt set: where it comes from, and each label's texts with the templates filled in.

    Example: medvlm-probe prompts show radiology
    """
    from medvlm_probe.zero_shot.prompts import load_prompts

    output = make_output(as_json=as_json, quiet=quiet, no_color=no_color)
    found = load_prompts(prompts)
    if as_json:
        labels = {n: {"positive": list(p.positive), "negative": list(p.negative)} for n, p in found.labels.items()}
        output.json({"name": found.name, "title": found.title, "provenance": found.provenance, "labels": labels})
        return
    output.line(f"{found.title} ({found.name})\n{found.provenance}")
    for label, texts in found.labels.items():
        output.line(f"\n{label}")
        for side, group in (("+", texts.positive), ("-", texts.negative)):
            for text in group:
                output.line(f"  {side} {text}")


@app.command("audit")
def audit(
    prompts: PromptsArgument = "radiology",
    model: ModelOption = "phantom-clip",
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    no_color: NoColorOption = False,
) -> None:
    """Look for prompts that do not fit a model, read wrongly, or stand for labels that the model cannot tell apart.

    Example: medvlm-probe prompts audit radiology --model phantom-clip
    """
    from medvlm_probe.models.zoo import load_model
    from medvlm_probe.zero_shot.prompt_audit import NEAR, PROBLEMS, audit_with_model, audit_words
    from medvlm_probe.zero_shot.prompts import load_prompts

    output = make_output(as_json=as_json, quiet=quiet, no_color=no_color)
    found = load_prompts(prompts)
    loaded = load_model(model, device=device)
    problems = audit_words(found) + audit_with_model(found, loaded)
    if as_json:
        rows = [{"kind": p.kind, "label": p.label, "detail": p.detail} for p in problems]
        output.json({"prompts": found.name, "model": loaded.name, "problems": rows})
        return
    n_texts = sum(len(p.positive) + len(p.negative) for p in found.labels.values())
    output.line(f"Prompt set '{found.name}': {n_texts} texts for {len(found.labels)} labels, read by {loaded.name}.")
    for kind, meaning in PROBLEMS.items():
        of_kind = [p for p in problems if p.kind == kind]
        if of_kind:
            limit = f" (cosine above {NEAR})" if kind.startswith("near") else ""
            output.table(
                f"{len(of_kind)} x {meaning}{limit}", ("Label", "What"), [(p.label, p.detail) for p in of_kind]
            )
    if not problems:
        output.line("Nothing found.")
