"""A folder of BiomedCLIP's true structure with random weights, as `--model local:FOLDER` takes it. Nothing is fetched.

ViT-B/16 with class token and linear projection, BERT-base with an MLP, 256 tokens, logit scale 85.2: 196 million
numbers. Speed does not depend on what they are.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from medvlm_probe.models.open_clip_adapter import build_module

CONFIG: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 512,
        "vision_cfg": {
            "timm_model_name": "vit_base_patch16_224",
            "timm_model_pretrained": False,
            "timm_pool": "",
            "timm_proj": "linear",
            "image_size": 224,
        },
        "text_cfg": {
            "hf_model_name": "text",
            "hf_tokenizer_name": "text",
            "hf_proj_type": "mlp",
            "hf_pooler_type": "cls_last_hidden_state_pooler",
            "context_length": 256,
        },
    },
    "preprocess_cfg": {
        "mean": [0.48145466, 0.4578275, 0.40821073],
        "std": [0.26862954, 0.26130258, 0.27577711],
    },
}
BERT: dict[str, Any] = {
    "architectures": ["BertForMaskedLM"],
    "model_type": "bert",
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
    "vocab_size": 30522,
    "pad_token_id": 0,
}
LOG_SCALE = 4.4454
SPREAD = 2.5
"""How much wider than usual the blocks' weights are drawn: else all texts, and all images, come out nearly the same."""


def write_bundle(folder: Path, words: Sequence[str]) -> Path:
    """Write the folder; `words` are tokens of its vocabulary besides punctuation. Returns it."""
    text = folder / "text"
    text.mkdir(parents=True)
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *words]
    vocabulary = [*specials, *(f"word{n}" for n in range(BERT["vocab_size"] - len(specials)))]
    (folder / "open_clip_config.json").write_text(json.dumps(CONFIG))
    (text / "config.json").write_text(json.dumps(BERT))
    (text / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    (text / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": True}))
    save_file(_weights(text), folder / "open_clip_model.safetensors")
    return folder


def _weights(text: Path) -> dict[str, torch.Tensor]:
    config = json.loads(json.dumps(CONFIG["model_cfg"]))
    config["text_cfg"]["hf_model_name"] = str(text)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        module = build_module(config, "BiomedCLIP's structure")
        for name, parameter in module.named_parameters():
            if parameter.ndim == 2 and ("layer." in name or "blocks." in name):
                parameter.mul_(SPREAD)
        module.logit_scale.fill_(LOG_SCALE)  # type: ignore[operator]
    return {name: tensor.contiguous().clone() for name, tensor in module.state_dict().items()}
