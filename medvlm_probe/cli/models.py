"""`medvlm-probe models list | show | check | vendor`: what models there are, and whether one's files are sound."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medvlm_probe.cli.options import DeviceOption, JsonOption, NoColorOption, QuietOption, VerboseOption
from medvlm_probe.cli.output import Output, make_output

if TYPE_CHECKING:
    from medvlm_probe.cli.model_probe import ModelProbe
    from medvlm_probe.models.lock import FileState, Lock
    from medvlm_probe.models.spec import ModelSpec

app = typer.Typer(no_args_is_help=True, help="Models: list the zoo, show one, check one's files, vendor one offline.")

NameArgument = Annotated[
    str, typer.Argument(help="A name of the zoo, hf:OWNER/NAME, open_clip:NAME/PRETRAINED, local:FOLDER or a folder.")
]
OfflineOption = Annotated[bool, typer.Option("--offline", help="Use no network: only files that are here.")]


@app.command("list")
def list_models(
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    no_color: NoColorOption = False,
) -> None:
    """List the models that --model knows by name.

    Example: medvlm-probe models list
    """
    from medvlm_probe.models.sources import on_this_machine
    from medvlm_probe.models.zoo import SCHEMES, known_models

    output = make_output(as_json=as_json, quiet=quiet, no_color=no_color)
    rows = [(spec, on_this_machine(spec)) for spec in known_models().values()]
    if as_json:
        output.json({"models": [_spec_json(spec, here) for spec, here in rows]})
        return
    cells = [(f"{spec.name}\n{spec.summary}", spec.licence, _download(spec), _here(here)) for spec, here in rows]
    output.table("Models", ("Name", "Licence", "Download", "On this machine"), cells)
    output.say("Also: " + "; ".join(SCHEMES.values()) + ".")
    output.say("More of one: medvlm-probe models show NAME.")


@app.command("show")
def show(
    name: NameArgument = "phantom-clip",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    no_color: NoColorOption = False,
) -> None:
    """Show what is known of a model: licence, training data, caveats; of a vendored folder, where it came from.

    Example: medvlm-probe models show biomedclip
    """
    from medvlm_probe.errors import ModelError
    from medvlm_probe.models.lock import read_lock
    from medvlm_probe.models.sources import on_this_machine
    from medvlm_probe.models.training_data import declared_training_data
    from medvlm_probe.models.zoo import ZOO, find_spec

    output = make_output(as_json=as_json, quiet=quiet, no_color=no_color)
    folder = _as_folder(name)
    lock = read_lock(folder) if folder else None
    spec = ZOO.get(lock.model) if lock else None if folder else find_spec(name)
    if spec is None and lock is None:
        raise ModelError(
            f"Nothing is written down about '{name}'. 'medvlm-probe models check {name}' looks at its files."
        )
    if as_json:
        facts = _spec_json(spec, on_this_machine(spec)) if spec else {}
        output.json(facts | ({"lock": _lock_json(lock)} if lock else {}))
        return
    if spec is not None:
        _print_spec(output, spec, on_this_machine(spec))
    trained_on = declared_training_data(f"local:{folder}" if folder else name)
    for data in trained_on:
        output.line(f"Trained on: {data.dataset}" + (f" ({data.note.rstrip('.')})" if data.note else ""))
    if not trained_on:
        output.line("Trained on: not declared")
    if lock is not None:
        _print_lock(output, lock)


@app.command("check")
def check(
    name: NameArgument = "phantom-clip",
    device: DeviceOption = "auto",
    offline: OfflineOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    no_color: NoColorOption = False,
) -> None:
    """Check a model: its files against their lock, loading, a few images and texts, fast precision, speed.

    Every file of a vendored folder is hashed anew (about a second per gigabyte). Ends with 2 where something is wrong.

    Example: medvlm-probe models check ./biomedclip
    """
    from medvlm_probe.cli.model_probe import probe_model, refuse_faults
    from medvlm_probe.errors import ModelError
    from medvlm_probe.models.lock import read_lock
    from medvlm_probe.models.zoo import load_model

    output = make_output(as_json=as_json, quiet=quiet, no_color=no_color)
    folder = _as_folder(name)
    lock = read_lock(folder) if folder else None
    output.say(
        f"Checking {name}" + (f": {len(lock.files)} files, {_size(lock.size)}, against their lock." if lock else ".")
    )
    try:
        model = load_model(f"local:{folder}" if folder else name, device=device, offline=offline)
    except ModelError:
        if folder and lock and not as_json:
            _print_faults(output, folder, lock)
        raise
    probe = probe_model(model)
    if as_json:
        output.json({**probe.as_json(), "lock": _lock_json(lock) if lock else None})
    else:
        _print_probe(output, probe, lock)
    refuse_faults(probe)
    if not probe.fast_is_sound:
        output.warn(
            f"{probe.precision} is too far from float32 for this model; --precision auto falls back to float32."
        )
    output.say("Nothing wrong was found.")


@app.command("vendor")
def vendor(
    name: NameArgument,
    to: Annotated[Path, typer.Option("--to", help="A new or empty folder for the model.")],
    cache_dir: Annotated[
        Path | None, typer.Option("--cache-dir", help="A Hugging Face cache. Default: the usual one.")
    ] = None,
    offline: OfflineOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    no_color: NoColorOption = False,
) -> None:
    """Put all files of a model into one folder, with a lock, for machines without a network.

    Files are fetched through the Hugging Face cache: an interrupted call goes on with the next file. The folder is
    there whole, or not at all.

    Example: medvlm-probe models vendor biomedclip --to ./biomedclip
    """
    from medvlm_probe.models.lock import LOCK_NAME
    from medvlm_probe.models.spec import LoadOptions
    from medvlm_probe.models.vendor import vendor as vendor_model
    from medvlm_probe.runs import sha256_file

    output = make_output(as_json=as_json, quiet=quiet, no_color=no_color)
    folder = _as_folder(name)
    options = LoadOptions(cache_dir=cache_dir, offline=offline)
    lock = vendor_model(f"local:{folder}" if folder else name, to, options, output.say)
    fingerprint = sha256_file(to.expanduser() / LOCK_NAME)
    if as_json:
        output.json({"folder": str(to), "lock_sha256": fingerprint, **_lock_json(lock)})
        return
    output.line(f"{to} holds {lock.model}: {len(lock.files)} files, {_size(lock.size)}, licence {lock.licence}.")
    output.line(f"SHA-256 of its lock: {fingerprint}")
    output.say(f"Copy the folder, then check it there: medvlm-probe models check {to}")
    output.say(f"Use it: --model local:{to}")


def _as_folder(name: str) -> Path | None:
    """Return the folder that a name stands for; None for names of the zoo, the hub and open_clip."""
    from medvlm_probe.models.zoo import ZOO

    if name in ZOO:
        return None
    text = name.removeprefix("local:").removeprefix("hf:")
    is_path = name.startswith("local:") or (not name.startswith("open_clip:") and Path(text).expanduser().is_dir())
    return Path(text).expanduser() if is_path else None


def _spec_json(spec: ModelSpec, here: bool | None) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "name": spec.name,
        "summary": spec.summary,
        "licence": spec.licence,
        "trained_on": [{"dataset": data.dataset, "note": data.note} for data in spec.trained_on],
        "family": spec.family,
        "home": spec.home,
        "parameters_millions": spec.parameters,
        "download_mb": spec.download_mb,
        "on_this_machine": here,
        "caveats": [asdict(caveat) for caveat in spec.caveats],
        "citation": spec.citation,
    }


def _lock_json(lock: Lock) -> dict[str, Any]:
    return {
        "model": lock.model,
        "family": lock.family,
        "licence": lock.licence,
        "sources": lock.sources(),
        "n_files": len(lock.files),
        "bytes": lock.size,
    }


def _print_spec(output: Output, spec: ModelSpec, here: bool | None) -> None:
    output.line(f"{spec.name}: {spec.summary}")
    facts = {
        "Home": spec.home,
        "Licence": spec.licence,
        "Family": (spec.family or "its package's own").replace("_", " "),
        "Parameters": f"about {spec.parameters} million" if spec.parameters else "",
        "Download": _download(spec),
        "On this machine": _here(here),
        "Citation": spec.citation,
    }
    for label, fact in facts.items():
        if fact:
            output.line(f"{label}: {fact}")
    for caveat in spec.caveats:
        output.line(f"Caveat: {caveat.text} ({caveat.source})")


def _print_lock(output: Output, lock: Lock) -> None:
    output.line(f"Vendored: {lock.model}, {len(lock.files)} files, {_size(lock.size)}, licence {lock.licence}")
    for source in lock.sources():
        output.line(f"From: {source}")
    rows = [(name, _size(file.size), file.made_from or "copied", file.sha256[:16]) for name, file in lock.files.items()]
    output.table("Files", ("File", "Size", "How", "SHA-256 begins"), rows)


def _print_faults(output: Output, folder: Path, lock: Lock) -> None:
    from medvlm_probe.models.lock import examine

    def cells(state: FileState) -> tuple[str, str, str, str]:
        return (state.name, state.status, state.expected[:16] or "–", state.sha256[:16] or "–")

    rows = [cells(state) for state in examine(folder, lock) if state.status != "ok"]
    if rows:
        output.table("Files at fault", ("File", "Status", "Locked SHA-256", "Found SHA-256"), rows)


def _print_probe(output: Output, probe: ModelProbe, lock: Lock | None) -> None:
    rates = ", ".join(f"{rate:.1f} in {precision}" for precision, rate in probe.images_per_second.items())
    rows = [
        ("Files", f"{len(lock.files)}, as locked" if lock else "no lock"),
        ("Fingerprint", probe.fingerprint[:16]),
        ("Parameters", f"{probe.parameters:.1f} million" if probe.parameters is not None else "–"),
        ("Embedding dimensions", str(probe.embedding_dim)),
        ("Image size", f"{probe.image_size} px"),
        ("Context", f"{probe.context_length} tokens"),
        ("Logit scale", f"{probe.logit_scale:.2f}"),
        ("Device", probe.device),
        ("Fast precision", probe.precision),
        ("Its cosine to float32, at least", f"{probe.min_cosine:.6f}"),
        ("Images a second", rates),
        ("Texts a second", f"{probe.texts_per_second:.1f}"),
    ]
    output.table(f"Model {probe.name}", ("What", "Found"), rows)


def _download(spec: ModelSpec) -> str:
    if spec.download_mb is None:
        return "size not known" if spec.load is None else "–"
    return f"about {spec.download_mb} MB" if spec.download_mb else "none"


def _here(here: bool | None) -> str:
    return "–" if here is None else "yes" if here else "no"


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:,.1f} MB" if n_bytes >= 1e5 else f"{n_bytes / 1e3:,.1f} kB"
