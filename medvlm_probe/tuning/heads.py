"""A linear head: a logit per label from an embedding, and the two files that it lies in.

`head.json` says what the head is and carries the sha256 of `head.safetensors`, which has `weight` and `bias`. It is
written last, so a head is on disk whole or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save
from scipy import special

from medvlm_probe.errors import InputError, ModelError
from medvlm_probe.metrics.pairwise import Space
from medvlm_probe.runs import parse_json, write_bytes_atomically
from medvlm_probe.types import FloatArray, Scores

FORMAT = "medvlm-probe head/v1"
TENSORS_FILE, FACTS_FILE = "head.safetensors", "head.json"


HeadKind = Literal["linear_probe", "linear_probe_legacy", "fine_tune", "fine_tune_legacy"]


@dataclass(frozen=True, eq=False)
class LinearHead:
    """`logit = weight . v + bias`, v being the embedding as the model gives it (raw), or divided by its length (l2).

    Attributes:
        labels: L names, snake_case.
        weight: (L, D) float64.
        bias: (L,) float64.
        space: which vectors the weights are for.
        kind: how it was fitted.
        model_fingerprint: of the model whose embeddings it takes.
        about: what else a reader should know, for JSON: training rows, strengths, settings.
    """

    labels: tuple[str, ...]
    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    space: Space
    kind: HeadKind
    model_fingerprint: str = ""
    about: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n_labels = len(self.labels)
        if self.weight.ndim != 2 or len(self.weight) != n_labels or self.bias.shape != (n_labels,):
            raise InputError(
                f"A head for {n_labels} labels needs weights (L, D) and biases (L,); got {self.weight.shape} and "
                f"{self.bias.shape}."
            )

    def logits(self, embeddings: FloatArray) -> NDArray[np.float64]:
        """Return logits (n, L), larger for more likely present, of embeddings (n, D) as the model gives them.

        Raises:
            InputError: embeddings of another size.
        """
        if embeddings.ndim != 2 or embeddings.shape[1] != self.weight.shape[1]:
            raise InputError(
                f"Embeddings of shape {embeddings.shape} given; this head takes (n, {self.weight.shape[1]})."
            )
        return in_space(embeddings, self.space) @ self.weight.T + self.bias

    def probabilities(self, embeddings: FloatArray) -> NDArray[np.float64]:
        """Return the logistic function of the logits, (n, L), in (0, 1)."""
        return np.asarray(special.expit(self.logits(embeddings)), dtype=np.float64)

    def scores(self, embeddings: FloatArray, ids: tuple[str, ...]) -> Scores:
        """Return the logits as scores of images `ids` (n)."""
        return Scores(self.logits(embeddings), "logit", self.labels, ids)


def in_space(embeddings: FloatArray, space: Space) -> NDArray[np.float64]:
    """Return embeddings (n, D) as float64, for `l2` divided by their lengths (a vector of length 0 stays 0)."""
    vectors = np.asarray(embeddings, dtype=np.float64)
    if space == "raw":
        return vectors
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1.0)


def head_files(head: LinearHead) -> dict[str, bytes]:
    """Return the content of the two files by name, tensors first."""
    tensors = save({"weight": np.ascontiguousarray(head.weight), "bias": np.ascontiguousarray(head.bias)})
    facts = {
        "format": FORMAT,
        "kind": head.kind,
        "labels": list(head.labels),
        "space": head.space,
        "embedding_dim": head.weight.shape[1],
        "model_fingerprint": head.model_fingerprint,
        "tensors_sha256": sha256(tensors).hexdigest(),
        "about": dict(head.about),
    }
    text = json.dumps(facts, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return {TENSORS_FILE: tensors, FACTS_FILE: text.encode()}


def write_head(folder: Path, head: LinearHead) -> list[Path]:
    """Write a head into a folder; returns its files. Raises StoreError."""
    for name, content in head_files(head).items():
        write_bytes_atomically(folder / name, content)
    return [folder / FACTS_FILE, folder / TENSORS_FILE]


def read_head(folder: Path) -> LinearHead:
    """Return the head in a folder.

    Raises:
        ModelError: a file is missing or damaged, or the two do not belong together.
    """
    facts_path, tensors_path = folder / FACTS_FILE, folder / TENSORS_FILE
    try:
        facts = parse_json(facts_path.read_text(encoding="utf-8"))
        content = tensors_path.read_bytes()
        if (
            facts["format"] != FORMAT
            or facts["kind"] not in get_args(HeadKind)
            or facts["space"] not in get_args(Space)
        ):
            raise ValueError(f"format {facts['format']}, kind {facts['kind']}, space {facts['space']}")
        if sha256(content).hexdigest() != facts["tensors_sha256"]:
            raise ValueError(f"{TENSORS_FILE} is not the one that {FACTS_FILE} was written with")
        tensors = load(content)
        return LinearHead(
            labels=tuple(facts["labels"]),
            weight=tensors["weight"],
            bias=tensors["bias"],
            space=facts["space"],
            kind=facts["kind"],
            model_fingerprint=str(facts["model_fingerprint"]),
            about=facts["about"],
        )
    except (OSError, ValueError, KeyError, TypeError, SafetensorError, InputError) as error:
        raise ModelError(
            f"{folder} holds no whole head ({FACTS_FILE} and {TENSORS_FILE}): {error}. Make it again: medvlm-probe "
            "linear-probe or fine-tune."
        ) from error
