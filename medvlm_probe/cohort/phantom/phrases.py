"""The phrases of the phantom reports: two hospitals' ways of saying the same."""

from __future__ import annotations

from dataclasses import dataclass

Options = tuple[str, ...]


@dataclass(frozen=True)
class Phrasing:
    """One hospital's phrases: per view, per finding (`kind` or `kind:variant`), per absent finding, per severity."""

    opening: dict[str, Options]
    present: dict[str, Options]
    impression: dict[str, Options]
    absent: dict[str, Options]
    severity: dict[str, Options]
    no_finding: Options


WORDS: dict[str, dict[str, Options]] = {
    "zone": {"upper": ("upper zone", "apex"), "middle": ("mid zone", "mid lung"), "lower": ("lower zone", "lung base")},
    "lobe": {"upper": ("upper lobe",), "middle": ("mid lung",), "lower": ("lower lobe",)},
}

NORMAL: dict[str, Options] = {
    "cardiomegaly enlarged_cardiomediastinum": (
        "the cardiomediastinal silhouette is within normal limits",
        "heart and mediastinum are unremarkable",
    ),
    "fracture": ("osseous structures are intact", "the bony thorax is unremarkable"),
    "edema": ("pulmonary vasculature is normal",),
}

_STANDARD = Phrasing(
    opening={
        "PA": ("frontal view of the chest", "PA view of the chest"),
        "AP": ("portable AP view of the chest", "AP view of the chest"),
    },
    severity={
        "mild": ("mild", "minimal", "subtle"),
        "moderate": ("moderate",),
        "severe": ("severe", "extensive", "marked"),
    },
    present={
        "enlarged_cardiomediastinum": (
            "{severity} widening of the mediastinum",
            "the cardiomediastinal silhouette is enlarged, {severity}",
        ),
        "enlarged_cardiomediastinum:tortuous": (
            "the aorta is tortuous with {severity} widening of the mediastinum",
            "{severity} enlarged cardiomediastinal contour with tortuous aorta",
        ),
        "cardiomegaly": (
            "{severity} cardiomegaly",
            "the heart is enlarged, {severity}",
            "{severity} enlargement of the cardiac silhouette",
        ),
        "lung_opacity": ("{severity} hazy opacity in the {side} {zone}", "{severity} {side} {zone} airspace opacity"),
        "lung_opacity:reticular": (
            "{severity} reticular opacity in the {side} {zone}",
            "{severity} {side} {zone} interstitial opacity",
        ),
        "lung_lesion": ("{severity} nodule in the {side} {lobe}", "a {side} {lobe} mass or nodule is seen, {severity}"),
        "lung_lesion:nodules": (
            "{severity} nodules in the {side} lung",
            "several {side} pulmonary nodules, {severity}",
        ),
        "edema": (
            "{severity} pulmonary edema with vascular congestion",
            "{severity} perihilar haze and septal lines consistent with edema",
        ),
        "consolidation": (
            "{severity} consolidation in the {side} {lobe} with air bronchograms",
            "{severity} {side} {lobe} consolidation",
        ),
        "pneumonia": (
            "{severity} patchy {side} {lobe} infiltrate consistent with pneumonia",
            "{severity} patchy opacity in the {side} {lobe} concerning for pneumonia",
        ),
        "atelectasis": (
            "{severity} {side} {zone} atelectasis with volume loss",
            "{severity} linear atelectasis in the {side} {zone}",
        ),
        "atelectasis:lobar": (
            "{severity} {side} lower lobe atelectasis with volume loss",
            "{severity} collapse of the {side} lower lobe, atelectasis",
        ),
        "pneumothorax": (
            "{severity} {side} pneumothorax with visible pleural line",
            "{severity} {side} apical pneumothorax",
        ),
        "pleural_effusion": (
            "{severity} {side} pleural effusion with blunting of the costophrenic angle",
            "{severity} {side} pleural effusion",
        ),
        "pleural_other": ("{severity} {side} pleural thickening",),
        "pleural_other:apical": (
            "{severity} {side} apical pleural thickening",
            "{severity} {side} apical pleural scarring",
        ),
        "pleural_other:plaques": ("{severity} {side} calcified pleural plaques",),
        "fracture": ("{severity} {side} rib fracture",),
        "fracture:displaced": (
            "{severity} displaced {side} rib fracture",
            "acute {side} rib fracture, {severity} displacement",
        ),
        "fracture:healing": (
            "{severity} healing {side} rib fracture with callus",
            "old healed {side} rib fracture, {severity}",
        ),
        "support_devices": ("support devices are in place",),
        "support_devices:pacemaker": ("{side} chest wall pacemaker with leads in place", "a {side} pacemaker is seen"),
        "support_devices:central_line": (
            "{side} central venous catheter in place",
            "{side} central line tip in the superior vena cava",
        ),
        "support_devices:endotracheal_tube": (
            "endotracheal tube tip above the carina",
            "the endotracheal tube is in place",
        ),
        "support_devices:nasogastric_tube": ("nasogastric tube reaches the stomach", "enteric tube in place"),
        "support_devices:sternal_wires": ("median sternotomy wires are seen", "sternal wires are intact"),
        "support_devices:ecg_leads": ("monitoring leads overlie the chest", "external leads project over the thorax"),
    },
    impression={
        "enlarged_cardiomediastinum": ("enlarged cardiomediastinum", "widened mediastinum"),
        "cardiomegaly": ("cardiomegaly", "{severity} cardiomegaly"),
        "lung_opacity": ("{side} lung opacity", "{side} {zone} opacity"),
        "lung_lesion": ("{side} lung lesion", "{side} pulmonary nodule"),
        "edema": ("pulmonary edema", "{severity} edema"),
        "consolidation": ("{side} {lobe} consolidation",),
        "pneumonia": ("{side} pneumonia", "{side} {lobe} pneumonia"),
        "atelectasis": ("{side} atelectasis", "{severity} atelectasis"),
        "pneumothorax": ("{side} pneumothorax", "{severity} pneumothorax"),
        "pleural_effusion": ("{side} pleural effusion", "{severity} pleural effusion"),
        "pleural_other": ("{side} pleural thickening", "{side} pleural disease"),
        "fracture": ("{side} rib fracture",),
        "support_devices": ("support devices as described", "lines and tubes in place"),
    },
    absent={
        "cardiomegaly": ("no cardiomegaly", "heart size is normal"),
        "lung_opacity": ("the lungs are clear", "no focal airspace opacity"),
        "consolidation": ("no focal consolidation", "no consolidation"),
        "pleural_effusion": ("no pleural effusion", "no effusion is seen"),
        "pneumothorax": ("no pneumothorax", "there is no evidence of pneumothorax"),
        "edema": ("no pulmonary edema",),
        "fracture": ("no acute fracture", "no rib fracture"),
    },
    no_finding=("no acute cardiopulmonary abnormality", "normal chest", "no acute disease", "no finding"),
)

