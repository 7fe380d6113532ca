"""MedCLIP as a vision-language model, from a folder with its published checkpoint and BERT's tokenizer."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from medvlm_probe.errors import ModelError
from medvlm_probe.models.checkpoint import load_strictly
from medvlm_probe.models.dual_encoder import DualEncoder
from medvlm_probe.models.hugging_face_files import (
    existing_folder,
    find_tokenizer,
    find_weights,
    load_tokenizer,
    read_own_config,
    read_weights,
    tokenizer_hashes,
    without_origin,
)
from medvlm_probe.models.medclip_towers import (
    BIO_CLINICAL_BERT,
    EMBEDDING_DIM,
    IMAGE_MEAN,
    IMAGE_SIZE,
    IMAGE_STD,
    RESNET_KEY,
    SWIN_TINY,
    MedClip,
    MedClipTextTower,
    medclip_saliency_layer,
    medclip_transform,
    under_current_names,
)
from medvlm_probe.runs import sha256_json

if TYPE_CHECKING:
    from medvlm_probe.models.contract import VisionLanguageModel

FORMAT = "medclip/v1"
"""Version of how a folder becomes embeddings; part of every fingerprint."""

MOST_TOKENS = 77
"""`model_max_length` of the published processor."""

LARGEST_LOG_SCALE = 4.6052
"""MedCLIP clamps the logarithm of its logit scale to [0, 4.6052], a multiplier of at most 100."""


def load_medclip_folder(
    folder: Path, name: str, device: torch.device, *, text_length: int | None = None
) -> VisionLanguageModel:
    """Return the MedCLIP in a folder, frozen, in evaluation mode, as float32 on a device; nothing is fetched.

    The folder holds `pytorch_model.bin` as published (or `model.safetensors` with the same names) and the tokenizer of
    emilyalsentzer/Bio_ClinicalBERT (`vocab.txt`) in its root, in `text/` or in `tokenizer/`. The towers' configurations
    are the published ones unless `text/config.json` (or a BERT's `config.json` in the root) or `vision/config.json`
    says otherwise. Checkpoints with the ResNet-50 image tower are recognised by their tensors.

    Bio_ClinicalBERT's vocabulary is cased, but its repository has no `tokenizer_config.json`, so transformers lowers
    all letters; MedCLIP was trained so, and without that file texts are lowered here too.

    Args:
        folder: of the model.
        name: what the model is called in tables.
        device: where its towers go.
        text_length: how many tokens every text is padded to. MedCLIP averages padding in, so this changes embeddings.
            None is what the published processor does: the longest text of one call, at most 77, so that an embedding
            depends on the texts beside it. A number makes it a matter of the text alone, with context vectors counted
            in; CalibPrompt's released code uses 25.

    Raises:
        ModelError: a file is missing or damaged, weights do not fit the configuration, a file asks for code from
            outside, or `text_length` is more than the text tower takes.
    """
    folder = existing_folder(folder, "a folder with pytorch_model.bin and vocab.txt")
    weights, tokenizer_folder = find_weights(folder), find_tokenizer(folder, ("text", "tokenizer"))
    text_config = _text_config(folder)
    tensors, weights_sha256 = read_weights(weights)
    vision_config = None if RESNET_KEY in tensors else _config(folder / "vision" / "config.json", SWIN_TINY)
    module = MedClip(vision_config, text_config, name)
    bert: Any = module.text_model["model"].config
    context_length = _context_length(text_length, bert.max_position_embeddings, name)
    tokenizer = load_tokenizer(tokenizer_folder, name, "BertTokenizerFast", bert.vocab_size)
    load_strictly(module, under_current_names(module, tensors), name)
    image_size = IMAGE_SIZE if vision_config is None else _side(vision_config["image_size"], name)
    fingerprint = {
        "format": FORMAT,
        "vision": "resnet50" if vision_config is None else without_origin(vision_config),
        "text": without_origin(text_config),
        "transform": {"pad": "square", "size": image_size, "mean": IMAGE_MEAN, "std": IMAGE_STD, "resample": "bicubic"},
        "text_length": text_length,
        "weights": weights_sha256,
        "tokenizer": tokenizer_hashes(tokenizer_folder),
    }
    module = module.to(device).eval().requires_grad_(False)
    return DualEncoder(
        name=name,
        fingerprint=sha256_json(fingerprint),
        embedding_dim=EMBEDDING_DIM,
        image_size=image_size,
        context_length=context_length,
        logit_scale=math.exp(min(max(float(module.logit_scale), 0.0), LARGEST_LOG_SCALE)),
        module=module,
        device=device,
        tokenizer=tokenizer,
        transform=medclip_transform(image_size),
        image_tower=MedClip.encode_images,
        text_tower=MedClipTextTower(module),
        layer=medclip_saliency_layer(module, image_size),
        padded_length=text_length,
    )


def _text_config(folder: Path) -> dict[str, Any]:
    if not (folder / "text" / "config.json").is_file() and (folder / "config.json").is_file():
        in_root = read_own_config(folder / "config.json")
        if in_root.get("model_type") == BIO_CLINICAL_BERT["model_type"]:
            return in_root
    return _config(folder / "text" / "config.json", BIO_CLINICAL_BERT)


def _config(path: Path, published: Any) -> dict[str, Any]:
    """Return the configuration in a file, or the published one where there is no such file."""
    if not path.is_file():
        return dict(published)
    config = read_own_config(path)
    if config.get("model_type") != published["model_type"]:
        raise ModelError(
            f"{path} is of model_type '{config.get('model_type')}'; MedCLIP's is '{published['model_type']}'. "
            "Remove the file to use the published configuration."
        )
    return {**published, **config}


def _side(image_size: object, name: str) -> int:
    if not isinstance(image_size, int):
        raise ModelError(f"{name} takes images of size {image_size}; only one side, for square images, is supported.")
    return image_size


def _context_length(text_length: int | None, n_positions: int, name: str) -> int:
    most = min(MOST_TOKENS, n_positions)
    if text_length is None:
        return most
    if not 2 < text_length <= most:
        raise ModelError(f"text_length is {text_length}; {name} takes 3 to {most} tokens.")
    return text_length
