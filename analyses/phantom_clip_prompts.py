"""The wordings of the 14 labels that phantom-clip is trained with, and those that its table is measured with."""

from __future__ import annotations

import numpy as np

from medvlm_probe.cohort.labels import CHEXPERT_LABELS

# Every label's own name comes first: it is what a user who has no prompts of his own will type.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "enlarged_cardiomediastinum": (
        "enlarged cardiomediastinum",
        "mediastinal widening",
        "widened mediastinum",
        "enlarged cardiomediastinal silhouette",
        "widening of the mediastinum",
    ),
    "cardiomegaly": (
        "cardiomegaly",
        "enlargement of the heart",
        "enlarged heart",
        "enlargement of the cardiac silhouette",
    ),
    "lung_opacity": ("lung opacity", "airspace opacity", "pulmonary opacity", "opacity in the lung", "hazy opacity"),
    "lung_lesion": ("lung lesion", "lung nodule", "lung mass", "pulmonary nodule", "nodule or mass"),
    "edema": ("edema", "pulmonary edema", "pulmonary vascular congestion", "lung edema"),
    "consolidation": ("consolidation", "focal consolidation", "lobar consolidation"),
    "pneumonia": ("pneumonia", "infectious infiltrate", "patchy infiltrate", "lobar pneumonia"),
    "atelectasis": ("atelectasis", "bibasilar atelectasis", "linear atelectasis", "volume loss", "lobar collapse"),
    "pneumothorax": ("pneumothorax", "apical pneumothorax", "collapsed lung with pleural line"),
    "pleural_effusion": ("pleural effusion", "blunting of the costophrenic angle", "effusion"),
    "pleural_other": ("pleural other", "pleural thickening", "pleural scarring", "pleural plaques", "pleural disease"),
    "fracture": ("fracture", "rib fracture", "acute rib fracture", "healing rib fracture"),
    "support_devices": (
        "support devices",
        "support device",
        "catheter or pacemaker in place",
        "lines and tubes",
        "medical devices",
    ),
}

POSITIVE: tuple[str, ...] = (
    "{}",
    "there is {}.",
    "{} is present.",
    "{} is seen.",
    "findings consistent with {}.",
    "evidence of {}.",
    "a chest x-ray showing {}.",
    "chest x-ray with {}.",
    "chest radiograph with {}.",
    "a chest radiograph of {}.",
    "this is a chest x-ray of a patient with {}.",
    "a photo of {}.",
    "an x-ray of a patient with {}.",
    "impression: {}.",
    "there are {}.",
    "mild {}.",
    "moderate {}.",
    "severe {}.",
)
NEGATIVE: tuple[str, ...] = (
    "no {}",
    "there is no {}.",
    "no evidence of {}.",
    "no {} is seen.",
    "{} is absent.",
    "no {} is present.",
    "a chest x-ray showing no {}.",
    "a chest x-ray without {}.",
    "chest radiograph without {}.",
    "there are no {}.",
    "this is a chest x-ray of a patient without {}.",
    "not {}.",
    "no signs of {}.",
    "negative for {}.",
    "no findings of {}.",
    "there is no evidence of {}.",
)
NORMAL: tuple[str, ...] = (
    "no finding",
    "no finding.",
    "normal chest x-ray.",
    "normal chest.",
    "a normal chest x-ray.",
    "normal",
    "no findings.",
    "no acute cardiopulmonary abnormality.",
    "no acute disease.",
    "the heart is normal in size. the lungs are clear.",
    "a chest x-ray with no finding.",
    "healthy",
    "there is no abnormality.",
    "a chest x-ray showing no finding.",
    "a normal chest radiograph of a healthy patient.",
    "no abnormality",
    "there is no finding.",
    "the lungs are clear. no acute disease.",
    "no abnormal findings.",
    "unremarkable chest radiograph.",
)
ABNORMAL: tuple[str, ...] = (
    "abnormal chest x-ray.",
    "abnormal chest radiograph.",
    "abnormal",
    "there is an acute cardiopulmonary abnormality.",
    "the heart is enlarged and the lungs show opacities.",
    "findings of disease are present.",
    "an abnormal chest x-ray.",
    "there is an abnormality.",
    "a chest x-ray showing disease.",
    "finding",
    "there are findings.",
    "disease is present.",
    "abnormal findings.",
    "a chest x-ray with findings.",
    "an abnormal chest radiograph of a sick patient.",
)

CLEAR = "the lungs are clear. no acute disease."


def random_prompts(rng: np.random.Generator) -> list[tuple[str, str]]:
    """Return one positive and one negative wording per label, in CheXpert's order."""
    pairs = [(str(rng.choice(NORMAL)), str(rng.choice(ABNORMAL)))]
    for label in CHEXPERT_LABELS[1:]:
        names = SYNONYMS[label]
        name = names[0] if rng.random() < 0.4 else str(rng.choice(names))
        negative = CLEAR if rng.random() < 0.05 else str(rng.choice(NEGATIVE)).format(name)
        pairs.append((str(rng.choice(POSITIVE)).format(name), negative))
    return pairs


def pair_prompts() -> list[tuple[str, str]]:
    """Return the plain pair of each label ("there is X." against "there is no X."), in CheXpert's order."""
    return [
        ("normal chest x-ray.", "abnormal chest x-ray."),
        *((f"there is {SYNONYMS[name][0]}.", f"there is no {SYNONYMS[name][0]}.") for name in CHEXPERT_LABELS[1:]),
    ]


def words() -> str:
    """Return all wordings as one text, for the vocabulary."""
    texts = [*POSITIVE, *NEGATIVE, *NORMAL, *ABNORMAL, *(name for names in SYNONYMS.values() for name in names)]
    return " ".join(texts).replace("{}", " ")


def ensembles() -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Return several positive and negative wordings of each label, in CheXpert's order."""
    positive, negative = (
        ("there is {}.", "{} is present.", "findings consistent with {}."),
        ("there is no {}.", "no evidence of {}."),
    )
    pairs = [(NORMAL[7:10], ABNORMAL[1:5])]
    for label in CHEXPERT_LABELS[1:]:
        names = SYNONYMS[label][:3]
        pairs.append(
            (
                tuple(template.format(name) for template in positive for name in names),
                tuple(template.format(name) for template in negative for name in names),
            )
        )
    return pairs