_COMMUNITY = Phrasing(
    opening={
        "PA": ("upright chest film", "two foot chest film, front"),
        "AP": ("bedside chest film", "supine chest film"),
    },
    severity={"mild": ("slight", "small"), "moderate": ("some", "medium"), "severe": ("large", "gross")},
    present={
        "enlarged_cardiomediastinum": (
            "mediastinal shadow is broad, {severity}",
            "{severity} broadening of the mediastinum",
        ),
        "cardiomegaly": (
            "{severity} big heart shadow",
            "heart shadow is enlarged, {severity}",
            "{severity} cardiomegaly",
        ),
        "lung_opacity": ("{severity} shadowing {side} {zone}", "{severity} {side} {zone} opacity"),
        "lung_lesion": ("{severity} round shadow {side} {zone}", "{severity} coin lesion {side} lung"),
        "edema": ("{severity} wet lungs", "{severity} congestion, edema pattern"),
        "consolidation": (
            "{severity} dense shadowing {side} {lobe}, consolidated",
            "{severity} {side} {lobe} consolidation",
        ),
        "pneumonia": ("{severity} chest infection {side} {lobe}", "{severity} patchy pneumonia {side} {lobe}"),
        "atelectasis": ("{severity} collapse {side} {zone}", "{severity} band atelectasis {side} {zone}"),
        "pneumothorax": ("{severity} collapsed lung {side} with air rim", "{severity} {side} pneumothorax"),
        "pleural_effusion": ("{severity} fluid {side} base", "{severity} {side} pleural fluid"),
        "pleural_other": ("{severity} pleural scarring {side}", "{severity} thick pleura {side}"),
        "fracture": ("{severity} broken rib {side}", "{severity} rib break {side}"),
        "support_devices": ("hardware noted", "tubes and wires noted"),
        "support_devices:pacemaker": ("{side} pacer box with wires",),
        "support_devices:central_line": ("{side} neck line noted",),
        "support_devices:endotracheal_tube": ("breathing tube noted",),
        "support_devices:nasogastric_tube": ("feeding tube noted",),
        "support_devices:sternal_wires": ("wires from heart surgery",),
        "support_devices:ecg_leads": ("monitor wires on the chest",),
    },
    impression={
        "enlarged_cardiomediastinum": ("broad mediastinum",),
        "cardiomegaly": ("big heart", "enlarged heart"),
        "lung_opacity": ("{side} lung shadowing",),
        "lung_lesion": ("{side} lung nodule, follow up",),
        "edema": ("heart failure pattern", "lung edema"),
        "consolidation": ("{side} consolidation",),
        "pneumonia": ("{side} chest infection", "pneumonia {side}"),
        "atelectasis": ("{side} collapse", "atelectasis {side}"),
        "pneumothorax": ("{side} pneumothorax",),
        "pleural_effusion": ("{side} pleural fluid",),
        "pleural_other": ("{side} pleural scar",),
        "fracture": ("broken {side} rib",),
        "support_devices": ("hardware as above",),
    },
    absent={
        "cardiomegaly": ("heart not big",),
        "lung_opacity": ("lungs look clear",),
        "pleural_effusion": ("no fluid",),
        "pneumothorax": ("no air leak", "no pneumothorax"),
        "fracture": ("no broken ribs",),
    },
    no_finding=("clear chest", "normal film", "nothing acute"),
)

PHRASES: dict[str, Phrasing] = {"standard": _STANDARD, "community": _COMMUNITY}
