"""Prompts with room for context vectors: before a text's name, after it, or on both sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from medvlm_probe.errors import ModelError, unknown_name

if TYPE_CHECKING:
    from torch import Tensor

    from medvlm_probe.models.contract import PromptTokens, VisionLanguageModel

NamePlace = Literal["end", "middle", "front"]

NAME_PLACES: dict[NamePlace, str] = {
    "end": "context, name, full stop",
    "middle": "half of the context, name, the other half, full stop",
    "front": "name, context, full stop",
}
"""Where a text's name stands beside the context (CoOp, Zhou et al. 2022). The name is the text less its full stop."""


def prompt_tokens(
    model: VisionLanguageModel, texts: Sequence[str], n_context: int, *, place: NamePlace = "end", legacy: bool = False
) -> PromptTokens:
    """Return texts as token embeddings with room for context vectors, padded as far as the tower needs.

    Args:
        model: embeds the tokens.
        texts: a name each, with or without a full stop.
        n_context: how many context vectors each text gets.
        place: of `NAME_PLACES`.
        legacy: embed BERT's words twice as CalibPrompt's code does, see `embedded_twice`. Other towers have no such
            fault, and give the same prompts either way.

    Raises:
        ModelError: a text and its context are longer than the model's context (none is cut), or the tower does not tell
            where a name ends.
        UnknownNameError: another place.
    """
    if place not in NAME_PLACES:
        raise unknown_name("place of the name", place, NAME_PLACES)
    tokens = model.embed_tokens(texts, n_context)
    if place != "end":
        n_before = 0 if place == "front" else n_context // 2
        tokens = replace(tokens, n_before=n_before, rest_at=tokens.position + _name_lengths(model, texts, tokens))
    return embedded_twice(model, tokens) if legacy else tokens


def embedded_twice(model: VisionLanguageModel, tokens: PromptTokens) -> PromptTokens:
    """Return a BERT tower's tokens with positions, types and normalisation in them already; the tower adds them again.

    CalibPrompt's BiomedCLIP trainer passes whole embeddings where word embeddings belong; its context vectors are
    treated once. Towers other than Hugging Face's BERT in open_clip come back as they are: the code has no such fault
    there.
    """
    import torch

    encoder: Any = getattr(getattr(model, "tower", None), "encoder", None)
    if getattr(getattr(encoder, "config", None), "model_type", None) != "bert":
        return tokens
    own = torch.arange(tokens.embeddings.shape[1], device=tokens.lengths.device)
    behind = (tokens.places().unsqueeze(1) <= own.unsqueeze(1)).sum(dim=2)
    with torch.no_grad():
        embed = encoder.transformer.embeddings
        return replace(tokens, embeddings=embed(inputs_embeds=tokens.embeddings, position_ids=own + behind))


def word_vectors(model: VisionLanguageModel, words: str) -> Tensor:
    """Return the token embeddings of words without start and end tokens, (n, C), to begin a context with.

    Raises:
        ModelError: there are no words, they are longer than the model's context, or the tower does not tell where they
            end.
    """
    tokens = model.embed_tokens([words], 0)
    n_words = int(tokens.lengths[0]) - _special_tokens(model)
    if n_words < 1 or tokens.position + n_words > tokens.embeddings.shape[1]:
        raise ModelError(f"'{words}' has no tokens that {model.name} tells apart from padding. Give other words.")
    return tokens.embeddings[0, tokens.position : tokens.position + n_words]


def _name_lengths(model: VisionLanguageModel, texts: Sequence[str], tokens: PromptTokens) -> Tensor:
    """Return how many tokens each text's name has, (K,)."""
    named = model.embed_tokens([text.rstrip().removesuffix(".") for text in texts], 0)
    lengths = named.lengths - _special_tokens(model)
    start = tokens.position
    for text, length, whole, name in zip(texts, lengths.tolist(), tokens.embeddings, named.embeddings, strict=True):
        end = start + length
        if length < 1 or not whole[start:end].equal(name[start:end]):
            raise ModelError(
                f"{model.name} does not tell where the name in '{text[:60]}' ends. Put the name at the end."
            )
    return lengths


def _special_tokens(model: VisionLanguageModel) -> int:
    """Return how many tokens of every text are neither words nor padding."""
    return int(model.embed_tokens([""], 0).lengths[0])
