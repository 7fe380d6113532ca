"""phantom-clip as an open_clip folder: configuration, word-piece tokenizer, building and saving the model."""

from __future__ import annotations

import json
import re
import string
from pathlib import Path
from typing import Any

import open_clip
import phantom_clip_prompts
import torch
from safetensors.torch import save
from tokenizers import BertWordPieceTokenizer

from medvlm_probe.cohort.labels import CHEXPERT_LABELS, display_name
from medvlm_probe.cohort.phantom.reports import vocabulary
from medvlm_probe.runs import write_bytes_atomically, write_json

BUNDLE = Path(__file__).resolve().parents[1] / "medvlm_probe" / "models" / "phantom_clip"
IMAGE_SIZE, PATCH, WIDTH, DEPTH, HEADS = 224, 16, 192, 5, 3
TEXT_WIDTH, TEXT_DEPTH, TEXT_HEADS, CONTEXT_LENGTH, EMBED_DIM = 128, 3, 4, 128, 128
MEAN, STD = [0.5] * 3, [0.25] * 3
INITIAL_LOGIT_SCALE = 20.0

# Everyday words of prompts and reports that the phantom reports lack; what is in neither list is spelt in letters.
MORE_WORDS = """
a an the this that these those is are was were be been has have had in on of or and with without for to from by at
as into near over under between no not none negative positive absent present seen shown shows showing show visible
evidence sign signs suggestive suspicious suspected likely possible probable definite consistent compatible
demonstrates normal abnormal unremarkable healthy sick clear acute chronic old new stable unchanged mild moderate
severe minimal small large left right bilateral upper middle lower lung lungs heart chest thorax rib ribs spine bone
bones patient patients man woman male female year years age aged image images picture photo scan film x ray xray
radiograph radiography radiographic frontal lateral portable view study report findings impression finding disease
diseases abnormality abnormalities condition diagnosis which has does do it its there here can could may one two
three cancer tuberculosis fibrosis emphysema hernia covid infection device devices tube tubes line lines wire wires
catheter pacemaker opacity opacities nodule nodules mass masses lesion lesions infiltrate infiltrates collapse fluid
air enlarged enlargement widening widened silhouette size cardiac pulmonary pleural
"""


def word_list() -> list[str]:
    """Return the vocabulary: special tokens, then characters, then words; any text tokenises without [UNK] letters."""
    text = " ".join(
        [*vocabulary(), phantom_clip_prompts.words(), *map(display_name, CHEXPERT_LABELS), MORE_WORDS]
    ).lower()
    known = sorted({word for word in re.findall(r"[a-z]+", text) if len(word) > 1})
    letters = string.ascii_lowercase + string.digits
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    endings = [
        "##s",
        "##es",
        "##ed",
        "##ing",
        "##ly",
        "##al",
        "##ic",
        "##is",
        "##ia",
        "##oma",
        "##itis",
        "##osis",
        "##ous",
    ]
    pieces = [*special, *letters, *(f"##{c}" for c in letters), *string.punctuation, *endings, *known]
    return list(dict.fromkeys(pieces))


