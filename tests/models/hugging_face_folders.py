"""Folders as transformers' `save_pretrained` and MedCLIP's authors write them, with small random towers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torchvision.models import resnet50
from transformers import BertConfig, BertModel, CLIPConfig, CLIPModel, SwinConfig, SwinModel
from transformers.convert_slow_tokenizer import bytes_to_unicode

START, END = "<|startoftext|>", "<|endoftext|>"
WORDS = ["there", "is", "no", "chest", "of", "normal", "pneumonia", "cardiomegaly", "a", "photo", "x", "ray"]

# OpenAI's published settings, in the words of the first and of later versions of transformers.
FIRST_PROCESSOR = {
    "crop_size": 224,
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "size": 224,
}
LATER_PROCESSOR = {
    **FIRST_PROCESSOR,
    "crop_size": {"height": 224, "width": 224},
    "do_convert_rgb": True,
    "do_rescale": True,
    "image_processor_type": "CLIPFeatureExtractor",
    "rescale_factor": 0.00392156862745098,
    "size": {"shortest_edge": 224},
}


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def edit_json(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def write_clip_tokenizer(folder: Path) -> dict[str, int]:
    """Write CLIP's byte-pair tokenizer with merges for a few words; return its vocabulary, the end token last."""
    letters = list(bytes_to_unicode().values())
    merges = {}
    for word in WORDS:
        pieces = [*word[:-1], word[-1] + "</w>"]
        for i in range(1, len(pieces)):
            merges["".join(pieces[:i]), pieces[i]] = None
    tokens = [*letters, *(f"{c}</w>" for c in letters), *map("".join, merges), START, END]
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    write_json(folder / "vocab.json", vocabulary)
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *map(" ".join, merges)]) + "\n")
    special = {"bos_token": START, "eos_token": END, "pad_token": END, "unk_token": END}
    write_json(folder / "special_tokens_map.json", special)
    write_json(
        folder / "tokenizer_config.json", {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, **special}
    )
    return vocabulary


def small_clip_config(vocabulary: dict[str, int], *, legacy: bool) -> dict[str, Any]:
    """Return the configuration of a small CLIP; `legacy` ones name a wrong end token, as OpenAI's and PLIP's do."""
    eos, bos = (2, 0) if legacy else (vocabulary[END], vocabulary[START])
    shape = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48, "projection_dim": 16}
    text = {"hidden_size": 24, "vocab_size": len(vocabulary), "max_position_embeddings": 40, "pad_token_id": 1}
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": 16,
        "logit_scale_init_value": 2.6592,
        "text_config": {**shape, **text, "eos_token_id": eos, "bos_token_id": bos, "model_type": "clip_text_model"},
        "text_config_dict": None,
        "vision_config": {
            **shape,
            "hidden_size": 32,
            "image_size": 32,
            "patch_size": 8,
            "model_type": "clip_vision_model",
        },
        "vision_config_dict": None,
    }


