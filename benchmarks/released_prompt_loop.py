"""CalibPrompt's released loop for BiomedCLIP, written anew from its description: what `tune` is held against.

In each step the image encoder runs on a freshly augmented batch and the text encoder on prompts padded to 256 tokens;
for every batch of 100 test images both run again, and nothing is kept between losses or seeds. Class names go through
the whole of BERT's embeddings and are then treated once more by the encoder, as the released code has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from medvlm_probe.models.open_clip_adapter import OpenClipModel
from medvlm_probe.tuning.losses import LossMix
from medvlm_probe.tuning.prompt_tuning import Schedule

TEST_BATCH = 100


class ReleasedLoop:
    """One training of context vectors; `model` is used through open_clip's own modules alone."""

    def __init__(self, model: OpenClipModel, names: Sequence[str], context: Tensor, schedule: Schedule) -> None:
        self.model, self.schedule, self.scale = model, schedule, float(model.module.logit_scale.exp())
        self.context = context.clone().requires_grad_()
        self.optimizer = torch.optim.SGD(
            [self.context], lr=schedule.rate, momentum=schedule.momentum, weight_decay=schedule.weight_decay
        )
        n_context = len(context)
        ids: Tensor = model.tokenizer([f"{' '.join(['x'] * n_context)} {name}." for name in names])
        encoder: Any = model.module.text
        with torch.no_grad():
            embedded = encoder.transformer.embeddings(input_ids=ids)
        self.before, self.behind = embedded[:, :1], embedded[:, 1 + n_context :]
        self.mask = (ids != encoder.config.pad_token_id).long()

    def step(self, epoch: int, pixels: Tensor, labels: Tensor, loss: LossMix) -> float:
        """Take one step, at its epoch's rate; returns the loss before it."""
        self.optimizer.param_groups[0]["lr"] = self.schedule.rate_at(epoch)
        logits, features = self.logits(pixels)
        value = loss(logits, labels, text_features=features)
        self.optimizer.zero_grad()
        torch.autograd.backward(value)
        self.optimizer.step()
        return value.item()

    def evaluate(self, batches: Sequence[Tensor]) -> Tensor:
        """Return the logits of batches of test images, (n, K)."""
        with torch.no_grad():
            return torch.cat([self.logits(pixels)[0] for pixels in batches])

    def logits(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (B, K) and unit text features (K, D): both encoders run, whatever has run before."""
        features = functional.normalize(self._text_features(), dim=1)
        units = functional.normalize(self.model.module.encode_image(pixels), dim=1)
        return self.scale * units @ features.T, features

    def _text_features(self) -> Tensor:
        encoder: Any = self.model.module.text
        context = self.context.expand(len(self.before), -1, -1)
        prompts = torch.cat([self.before, context, self.behind], dim=1)
        out = encoder.transformer(inputs_embeds=prompts, attention_mask=self.mask)
        return encoder.proj(encoder.pooler(out, self.mask))  # type: ignore[no-any-return]
