"""Text prompts through a model, once: embeddings cached by the model's fingerprint and the text itself."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.errors import InputError
from medvlm_probe.models.contract import VisionLanguageModel
from medvlm_probe.runs import cache_dir as default_cache_dir
from medvlm_probe.runs import sha256_json, write_bytes_atomically
from medvlm_probe.zero_shot.prompts import PromptSet

LAYOUT = "texts/v1"


@dataclass(frozen=True, eq=False)
class LabelDirections:
    """Unit vectors that stand for each label's presence, (L, D), and absence, (L, D) or None."""

    labels: tuple[str, ...]
    positive: NDArray[np.float32]
    negative: NDArray[np.float32] | None


def label_directions(
    model: VisionLanguageModel, prompts: PromptSet, *, cache_dir: Path | None = None
) -> LabelDirections:
    """Return the mean direction of each label's prompts: unit vectors averaged and normalised again.

    Raises:
        InputError: some labels have negative prompts and others have none.
        ModelError: a prompt is longer than the model's context; none is cut.

    Source: prompt ensembling in embedding space, Radford et al. 2021, section 3.1.4.
    """
    sides = [[prompts.labels[label].positive for label in prompts.labels]]
    negatives = [prompts.labels[label].negative for label in prompts.labels]
    if any(negatives):
        if not all(negatives):
            without = [label for label, texts in zip(prompts.labels, negatives, strict=True) if not texts]
            raise InputError(f"Prompt set '{prompts.name}' has no negative prompts for {', '.join(without)}.")
        sides.append(negatives)
    texts = list(dict.fromkeys(text for side in sides for group in side for text in group))
    vectors = dict(zip(texts, unit_rows(embed_texts(model, texts, cache_dir=cache_dir)), strict=True))
    means = [unit_rows(np.stack([np.mean([vectors[t] for t in group], axis=0) for group in side])) for side in sides]
    return LabelDirections(tuple(prompts.labels), means[0], means[1] if len(means) > 1 else None)


def embed_texts(
    model: VisionLanguageModel, texts: Sequence[str], *, cache_dir: Path | None = None
) -> NDArray[np.float32]:
    """Return (K, D) float32 embeddings of texts, not normalised; those in the cache are not computed again.

    A text's file is named by a hash over the model's fingerprint and the text, so nothing can go stale and no text
    shows in a file's name.

    Raises:
        ModelError: a text is longer than the model's context.
    """
    import torch

    folder = (cache_dir or default_cache_dir()) / "texts" / sha256_json([LAYOUT, model.fingerprint])[:24]
    paths = [folder / f"{hashlib.sha256(text.encode()).hexdigest()}.npy" for text in texts]
    found = {path: vector for path in paths if (vector := _read(path, model.embedding_dim)) is not None}
    missing = [i for i, path in enumerate(paths) if path not in found]
    if missing:
        with torch.inference_mode():
            computed = model.encode_texts([texts[i] for i in missing]).float().cpu().numpy()
        for i, vector in zip(missing, computed, strict=True):
            buffer = io.BytesIO()
            np.save(buffer, vector, allow_pickle=False)
            write_bytes_atomically(paths[i], buffer.getvalue())
            found[paths[i]] = vector
    return np.stack([found[path] for path in paths])


def unit_rows(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return rows scaled to length 1; raises InputError for a zero row, which has no direction."""
    lengths = np.linalg.norm(np.asarray(vectors, dtype=np.float64), axis=1, keepdims=True)
    if not (lengths > 0).all():
        raise InputError("An embedding is zero and has no direction.")
    return np.asarray(vectors / lengths, dtype=np.float32)


def _read(path: Path, embedding_dim: int) -> NDArray[np.float32] | None:
    try:
        vector = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return vector if vector.shape == (embedding_dim,) and np.isfinite(vector).all() else None
