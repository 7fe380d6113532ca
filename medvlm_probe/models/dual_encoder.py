"""The contract on two towers and a Hugging Face tokenizer: shared by the CLIP and MedCLIP families."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from medvlm_probe.errors import ModelError
from medvlm_probe.models.contract import PromptTokens, SaliencyLayer

if TYPE_CHECKING:
    import PIL.Image

TEXTS_PER_BATCH = 64


class SplicedTextTower(Protocol):
    """A text tower between token embeddings and the text's embedding."""

    @property
    def reads_padding(self) -> bool:
        """Whether a text's embedding depends on how far it is padded."""
        ...

    def embed(self, ids: Tensor) -> Tensor:
        """Return (K, T, C) token embeddings of (K, T) token ids, before positions are added."""
        ...

    def pooled_at(self, ids: Tensor) -> Tensor:
        """Return (K,) int64: the token that becomes the text's embedding, -1 where all tokens do."""
        ...

    def forward(self, embeddings: Tensor, mask: Tensor, pooled_at: Tensor) -> Tensor:
        """Return (K, D) from (K, L, C) token embeddings, (K, L) mask and (K,) pooled positions."""
        ...


@dataclass(frozen=True, eq=False)
class DualEncoder:
    """An image and a text tower as a `VisionLanguageModel` (see there for what each member means).

    Besides the contract:

    Attributes:
        module: both towers and their projections (frozen, float32, in evaluation mode), on `device`.
        tokenizer: transformers' tokenizer; it never cuts here.
        transform: from an image to pixels.
        image_tower: from `module` and (N, 3, H, W) pixels to (N, D). It is handed the module, so that a copy of this
            model with a converted module runs that one.
        text_tower: the text tower, open between token embeddings and layers.
        layer: for class activation maps.
        padded_length: tokens (context vectors included) that every text is padded to; None pads to the longest of a
            call. Only towers that read their padding (MedCLIP) care.
    """

    name: str
    fingerprint: str
    embedding_dim: int
    image_size: int
    context_length: int
    logit_scale: float
    module: torch.nn.Module
    device: torch.device
    tokenizer: Any
    transform: Callable[[PIL.Image.Image], Tensor]
    image_tower: Callable[[Any, Tensor], Tensor]
    text_tower: SplicedTextTower
    layer: SaliencyLayer
    padded_length: int | None = None

    def preprocess(self, image: PIL.Image.Image) -> Tensor:
        """Return an "L" or "RGB" image as (3, image_size, image_size) float32, as the family's own processor does."""
        return self.transform(image)

    def encode_images(self, pixels: Tensor) -> Tensor:
        """Return (N, D) float32 embeddings, not normalised, of (N, 3, H, W) pixels (moved to the model's device).

        Raises:
            ModelError: the pixels have another shape.
        """
        expected = (3, self.image_size, self.image_size)
        if pixels.ndim != 4 or tuple(pixels.shape[1:]) != expected:
            raise ModelError(f"Pixels of shape {tuple(pixels.shape)} given; {self.name} takes (N, *{expected}).")
        return self.image_tower(self.module, pixels.to(self.device, non_blocking=True)).float()

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Return (K, D) float32 embeddings, not normalised.

        Raises:
            ModelError: a text is longer than the context.
        """
        ids, lengths = self._token_ids(texts, n_context=0)
        blocks = zip(torch.split(ids, TEXTS_PER_BATCH), torch.split(lengths, TEXTS_PER_BATCH), strict=True)
        return torch.cat([self.encode_prompts(self._tokens(*block, 0)) for block in blocks])

    def embed_tokens(self, texts: Sequence[str], n_context: int) -> PromptTokens:
        """Return the texts' word embeddings (constants) with room for `n_context` context vectors.

        Raises:
            ModelError: a text and the context together are longer than the model's context length.
        """
        with torch.no_grad():
            return self._tokens(*self._token_ids(texts, n_context), n_context)

    def encode_prompts(self, prompts: PromptTokens) -> Tensor:
        """Return (K, D) float32 embeddings, not normalised; gradients flow to the context vectors.

        Raises:
            ModelError: the context is not set.
        """
        mask, pooled_at = prompts.spliced_mask(), prompts.spliced_pooled_at()
        return self.text_tower.forward(prompts.spliced(), mask, pooled_at).float()

    @property
    def texts_feel_each_other(self) -> bool:
        """Whether a text's embedding depends on the other texts of a call, through the length they are padded to."""
        return self.text_tower.reads_padding and self.padded_length is None

    def saliency_layer(self) -> SaliencyLayer:
        """Return the layer for class activation maps."""
        return self.layer

    def _token_ids(self, texts: Sequence[str], n_context: int) -> tuple[Tensor, Tensor]:
        """Return (K, T) padded token ids and (K,) lengths before padding."""
        if isinstance(texts, str) or not texts:
            raise ModelError(f"Expected a list of at least one text, got {texts!r}.")
        if n_context < 0:
            raise ModelError(f"n_context is {n_context}; expected 0 or more.")
        rows = self.tokenizer(list(texts), truncation=False, padding=False, verbose=False).input_ids
        for text, row in zip(texts, rows, strict=True):
            if len(row) + n_context > self.context_length:
                context = f" and {n_context} context vectors" if n_context else ""
                raise ModelError(
                    f"Text '{text[:60]}' has {len(row)} tokens{context}; {self.name} takes {self.context_length} "
                    "in all and no text is cut. Shorten it."
                )
        width = max(map(len, rows)) if self.padded_length is None else self.padded_length - n_context
        padded = [row + [self.tokenizer.pad_token_id] * (width - len(row)) for row in rows]
        return torch.tensor(padded, device=self.device), torch.tensor([len(row) for row in rows], device=self.device)

    def _tokens(self, ids: Tensor, lengths: Tensor, n_context: int) -> PromptTokens:
        return PromptTokens(
            embeddings=self.text_tower.embed(ids),
            lengths=lengths,
            pooled_at=self.text_tower.pooled_at(ids),
            n_context=n_context,
        )
