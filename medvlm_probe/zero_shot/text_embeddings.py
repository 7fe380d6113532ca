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
from medvlm_probe.zero_shot.tuned_prompts import TunedPrompts, tuned_embeddings

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
        ModelError: a prompt is longer than the model's context (none is cut), or was tuned for another model.

    Source: prompt ensembling in embedding space, Radford et al. 2021, section 3.1.4.
    """
    if prompts.tuned is not None:
        return _tuned_directions(model, prompts.tuned, tuple(prompts.labels))
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


def _tuned_directions(model: VisionLanguageModel, tuned: TunedPrompts, labels: tuple[str, ...]) -> LabelDirections:
    units = unit_rows(tuned_embeddings(model, tuned))
    rows = [tuned.labels.index(label) for label in labels]
    n_labels = len(tuned.labels)
    return LabelDirections(labels, units[:n_labels][rows], units[n_labels:][rows] if tuned.negative else None)


def embed_texts(
    model: VisionLanguageModel, texts: Sequence[str], *, cache_dir: Path | None = None
) -> NDArray[np.float32]:
    """Return (K, D) float32 embeddings of texts, not normalised; those in the cache are not computed again.

    The cache's folder is named by the model's fingerprint, and a text is found by its hash, so nothing can go stale and
    no text shows in a file's name. What one call computes is one file.

    Raises:
        ModelError: a text is longer than the model's context.
    """
    folder = (cache_dir or default_cache_dir()) / "texts" / sha256_json([LAYOUT, model.fingerprint])[:24]
    keys = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
    found = _cached(folder, model.embedding_dim)
    missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in found}
    if missing:
        vectors = _encoded(model, list(missing.values()))
        buffer = io.BytesIO()
        np.savez(buffer, keys=np.array(list(missing)), vectors=vectors)
        write_bytes_atomically(folder / f"{sha256_json(sorted(missing))[:24]}.npz", buffer.getvalue())
        found |= dict(zip(missing, vectors, strict=True))
    return np.stack([found[key] for key in keys])


def _encoded(model: VisionLanguageModel, texts: Sequence[str]) -> NDArray[np.float32]:
    import torch

    # One by one where a tower averages its padding in: else a text's embedding would depend on its neighbours.
    alone = getattr(model, "texts_feel_each_other", False)
    calls = [[text] for text in texts] if alone else [list(texts)]
    with torch.inference_mode():
        return np.concatenate([model.encode_texts(call).float().cpu().numpy() for call in calls])


def _cached(folder: Path, embedding_dim: int) -> dict[str, NDArray[np.float32]]:
    """Return what the folder's whole files hold; a file that cannot be read is passed over and computed again."""
    found: dict[str, NDArray[np.float32]] = {}
    for path in sorted(folder.glob("*.npz")):
        try:
            with np.load(path, allow_pickle=False) as content:
                keys, vectors = content["keys"], content["vectors"]
        except Exception:  # whatever a damaged file leads numpy and zipfile to
            continue
        if vectors.shape == (len(keys), embedding_dim) and np.isfinite(vectors).all():
            found |= dict(zip(keys.tolist(), vectors, strict=True))
    return found


def unit_rows(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return rows scaled to length 1; raises InputError for a zero row, which has no direction."""
    lengths = np.linalg.norm(np.asarray(vectors, dtype=np.float64), axis=1, keepdims=True)
    if not (lengths > 0).all():
        raise InputError("An embedding is zero and has no direction.")
    return np.asarray(vectors / lengths, dtype=np.float32)
