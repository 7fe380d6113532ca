"""Who the phantom patients are: labels, findings with severity and side, views and reports, without any pixels."""

from __future__ import annotations

import numpy as np

from medvlm_probe.cohort.labels import CHEXPERT_LABELS
from medvlm_probe.cohort.phantom.case import SEVERITIES, Case, Finding, stream
from medvlm_probe.cohort.phantom.prevalence import label_distribution
from medvlm_probe.cohort.phantom.reports import write_report
from medvlm_probe.cohort.phantom.sites import site_named
from medvlm_probe.errors import InputError

AP_MAGNIFICATION = 1.09
"""How much wider the heart looks anteroposterior, where it lies farther from the detector."""

_DEVICES = ("pacemaker", "central_line", "endotracheal_tube", "nasogastric_tube", "sternal_wires", "ecg_leads")
_ICU_DEVICES = ("central_line", "endotracheal_tube", "nasogastric_tube", "ecg_leads")
_SIDES = ("left", "right")
_ZONES = ("upper", "middle", "lower")
_VARIANTS = {
    "fracture": ("displaced", "healing"),
    "pleural_other": ("apical", "lateral", "plaques"),
    "enlarged_cardiomediastinum": ("wide", "tortuous"),
    "lung_opacity": ("hazy", "reticular"),
    "atelectasis": ("plate", "plate", "lobar"),
    "lung_lesion": ("nodule", "nodules"),
}


class _Draws:
    """One block of uniform numbers, taken in turn: far cheaper than a generator call per decision."""

    def __init__(self, rng: np.random.Generator) -> None:
        numbers: list[float] = rng.random(256).tolist()
        self._numbers = iter(numbers)

    def unit(self) -> float:
        return next(self._numbers)

    def pick(self, options: tuple[str, ...]) -> str:
        return options[int(self.unit() * len(options))]


def _side(kind: str, draws: _Draws) -> str:
    if kind in ("cardiomegaly", "enlarged_cardiomediastinum", "support_devices"):
        return "midline"
    bilateral = {"edema": 0.85, "pleural_effusion": 0.3, "pneumonia": 0.25, "atelectasis": 0.25, "lung_opacity": 0.2}
    share = bilateral.get(kind, 0.2 if kind == "pleural_other" else 0.0)
    return "bilateral" if draws.unit() < share else draws.pick(_SIDES)


def _zone(kind: str, variant: str, draws: _Draws) -> str:
    if kind in ("lung_lesion", "consolidation", "pneumonia", "lung_opacity"):
        return draws.pick(_ZONES)
    if kind == "fracture":
        return draws.pick(_ZONES[1:])
    if kind == "atelectasis":
        return "lower" if variant == "lobar" or draws.unit() < 0.75 else "middle"
    return ""


def _finding(kind: str, draws: _Draws) -> Finding:
    chance = draws.unit()
    severity = SEVERITIES[0 if chance < 0.4 else 1 if chance < 0.8 else 2]
    variant = draws.pick(_VARIANTS[kind]) if kind in _VARIANTS else ""
    return Finding(kind, severity, _side(kind, draws), _zone(kind, variant, draws), variant)


def _devices(sick: bool, draws: _Draws) -> list[Finding]:
    """Return one to three devices; the sicker the patient, the more likely those of intensive care."""
    chance = draws.unit()
    severity = SEVERITIES[0 if chance < 0.4 else 1 if chance < 0.8 else 2]
    kinds = _ICU_DEVICES if sick else _DEVICES
    chosen = {draws.pick(kinds) for _ in range(1 + SEVERITIES.index(severity))}
    return [
        Finding(
            "support_devices",
            severity,
            draws.pick(_SIDES) if kind in ("pacemaker", "central_line") else "midline",
            variant=kind,
        )
        for kind in _DEVICES
        if kind in chosen
    ]


def _heart_ratio(heart: Finding | None, rng: np.random.Generator) -> float:
    """Return the patient's cardiothoracic ratio. Normal hearts reach .52, mildly enlarged ones start at .49."""
    if heart is None:
        return float(np.clip(rng.normal(0.45, 0.03), 0.38, 0.52))
    low, high = ((0.49, 0.56), (0.54, 0.61), (0.60, 0.70))[heart.grade]
    return float(rng.uniform(low, high))


def _findings(labels: dict[str, int], draws: _Draws) -> tuple[Finding, ...]:
    found: list[Finding] = []
    child = any(labels[name] for name in ("lung_lesion", "edema", "consolidation", "pneumonia", "atelectasis"))
    sick = bool(labels["edema"] or labels["pneumothorax"] or labels["consolidation"])
    for kind in CHEXPERT_LABELS[1:]:
        if not labels[kind] or (kind == "lung_opacity" and child):
            continue
        found.extend(_devices(sick, draws) if kind == "support_devices" else [_finding(kind, draws)])
    return tuple(found)


def sample_patient(site: str, seed: int, index: int, prevalence: str = "iu_xray") -> list[Case]:
    """Return a patient's one to three cases, a pure function of the arguments; draws no pixels.

    Args:
        site: a name in `SITES`.
        seed: the cohort's seed. index: the patient's number. Both at least 0.
        prevalence: `"iu_xray"` (long-tailed, tilted by the site's case mix) or `"balanced"`.

    Raises:
        UnknownNameError: an unknown site or prevalence.
        InputError: a negative seed or index.
    """
    if seed < 0 or index < 0:
        raise InputError(f"Seed {seed} and index {index} were given; both must be at least 0.")
    hospital = site_named(site)
    rng = stream(site, seed, index, "patient", prevalence)
    draws = _Draws(rng)
    sets, cumulative = label_distribution(site, prevalence)
    row = min(int(np.searchsorted(cumulative, draws.unit(), side="right")), len(sets) - 1)
    labels = dict(zip(CHEXPERT_LABELS, sets[row], strict=True))
    findings = _findings(labels, draws)
    age = round(float(np.clip(rng.normal(*hospital.age), 18, 95)))
    sex = "F" if draws.unit() < 0.5 else "M"
    heart = next((finding for finding in findings if finding.kind == "cardiomegaly"), None)
    ratio = _heart_ratio(heart, rng)
    chance = draws.unit()
    n_images = 1 if chance < 0.70 else 2 if chance < 0.92 else 3
    patient = f"phantom-{site}-{index:06d}"
    cases = []
    for image_index in range(n_images):
        view = "AP" if draws.unit() < hospital.ap_share else "PA"
        cases.append(
            Case(
                seed=seed,
                index=index,
                image_index=image_index,
                site=site,
                prevalence=prevalence,
                patient=patient,
                study=f"{patient}-s{image_index + 1}",
                view=view,
                age=age,
                sex=sex,
                ctr=min(ratio * (AP_MAGNIFICATION if view == "AP" else 1.0), 0.74),
                labels=dict(labels),
                findings=findings,
                report=write_report(findings, hospital.phrasing, view, draws.unit),
            )
        )
    return cases


def sample_cases(site: str, n_images: int, seed: int = 0, prevalence: str = "iu_xray") -> list[Case]:
    """Return exactly `n_images` cases of patients 0, 1, 2, ...; the last patient may be cut short.

    Raises:
        UnknownNameError: an unknown site or prevalence.
        InputError: a negative number of images or seed.
    """
    if n_images < 0:
        raise InputError(f"{n_images} images were asked for; the number must be at least 0.")
    cases: list[Case] = []
    index = 0
    while len(cases) < n_images:
        cases.extend(sample_patient(site, seed, index, prevalence))
        index += 1
    return cases[:n_images]
