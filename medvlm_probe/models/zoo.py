"""The zoo: every model that can be named on the command line, in one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from medvlm_probe.errors import ModelError, unknown_name
from medvlm_probe.models.training_data import TrainingData

if TYPE_CHECKING:
    from medvlm_probe.models.contract import VisionLanguageModel

ENTRY_POINTS = "medvlm_probe.models"
PHANTOM_CLIP_FOLDER = Path(__file__).parent / "phantom_clip"
BIOMEDCLIP_REPOSITORY = "microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224"


@dataclass(frozen=True)
class LoadOptions:
    """How a model is loaded.

    Attributes:
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        cache_dir: a Hugging Face hub cache; None for the usual one.
        offline: never use the network. Off, it is used only for files that are not on this machine yet.
    """

    device: str = "cpu"
    cache_dir: Path | None = None
    offline: bool = False


@dataclass(frozen=True)
class ModelSpec:
    """A named model.

    Attributes:
        name: what `--model` takes.
        summary: what it is, in one line.
        licence: of the weights.
        trained_on: data sets that the model has seen; results on them say "seen in training". Empty: not declared.
        load: makes the model. Third parties write their own and register the spec as an entry point of the group
            `medvlm_probe.models`.
    """

    name: str
    summary: str
    licence: str
    trained_on: tuple[TrainingData, ...]
    load: Callable[[LoadOptions], VisionLanguageModel]


def _load_phantom_clip(options: LoadOptions) -> VisionLanguageModel:
    if not (PHANTOM_CLIP_FOLDER / "open_clip_config.json").is_file():
        raise ModelError(
            "phantom-clip's weights are missing from this installation. Reinstall medvlm-probe, "
            "or make them: python analyses/train_phantom_clip.py."
        )
    return _load_folder(PHANTOM_CLIP_FOLDER, "phantom-clip", options)


def _load_biomedclip(options: LoadOptions) -> VisionLanguageModel:
    return _load_hub(BIOMEDCLIP_REPOSITORY, "biomedclip", options)


ZOO: Mapping[str, ModelSpec] = {
    "phantom-clip": ModelSpec(
        name="phantom-clip",
        summary="The embedded default: a small dual encoder trained on synthetic radiographs. Not medicine.",
        licence="Apache-2.0",
        trained_on=(
            TrainingData(
                "phantom",
                sites=("reference",),
                splits=("balanced, seed 1000",),
                note="40,000 phantoms, one of each patient; seed 2000 was watched during training.",
            ),
        ),
        load=_load_phantom_clip,
    ),
    "biomedclip": ModelSpec(
        name="biomedclip",
        summary="BiomedCLIP (Zhang et al. 2023): ViT-B/16 and PubMedBERT on 15 million figures of PubMed Central.",
        licence="MIT",
        trained_on=(
            TrainingData("PMC-15M", note="Figures of PubMed Central; published figures may show a cohort's images."),
        ),
        load=_load_biomedclip,
    ),
}

SCHEMES: Mapping[str, str] = {
    "open_clip:": "open_clip:NAME/PRETRAINED, an open_clip architecture with a tag or a weights file",
    "local:": "local:FOLDER, a folder with open_clip_config.json and weights; nothing is fetched",
}


def known_models() -> dict[str, ModelSpec]:
    """Return the zoo with the models that installed packages add as entry points; the zoo's own names come first.

    Raises:
        ModelError: an entry point is no `ModelSpec`, or takes a name of the zoo.
    """
    found = dict(ZOO)
    for entry in metadata.entry_points(group=ENTRY_POINTS):
        if entry.name in ZOO:
            raise ModelError(f"The package behind {entry.value} takes the name '{entry.name}' of a built-in model.")
        spec = entry.load()
        if not isinstance(spec, ModelSpec):
            raise ModelError(f"The entry point {entry.name} = {entry.value} is no ModelSpec of medvlm_probe.models.")
        found[entry.name] = spec
    return found


def load_model(
    name: str = "phantom-clip", *, device: str = "cpu", cache_dir: Path | None = None, offline: bool = False
) -> VisionLanguageModel:
    """Return the model called `name`, frozen, in evaluation mode, as float32 on a device.

    Args:
        name: a name of the zoo, `open_clip:NAME/PRETRAINED` or `local:FOLDER`.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        cache_dir: a Hugging Face hub cache; None for the usual one.
        offline: never use the network. Off, it is used only for files that are not on this machine yet; `local:` and
            phantom-clip never use it.

    Raises:
        UnknownNameError: there is no such model.
        ModelError: it cannot be loaded.
        DeviceError: this machine lacks the device.
    """
    options = LoadOptions(device=device, cache_dir=cache_dir, offline=offline)
    if name.startswith("local:"):
        return _load_folder(Path(name.removeprefix("local:")), None, options)
    if name.startswith("open_clip:"):
        return _load_pretrained(name.removeprefix("open_clip:"), options)
    known = ZOO if name in ZOO else known_models()
    if name not in known:
        raise unknown_name("model", name, [*known, *SCHEMES])
    return known[name].load(options)


def _load_folder(folder: Path, name: str | None, options: LoadOptions) -> VisionLanguageModel:
    from medvlm_probe.models.bundle import read_bundle
    from medvlm_probe.models.devices import resolve_device

    device = resolve_device(options.device)
    bundle = read_bundle(folder, name)
    from medvlm_probe.models.open_clip_adapter import load_bundle

    return load_bundle(bundle, device)


def _load_hub(repo_id: str, name: str, options: LoadOptions) -> VisionLanguageModel:
    from medvlm_probe.models.devices import resolve_device
    from medvlm_probe.models.hub import hub_bundle

    device = resolve_device(options.device)
    bundle = hub_bundle(repo_id, name, cache_dir=options.cache_dir, offline=options.offline)
    from medvlm_probe.models.open_clip_adapter import load_bundle

    return load_bundle(bundle, device)


def _load_pretrained(spec: str, options: LoadOptions) -> VisionLanguageModel:
    from medvlm_probe.models.devices import resolve_device
    from medvlm_probe.models.hub import pretrained_bundle
    from medvlm_probe.models.open_clip_adapter import load_bundle

    device = resolve_device(options.device)
    return load_bundle(pretrained_bundle(spec, cache_dir=options.cache_dir, offline=options.offline), device)
