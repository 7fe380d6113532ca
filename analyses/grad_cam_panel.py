"""The README's panel: two phantoms with cardiomegaly, their Grad-CAM maps, and the controls beside them.

    python analyses/grad_cam_panel.py

Writes figures/readme/grad_cam.png: the first image of each of two sites in the test split of the embedded default.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medvlm_probe.cohort.catalog import load_cohort
from medvlm_probe.cohort.regions import regions_of
from medvlm_probe.models.zoo import load_model
from medvlm_probe.plots.saliency import HeatMapRow, heat_map_panels
from medvlm_probe.plots.style import figure_bytes
from medvlm_probe.saliency.heat_map_study import OWN, MapOptions, MapSetting, StudyImages, study_label
from medvlm_probe.saliency.targets import prompt_target
from medvlm_probe.zero_shot.predict import resolve_task

OUT = Path(__file__).resolve().parents[1] / "figures" / "readme" / "grad_cam.png"
LABEL, SITES = "cardiomegaly", ("reference", "portable")
DPI = 100


def main() -> None:
    cohort = load_cohort("phantom", split="test")
    positive = cohort.targets([LABEL])[:, 0] == 1
    rows = np.array([np.flatnonzero(positive & (cohort.sites() == site))[0] for site in SITES])
    model = load_model("phantom-clip")
    target = prompt_target(model, resolve_task(cohort, "radiology", None, None).prompts)
    images = StudyImages(cohort, regions_of(cohort))
    found = study_label(images, MapSetting("zero-shot", "Zero-shot", model, target), LABEL, rows, MapOptions())
    maps = {OWN: found.maps} | {name: control.maps for name, control in found.controls.items()}
    wrong = cohort.card.words(found.controls["wrong_label"].label).lower()
    columns = {
        OWN: "Cardiomegaly",
        "wrong_label": f"Control: {wrong}",
        "nonsense": "Control: nonsense",
        "random_weights": "Control: random weights",
    }
    panels = []
    for at, row in enumerate(rows.tolist()):
        image = np.asarray(images.image(row).convert("L"))
        region = images.region(row, LABEL)
        assert region is not None
        shown = {name: images.on_original(model, image.shape[::-1], values[at]) for name, values in maps.items()}
        panels.append(HeatMapRow(f"Site {SITES[at]}", image, shown, region.mask(*image.shape)))
    figure = heat_map_panels(
        panels,
        columns,
        unit="Grad-CAM in units of the logit: orange speaks for the label, blue against it. One scale for all maps.",
        scale_from=(OWN,),
        note="Synthetic radiographs (phantoms) seen through phantom-clip: not medicine.",
    )
    OUT.write_bytes(figure_bytes(figure, "png", dpi=DPI))
    print(f"Wrote {OUT}")


if __name__ == "__main__":
    main()
