"""What the shell offers after an option; `medvlm-probe --install-completion` switches it on."""

from __future__ import annotations


def labels(incomplete: str) -> list[str]:
    """Return the labels of the CheXpert vocabulary that begin so; a cohort may have others."""
    from medvlm_probe.cohort.labels import CHEXPERT_LABELS

    return [label for label in CHEXPERT_LABELS if label.startswith(incomplete)]


def models(incomplete: str) -> list[str]:
    """Return the models and schemes that begin so."""
    from medvlm_probe.models.zoo import SCHEMES, known_models

    names = [*known_models(), *SCHEMES]
    return [name for name in names if name.startswith(incomplete)]
