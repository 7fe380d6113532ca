"""The phantom hospitals: scanner, exposure, projection, markers and case mix, one row each."""

from __future__ import annotations

from dataclasses import dataclass, field

from medvlm_probe.errors import unknown_name


@dataclass(frozen=True)
class Site:
    """A phantom hospital.

    Attributes:
        ap_share: share of images taken anteroposterior.
        odds: label to the factor by which its odds differ from the reference site (long-tailed prevalences only).
        age: mean and standard deviation in years.
        dose: relative photon count; the noise's standard deviation falls with its root.
        blur: detector and motion blur, standard deviation as a fraction of the image's width.
        scatter: scattered over primary radiation; lowers the contrast of dense regions.
        contrast, brightness, gamma: the display window, each with its spread over images.
        rotation: standard deviation of the patient's tilt in degrees. offset: of the position, in half widths.
        inspiration: mean change of the diaphragm's height (positive is a poorer inspiration).
        marker: how the side marker is drawn: `"letter"`, `"disc"` or `"text"` (burned in).
        collimation: share of borders that the collimator shuts.
        photometric: DICOM photometric interpretation. window: DICOM centre and width as fractions of the stored range.
        modality: DICOM modality. phrasing: which vocabulary the reports use.
    """

    name: str
    ap_share: float = 0.04
    odds: dict[str, float] = field(default_factory=dict)
    age: tuple[float, float] = (50.0, 17.0)
    dose: float = 1.0
    blur: float = 0.0
    scatter: float = 0.16
    contrast: tuple[float, float] = (1.0, 0.10)
    brightness: tuple[float, float] = (0.0, 0.05)
    gamma: tuple[float, float] = (1.0, 0.12)
    rotation: float = 1.6
    offset: float = 0.05
    inspiration: float = 0.0
    marker: str = "letter"
    marker_share: float = 0.85
    collimation: float = 0.25
    photometric: str = "MONOCHROME2"
    window: tuple[float, float] = (0.5, 1.0)
    modality: str = "DX"
    phrasing: str = "standard"


SITES: dict[str, Site] = {
    site.name: site
    for site in (
        Site("reference"),
        Site(
            "portable",
            ap_share=0.96,
            odds={
                "support_devices": 9.0,
                "edema": 4.0,
                "pleural_effusion": 4.0,
                "atelectasis": 2.5,
                "cardiomegaly": 1.8,
                "pneumothorax": 4.0,
                "consolidation": 3.0,
                "pneumonia": 2.0,
                "enlarged_cardiomediastinum": 2.0,
            },
            age=(66.0, 14.0),
            dose=0.55,
            blur=0.0025,
            scatter=0.42,
            contrast=(0.88, 0.12),
            brightness=(0.03, 0.07),
            rotation=3.6,
            offset=0.09,
            inspiration=0.05,
            marker="text",
            collimation=0.4,
            modality="CR",
        ),
        Site(
            "low_dose",
            ap_share=0.15,
            odds={"lung_lesion": 1.6, "fracture": 1.5},
            age=(57.0, 12.0),
            dose=0.10,
            blur=0.0055,
            contrast=(0.96, 0.10),
            gamma=(0.94, 0.12),
            modality="CR",
        ),
        Site(
            "inverted_archive",
            ap_share=0.10,
            odds={"pleural_other": 2.0, "lung_opacity": 1.3},
            dose=0.7,
            scatter=0.10,
            contrast=(1.32, 0.12),
            brightness=(-0.09, 0.05),
            gamma=(1.25, 0.12),
            marker="disc",
            collimation=0.6,
            photometric="MONOCHROME1",
            window=(0.42, 0.72),
        ),
        Site(
            "community",
            ap_share=0.25,
            odds={"pneumonia": 3.0, "lung_opacity": 1.6, "fracture": 2.0, "cardiomegaly": 1.4, "lung_lesion": 0.6},
            age=(58.0, 20.0),
            dose=0.6,
            blur=0.0015,
            scatter=0.24,
            contrast=(0.84, 0.13),
            brightness=(0.08, 0.08),
            gamma=(0.82, 0.14),
            rotation=2.4,
            offset=0.07,
            marker="text",
            marker_share=1.0,
            collimation=0.55,
            phrasing="community",
        ),
    )
}


def site_named(name: str) -> Site:
    """Return a site by name, or raise `UnknownNameError` with the nearest names."""
    if name not in SITES:
        raise unknown_name("site", name, SITES)
    return SITES[name]
