"""Where a model's files are: this package, a folder, the Hugging Face hub, or MedCLIP's own archive."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medvlm_probe.errors import ModelError, ProbeError
from medvlm_probe.models.bundle import CONFIG_NAME, Bundle, read_bundle, read_json
from medvlm_probe.models.lock import FamilyName, Lock, read_lock, refuse_changes

if TYPE_CHECKING:
    import torch

    from medvlm_probe.models.contract import VisionLanguageModel
    from medvlm_probe.models.spec import LoadOptions, ModelSpec


@dataclass(frozen=True)
class Located:
    """A model whose files are all on this machine.

    Attributes:
        name: what the model is called in tables; never a path.
        family: which adapter reads it.
        folder: where the files lie; for an open_clip model out of the hub's cache, the folder of its weights.
        bundle: an open_clip model's parts; None for other families.
        lock: what the folder was vendored with, every hash checked; None for others.
    """

    name: str
    family: FamilyName
    folder: Path
    bundle: Bundle | None = None
    lock: Lock | None = None


def locate(source: str, options: LoadOptions, *, name: str | None = None, family: FamilyName | None = None) -> Located:
    """Return the files that a source stands for, fetched where they are not on this machine.

    Args:
        source: `shipped:FOLDER`, `local:FOLDER`, `hf:OWNER/NAME`, `hf:FOLDER`, `open_clip:NAME/PRETRAINED` or
            `medclip:ADDRESS`.
        options: the cache, and whether the network may be used.
        name: what the model is called; None: after its source.
        family: which adapter reads it; None: after its files.

    Raises:
        ModelError: the files are not to be had, or are not as their lock says.
    """
    scheme, _, rest = source.partition(":")
    if scheme == "shipped":
        return _shipped(Path(rest), name)
    if scheme == "local" or (scheme == "hf" and _is_folder(rest)):
        return locate_folder(Path(rest), name)
    if scheme == "hf":
        return _on_the_hub(rest, name or source, family, options)
    if scheme == "medclip":
        from medvlm_probe.models.medclip_download import medclip_folder

        return locate_folder(medclip_folder(rest, options), name)
    from medvlm_probe.models.hub import pretrained_bundle

    bundle = pretrained_bundle(rest, name=name, cache_dir=options.cache_dir, offline=options.offline)
    folder = bundle.weights.parent if bundle.weights else Path()
    return Located(bundle.name, "open_clip", folder, bundle)


def locate_folder(folder: Path, name: str | None = None) -> Located:
    """Return the model in a folder: a vendored one, held against its lock first, or one of the three families.

    Raises:
        ModelError: the folder is missing, holds no model of a known family, or differs from its lock.
    """
    folder = folder.expanduser().resolve()
    if not folder.is_dir():
        raise ModelError(f"Model folder {folder} does not exist. Expected a folder with {CONFIG_NAME} and weights.")
    with _refusing_odd_values(folder):
        lock = read_lock(folder)
        if lock is not None:
            refuse_changes(folder, lock)
        family = lock.family if lock else detect_family(folder)
        name = name or (lock.model if lock else f"local:{folder.name}")
        bundle = read_bundle(folder, name) if family == "open_clip" else None
    return Located(name, family, folder, bundle, lock)


def detect_family(folder: Path) -> FamilyName:
    """Return which adapter reads a folder, by the configurations in it.

    Raises:
        ModelError: none does.
    """
    if (folder / CONFIG_NAME).is_file():
        return "open_clip"
    config = folder / "config.json"
    if config.is_file() and read_json(config).get("model_type") == "clip":
        return "hugging_face_clip"
    has_weights = any((folder / name).is_file() for name in ("pytorch_model.bin", "model.safetensors"))
    if has_weights and any((folder / part / "vocab.txt").is_file() for part in ("", "text", "tokenizer")):
        return "medclip"
    raise ModelError(
        f"{folder} holds no model of a known kind. Expected {CONFIG_NAME} (open_clip), config.json of model_type "
        "'clip' (transformers), or MedCLIP's pytorch_model.bin with BERT's vocab.txt."
    )


def on_this_machine(spec: ModelSpec, cache_dir: Path | None = None) -> bool | None:
    """Return whether a model loads without a network; None where its own package decides."""
    if spec.load is not None:
        return None
    if spec.family == "medclip":
        from medvlm_probe.models.medclip_download import downloaded

        return downloaded() is not None
    from medvlm_probe.models.hub import is_cached

    return is_cached(spec.needs, cache_dir)


def build(located: Located, device: torch.device) -> VisionLanguageModel:
    """Return the model of located files on a device, frozen, float32.

    Raises:
        ModelError: the files do not make a model.
    """
    with _refusing_odd_values(located.folder):
        if located.bundle is not None:
            from medvlm_probe.models.open_clip_adapter import load_bundle

            return load_bundle(located.bundle, device)
        if located.family == "hugging_face_clip":
            from medvlm_probe.models.hugging_face_clip import load_clip_folder

            return load_clip_folder(located.folder, located.name, device)
        from medvlm_probe.models.medclip import load_medclip_folder

        return load_medclip_folder(located.folder, located.name, device)


@contextmanager
def _refusing_odd_values(folder: Path) -> Iterator[None]:
    """Turn what a library raises at values of a configuration that no model has into a ModelError."""
    try:
        yield
    except (ProbeError, ImportError):
        raise
    except Exception as error:
        what = " ".join(str(error).split())[:200]
        raise ModelError(
            f"The files in {folder} make no model ({type(error).__name__}: {what}). Copy them again, and correct what "
            "was changed by hand."
        ) from error


def _shipped(folder: Path, name: str | None) -> Located:
    if not (folder / CONFIG_NAME).is_file():
        raise ModelError(
            f"{name}'s weights are missing from this installation. Reinstall medvlm-probe, "
            "or make them: python analyses/train_phantom_clip.py."
        )
    return locate_folder(folder, name)


def _on_the_hub(repo_id: str, name: str, family: FamilyName | None, options: LoadOptions) -> Located:
    from medvlm_probe.models.hub import clip_folder, hub_bundle, hub_family

    if repo_id.count("/") != 1:
        raise ModelError(f"'hf:{repo_id}': expected hf:OWNER/NAME of the Hugging Face hub, or an existing folder.")
    cache_dir, offline = options.cache_dir, options.offline
    if (family or hub_family(repo_id, cache_dir=cache_dir, offline=offline)) == "open_clip":
        bundle = hub_bundle(repo_id, name, cache_dir=cache_dir, offline=offline)
        assert bundle.weights is not None
        return Located(name, "open_clip", bundle.weights.parent, bundle)
    return Located(name, "hugging_face_clip", clip_folder(repo_id, cache_dir=cache_dir, offline=offline))


def _is_folder(text: str) -> bool:
    return text.startswith((".", "/", "~")) or "\\" in text or Path(text).is_dir()
