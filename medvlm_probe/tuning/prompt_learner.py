"""What prompt tuning learns: context vectors beside the labels' texts, and how they begin."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from medvlm_probe.errors import InputError, unknown_name
from medvlm_probe.zero_shot.spliced_prompts import NamePlace, prompt_tokens, word_vectors

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from medvlm_probe.models.contract import PromptTokens, VisionLanguageModel
    from medvlm_probe.zero_shot.prompts import PromptSet

ContextFor = Literal["all", "side", "text"]

CONTEXTS_FOR: dict[ContextFor, str] = {
    "all": "one context for all texts",
    "side": "one for the texts of presence, one for those of absence (several labels alone)",
    "text": "one for each text (class-specific)",
}
"""Which texts share context vectors."""

MOST_CONTEXT = 64
DEVIATION = 0.02
"""Of the normal distribution that random context vectors begin from, as in CoOp and CalibPrompt."""


@dataclass(frozen=True)
class ContextSettings:
    """What the context vectors are.

    Attributes:
        n_context: how many, 1 to 64; with `words` None takes as many as the words have tokens.
        context_for: of `CONTEXTS_FOR`.
        place: where the name stands, of `NAME_PLACES`.
        words: what they begin as, such as "a chest radiograph of"; "" begins at random.
        legacy: embed BERT's words twice, as the released code does.
    """

    n_context: int | None = None
    context_for: ContextFor = "all"
    place: NamePlace = "end"
    words: str = ""
    legacy: bool = False

    def __post_init__(self) -> None:
        if self.context_for not in CONTEXTS_FOR:
            raise unknown_name("sharing of contexts", self.context_for, CONTEXTS_FOR)
        if self.n_context is not None and not 1 <= self.n_context <= MOST_CONTEXT:
            raise InputError(f"{self.n_context} context vectors: expected 1 to {MOST_CONTEXT}.")


@dataclass(frozen=True, eq=False)
class PromptLearner:
    """A model's texts with room for context vectors; it holds nothing that changes in training.

    Texts are ordered as `TunedPrompts` has them: each label's positive text, then, for several labels, each negative.

    Attributes:
        model: encodes the prompts.
        tokens: the texts, embedded, with room for `n_context` vectors.
        context_of: (K,) which context each text takes.
        positive, negative: the texts; `negative` is empty where exactly one label is right.
        beginning: (n, C) the words' token embeddings; None begins at random.
        place, legacy: as in `ContextSettings`.
    """

    model: VisionLanguageModel
    tokens: PromptTokens
    context_of: tuple[int, ...]
    positive: tuple[str, ...]
    negative: tuple[str, ...]
    beginning: Tensor | None
    place: NamePlace
    legacy: bool

    @property
    def n_contexts(self) -> int:
        """G, how many contexts there are."""
        return max(self.context_of) + 1

    @property
    def shape(self) -> tuple[int, int, int]:
        """(G, n, C), the shape of what is learned."""
        return self.n_contexts, self.tokens.n_context, self.tokens.width

    def start(self, seed: int) -> Tensor:
        """Return the context vectors that a training of this seed begins from, (G, n, C) float32 on the CPU."""
        import torch

        if self.beginning is not None:
            return self.beginning.detach().float().cpu().expand(self.shape).clone()
        drawn: NDArray[np.float64] = np.random.default_rng([seed, 0]).normal(0.0, DEVIATION, size=self.shape)
        return torch.from_numpy(drawn.astype(np.float32))

    def features(self, contexts: Tensor) -> Tensor:
        """Return unit text features of several contexts at once; gradients flow to the context vectors.

        Args:
            contexts: (R, G, n, C), of R runs.

        Returns:
            (R, K, D) where exactly one label is right, K being the labels; else (R, L, 2, D), a label's negative text
            first.
        """
        import torch
        from torch.nn import functional

        n_runs, n_texts = len(contexts), len(self.context_of)
        tokens = self.tokens
        if n_runs > 1:
            tokens = replace(
                tokens,
                embeddings=tokens.embeddings.repeat(n_runs, 1, 1),
                lengths=tokens.lengths.repeat(n_runs),
                pooled_at=tokens.pooled_at.repeat(n_runs),
                rest_at=None if tokens.rest_at is None else tokens.rest_at.repeat(n_runs),
            )
        of_texts = contexts[:, list(self.context_of)].flatten(0, 1)
        features = functional.normalize(self.model.encode_prompts(tokens.with_context(of_texts)), dim=1)
        features = features.reshape(n_runs, n_texts, -1)
        if not self.negative:
            return features
        n_labels = len(self.positive)
        return torch.stack([features[:, n_labels:], features[:, :n_labels]], dim=2)


def prompt_learner(
    model: VisionLanguageModel, prompts: PromptSet, settings: ContextSettings, *, single_label: bool
) -> PromptLearner:
    """Return the learner of a prompt set's labels; of each label's texts the first stands beside the context.

    Args:
        model: any model of the contract.
        prompts: of exactly the labels to tune. Names get a full stop, sentences keep theirs.
        settings: what the context vectors are.
        single_label: exactly one label is right an image, so that texts for absence have no use.

    Raises:
        InputError: several labels without texts for absence, or words whose tokens are not `n_context`.
        ModelError: a text and its context are longer than the model's context; none is cut.
    """
    if not single_label and not prompts.has_negatives:
        raise InputError(
            f"Prompt set '{prompts.name}' has no texts for absence, which several labels need. Take --prompts "
            "chexzero, or a file with positive and negative texts for each label ('prompts show' prints one)."
        )
    positive = tuple(_stopped(prompts.labels[label].positive[0]) for label in prompts.labels)
    negative = tuple(_stopped(prompts.labels[label].negative[0]) for label in prompts.labels if not single_label)
    beginning = word_vectors(model, settings.words) if settings.words else None
    n_context = settings.n_context or (16 if beginning is None else len(beginning))
    if beginning is not None and len(beginning) != n_context:
        raise InputError(
            f"'{settings.words}' has {len(beginning)} tokens for {n_context} context vectors. Leave their number out, "
            "or give other words."
        )
    tokens = prompt_tokens(model, positive + negative, n_context, place=settings.place, legacy=settings.legacy)
    context_of = _context_of(settings.context_for, len(positive), len(negative))
    return PromptLearner(model, tokens, context_of, positive, negative, beginning, settings.place, settings.legacy)


def _context_of(context_for: ContextFor, n_positive: int, n_negative: int) -> tuple[int, ...]:
    if context_for == "text":
        return tuple(range(n_positive + n_negative))
    if context_for == "side":
        if not n_negative:
            raise InputError("Exactly one label is right an image, so there are no sides. Share the context otherwise.")
        return (0,) * n_positive + (1,) * n_negative
    return (0,) * (n_positive + n_negative)


def _stopped(text: str) -> str:
    """Return a text that ends in a full stop."""
    bare = text.strip()
    return bare if bare.endswith((".", "!", "?")) else f"{bare}."
