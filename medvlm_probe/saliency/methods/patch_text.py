"""Each patch against the prompt: its token, projected as if it were the image's embedding."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from medvlm_probe.saliency.methods import BatchMaps
from medvlm_probe.saliency.recorded_pass import record_pass
from medvlm_probe.saliency.tower_ends import tower_end

if TYPE_CHECKING:
    from medvlm_probe.models.contract import VisionLanguageModel
    from medvlm_probe.saliency.targets import Target


def patch_text(model: VisionLanguageModel, pixels: Tensor, target: Target, layer: str | None) -> BatchMaps:
    """Return the target's logit of each place of the tower's last layer, put through the tower's end alone.

    Where the tower averages places without a norm after it, the mean of these embeddings is the image's own.

    Raises:
        ModelError: how the tower ends is not known.

    Source: Zhou, Loy and Dai 2022, "Extract free dense labels from CLIP" (there with the values of the last attention
    in place of its tokens).
    """
    end = tower_end(model)
    recorded = record_pass(model, pixels, target, end.layer)
    n, _, height, width = recorded.maps.shape
    with torch.no_grad():
        places = recorded.maps.permute(0, 2, 3, 1).flatten(0, 2)
        logits = target.logits(end.pool(places.unsqueeze(1)).float())
    maps = logits.reshape(n, height, width, -1).permute(0, 3, 1, 2)
    return BatchMaps(maps, recorded.logits, end.layer.name)
