"""What every vision-language model offers to the rest of the toolkit, whatever its family."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from medvlm_probe.errors import ModelError

if TYPE_CHECKING:
    import PIL.Image
    import torch
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class PromptTokens:
    """K texts as token embeddings, with room for a prompt learner's context vectors.

    A model makes these (`embed_tokens`), a learner sets the context (`with_context`), the model encodes the whole
    (`encode_prompts`). A spliced row reads `tokens[:position] + context + tokens[position:]`: the start token, the
    context, the text, the end token, the padding (CoOp, Zhou et al. 2022, with the class name at the end). With
    `rest_at`, only the first `n_before` context vectors stand there, and the others further on, as after the name.

    Attributes:
        embeddings: (K, T, C) float32 token embeddings without the context: start token, text, end token, padding. They
            are what the text tower's first layer takes before positions, token types and normalisation are added.
        lengths: (K,) int64, tokens of each text that are no padding (start and end tokens included), at most T.
        pooled_at: (K,) int64, index within T of the token whose output is the text's embedding; -1 where the tower's
            own pooler decides (it sees the mask).
        n_context: how many context vectors are spliced in; T + n_context never exceeds the model's context length.
        position: index within T before which the context goes.
        context: (n_context, C), one for all texts, or (K, n_context, C), one per text; None until it is set.
        n_before: how many context vectors go before `position`, where `rest_at` is set.
        rest_at: (K,) int64, index within T before which the other context vectors go; None: all go before `position`.
    """

    embeddings: Tensor
    lengths: Tensor
    pooled_at: Tensor
    n_context: int
    position: int = 1
    context: Tensor | None = None
    n_before: int = 0
    rest_at: Tensor | None = None

    @property
    def width(self) -> int:
        """C, the size of one token embedding and of one context vector."""
        return int(self.embeddings.shape[-1])

    def with_context(self, context: Tensor) -> PromptTokens:
        """Return the same texts with these context vectors, of shape (n_context, C) or (K, n_context, C).

        Raises:
            ModelError: the shape is another one.
        """
        shared = (self.n_context, self.width)
        own = (self.embeddings.shape[0], *shared)
        if tuple(context.shape) not in (shared, own):
            raise ModelError(f"Context vectors of shape {tuple(context.shape)} given; expected {shared} or {own}.")
        return replace(self, context=context)

    def spliced(self) -> Tensor:
        """Return (K, T + n_context, C): the token embeddings with the context in place. Gradients flow to the context.

        Raises:
            ModelError: room was made for context vectors, but none are set.
        """
        if self.n_context == 0:
            return self.embeddings
        if self.context is None:
            raise ModelError(f"These prompts have room for {self.n_context} context vectors; set them: with_context().")
        import torch

        n_texts, n_tokens = self.embeddings.shape[:2]
        context = self.context.to(self.embeddings.device, self.embeddings.dtype).expand(n_texts, -1, -1)
        # A context vector that goes before token t sorts between tokens t - 1 and t; equals keep their order.
        tokens_at = 2 * torch.arange(n_tokens, device=context.device).expand(n_texts, -1) + 1
        order = torch.cat([tokens_at, 2 * self.places()], dim=1).argsort(dim=1, stable=True)
        both = torch.cat([self.embeddings, context], dim=1)
        return both.gather(1, order.unsqueeze(-1).expand(-1, -1, self.width))

    def places(self) -> Tensor:
        """Return (K, n_context) int64: the index within T before which each context vector goes, never falling."""
        import torch

        shape = (self.embeddings.shape[0], self.n_context)
        first = torch.full(shape, self.position, device=self.lengths.device)
        if self.rest_at is None:
            return first
        before = torch.arange(self.n_context, device=self.lengths.device) < self.n_before
        return torch.where(before, first, self.rest_at.unsqueeze(1))

    def spliced_mask(self) -> Tensor:
        """Return (K, T + n_context) bool: True at the tokens that are no padding."""
        import torch

        total = self.embeddings.shape[1] + self.n_context
        return torch.arange(total, device=self.lengths.device) < (self.lengths + self.n_context).unsqueeze(1)

    def spliced_pooled_at(self) -> Tensor:
        """Return (K,) int64: `pooled_at` within the spliced rows (-1 stays -1)."""
        return self.pooled_at + (self.places() <= self.pooled_at.unsqueeze(1)).sum(dim=1)


@dataclass(frozen=True, eq=False)
class SaliencyLayer:
    """Where a class activation map is taken in the image tower.

    Attributes:
        module: the layer whose output (and whose output's gradient) is recorded.
        to_maps: turns such an output (or gradient), of a batch of N, into maps (N, D, h, w); tokens without a place in
            the image (class token, registers) are dropped.
        name: the layer's path within the model's module, for tables.
    """

    module: torch.nn.Module
    to_maps: Callable[[Tensor], Tensor]
    name: str


@runtime_checkable
class VisionLanguageModel(Protocol):
    """An image and a text encoder with one shared space.

    Models come frozen (no parameter requires a gradient) and in evaluation mode. Gradients flow to whatever input
    requires them (context vectors, pixels); wrap calls in `torch.inference_mode()` where none is wanted.
    """

    @property
    def name(self) -> str:
        """What the model is called in tables; never a path."""
        ...

    @property
    def fingerprint(self) -> str:
        """SHA-256 in hex over configuration, weights, tokenizer and image transform."""
        ...

    @property
    def embedding_dim(self) -> int:
        """D, the shared space's size."""
        ...

    @property
    def image_size(self) -> int:
        """Side of the square image that the image tower takes, in pixels."""
        ...

    @property
    def context_length(self) -> int:
        """Most tokens that the text tower takes, start and end tokens included."""
        ...

    @property
    def logit_scale(self) -> float:
        """The multiplier of cosine similarities itself, not its logarithm."""
        ...

    def preprocess(self, image: PIL.Image.Image) -> Tensor:
        """Return an 8-bit grey ("L") or RGB image as a (3, image_size, image_size) float32 tensor on the CPU."""
        ...

    def encode_images(self, pixels: Tensor) -> Tensor:
        """Return (N, D) float32 embeddings, not normalised, of (N, 3, image_size, image_size) preprocessed pixels.

        Raises:
            ModelError: the pixels have another shape.
        """
        ...

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Return (K, D) float32 embeddings, not normalised, of K texts.

        Raises:
            ModelError: a text is longer than the context; no text is ever cut.
        """
        ...

    def embed_tokens(self, texts: Sequence[str], n_context: int) -> PromptTokens:
        """Return the texts' token embeddings with room for `n_context` context vectors after the start token.

        Raises:
            ModelError: a text and the context together are longer than the model's context length.
        """
        ...

    def encode_prompts(self, prompts: PromptTokens) -> Tensor:
        """Return (K, D) float32 embeddings, not normalised; gradients flow to the context vectors.

        Without context vectors the result equals `encode_texts`.
        """
        ...

    def saliency_layer(self) -> SaliencyLayer:
        """Return the layer for class activation maps.

        Raises:
            ModelError: the image tower has no layer with a known spatial layout.
        """
        ...