def varied(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Set every parameter at random, so that none is silently zero or one; frozen and in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name == "logit_scale":
                parameter.fill_(4.0)
            else:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(noise * 0.2 + (1.0 if parameter.ndim == 1 and "weight" in name else 0.0))
    return module.eval().requires_grad_(False)


def write_clip_folder(folder: Path, *, legacy: bool = False, layout: str = "safetensors") -> CLIPModel:
    """Write a small CLIP in one of the layouts on the hub and return transformers' own model.

    Layouts: `safetensors`, `shards` (both by `save_pretrained`), and `bin`: as transformers wrote it in 2021, with the
    tables of positions that it stored then, and the first processor's settings.
    """
    config = small_clip_config(write_clip_tokenizer(folder), legacy=legacy)
    module = varied(CLIPModel(CLIPConfig.from_dict(config)))
    if layout == "bin":
        positions = {"text_model": 40, "vision_model": 17}
        tables = {f"{name}.embeddings.position_ids": torch.arange(n)[None] for name, n in positions.items()}
        torch.save({**module.state_dict(), **tables}, folder / "pytorch_model.bin")
    else:
        module.save_pretrained(folder, max_shard_size="40KB" if layout == "shards" else "1GB")
    write_json(folder / "config.json", config)
    small = {"crop_size": 32, "size": 32}
    later = {"crop_size": {"height": 32, "width": 32}, "size": {"shortest_edge": 32}}
    processor = {**FIRST_PROCESSOR, **small} if layout == "bin" else {**LATER_PROCESSOR, **later}
    write_json(folder / "preprocessor_config.json", processor)
    return module


BERT_VOCABULARY = [
    *["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
    *["there", "is", "no", "chest", "of", "normal", "pneumonia", "cardio", "##mega", "##ly", "a", "photo", "x", "ray"],
    *["A", "Normal", ".", "-"],
    *[f"{mark}{letter}" for mark in ("", "##") for letter in "bcdefghijklmnopqrstuvwyz"],
]
BERT = {
    "model_type": "bert",
    "hidden_size": 24,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "vocab_size": len(BERT_VOCABULARY),
}
SWIN = {"model_type": "swin", "embed_dim": 8, "depths": [1, 1, 1, 2], "num_heads": [1, 1, 2, 2]}
# transformers 5 calls Swin's tensors by the names on the left, checkpoints of 2022 by those on the right.
OLD_SWIN = {
    "attention.q_proj": "attention.self.query",
    "attention.k_proj": "attention.self.key",
    "attention.v_proj": "attention.self.value",
    "attention.o_proj": "attention.output.dense",
    "attention.relative_position_bias.": "attention.self.",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}


def write_bert_tokenizer(folder: Path, **settings: Any) -> None:
    """Write `vocab.txt` alone, as Bio_ClinicalBERT's repository has it; settings add a `tokenizer_config.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(BERT_VOCABULARY) + "\n")
    if settings:
        write_json(folder / "tokenizer_config.json", settings)


def published_medclip(vision: dict[str, Any] | None, text: dict[str, Any]) -> tuple[Any, Any, dict[str, torch.Tensor]]:
    """Return random towers (Swin, or ResNet-50 for None; BERT) and the checkpoint as MedCLIP's authors saved it.

    Its names are those of transformers 4.24: Swin's old ones, and constants that later versions do not store.
    """
    swin = varied(resnet50() if vision is None else SwinModel(SwinConfig(**vision)), seed=1)
    bert = varied(BertModel(BertConfig(**text)), seed=2)
    generator = torch.Generator().manual_seed(3)
    tensors = {f"text_model.model.{key}": value for key, value in bert.state_dict().items()}
    tensors["text_model.model.embeddings.position_ids"] = torch.arange(text["max_position_embeddings"])[None]
    tensors["text_model.projection_head.weight"] = torch.randn(512, text["hidden_size"], generator=generator)
    tensors["logit_scale"] = torch.tensor(2.9)
    for key, value in swin.state_dict().items():
        name = key
        for current, old in OLD_SWIN.items():
            name = name.replace(current, old)
        tensors[f"vision_model.model.{name}"] = value
        if name.endswith("relative_position_bias_table"):
            index = f"vision_model.model.{name.replace('bias_table', 'index')}"
            tensors[index] = torch.zeros(49, 49, dtype=torch.long)
    if vision is None:
        tensors["vision_model.model.fc.weight"] = torch.randn(512, 2048, generator=generator)
        del tensors["vision_model.model.fc.bias"]
    else:
        tensors["vision_model.projection_head.weight"] = torch.randn(512, swin.num_features, generator=generator)
    return swin, bert, tensors


def write_medclip_folder(folder: Path, *, resnet: bool = False) -> tuple[Any, Any, dict[str, torch.Tensor]]:
    """Write a small MedCLIP: the published checkpoint, BERT's vocabulary, and the small towers' configurations."""
    towers = published_medclip(None if resnet else SWIN, BERT)
    write_bert_tokenizer(folder)
    torch.save(towers[2], folder / "pytorch_model.bin")
    write_json(folder / "text" / "config.json", BERT)
    if not resnet:
        write_json(folder / "vision" / "config.json", SWIN)
    return towers
