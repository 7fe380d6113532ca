"""open_clip's two kinds of text towers, taken apart between token embeddings and layers so prompts can be spliced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from medvlm_probe.errors import ModelError

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class TextTower(Protocol):
    """A text tower between token embeddings and the text's embedding."""

    @property
    def ignores_padding(self) -> bool:
        """Whether padding at the end can be cut off without changing a text's embedding."""
        ...

    def embed(self, ids: Tensor) -> Tensor:
        """Return (K, T, C) token embeddings of (K, T) token ids."""
        ...

    def lengths(self, ids: Tensor) -> Tensor:
        """Return (K,) int64: how many tokens of each row matter."""
        ...

    def pooled_at(self, ids: Tensor) -> Tensor:
        """Return (K,) int64: the token that becomes the text's embedding, -1 where the pooler decides."""
        ...

    def forward(self, embeddings: Tensor, mask: Tensor, pooled_at: Tensor) -> Tensor:
        """Return (K, D) from (K, L, C) token embeddings, (K, L) mask and (K,) pooled positions."""
        ...


@dataclass(frozen=True, eq=False)
class HuggingFaceTower:
    """A Hugging Face encoder behind open_clip's `HFTextEncoder` (BiomedCLIP).

    Only word embeddings are spliced: the encoder adds positions, token types and normalisation to `inputs_embeds`
    itself, and would do so twice to finished embeddings.
    """

    encoder: Any
    ignores_padding: bool = True

    def embed(self, ids: Tensor) -> Tensor:  # noqa: D102
        return self.encoder.transformer.get_input_embeddings()(ids)  # type: ignore[no-any-return]

    def lengths(self, ids: Tensor) -> Tensor:  # noqa: D102
        return ids.ne(self.encoder.config.pad_token_id).sum(dim=1)

    def pooled_at(self, ids: Tensor) -> Tensor:  # noqa: D102
        return ids.new_full((len(ids),), -1)

    def forward(self, embeddings: Tensor, mask: Tensor, pooled_at: Tensor) -> Tensor:  # noqa: D102
        attention_mask = mask.long()
        out = self.encoder.transformer(inputs_embeds=embeddings, attention_mask=attention_mask)
        return self.encoder.proj(self.encoder.pooler(out, attention_mask))  # type: ignore[no-any-return]


@dataclass(frozen=True, eq=False)
class NativeTower:
    """CLIP's own text transformer: inside open_clip's `CLIP`, or the `TextTransformer` of a `CustomTextCLIP`.

    Under a causal mask nothing after the pooled token can reach it, so padding may be cut; towers that look both ways
    (SigLIP) or pool the last token read their padding, and keep it.
    """

    tower: Any
    pool_type: str
    eos_id: int

    @property
    def ignores_padding(self) -> bool:  # noqa: D102
        return bool(self.tower.attn_mask is not None) and self.pool_type in ("argmax", "eos", "first")

    def embed(self, ids: Tensor) -> Tensor:  # noqa: D102
        return self.tower.token_embedding(ids)  # type: ignore[no-any-return]

    def lengths(self, ids: Tensor) -> Tensor:  # noqa: D102
        if self.pool_type in ("argmax", "eos"):
            return self.pooled_at(ids) + 1
        return ids.new_full((len(ids),), ids.shape[1])

    def pooled_at(self, ids: Tensor) -> Tensor:  # noqa: D102
        if self.pool_type == "argmax":
            return ids.argmax(dim=1)
        if self.pool_type == "eos":
            return ids.eq(self.eos_id).int().argmax(dim=1)
        return ids.new_full((len(ids),), 0 if self.pool_type == "first" else ids.shape[1] - 1)

    def forward(self, embeddings: Tensor, mask: Tensor, pooled_at: Tensor) -> Tensor:  # noqa: D102
        import torch

        tower, length = self.tower, embeddings.shape[1]
        causal = tower.attn_mask if tower.attn_mask is None else tower.attn_mask[:length, :length]
        x = tower.transformer(embeddings + tower.positional_embedding[:length], attn_mask=causal)
        pooled = tower.ln_final(x)[torch.arange(len(x), device=x.device), pooled_at]
        if tower.text_projection is None:
            return pooled  # type: ignore[no-any-return]
        if isinstance(tower.text_projection, torch.nn.Linear):
            return tower.text_projection(pooled)  # type: ignore[no-any-return]
        return pooled @ tower.text_projection  # type: ignore[no-any-return]


def text_tower(module: torch.nn.Module) -> TextTower:
    """Return the text tower of an open_clip model.

    Raises:
        ModelError: it is of a kind that prompts cannot be spliced into (CoCa's, or one without pooling).
    """
    from open_clip.hf_model import HFTextEncoder
    from open_clip.model import CLIP
    from open_clip.transformer import TextTransformer

    if isinstance(module, CLIP):
        return _pooling(NativeTower(module, module.text_pool_type, module.text_eos_id))
    tower = module.text
    if isinstance(tower, HFTextEncoder):
        return HuggingFaceTower(tower)
    if isinstance(tower, TextTransformer) and tower.cls_emb is None:
        return _pooling(NativeTower(tower, tower.pool_type, tower.eos_id))
    raise ModelError(f"Text tower {type(tower).__name__} of {type(module).__name__} is not supported.")


def _pooling(tower: NativeTower) -> NativeTower:
    if tower.pool_type not in ("argmax", "eos", "first", "last"):
        raise ModelError(f"Text pooling '{tower.pool_type}' is not supported: it gives no single embedding per text.")
    return tower


def token_lengths(tokenizer: Any, texts: Sequence[str]) -> list[int]:
    """Return how many tokens each text has before anything is cut, start and end tokens included."""
    from open_clip.tokenizer import SimpleTokenizer

    if isinstance(tokenizer, SimpleTokenizer):
        return [len(tokenizer.encode(text)) + 2 for text in texts]
    cleaned = [tokenizer.clean_fn(text) for text in texts]
    clips = tokenizer.tokenizer_mode == "clips"
    ids = tokenizer.tokenizer(cleaned, add_special_tokens=not clips, truncation=False, verbose=False).input_ids
    return [len(row) + 3 * clips for row in ids]


def start_tokens(tokenizer: Any) -> int:
    """Return how many special tokens begin every text: 1 for CLIP and BERT, 0 for T5-like tokenizers."""
    from open_clip.tokenizer import SimpleTokenizer

    if isinstance(tokenizer, SimpleTokenizer) or tokenizer.tokenizer_mode == "clips":
        return 1
    inner = tokenizer.tokenizer
    return int(inner("a").input_ids[0] in {inner.cls_token_id, inner.bos_token_id} - {None})
