"""Label names, their order and how they are shown to people."""

from __future__ import annotations

CHEXPERT_LABELS: tuple[str, ...] = (
    "no_finding",
    "enlarged_cardiomediastinum",
    "cardiomegaly",
    "lung_opacity",
    "lung_lesion",
    "edema",
    "consolidation",
    "pneumonia",
    "atelectasis",
    "pneumothorax",
    "pleural_effusion",
    "pleural_other",
    "fracture",
    "support_devices",
)
"""The 14 labels of CheXpert (Irvin et al. 2019) in their published order."""

DOMAINS: dict[str, tuple[str, ...]] = {
    "cardiovascular": ("enlarged_cardiomediastinum", "cardiomegaly"),
    "pulmonary": (
        "pneumonia",
        "consolidation",
        "atelectasis",
        "pneumothorax",
        "pleural_other",
        "pleural_effusion",
        "edema",
        "lung_opacity",
        "lung_lesion",
    ),
    "skeletal": ("fracture",),
    "device": ("support_devices",),
}
"""Groups of labels, as in Sadman, Zulkernine and Kwan 2025; "No finding" is in none."""


def display_name(label: str) -> str:
    """Return a snake_case label in words: `pleural_effusion` becomes "Pleural effusion"."""
    return label.replace("_", " ").capitalize()
