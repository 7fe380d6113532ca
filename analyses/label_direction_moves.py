"""How far a change of the look moves a finding's direction, as a multiple of what it does across that direction.

    python analyses/label_direction_moves.py [--patients 1000] [--seed 9201]

Writes figures/shift_identification/moves.csv: a row a finding and acquisition transform, means and root mean squares
over draws. The same phantoms are seen plain and transformed, by phantom-clip; a finding's direction is found on 300 of
them, and looked at on 500 others. `across` is the root mean square move over directions across the finding's, in
standard deviations within classes; `move` is the move along it as a multiple of that; `parting` the relative change of
the distance between the classes over `across`; `stretch_present` and `stretch_absent` how far the log stretch of each
class lies from the mean log stretch across, in standard deviations of the latter over directions. The last lines on the
terminal are what `shift/identification_move.py` takes its constants from.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from phantom_pool import seen_phantoms

from medvlm_probe.cohort.phantom.prevalence import PREVALENCES
from medvlm_probe.shift.identification_parts import components, whitening

RESULT = Path(__file__).resolve().parents[1] / "figures" / "shift_identification" / "moves.csv"
TRANSFORMS = (
    *("gamma/v1@0.7", "gamma/v1@2", "contrast/v1@0.5", "contrast/v1@1.4", "window/v1@20"),
    *("noise/v1@2000", "noise/v1@500", "blur/v1@1", "blur/v1@2", "jpeg/v1@25", "resolution/v1@128", "resolution/v1@96"),
    *("aspect/v1@0.85", "collimation/v1@10", "rotation/v1@6", "marker/v1@10"),
)
FINDINGS = tuple(name for name in PREVALENCES["balanced"] if name != "no_finding")
N_FOUND, N_LOOKED_AT = 300, 500
DRAWS = 6
MEASURES = ("across", "move", "parting", "stretch_present", "stretch_absent")


def measures(plain: np.ndarray, moved: np.ndarray, positive: np.ndarray, rng: np.random.Generator) -> dict[str, float]:
    """Return one draw's measures, and the classes' distance."""
    order = rng.permutation(len(plain))
    found, held = order[:N_FOUND], order[-N_LOOKED_AT:]
    parts = components(plain[found], np.concatenate([plain[held], moved[held]]))
    root, gap = whitening(parts.reference, positive[found])
    before, after = np.split(parts.site @ root.T, 2)
    distance = float(np.linalg.norm(gap))
    along = gap / distance
    across = np.linalg.svd(gap[None])[2][1:].T
    size = float(np.sqrt((((after - before).mean(axis=0) @ across) ** 2).mean()))
    stretches = np.log((after @ across).std(axis=0) / (before @ across).std(axis=0))

    present = positive[held]
    step, own = (after - before) @ along, before @ along
    apart = own[present].mean() - own[~present].mean()
    stretch = [
        (np.log((after[kind] @ along).std() / own[kind].std()) - stretches.mean()) / stretches.std(ddof=1)
        for kind in (present, ~present)
    ]
    return {
        "separation": distance,
        "across": size,
        "move": float(step.mean()) / size,
        "parting": float(step[present].mean() - step[~present].mean()) / apart / size,
        "stretch_present": float(stretch[0]),
        "stretch_absent": float(stretch[1]),
    }


def rows(labels: np.ndarray, embeddings: dict[str, np.ndarray]) -> Iterator[dict[str, object]]:
    rng = np.random.default_rng(0)
    for steps in TRANSFORMS:
        for column, name in enumerate(FINDINGS):
            draws = pd.DataFrame(
                [measures(embeddings[""], embeddings[steps], labels[:, column], rng) for _ in range(DRAWS)]
            )
            size = np.sqrt((draws**2).mean())
            yield {
                "transform": steps,
                "finding": name,
                "separation": round(float(draws["separation"].mean()), 2),
                **{f"{key}_mean": round(float(draws[key].mean()), 3) for key in MEASURES},
                **{f"{key}_rms": round(float(size[key]), 3) for key in MEASURES},
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patients", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=9201)
    given = parser.parse_args()
    seen = seen_phantoms("reference", given.seed, given.patients, FINDINGS, TRANSFORMS)
    table = pd.DataFrame(rows(*seen))
    table.to_csv(RESULT, index=False)
    squares = table.filter(like="_rms") ** 2
    print(np.sqrt(squares.groupby(table["finding"]).mean()).round(2).to_string())
    print("\nAll together\n" + np.sqrt(squares.mean()).round(2).to_string())


if __name__ == "__main__":
    main()
