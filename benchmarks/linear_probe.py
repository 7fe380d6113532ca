"""Linear probes of 14 labels against scikit-learn's LogisticRegressionCV: equal strengths, folds and criterion.

    python -m benchmarks.linear_probe [--quick]

Both get the same standardised embeddings, the same 13 strengths and the same 5 grouped folds of each label, choose by
held-out logistic loss and fit again on all training images. scikit-learn does so label by label, as a user would. Made
embeddings: a spectrum that falls by a power law as those of real models do, labels at IU-Xray's prevalences, some not
known, one to three images a patient. Real ones: `--embeddings FILE.npz` with `x` (n, D), `y` (n, L), `g` (groups) and
`train` (bool).
"""

from __future__ import annotations

import argparse
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.class_distances import PREVALENCES
from benchmarks.table import Row
from medvlm_probe.metrics.classification import auroc
from medvlm_probe.runs import write_csv
from medvlm_probe.tuning import linear_probe
from medvlm_probe.tuning.linear_probe import LinearProbe, fit_linear_probe

FIGURES = Path(__file__).resolve().parents[1] / "figures" / "benchmarks"
SIZES = ((2_000, 512), (20_000, 512))


@dataclass(frozen=True)
class Comparison:
    """One comparison: seconds of each, and the outputs' agreement on images that neither saw."""

    embeddings: str
    n_train: int
    dimensions: int
    labels: int
    ours_seconds: float
    scikit_learn_seconds: float
    ratio: float
    macro_auroc: float
    largest_auroc_difference: float
    labels_with_another_strength: int


@dataclass(frozen=True)
class Study:
    """Embeddings (n, D), labels (n, L), groups (n,), and which images train."""

    name: str
    x: np.ndarray
    y: np.ndarray
    groups: np.ndarray
    train: np.ndarray


def made(n: int, d: int) -> Study:
    """Return made embeddings; as many again as `n` train."""
    rng = np.random.default_rng(0)
    total = 2 * n
    axes = np.linalg.qr(rng.normal(size=(d, d)))[0] * np.arange(1, d + 1)[:, None] ** -0.7
    latent = rng.normal(size=(total, d))
    weights = rng.normal(size=(d, len(PREVALENCES))) / np.sqrt(np.arange(1, d + 1))[:, None]
    signal = latent @ weights + rng.normal(scale=2.0, size=(total, len(PREVALENCES)))
    cuts = [np.quantile(column, 1 - prevalence) for column, prevalence in zip(signal.T, PREVALENCES, strict=True)]
    y = (signal > cuts).astype(np.float64)
    y[rng.random(y.shape) < 0.02] = np.nan
    groups = np.repeat(np.arange(total), rng.integers(1, 4, size=total))[:total]
    return Study("made", (latent @ axes).astype(np.float32), y, groups, groups <= groups[n - 1])


def read(path: Path) -> Study:
    """Return embeddings of a file."""
    found = np.load(path)
    return Study(path.stem, found["x"], found["y"], found["g"], found["train"])


def with_scikit_learn(study: Study, probe: LinearProbe) -> tuple[np.ndarray, np.ndarray]:
    """Return the chosen strengths (L,) and the logits of images that do not train (m, L), by LogisticRegressionCV."""
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.preprocessing import StandardScaler, normalize

    train = study.train
    scaler = StandardScaler()
    z = scaler.fit_transform(normalize(study.x[train].astype(np.float64)))
    held_out = scaler.transform(normalize(study.x[~train].astype(np.float64)))
    codes = np.unique(study.groups[train], return_inverse=True)[1]
    strengths, logits = np.full(study.y.shape[1], np.nan), np.full((len(held_out), study.y.shape[1]), np.nan)
    for k, fit in enumerate(probe.fits):
        if fit.how != "cross-validated":
            continue
        y = study.y[train, k]
        known = ~np.isnan(y)
        fold = linear_probe._folds(y == 1, codes, linear_probe.N_FOLDS, k)[known]
        parts = [(np.flatnonzero(fold != f), np.flatnonzero(fold == f)) for f in range(linear_probe.N_FOLDS)]
        model = LogisticRegressionCV(Cs=list(probe.strengths), cv=parts, scoring="neg_log_loss", max_iter=1_000)
        model.fit(z[known], y[known])
        strengths[k], logits[:, k] = np.ravel(model.C_)[0], model.decision_function(held_out)
    return strengths, logits


def compare(study: Study) -> Comparison:
    labels = [f"label_{k}" for k in range(study.y.shape[1])]
    started = time.perf_counter()
    probe = fit_linear_probe(study.x[study.train], study.y[study.train], study.groups[study.train], labels)
    ours_seconds = time.perf_counter() - started
    logits = probe.head.logits(study.x[~study.train])
    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        strengths, theirs = with_scikit_learn(study, probe)
    their_seconds = time.perf_counter() - started
    held_out = study.y[~study.train]
    areas = np.array([auroc(held_out[:, k], logits[:, k]) for k in range(len(labels))])
    fitted = ~np.isnan(strengths)
    other = np.array([auroc(held_out[:, k], theirs[:, k]) if fitted[k] else np.nan for k in range(len(labels))])
    same = np.isclose([fit.strength for fit in probe.fits], strengths)
    return Comparison(
        study.name,
        int(study.train.sum()),
        study.x.shape[1],
        len(labels),
        round(ours_seconds, 2),
        round(their_seconds, 2),
        round(their_seconds / ours_seconds, 1),
        round(float(np.nanmean(areas)), 4),
        round(float(np.nanmax(np.abs(areas - other))), 5),
        int((fitted & ~same).sum()),
    )


def rows(quick: bool) -> list[Row]:
    """Return the row of made embeddings of the smaller size; `--quick` takes 600 of 64 dimensions."""
    found = compare(made(600, 64) if quick else made(*SIZES[0]))
    return [
        Row(
            f"linear probes of {found.labels} labels",
            f"{found.n_train:,} x {found.dimensions}, 13 strengths, 5 folds",
            found.ours_seconds,
            "LogisticRegressionCV",
            found.scikit_learn_seconds,
            agreement=f"AUROC within {found.largest_auroc_difference:.0e}",
        )
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="only the smaller size, nothing written")
    parser.add_argument("--embeddings", type=Path, help="an .npz of real embeddings, besides the made ones")
    given = parser.parse_args()
    studies = [read(given.embeddings)] if given.embeddings else []
    found = [compare(study) for study in studies]
    found += [compare(made(*size)) for size in (SIZES[:1] if given.quick else SIZES)]
    table = pd.DataFrame([asdict(row) for row in found])
    print(table.to_string(index=False))
    if not given.quick:
        write_csv(FIGURES / "linear_probe.csv", table)


if __name__ == "__main__":
    main()
