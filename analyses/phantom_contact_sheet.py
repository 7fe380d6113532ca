"""Every finding of the phantoms (rows) at every site (columns), moderate to severe, with its boxes.

    python analyses/phantom_contact_sheet.py [--no-boxes] [--seed 7]

Writes figures/phantom/contact_sheet.png. Each picture is the first patient of a balanced cohort who has the finding at
least moderately and few others.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from medvlm_probe.cohort.labels import CHEXPERT_LABELS, display_name
from medvlm_probe.cohort.phantom import SITES, Case, draw, sample_patient
from medvlm_probe.plots.contact_sheet import contact_sheet
from medvlm_probe.plots.style import figure_bytes
from medvlm_probe.runs import write_bytes_atomically

PROJECT = Path(__file__).resolve().parents[1]
PATIENTS = 400
NOTE = (
    "Synthetic radiographs, not medicine. Each shows the finding of its row, at least moderate; boxes are its "
    "instances. Inverted archive is shown as displayed, not as stored."
)
HYPHENATED = {
    "enlarged_cardiomediastinum": "Enlarged cardio- mediastinum",
    "pneumothorax": "Pneumo- thorax",
}


def clearest(cases: list[Case], label: str) -> Case:
    """Return the first of the cases that have a label at least moderately and the fewest others."""
    showing = [case for case in cases if case.labels[label] and _at_least_moderate(case, label)]
    return min(showing, key=lambda case: sum(case.labels.values()))


def _at_least_moderate(case: Case, label: str) -> bool:
    grades = [finding.grade for finding in case.findings if finding.kind == label]
    return label == "no_finding" or min(grades, default=0) > 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--no-boxes", action="store_true")
    parser.add_argument("--out", type=Path, default=PROJECT / "figures" / "phantom" / "contact_sheet.png")
    arguments = parser.parse_args()
    cases = {
        site: [sample_patient(site, arguments.seed, index, "balanced")[0] for index in range(PATIENTS)]
        for site in SITES
    }
    phantoms = [draw(clearest(cases[site], label)) for label in CHEXPERT_LABELS for site in SITES]
    labels = [label for label in CHEXPERT_LABELS for _ in SITES]
    boxes = [
        [] if arguments.no_boxes else phantom.boxes.get(label, [])
        for phantom, label in zip(phantoms, labels, strict=True)
    ]
    figure = contact_sheet(
        [phantom.pixels for phantom in phantoms],
        n_columns=len(SITES),
        column_titles=[display_name(site) for site in SITES],
        row_titles=[HYPHENATED.get(label, display_name(label)) for label in CHEXPERT_LABELS],
        boxes=boxes,
        title="Phantom chest radiographs: every finding at every site",
        note=NOTE,
    )
    write_bytes_atomically(arguments.out, figure_bytes(figure, "png", dpi=120))
    print(f"Wrote {arguments.out} ({arguments.out.stat().st_size / 1e6:.2f} MB).")


if __name__ == "__main__":
    main()
