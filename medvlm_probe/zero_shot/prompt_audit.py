"""What is wrong with a prompt set: texts that do not fit, that read wrongly, or that a model cannot tell apart."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medvlm_probe.errors import ModelError
from medvlm_probe.models.contract import VisionLanguageModel
from medvlm_probe.zero_shot.prompts import PromptSet
from medvlm_probe.zero_shot.text_embeddings import label_directions

NEAR = 0.98
"""Above this cosine two label directions count as hardly different."""

PROBLEMS: dict[str, str] = {
    "too_long": "longer than the model's context; the model refuses it",
    "double_negation": "negates a negation",
    "repeated_word": "a word twice in a row",
    "grammar": "number of verb and noun do not fit",
    "unfilled": "a template's placeholder is left in it",
    "same_text": "stands for more than one label, or for presence and absence",
    "negated_positive": "a prompt for presence that negates",
    "no_negatives": "no prompts for absence, so no logit or probability",
    "near_labels": "two labels whose prompts the model hardly tells apart",
    "near_sides": "presence and absence that the model hardly tells apart",
}
"""What the audit looks for, and what each finding says."""

_NEGATION = r"(?:no|not|without|never|none|negative for|free of|absence of)"
_PLURALS = r"(?:devices|opacities|nodules|fractures|tubes|lines|effusions|masses|lesions|plaques|findings|lungs)"
_PATTERNS: dict[str, re.Pattern[str]] = {
    "double_negation": re.compile(rf"\b{_NEGATION}\s+(?:evidence of\s+)?(?:no|not|without)\b", re.IGNORECASE),
    "repeated_word": re.compile(r"\b(\w+)\s+\1\b", re.IGNORECASE),
    "grammar": re.compile(
        rf"\bthere is (?:no )?(?:\w+ )?{_PLURALS}\b|\b{_PLURALS} is\b|\bthere are (?:an?|one) \w+\b", re.IGNORECASE
    ),
    "unfilled": re.compile(r"[{}]"),
}


@dataclass(frozen=True)
class PromptProblem:
    """One thing that is wrong: its kind (of `PROBLEMS`), the label, and the text or the numbers."""

    kind: str
    label: str
    detail: str


def audit_words(prompts: PromptSet) -> list[PromptProblem]:
    """Return what can be seen in the words alone."""
    found = []
    users: dict[str, list[str]] = {}
    for label, texts in prompts.labels.items():
        for side, group in (("present", texts.positive), ("absent", texts.negative)):
            for text in group:
                users.setdefault(text.strip().lower().rstrip("."), []).append(f"{label} {side}")
                found += [PromptProblem(kind, label, text) for kind, p in _PATTERNS.items() if p.search(text)]
        # "No finding" is the one label whose presence is a negation.
        if label != "no_finding":
            found += [
                PromptProblem("negated_positive", label, text)
                for text in texts.positive
                if re.search(rf"\b{_NEGATION}\b", text, re.IGNORECASE)
            ]
    without = [label for label, texts in prompts.labels.items() if not texts.negative]
    if without:
        which = "all labels" if len(without) == len(prompts.labels) else ", ".join(without)
        found.append(PromptProblem("no_negatives", which, "cosine and softmax scores alone"))
    for text, where in users.items():
        if len(set(where)) > 1:
            found.append(PromptProblem("same_text", where[0].split()[0], f"'{text}': {', '.join(where)}"))
    return found


def audit_with_model(
    prompts: PromptSet, model: VisionLanguageModel, *, cache_dir: Path | None = None
) -> list[PromptProblem]:
    """Return what shows once a model reads the prompts: texts too long, and directions that nearly coincide."""
    found = [
        PromptProblem("too_long", label, f"{_shortened(text)}: {error}")
        for label, text, error in _refused(prompts, model)
    ]
    if found:
        return found
    directions = label_directions(model, prompts, cache_dir=cache_dir)
    cosines = directions.positive @ directions.positive.T
    for i, j in zip(*np.nonzero(np.triu(cosines > NEAR, k=1)), strict=True):
        first, second = directions.labels[i], directions.labels[j]
        found.append(PromptProblem("near_labels", first, f"{second}: cosine {cosines[i, j]:.3f}"))
    if directions.negative is not None:
        for label, cosine in zip(
            directions.labels, (directions.positive * directions.negative).sum(axis=1), strict=True
        ):
            if cosine > NEAR:
                found.append(PromptProblem("near_sides", label, f"cosine {cosine:.3f}"))
    return found


def _refused(prompts: PromptSet, model: VisionLanguageModel) -> Iterator[tuple[str, str, str]]:
    for label, texts in prompts.labels.items():
        for text in (*texts.positive, *texts.negative):
            try:
                model.embed_tokens([text], 0)
            except ModelError as error:
                yield label, text, str(error)


def _shortened(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
