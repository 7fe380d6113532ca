"""The zoo: every model that can be named on the command line, in one table."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from medvlm_probe.errors import ModelError, unknown_name
from medvlm_probe.models.spec import Caveat, LoadOptions, ModelSpec
from medvlm_probe.models.training_data import TrainingData

if TYPE_CHECKING:
    from medvlm_probe.models.contract import VisionLanguageModel
    from medvlm_probe.models.sources import Located

ENTRY_POINTS = "medvlm_probe.models"
PHANTOM_CLIP_FOLDER = Path(__file__).parent / "phantom_clip"

BIOMEDCLIP_REPOSITORY = "microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224"
BIOMEDBERT_REPOSITORY = "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract"
_OPEN_CLIP_FILES = (
    ("open_clip_config.json",),
    ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin"),
)
_CLIP_CARD = Caveat(
    "Its authors put every deployed use out of scope: research only, in English.", "CLIP's model card (OpenAI 2021)"
)
_NOT_RADIOLOGY = "Trained on microscopy of tissue: a comparison on radiographs, not a radiology model."

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
        source=f"shipped:{PHANTOM_CLIP_FOLDER}",
        family="open_clip",
        home="this package",
        parameters=3,
        download_mb=0,
        caveats=(Caveat("Its numbers on real radiographs mean nothing.", "this package"),),
        citation="this package",
    ),
    "biomedclip": ModelSpec(
        name="biomedclip",
        summary="BiomedCLIP (Zhang et al. 2023): ViT-B/16 and PubMedBERT on 15 million figures of PubMed Central.",
        licence="MIT",
        trained_on=(
            TrainingData("PMC-15M", note="Figures of PubMed Central; published figures may show a cohort's images."),
        ),
        source=f"hf:{BIOMEDCLIP_REPOSITORY}",
        family="open_clip",
        needs={
            BIOMEDCLIP_REPOSITORY: _OPEN_CLIP_FILES,
            BIOMEDBERT_REPOSITORY: (("config.json",), ("tokenizer.json", "vocab.txt")),
        },
        home=f"https://huggingface.co/{BIOMEDCLIP_REPOSITORY}",
        parameters=196,
        download_mb=784,
        caveats=(
            Caveat(
                "Its authors intend it solely for research and for reproducing their paper; any deployed use is out "
                "of scope.",
                "BiomedCLIP's model card",
            ),
            Caveat("Its repository holds no text tower configuration: that comes from BiomedBERT's.", "its files"),
        ),
        citation="Zhang et al. 2023, arXiv:2303.00915",
    ),
    "plip": ModelSpec(
        name="plip",
        summary="PLIP (Huang et al. 2023): CLIP ViT-B/32 tuned on 208,414 pathology pairs. Not radiology.",
        licence="not stated",
        trained_on=(
            TrainingData("OpenPath", note="Pathology images and words of medical Twitter and other public sources."),
            TrainingData("WebImageText", note="Of CLIP's weights, which it began with."),
        ),
        source="hf:vinid/plip",
        family="hugging_face_clip",
        needs={
            "vinid/plip": (
                ("config.json",),
                ("preprocessor_config.json",),
                ("tokenizer.json", "vocab.json"),
                ("model.safetensors", "pytorch_model.bin"),
            )
        },
        home="https://huggingface.co/vinid/plip",
        parameters=151,
        download_mb=605,
        caveats=(
            Caveat(_NOT_RADIOLOGY, "Huang et al. 2023"),
            Caveat("No licence is stated; its card repeats CLIP's: deployed use is out of scope.", "PLIP's model card"),
        ),
        citation="Huang et al. 2023, Nature Medicine, doi:10.1038/s41591-023-02504-3",
    ),
    "quiltnet": ModelSpec(
        name="quiltnet",
        summary="QuiltNet-B-32 (Ikezogwo et al. 2023): CLIP ViT-B/32 on a million histopathology pairs. Not radiology.",
        licence="MIT",
        trained_on=(
            TrainingData("Quilt-1M", note="Frames and words of histopathology videos, Twitter, papers and the web."),
            TrainingData("WebImageText", note="Of CLIP's weights, which it began with."),
        ),
        source="hf:wisdomik/QuiltNet-B-32",
        family="open_clip",
        needs={"wisdomik/QuiltNet-B-32": _OPEN_CLIP_FILES},
        home="https://huggingface.co/wisdomik/QuiltNet-B-32",
        parameters=151,
        download_mb=605,
        caveats=(Caveat(_NOT_RADIOLOGY, "Ikezogwo et al. 2023"), _CLIP_CARD),
        citation="Ikezogwo et al. 2023, NeurIPS Datasets and Benchmarks, arXiv:2306.11207",
    ),
    "medclip": ModelSpec(
        name="medclip",
        summary="MedCLIP-ViT (Wang et al. 2022): Swin-T and Bio_ClinicalBERT on chest radiographs and reports.",
        licence="BSD (declared)",
        trained_on=(
            TrainingData("mimic_cxr", note="Images and reports, paired by their findings."),
            TrainingData("chexpert", note="Images with their labels, paired by findings."),
        ),
        source="medclip:https://storage.googleapis.com/pytrial/medclip-vit-pretrained.zip",
        family="medclip",
        home="https://github.com/RyanWangZf/MedCLIP",
        parameters=137,
        caveats=(
            Caveat(
                "Takes its own preprocessing: padded to a square, grey mean 0.5863 and deviation 0.2795; published "
                "evaluations that feed it CLIP's crops give other numbers.",
                "MedCLIP's code",
            ),
            Caveat("A text's embedding averages over padding, which MedCLIP's adapter keeps.", "MedCLIP's code"),
            Caveat("The weights lie outside the hub, in a zip without a published checksum.", "MedCLIP's code"),
            Caveat("Its package declares a BSD licence, but holds no licence file.", "MedCLIP's setup.py"),
        ),
        citation="Wang et al. 2022, EMNLP, arXiv:2210.10163",
    ),
    # Through open_clip: its copy of OpenAI's weights is in safetensors, where openai/clip-vit-base-patch32 has a
    # pickle, and its table states the activation that these weights need.
    "clip-vit-b32": ModelSpec(
        name="clip-vit-b32",
        summary="CLIP ViT-B/32 (Radford et al. 2021): OpenAI's own, on 400 million pairs of the web. Not medicine.",
        licence="MIT",
        trained_on=(TrainingData("WebImageText", note="400 million image-text pairs of the web, not published."),),
        source="open_clip:ViT-B-32/openai",
        family="open_clip",
        needs={"timm/vit_base_patch32_clip_224.openai": _OPEN_CLIP_FILES[1:]},
        home="https://github.com/openai/CLIP",
        parameters=151,
        download_mb=605,
        caveats=(Caveat("A general baseline: no medical training is known.", "Radford et al. 2021"), _CLIP_CARD),
        citation="Radford et al. 2021, ICML, arXiv:2103.00020",
    ),
}

SCHEMES: Mapping[str, str] = {
    "open_clip:": "open_clip:NAME/PRETRAINED, an open_clip architecture with a tag or a weights file",
    "hf:": "hf:OWNER/NAME, a CLIP or open_clip repository on the Hugging Face hub; or hf:FOLDER",
    "local:": "local:FOLDER, a vendored, open_clip, CLIP or MedCLIP folder; nothing is fetched",
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


def find_spec(name: str) -> ModelSpec | None:
    """Return what the zoo or an entry point says of a model; None for `open_clip:`, `hf:` and `local:`.

    Raises:
        UnknownNameError: there is no such model.
    """
    if name.startswith(tuple(SCHEMES)):
        return None
    known = ZOO if name in ZOO else known_models()
    if name not in known:
        raise unknown_name("model", name, [*known, *SCHEMES])
    return known[name]


def load_model(
    name: str = "phantom-clip", *, device: str = "cpu", cache_dir: Path | None = None, offline: bool = False
) -> VisionLanguageModel:
    """Return the model called `name`, frozen, in evaluation mode, as float32 on a device.

    Args:
        name: a name of the zoo, `open_clip:NAME/PRETRAINED`, `hf:OWNER/NAME`, `hf:FOLDER` or `local:FOLDER`. A
            vendored folder is hashed against its lock first (about a second per gigabyte).
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
    spec = find_spec(name)
    if spec is not None and spec.load is not None:
        return spec.load(options)
    from medvlm_probe.models.devices import resolve_device
    from medvlm_probe.models.sources import build

    resolved = resolve_device(device)
    return build(locate_model(name, options), resolved)


def locate_model(name: str, options: LoadOptions) -> Located:
    """Return a model's files, all on this machine, fetched where they were not.

    Raises:
        UnknownNameError: there is no such model.
        ModelError: the files are not to be had, are not as their lock says, or another package loads the model.
    """
    from medvlm_probe.models.sources import locate

    spec = find_spec(name)
    if spec is None:
        return locate(name, options)
    if spec.load is not None:
        raise ModelError(f"'{name}' is loaded by the package that brings it; its files are not ours to look at.")
    return locate(spec.source, options, name=spec.name, family=spec.family)