def configurations(vocabulary_size: int) -> dict[str, dict[str, Any]]:
    """Return the JSON files of the bundle by relative path."""
    size, mean, std = (3, IMAGE_SIZE, IMAGE_SIZE), MEAN, STD
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("unk", "sep", "pad", "cls", "mask")}
    tokenizer = {
        "do_lower_case": True,
        **special,
        "tokenize_chinese_chars": True,
        "strip_accents": None,
        "do_basic_tokenize": True,
        "never_split": None,
        "tokenizer_class": "BertTokenizer",
        "model_max_length": CONTEXT_LENGTH,
    }
    return {
        "open_clip_config.json": {
            "model_cfg": {
                "embed_dim": EMBED_DIM,
                "vision_cfg": {
                    "timm_model_name": "local-dir:vision",
                    "timm_model_pretrained": False,
                    "timm_pool": "",
                    "timm_proj": "linear",
                    "image_size": IMAGE_SIZE,
                },
                "text_cfg": {
                    "hf_model_name": "text",
                    "hf_tokenizer_name": "text",
                    "hf_model_pretrained": False,
                    "hf_proj_type": "mlp",
                    "hf_pooler_type": "cls_last_hidden_state_pooler",
                    "context_length": CONTEXT_LENGTH,
                },
            },
            "preprocess_cfg": {"mean": mean, "std": std, "interpolation": "bicubic", "resize_mode": "shortest"},
        },
        "vision/config.json": {
            "architecture": "vit_tiny_patch16_224",
            "num_classes": 0,
            "num_features": WIDTH,
            "global_pool": "token",
            "model_args": {
                "img_size": IMAGE_SIZE,
                "patch_size": PATCH,
                "embed_dim": WIDTH,
                "depth": DEPTH,
                "num_heads": HEADS,
            },
            "pretrained_cfg": {
                "input_size": list(size),
                "fixed_input_size": True,
                "interpolation": "bicubic",
                "crop_pct": 1.0,
                "mean": mean,
                "std": std,
                "num_classes": 0,
                "first_conv": "patch_embed.proj",
                "classifier": "head",
                "license": "apache-2.0",
            },
        },
        "text/config.json": {
            "architectures": ["BertModel"],
            "model_type": "bert",
            "vocab_size": vocabulary_size,
            "hidden_size": TEXT_WIDTH,
            "num_hidden_layers": TEXT_DEPTH,
            "num_attention_heads": TEXT_HEADS,
            "intermediate_size": 4 * TEXT_WIDTH,
            "hidden_act": "gelu",
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
            "max_position_embeddings": CONTEXT_LENGTH,
            "type_vocab_size": 1,
            "initializer_range": 0.02,
            "layer_norm_eps": 1e-12,
            "pad_token_id": 0,
            "position_embedding_type": "absolute",
            "use_cache": False,
        },
        **{f"{folder}tokenizer_config.json": tokenizer for folder in ("", "text/")},
        **{f"{folder}special_tokens_map.json": special for folder in ("", "text/")},
    }


def write_bundle_files(folder: Path) -> None:
    """Write all of the bundle but its weights and card."""
    (folder / "text").mkdir(parents=True, exist_ok=True)
    (folder / "vision").mkdir(exist_ok=True)
    pieces = word_list()
    for name, content in configurations(len(pieces)).items():
        write_json(folder / name, content)
    tokenizer = BertWordPieceTokenizer({piece: i for i, piece in enumerate(pieces)}, lowercase=True)
    for place in (folder, folder / "text"):
        write_bytes_atomically(place / "vocab.txt", "".join(f"{piece}\n" for piece in pieces).encode())
        write_bytes_atomically(place / "tokenizer.json", tokenizer.to_str().encode())


def load_bundle(folder: Path, *, weights: bool = True) -> tuple[torch.nn.Module, Any, Any]:
    """Return the open_clip model, its image transform and its tokenizer; `weights=False` starts from random numbers."""
    config = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
    config["text_cfg"]["hf_model_name"] = str(folder / "text")
    config["vision_cfg"]["timm_model_name"] = f"local-dir:{folder / 'vision'}"
    model, _, preprocess = open_clip.create_model_and_transforms(
        f"local-dir:{folder}", load_weights=weights, text_cfg=config["text_cfg"], vision_cfg=config["vision_cfg"]
    )
    return model, preprocess, open_clip.get_tokenizer(f"local-dir:{folder}")


def save_weights(model: torch.nn.Module, folder: Path) -> None:
    """Store the weights as float16 safetensors."""
    tensors = {name: value.detach().to(torch.float16).contiguous() for name, value in model.state_dict().items()}
    write_bytes_atomically(folder / "open_clip_model.safetensors", save(tensors, metadata={"format": "pt"}))
