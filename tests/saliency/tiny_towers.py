"""Small models of every family with random weights, and targets for their embeddings."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from medvlm_probe.models.open_clip_adapter import build_module, wrap_module
from medvlm_probe.models.zoo import load_model
from medvlm_probe.saliency.targets import Target

TEXT = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
OPEN_CLIP: dict[str, dict[str, Any]] = {
    "timm ViT, class token": {"timm_model_name": "test_vit", "timm_pool": "", "image_size": 160},
    "timm ViT, mean": {"timm_model_name": "test_vit", "timm_pool": "avg", "image_size": 160},
    "timm ViT, attention pool": {
        "timm_model_name": "test_vit",
        "timm_pool": "map",
        "timm_proj": "none",
        "image_size": 160,
    },
    "open_clip ViT": {"image_size": 48, "layers": 3, "width": 32, "head_width": 16, "patch_size": 8},
    "open_clip ResNet": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "head_width": 16},
    "timm ResNet": {"timm_model_name": "test_resnet", "timm_pool": "avg", "image_size": 160},
}
FOLDERS = ("CLIP folder", "MedCLIP Swin")
TOWERS = (*OPEN_CLIP, *FOLDERS)
LABELS = ("edema", "fracture", "opacity")


def family_folders() -> ModuleType:
    """Return the module of the models' tests that writes folders as the families' authors do."""
    path = Path(__file__).parents[1] / "models" / "hugging_face_folders.py"
    spec = importlib.util.spec_from_file_location("hugging_face_folders_for_saliency", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def tower(name: str) -> Any:
    """Return a model; treat it as constant."""
    if name in OPEN_CLIP:
        return open_clip_tower(OPEN_CLIP[name])
    with TemporaryDirectory() as folder:
        write = {"CLIP folder": "write_clip_folder", "MedCLIP Swin": "write_medclip_folder"}[name]
        getattr(family_folders(), write)(Path(folder) / "model")
        return load_model(f"local:{folder}/model")


def open_clip_tower(vision: dict[str, Any], **preprocess: Any) -> Any:
    from open_clip.tokenizer import SimpleTokenizer

    width = 64 if vision.get("timm_proj") == "none" else 16
    cfg = {"embed_dim": width, "vision_cfg": vision, "text_cfg": TEXT}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = build_module(cfg, "tiny")
        for parameter in module.visual.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.15)
    return wrap_module("tiny", module, cfg, SimpleTokenizer(context_length=16), preprocess_cfg=preprocess)


def pixels_for(model: Any, n: int, seed: int = 0) -> Tensor:
    shape = (n, 3, model.image_size, model.image_size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def target_for(model: Any, labels: tuple[str, ...] = LABELS) -> Target:
    """Return logits that are differences of cosines, as prompts give them."""
    weights = torch.randn(len(labels) + 1, model.embedding_dim, generator=torch.Generator().manual_seed(1))
    *own, nonsense = (10 * torch.nn.functional.normalize(weights, dim=1)).unsqueeze(1)

    def logits(rows: Tensor) -> Any:
        return lambda embeddings: torch.nn.functional.normalize(embeddings, dim=1) @ rows.T

    return Target("random", labels, logits(torch.cat(own)), logits(nonsense))
