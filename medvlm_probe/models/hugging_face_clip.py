"""Hugging Face's CLIPModel as a vision-language model: PLIP, OpenAI's CLIP and others saved with `save_pretrained`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from medvlm_probe.errors import ModelError
from medvlm_probe.models.checkpoint import load_strictly
from medvlm_probe.models.contract import SaliencyLayer
from medvlm_probe.models.dual_encoder import DualEncoder
from medvlm_probe.models.hugging_face_clip_images import build_clip_transform, read_image_settings
from medvlm_probe.models.hugging_face_files import (
    build_module,
    existing_folder,
    find_tokenizer,
    find_weights,
    load_tokenizer,
    read_own_config,
    read_weights,
    tokenizer_hashes,
    without_origin,
)
from medvlm_probe.models.open_clip_vision import tokens_to_maps
from medvlm_probe.runs import sha256_json

if TYPE_CHECKING:
    from medvlm_probe.models.contract import VisionLanguageModel

FORMAT = "hugging_face_clip/v1"
"""Version of how a folder becomes embeddings; part of every fingerprint."""

LEGACY_EOS = 2
"""`eos_token_id` of configurations written before transformers 4.32, which is no id of CLIP's end token."""


@dataclass(frozen=True, eq=False)
class ClipTextTower:
    """The text side of a `CLIPModel`, layer by layer, because its own forward pass takes ids alone.

    Attributes:
        module: the `CLIPModel`.
        eos_id: id of the end token, whose output is the text's embedding; None pools the largest id of a text, as
            transformers does for configurations that say `eos_token_id: 2` (OpenAI's, PLIP's).
    """

    module: Any
    eos_id: int | None
    reads_padding: ClassVar[bool] = False

    def embed(self, ids: Tensor) -> Tensor:
        """Return (K, T, C) token embeddings of (K, T) ids."""
        return self.module.text_model.embeddings.token_embedding(ids)  # type: ignore[no-any-return]

    def pooled_at(self, ids: Tensor) -> Tensor:
        """Return (K,) int64: the first end token, or the first of the largest ids."""
        return (ids if self.eos_id is None else ids.eq(self.eos_id).int()).argmax(dim=1)

    def forward(self, embeddings: Tensor, mask: Tensor, pooled_at: Tensor) -> Tensor:
        """Return (K, D). Each token sees only those before it, so padding, which comes last, needs no mask."""
        tower = self.module.text_model
        hidden = embeddings + tower.embeddings.position_embedding.weight[: embeddings.shape[1]]
        for layer in tower.encoder.layers:
            hidden = hidden + _causal_attention(layer.self_attn, layer.layer_norm1(hidden))
            hidden = hidden + layer.mlp(layer.layer_norm2(hidden))
        pooled = tower.final_layer_norm(hidden[torch.arange(len(hidden), device=hidden.device), pooled_at])
        return self.module.text_projection(pooled)  # type: ignore[no-any-return]


def load_clip_folder(folder: Path, name: str, device: torch.device) -> VisionLanguageModel:
    """Return the `CLIPModel` in a folder, frozen, in evaluation mode, as float32 on a device; nothing is fetched.

    The folder is as `save_pretrained` of transformers writes it and as the hub holds it: `config.json`, weights
    (`model.safetensors` or `pytorch_model.bin`, whole or in shards), the tokenizer and `preprocessor_config.json`.

    Args:
        folder: of the model.
        name: what the model is called in tables.
        device: where its towers go.

    Raises:
        ModelError: a file is missing or damaged, the model is of another type, its weights do not fit its
            configuration, or a file asks for code from outside.
    """
    folder = existing_folder(folder, "a folder with config.json, model.safetensors and a tokenizer")
    config = read_own_config(folder / "config.json")
    _require_clip(config, folder)
    weights, tokenizer_folder = find_weights(folder), find_tokenizer(folder)
    module: Any = build_module("CLIPModel", "CLIPConfig", config, name)
    vision, text = module.config.vision_config, module.config.text_config
    settings = read_image_settings(folder, vision.image_size)
    tokenizer = load_tokenizer(tokenizer_folder, name, "AutoTokenizer", text.vocab_size)
    eos_id = _eos_id(text.eos_token_id, tokenizer, folder)
    tensors, weights_sha256 = read_weights(weights)
    load_strictly(module, tensors, name)
    fingerprint = {
        "format": FORMAT,
        "config": without_origin(config),
        "transform": asdict(settings),
        "weights": weights_sha256,
        "tokenizer": tokenizer_hashes(tokenizer_folder),
    }
    module = module.to(device).eval().requires_grad_(False)
    return DualEncoder(
        name=name,
        fingerprint=sha256_json(fingerprint),
        embedding_dim=int(module.config.projection_dim),
        image_size=int(vision.image_size),
        context_length=int(text.max_position_embeddings),
        logit_scale=float(module.logit_scale.exp()),
        module=module,
        device=device,
        tokenizer=tokenizer,
        transform=build_clip_transform(settings),
        image_tower=_encode_pixels,
        text_tower=ClipTextTower(module, eos_id),
        layer=_saliency_layer(module),
    )


def _require_clip(config: dict[str, Any], folder: Path) -> None:
    model_type = config.get("model_type")
    if model_type != "clip":
        raise ModelError(
            f"{folder / 'config.json'} is of model_type '{model_type}'; only 'clip' (transformers' CLIPModel, as PLIP "
            "and openai/clip-vit-base-patch32) is supported. Other families, SigLIP for one, load through open_clip: "
            "--model open_clip:NAME/PRETRAINED, or local:FOLDER with open_clip_config.json."
        )


def _eos_id(configured: Any, tokenizer: Any, folder: Path) -> int | None:
    if configured == LEGACY_EOS:
        return None
    if configured != tokenizer.eos_token_id:
        raise ModelError(
            f"{folder / 'config.json'} says eos_token_id {configured}, but the tokenizer ends texts with "
            f"{tokenizer.eos_token_id}: all texts would get the same embedding. Copy both from one repository."
        )
    return int(configured)


def _encode_pixels(module: Any, pixels: Tensor) -> Tensor:
    return module.visual_projection(module.vision_model(pixel_values=pixels).pooler_output)  # type: ignore[no-any-return]


def _causal_attention(attention: Any, hidden: Tensor) -> Tensor:
    """Return (K, L, C): self-attention of (K, L, C) in which each token sees itself and those before it."""
    projected = (attention.q_proj(hidden), attention.k_proj(hidden), attention.v_proj(hidden))
    query, key, value = (rows.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for rows in projected)
    seen = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    return attention.out_proj(seen.transpose(1, 2).flatten(-2))  # type: ignore[no-any-return]


def _saliency_layer(module: Any) -> SaliencyLayer:
    """Return the first normalisation of the last block: after it, only the class token reaches the embedding."""
    last = len(module.vision_model.encoder.layers) - 1
    name = f"vision_model.encoder.layers.{last}.layer_norm1"
    side = module.config.vision_config.image_size // module.config.vision_config.patch_size
    return SaliencyLayer(module=module.get_submodule(name), to_maps=tokens_to_maps((side, side), n_prefix=1), name=name)
