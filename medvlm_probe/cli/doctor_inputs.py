"""What `medvlm-probe doctor` checks of a model and a cohort: files against their lock, loading, the first images."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from medvlm_probe.cli.doctor_checks import Check, Status
from medvlm_probe.errors import ImageError, ModelError, ProbeError, UnknownNameError

FIRST_IMAGES = 8


def files_check(model: str, offline: bool) -> Check:
    """Check whether a model's files are here, and whether that fits the offline state. Nothing is fetched."""
    from medvlm_probe.models.spec import LoadOptions
    from medvlm_probe.models.zoo import find_spec, locate_model

    name, state = "offline", "the hub is switched off" if offline else "the hub may be asked"
    if model.startswith("local:"):
        return Check(name, "PASS", f"{state}; a folder needs no hub")
    try:
        spec = find_spec(model)
        if spec is not None and spec.load is not None:
            return Check(name, "PASS", f"{state}; {model} is loaded by its own package")
        locate_model(model, LoadOptions(offline=True))
    except UnknownNameError as error:
        return Check(name, "FAIL", str(error), "See: medvlm-probe models list.")
    except ModelError:
        size = f", about {spec.download_mb} MB" if spec and spec.download_mb else ""
        vendor = f"medvlm-probe models vendor {model} --to FOLDER"
        if offline:
            mend = f"Where there is a network: {vendor}; copy the folder, and use --model local:FOLDER."
            return Check(name, "FAIL", f"{state}, and {model} is not on this machine", mend)
        return Check(name, "WARN", f"{state}; {model} would be fetched{size}", f"Fetch it once: {vendor}.")
    return Check(name, "PASS", f"{state}; the files of {model} are on this machine")


def bundle_check(model: str) -> Check:
    """Check the folder of a `local:` model against its lock."""
    from medvlm_probe.models.lock import read_lock, refuse_changes

    folder = Path(model.removeprefix("local:")).expanduser()
    try:
        lock = read_lock(folder)
        if lock is None:
            mend = f"medvlm-probe models vendor {model} --to NEW_FOLDER makes a copy with a lock."
            return Check("model files", "WARN", "no lock: changed files would not be noticed", mend)
        refuse_changes(folder, lock)
    except ModelError as error:
        return Check("model files", "FAIL", str(error), "Copy the folder again from where it was made.")
    return Check("model files", "PASS", f"{lock.model}, {len(lock.files)} files, {lock.size / 1e6:,.0f} MB, as locked")


def model_check(model: str, device: str, offline: bool) -> list[Check]:
    """Check that a model loads and computes, and its fast precision against float32, measured on phantoms."""
    from medvlm_probe.cli.model_probe import probe_model
    from medvlm_probe.models.zoo import load_model

    try:
        probe = probe_model(load_model(model, device=device, offline=offline))
    except ProbeError as error:
        return [Check("model", "FAIL", str(error), f"See: medvlm-probe models check {model}.")]
    facts = f"{probe.name} loads: {probe.embedding_dim} dimensions, {probe.image_size} px, on {probe.device}"
    sound = Check("model", "PASS", facts)
    if probe.faults:
        sound = Check("model", "FAIL", " ".join(probe.faults), "Fetch or copy the model again.")
    rates = ", ".join(f"{rate:.1f} images/s in {precision}" for precision, rate in probe.images_per_second.items())
    if probe.precision == "float32":
        return [sound, Check("precision", "PASS", f"float32 is the fastest here ({rates})")]
    found = f"{probe.precision}: cosine to float32 at least {probe.min_cosine:.5f} ({rates})"
    if not probe.fast_is_sound:
        return [sound, Check("precision", "WARN", found, "Use --precision float32; auto falls back to it by itself.")]
    return [sound, Check("precision", "PASS", found)]


def cohort_check(cohort: str) -> Check:
    """Check that a cohort can be read and its first images decoded. Names no file, patient or cell of the manifest."""
    from medvlm_probe.cohort.catalog import load_cohort

    mend = "medvlm-probe cohort check COHORT says which rows and files."
    try:
        loaded = load_cohort(cohort)
    except ProbeError as error:
        return Check("cohort", "FAIL", f"cannot be read ({type(error).__name__})", mend)
    if len(loaded) == 0:
        return Check("cohort", "FAIL", "no images", mend)
    n = min(FIRST_IMAGES, len(loaded))
    reasons: Counter[str] = Counter()
    for row in range(n):
        try:
            loaded.source.read(row)
        except ImageError as error:
            reasons[error.reason] += 1
    found = f"{len(loaded):,} images, {len(loaded.labels)} labels, recipe {loaded.source.recipe}"
    if reasons:
        told = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
        status: Status = "FAIL" if reasons.total() == n else "WARN"
        return Check("cohort", status, f"{found}; of the first {n} images {reasons.total()} fail: {told}", mend)
    return Check("cohort", "PASS", f"{found}; the first {n} decode")
