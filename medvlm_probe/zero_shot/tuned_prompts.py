"""Tuned prompts: context vectors learned for a model's labels, the folder that they lie in, and their directions.

A folder holds `prompts.safetensors` (the context vectors), `prompts.json` (what they belong to, with the sha256 of the
former) and `prompt_card.md` for people. The JSON is written last, so prompts are on disk whole or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.errors import InputError, ModelError
from medvlm_probe.runs import parse_json, write_bytes_atomically
from medvlm_probe.zero_shot.spliced_prompts import NAME_PLACES, NamePlace, prompt_tokens

if TYPE_CHECKING:
    from medvlm_probe.models.contract import VisionLanguageModel

FORMAT = "medvlm-probe tuned prompts/v1"
TENSORS_FILE, FACTS_FILE, CARD_FILE = "prompts.safetensors", "prompts.json", "prompt_card.md"
LARGEST_FACTS = 16 << 20


@dataclass(frozen=True, eq=False)
class TunedPrompts:
    """Context vectors and the texts that they stand beside.

    Attributes:
        labels: L names, snake_case.
        positive: each label's text, L of them.
        negative: each label's text for its absence, L of them, or none where exactly one label is right.
        context: (G, n, C) float32: G contexts of n vectors.
        context_of: which context each text takes, positives first.
        place: where a text's name stands beside the context.
        model_name, model_fingerprint: the model that they were tuned for. The fingerprint does not cover the precision
            that a model runs in, so any will do.
        logit_scale: the multiplier of cosines that they were tuned at.
        legacy: the released code's double embedding.
        about: what else a reader should know, for JSON: loss, shots, seed, hashes of the training images.
    """

    labels: tuple[str, ...]
    positive: tuple[str, ...]
    negative: tuple[str, ...]
    context: NDArray[np.float32]
    context_of: tuple[int, ...]
    place: NamePlace
    model_name: str
    model_fingerprint: str
    logit_scale: float
    legacy: bool = False
    about: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n_texts = len(self.positive) + len(self.negative)
        fits = len(self.positive) == len(self.labels) and len(self.negative) in (0, len(self.labels))
        if not fits or len(self.context_of) != n_texts or self.context.ndim != 3 or self.place not in NAME_PLACES:
            raise InputError(
                f"Tuned prompts of {len(self.labels)} labels, {n_texts} texts, contexts {self.context.shape} and place "
                f"'{self.place}' do not fit together."
            )
        if not all(0 <= number < len(self.context) for number in self.context_of):
            raise InputError(f"A text takes a context outside 0 to {len(self.context) - 1}.")

    @property
    def texts(self) -> tuple[str, ...]:
        """All texts, positives first."""
        return self.positive + self.negative

    @property
    def training_images(self) -> frozenset[str]:
        """The sha256 of every image that training or the choice of an epoch used."""
        return frozenset(self.about.get("training_images", ()))


def tuned_embeddings(model: VisionLanguageModel, tuned: TunedPrompts) -> NDArray[np.float32]:
    """Return the embeddings of all texts with their context, positives first, (K, D), not normalised.

    All are encoded together, as they were in training: some towers average in the padding up to the longest of a call.

    Raises:
        ModelError: the prompts were tuned for another model.
    """
    import torch

    if model.fingerprint != tuned.model_fingerprint:
        raise ModelError(
            f"These prompts were tuned for {tuned.model_name} ({tuned.model_fingerprint[:12]}...), and mean nothing to "
            f"{model.name} ({model.fingerprint[:12]}...). Give that model, or tune again."
        )
    n_context = tuned.context.shape[1]
    tokens = prompt_tokens(model, tuned.texts, n_context, place=tuned.place, legacy=tuned.legacy)
    with torch.inference_mode():
        context = torch.from_numpy(tuned.context)[list(tuned.context_of)]
        return model.encode_prompts(tokens.with_context(context)).float().cpu().numpy()


def tuned_files(tuned: TunedPrompts, card: str) -> dict[str, bytes]:
    """Return the content of the folder's files by name, in the order of writing."""
    from safetensors.numpy import save

    tensors = save({"context": np.ascontiguousarray(tuned.context, dtype=np.float32)})
    facts = {
        "format": FORMAT,
        "labels": list(tuned.labels),
        "positive": list(tuned.positive),
        "negative": list(tuned.negative),
        "context_of": list(tuned.context_of),
        "place": tuned.place,
        "model": tuned.model_name,
        "model_fingerprint": tuned.model_fingerprint,
        "logit_scale": tuned.logit_scale,
        "legacy": tuned.legacy,
        "tensors_sha256": sha256(tensors).hexdigest(),
        "about": dict(tuned.about),
    }
    text = json.dumps(facts, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return {TENSORS_FILE: tensors, CARD_FILE: card.encode(), FACTS_FILE: text.encode()}


def write_tuned_prompts(folder: Path, tuned: TunedPrompts, card: str) -> list[Path]:
    """Write tuned prompts into a folder; returns its files. Raises StoreError."""
    files = tuned_files(tuned, card)
    for name, content in files.items():
        write_bytes_atomically(folder / name, content)
    return [folder / name for name in files]


def read_tuned_prompts(folder: Path) -> TunedPrompts:
    """Return the tuned prompts in a folder.

    Raises:
        InputError: there is no such folder, or it holds several.
        ModelError: a file is missing or damaged, or the two do not belong together.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    facts_path, tensors_path = folder / FACTS_FILE, folder / TENSORS_FILE
    if not facts_path.is_file():
        inside = sorted(path.parent.relative_to(folder).as_posix() for path in folder.glob(f"**/{FACTS_FILE}"))
        hint = f"It holds several; name one: {', '.join(inside[:4])}." if inside else "Make some: medvlm-probe tune."
        raise InputError(f"'{folder}' is no folder of tuned prompts. {hint}")
    try:
        if facts_path.stat().st_size > LARGEST_FACTS:
            raise ValueError(f"{FACTS_FILE} is larger than {LARGEST_FACTS:,} bytes")
        facts = parse_json(facts_path.read_text(encoding="utf-8"))
        if facts["format"] != FORMAT:
            raise ValueError(f"format {facts['format']}")
        content = tensors_path.read_bytes()
        if sha256(content).hexdigest() != facts["tensors_sha256"]:
            raise ValueError(f"{TENSORS_FILE} is not the one that {FACTS_FILE} was written with")
        return TunedPrompts(
            labels=_texts(facts["labels"]),
            positive=_texts(facts["positive"]),
            negative=_texts(facts["negative"]),
            context=np.asarray(load(content)["context"], dtype=np.float32),
            context_of=tuple(int(number) for number in facts["context_of"]),
            place=facts["place"],
            model_name=str(facts["model"]),
            model_fingerprint=str(facts["model_fingerprint"]),
            logit_scale=float(facts["logit_scale"]),
            legacy=bool(facts["legacy"]),
            about=dict(facts["about"]),
        )
    except (OSError, ValueError, KeyError, TypeError, SafetensorError, InputError) as error:
        raise ModelError(
            f"{folder} holds no whole tuned prompts ({FACTS_FILE} and {TENSORS_FILE}): {error}. Make them again: "
            "medvlm-probe tune."
        ) from error


def _texts(values: Sequence[Any]) -> tuple[str, ...]:
    if not all(isinstance(value, str) for value in values):
        raise ValueError("a label or text is no string")
    return tuple(values)
