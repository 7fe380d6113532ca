"""MedCLIP's two towers under the names of its published checkpoints, their configurations and the image transform."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from medvlm_probe.models.contract import SaliencyLayer
from medvlm_probe.models.hugging_face_clip_images import LevelTable
from medvlm_probe.models.hugging_face_files import build_module
from medvlm_probe.models.image_transform import EvalTransform
from medvlm_probe.models.open_clip_vision import tokens_to_maps

EMBEDDING_DIM = 512
IMAGE_SIZE = 224
IMAGE_MEAN = 0.5862785803043838
IMAGE_STD = 0.27950088968644304

SWIN_TINY: Mapping[str, Any] = {
    "model_type": "swin",
    "image_size": IMAGE_SIZE,
    "patch_size": 4,
    "num_channels": 3,
    "embed_dim": 96,
    "depths": [2, 2, 6, 2],
    "num_heads": [3, 6, 12, 24],
    "window_size": 7,
    "mlp_ratio": 4.0,
    "qkv_bias": True,
    "hidden_act": "gelu",
    "use_absolute_embeddings": False,
    "layer_norm_eps": 1e-5,
}
"""`config.json` of microsoft/swin-tiny-patch4-window7-224, as far as it shapes the tower."""

BIO_CLINICAL_BERT: Mapping[str, Any] = {
    "model_type": "bert",
    "vocab_size": 28996,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
}
"""`config.json` of emilyalsentzer/Bio_ClinicalBERT, as far as it shapes the tower."""

RESNET_KEY = "vision_model.model.fc.weight"
"""A tensor that only checkpoints with the ResNet-50 image tower hold."""

SWIN_RENAMED = (
    ("attention.self.query", "attention.q_proj"),
    ("attention.self.key", "attention.k_proj"),
    ("attention.self.value", "attention.v_proj"),
    (
        "attention.self.relative_position_bias_table",
        "attention.relative_position_bias.relative_position_bias_table",
    ),
    ("attention.output.dense", "attention.o_proj"),
    ("intermediate.dense", "mlp.fc1"),
    ("output.dense", "mlp.fc2"),
)
"""Names in published checkpoints, and what transformers 5 calls the same tensors."""


class MedClip(nn.Module):
    """MedCLIP (Wang et al. 2022), its tensors named as in the published `pytorch_model.bin`.

    Attributes:
        vision_model: `model` (Swin-tiny) with `projection_head`, or `model` alone (ResNet-50, whose `fc` projects).
        text_model: `model` (BERT) with `projection_head`.
        logit_scale: logarithm of the multiplier of cosine similarities.
    """

    def __init__(self, vision_config: Mapping[str, Any] | None, text_config: Mapping[str, Any], name: str) -> None:
        """Build both towers with random weights; without a `vision_config` the image tower is a ResNet-50."""
        super().__init__()
        if vision_config is None:
            self.vision_model = nn.ModuleDict({"model": _resnet50()})
        else:
            swin: Any = build_module("SwinModel", "SwinConfig", dict(vision_config), name)
            self.vision_model = _projected(swin, swin.num_features)
        bert: Any = build_module("BertModel", "BertConfig", dict(text_config), name)
        self.text_model = _projected(bert, bert.config.hidden_size)
        self.logit_scale = nn.Parameter(torch.tensor(1 / 0.07).log())

    def encode_images(self, pixels: Tensor) -> Tensor:
        """Return (N, 512) of (N, 3, H, W) pixels."""
        output = self.vision_model["model"](pixels)
        if "projection_head" not in self.vision_model:
            return output  # type: ignore[no-any-return]
        return self.vision_model["projection_head"](output.pooler_output)  # type: ignore[no-any-return]


@dataclass(frozen=True, eq=False)
class MedClipTextTower:
    """The text side of MedCLIP: the mean over hidden layers 1, 2 and last and over all positions, padding included.

    Padding is not seen by other tokens, but it is averaged in: an embedding depends on the length padded to.
    """

    module: MedClip
    reads_padding: ClassVar[bool] = True

    def embed(self, ids: Tensor) -> Tensor:
        """Return (K, T, C) word embeddings of (K, T) ids; BERT itself adds positions, types and normalisation."""
        return self.module.text_model["model"].get_input_embeddings()(ids)  # type: ignore[operator,no-any-return]

    def pooled_at(self, ids: Tensor) -> Tensor:
        """Return (K,) of -1: every position is pooled."""
        return ids.new_full((len(ids),), -1)

    def forward(self, embeddings: Tensor, mask: Tensor, pooled_at: Tensor) -> Tensor:
        """Return (K, 512) of (K, L, C) word embeddings and (K, L) mask."""
        bert, project = self.module.text_model["model"], self.module.text_model["projection_head"]
        hidden = bert(inputs_embeds=embeddings, attention_mask=mask.long(), output_hidden_states=True).hidden_states
        layers = torch.stack([hidden[1], hidden[2], hidden[-1]])
        return project(layers.mean(dim=2).mean(dim=0))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class PadToSquare:
    """One grey channel, padded with black to a square of at least `side` pixels, then resized to it (bicubic, PIL)."""

    side: int

    def __call__(self, image: Image.Image) -> Image.Image:
        """Return a (side, side) "L" image; of an odd margin, the smaller half lies left and above."""
        square = max(self.side, *image.size)
        canvas = Image.new("L", (square, square), 0)
        canvas.paste(image.convert("L"), ((square - image.width) // 2, (square - image.height) // 2))
        return canvas.resize((self.side, self.side), Image.Resampling.BICUBIC)


def medclip_transform(side: int) -> EvalTransform:
    """Return the transform of MedCLIP's published processor: grey, square, resized, its own mean and deviation.

    Bit-equal to `MedCLIPFeatureExtractor` on transformers 4.24, its single channel standing for all three. (MedCLIP was
    trained with torchvision's bilinear resizing; its authors publish the bicubic one for use.)
    """
    levels = _levels()
    return EvalTransform(geometry=PadToSquare(side), to_pixels=LevelTable(levels), grey_levels=levels)


def under_current_names(module: MedClip, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return published tensors under the names that the installed transformers gives them.

    `relative_position_index`, a constant that transformers 4 stored, is left out where the module computes it.
    """
    own, renamed = module.state_dict().keys(), {}
    for key, value in tensors.items():
        name = key
        if key not in own and key.startswith("vision_model."):
            if key.endswith("relative_position_index"):
                continue
            for published, current in SWIN_RENAMED:
                name = name.replace(published, current)
        renamed[name] = value
    return renamed


def medclip_saliency_layer(module: MedClip, image_size: int) -> SaliencyLayer:
    """Return the layer for class activation maps: the normalised output of Swin's last stage, or ResNet's `layer4`.

    Swin's embedding is the mean over that layer's tokens, projected, so its map splits the similarity exactly.
    """
    swin: Any = module.vision_model["model"]
    if "projection_head" not in module.vision_model:
        return SaliencyLayer(module=swin.layer4, to_maps=lambda maps: maps, name="vision_model.model.layer4")
    side = image_size // swin.config.patch_size
    for _ in swin.config.depths[1:]:
        side = (side + 1) // 2
    to_maps = tokens_to_maps((side, side), n_prefix=0)
    return SaliencyLayer(module=swin.layernorm, to_maps=to_maps, name="vision_model.model.layernorm")


def _projected(model: nn.Module, width: int) -> nn.ModuleDict:
    return nn.ModuleDict({"model": model, "projection_head": nn.Linear(width, EMBEDDING_DIM, bias=False)})


def _resnet50() -> nn.Module:
    from torchvision.models import resnet50

    model = resnet50(weights=None)
    model.fc = nn.Linear(model.fc.in_features, EMBEDDING_DIM, bias=False)
    return model  # type: ignore[no-any-return]


def _levels() -> NDArray[np.float32]:
    """Return (3, 256) float32, all steps in float32, as transformers 4.24 computed them."""
    scaled = np.arange(256, dtype=np.float32) * np.float32(1 / 255)
    row = (scaled - np.float32(IMAGE_MEAN)) / np.float32(IMAGE_STD)
    return np.tile(row, (3, 1))
