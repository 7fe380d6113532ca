"""Draw a case: anatomy, findings, bones, devices and film put together."""

from __future__ import annotations

import numpy as np

from medvlm_probe.cohort.phantom import film
from medvlm_probe.cohort.phantom import findings_lung as lung_findings
from medvlm_probe.cohort.phantom.anatomy import chest_of, pose_of
from medvlm_probe.cohort.phantom.case import Case, Phantom, stream
from medvlm_probe.cohort.phantom.findings_devices import device
from medvlm_probe.cohort.phantom.findings_pleura import effusion, pleural_other, pneumothorax
from medvlm_probe.cohort.phantom.scene import Field, Scene, make_scene
from medvlm_probe.cohort.phantom.sites import SITES
from medvlm_probe.cohort.phantom.skeleton import clavicles_and_scapulae, ribs, spine
from medvlm_probe.cohort.phantom.tissues import soft_tissue
from medvlm_probe.cohort.phantom.vessels import pulmonary_vessels
from medvlm_probe.errors import InputError

SMALLEST, LARGEST = 32, 1024

_IN_LUNG = {
    "lung_opacity": lung_findings.opacity,
    "lung_lesion": lung_findings.lesion,
    "edema": lung_findings.edema,
    "consolidation": lung_findings.consolidation,
    "pneumonia": lung_findings.pneumonia,
    "atelectasis": lung_findings.atelectasis,
    "pleural_effusion": effusion,
    "pleural_other": pleural_other,
}


def draw(case: Case, size: int = 224) -> Phantom:
    """Return the radiograph of a case with masks and boxes, a pure function of the case and the size.

    Args:
        case: from `sample_patient` or `sample_cases`.
        size: width and height in pixels, 32 to 1024; the anatomy scales with it.

    Raises:
        InputError: a size out of range.
    """
    if not SMALLEST <= size <= LARGEST:
        raise InputError(f"Size {size} was given; phantoms are drawn at {SMALLEST} to {LARGEST} pixels.")
    site = SITES[case.site]
    chest = chest_of(case)
    scene = make_scene(chest, pose_of(case), size)
    key = (case.site, case.seed, case.index, case.prevalence)
    tissue_rng, bone_rng = stream(*key, "tissue"), stream(*key, "bones")

    attenuation, body = soft_tissue(scene)
    kept = _findings(scene, case, key, attenuation)
    congestion = max((0.30 + 0.25 * f.grade for f in case.findings if f.kind == "edema"), default=0.0)
    vessels = pulmonary_vessels(scene, tissue_rng, congestion) * scene.lung
    attenuation += vessels if kept is None else vessels * kept
    _mimics(scene, attenuation, tissue_rng)
    attenuation += _bones(scene, case, bone_rng) * body
    for number, finding in enumerate(f for f in case.findings if f.kind == "support_devices"):
        device(scene, finding, attenuation, stream(*key, "device", number))
    _mark_silhouettes(scene, case)

    film_rng = stream(*key, "film", case.image_index)
    value = film.develop(film.expose(attenuation, site, film_rng), body, site, film_rng)
    film.collimate(value, site, film_rng)
    film.add_marker(value, site, case.view, film_rng)
    thorax = (scene.d_wall > 0) & (scene.d_apex > 0) & (scene.y < max(chest.dome) + 0.2)
    return Phantom(
        pixels=np.rint(value * np.float32(255)).astype(np.uint8),
        masks=scene.masks,
        boxes=scene.boxes,
        case=case,
        anatomy={"heart": scene.heart > 0.5, "lungs": scene.lung > 0.5, "thorax": thorax},
        raw=film.archive(value, site),
    )


def _findings(scene: Scene, case: Case, key: tuple[str, int, int, str], attenuation: Field) -> Field | None:
    """Add the findings of lungs and pleura; return where a pneumothorax leaves vessels (None without one)."""
    kept = None
    for number, finding in enumerate(case.findings):
        rng = stream(*key, finding.kind, number)
        if finding.kind in _IN_LUNG:
            _IN_LUNG[finding.kind](scene, finding, attenuation, rng)
        elif finding.kind == "pneumothorax":
            line, kept = pneumothorax(scene, finding, rng)
            attenuation += line
    return kept


def _bones(scene: Scene, case: Case, rng: np.random.Generator) -> Field:
    fractures = [finding for finding in case.findings if finding.kind == "fracture"]
    bones = ribs(scene, rng, fractures)
    bones += spine(scene, rng)
    bones += clavicles_and_scapulae(scene, rng)
    return bones


def _mimics(scene: Scene, attenuation: Field, rng: np.random.Generator) -> None:
    """Add what is normal and looks like a finding: nipple shadows."""
    if rng.random() > 0.22:
        return
    y = scene.chest.breast_y + 0.08 * rng.normal()
    x, r = 0.42 + 0.06 * rng.random(), 0.018 + 0.008 * rng.random()
    for sign in (-1.0, 1.0):
        window = scene.window(sign * x - 2 * r, sign * x + 2 * r, y - 2 * r, y + 2 * r)
        r2 = ((scene.x[window] - np.float32(sign * x)) ** 2 + (scene.y[window] - np.float32(y)) ** 2) * np.float32(
            1 / r**2
        )
        attenuation[window] += np.float32(0.13) * np.clip(1.2 - r2, 0, 1)


def _mark_silhouettes(scene: Scene, case: Case) -> None:
    """Mark heart and upper mediastinum where they are findings."""
    if case.labels["cardiomegaly"]:
        scene.mark("cardiomegaly", scene.heart > 0.5)
    if case.labels["enlarged_cardiomediastinum"]:
        upper = (scene.y > scene.chest.knob_y - 0.22) & (scene.y < scene.chest.carina + 0.25)
        scene.mark("enlarged_cardiomediastinum", (scene.mediastinum > 0.5) & upper)
