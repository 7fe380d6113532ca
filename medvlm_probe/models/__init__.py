"""Vision-language models behind one contract. Importing this package does not import torch."""

from __future__ import annotations

from medvlm_probe.models.contract import PromptTokens, SaliencyLayer, VisionLanguageModel
from medvlm_probe.models.spec import Caveat, LoadOptions, ModelSpec
from medvlm_probe.models.zoo import ZOO, known_models, load_model

__all__ = [
    "ZOO",
    "Caveat",
    "LoadOptions",
    "ModelSpec",
    "PromptTokens",
    "SaliencyLayer",
    "VisionLanguageModel",
    "known_models",
    "load_model",
]
