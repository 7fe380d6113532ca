"""Time of an audit whose embeddings are there already: 5,000 images, 14 labels, two patients' images in three.

    python -m benchmarks.audit [--images 5000] [--labels 14] [--dimensions 512] [--permutations 9999]

Half the images are the reference's, half a site's that has moved a little, so that no test stops early. No image
is opened (that is what `--opened` adds), and neither `--why` nor `--repair` runs. Writes
figures/benchmarks/audit.csv: a row a question, with wall and processor seconds.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from benchmarks.table import Row
from medvlm_probe.audit.evidence import AuditEvidence
from medvlm_probe.audit.examine import Settings, examine
from medvlm_probe.audit.inputs import AuditInputs, make_inputs
from medvlm_probe.audit.policy import default_policy
from medvlm_probe.cohort.catalog import load_cohort
from medvlm_probe.cohort.labels import CHEXPERT_LABELS
from medvlm_probe.types import Scores

OUT = Path(__file__).resolve().parents[1] / "figures" / "benchmarks"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--labels", type=int, default=14)
    parser.add_argument("--dimensions", type=int, default=512)
    parser.add_argument("--permutations", type=int, default=9999)
    arguments = parser.parse_args()
    size = (arguments.images, arguments.labels, arguments.dimensions)
    found, wall, processor = measure(*size, arguments.permutations, say=print)
    OUT.mkdir(parents=True, exist_ok=True)
    with (OUT / "audit.csv").open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["question", "wall_seconds", "processor_seconds"])
        table.writerows([name, f"{seconds:.2f}", ""] for name, seconds in found.seconds.items())
        table.writerow(["all", f"{wall:.2f}", f"{processor:.2f}"])
    print(f"{arguments.images:,} images x {arguments.labels} labels: {wall:.1f} s, {processor:.1f} s of processor time")


def measure(
    images: int, labels: int, dimensions: int, permutations: int, say: Callable[[str], None]
) -> tuple[AuditEvidence, float, float]:
    """Return what the audit found, and its seconds by the clock and by the processor."""
    with TemporaryDirectory() as folder:
        inputs = synthetic(Path(folder), images, labels, dimensions)
    wall, processor = time.perf_counter(), time.process_time()
    found = examine(inputs, default_policy(), Settings(n_permutations=permutations, n_sampled=0), say=say)
    return found, time.perf_counter() - wall, time.process_time() - processor


def rows(quick: bool) -> list[Row]:
    """Return the audit's row; nothing else answers its questions, so that only a limit stands beside it."""
    size = (400, 4, 64, 199) if quick else (5_000, 14, 512, 9_999)
    _, wall, _ = measure(*size, say=lambda _: None)
    images, labels, dimensions, permutations = size
    words = f"{images:,} x {dimensions}, {labels} labels, {permutations:,} permutations"
    return [Row("audit, embeddings cached", words, wall, limit=90)]


def synthetic(folder: Path, n_images: int, n_labels: int, n_dimensions: int) -> AuditInputs:
    """Return a reference and a site that differs by half a standard deviation in one direction."""
    rng = np.random.default_rng(0)
    labels = CHEXPERT_LABELS[:n_labels]
    parts = []
    for name, moved in (("reference", 0.0), ("site", 0.5)):
        n = n_images // 2
        y = (rng.random((n, n_labels)) < 0.15).astype(int)
        table = pd.DataFrame(y, columns=list(labels))
        patients = [f"{name}-{1000 + 2 * (row // 3) + (row % 3 == 2)}" for row in range(n)]
        table = table.assign(
            image=[f"{name}{row}.png" for row in range(n)],
            patient=patients,
            view=rng.choice(["PA", "AP"], n),
            sex=rng.choice(["F", "M"], n),
            age=rng.integers(18, 90, n),
        )
        (folder / name).mkdir()
        table.to_csv(folder / name / "manifest.csv", index=False)
        vectors = rng.normal(size=(n, n_dimensions)) * np.linspace(2, 0.2, n_dimensions)
        vectors[:, :n_labels] += y
        vectors[:, -1] += moved
        logits = 2 * vectors[:, :n_labels] - 2 + rng.normal(size=(n, n_labels))
        scores = Scores(logits, "logit", labels, tuple(map(str, range(n))))
        keys = [f"{name}{row}" for row in range(n)]
        parts.append((load_cohort(str(folder / name / "manifest.csv")), vectors.astype(np.float32), scores, keys))
    return make_inputs(parts[0], parts[1], labels)


if __name__ == "__main__":
    main()
