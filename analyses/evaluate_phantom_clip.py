"""How well phantom-clip ranks unseen phantoms, by site, label and severity, against what 32 x 32 pixels give away.

    python analyses/evaluate_phantom_clip.py [--images 2000] [--bundle FOLDER]

Writes figures/phantom_clip/: auroc.csv (one row a site, label and severity), auroc_mean.csv (mean over the 14 labels),
training_curve.svg, and the tables of the bundle's model_card.md. Every image is another patient's, at balanced
prevalences, drawn with a seed that neither training nor the cohorts use. The control is a logistic regression per label
on the pixels of other phantoms of the reference site, shrunk to 32 x 32: findings that it ranks well are merely loud.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from phantom_clip_bundle import BUNDLE
from phantom_clip_card import card
from phantom_clip_data import severity_row
from phantom_clip_prompts import ensembles, pair_prompts
from PIL import Image
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from medvlm_probe.cohort.labels import CHEXPERT_LABELS, display_name
from medvlm_probe.cohort.phantom import SEVERITIES, SITES, draw, generator_digest, sample_patient
from medvlm_probe.metrics.resampling import auroc_variance, group_folds, score_interval
from medvlm_probe.models.contract import VisionLanguageModel
from medvlm_probe.models.zoo import load_model
from medvlm_probe.plots.style import BLUE, MUTED, RULE, SINGLE_COLUMN_MM, figure_bytes, new_page, style
from medvlm_probe.runs import write_bytes_atomically, write_csv

EVALUATION_SEED, CONTROL_SEED = 3000, 4000
CONTROL_IMAGES = 6000
FIGURES = Path(__file__).resolve().parents[1] / "figures" / "phantom_clip"


def phantoms(site: str, seed: int, n: int) -> tuple[list[Image.Image], np.ndarray]:
    """Return the first image of `n` patients of a site, and each label's severity (-1 absent), int8 (n, 14)."""
    cases = [sample_patient(site, seed, index, "balanced")[0] for index in range(n)]
    images = [Image.fromarray(draw(case).pixels) for case in cases]
    return images, np.array([severity_row(case) for case in cases], np.int8)


@torch.inference_mode()
def zero_shot_scores(model: VisionLanguageModel, images: list[Image.Image]) -> dict[str, np.ndarray]:
    """Return cosine differences (n, 14) of the plain pairs and of the averaged wordings."""
    blocks = [images[start : start + 100] for start in range(0, len(images), 100)]
    vectors = torch.cat([model.encode_images(torch.stack([model.preprocess(i) for i in block])) for block in blocks])
    vectors = torch.nn.functional.normalize(vectors, dim=-1)

    def direction(texts: tuple[str, ...]) -> torch.Tensor:
        features = torch.nn.functional.normalize(model.encode_texts(texts), dim=-1).mean(dim=0)
        return torch.nn.functional.normalize(features, dim=0)

    scores = {}
    for name, prompts in (("pair", [((p,), (n,)) for p, n in pair_prompts()]), ("ensemble", ensembles())):
        differences = torch.stack([direction(positive) - direction(negative) for positive, negative in prompts])
        scores[name] = (vectors @ differences.T).numpy()
    return scores


def small(images: list[Image.Image]) -> np.ndarray:
    """Return images shrunk to 32 x 32 by averaging, float (n, 1024)."""
    return np.stack([np.asarray(i.resize((32, 32), Image.Resampling.BOX), float).ravel() / 255 for i in images])


def fitted_control() -> list[Pipeline]:
    """Return a logistic regression per label on small pixels, its penalty chosen on a third of its own images."""
    images, severity = phantoms("reference", CONTROL_SEED, CONTROL_IMAGES)
    pixels, part = small(images), CONTROL_IMAGES * 2 // 3
    models = []
    for present in (severity >= 0).T:
        areas = {}
        for strength in (1e-4, 1e-3, 1e-2):
            tried = control(strength).fit(pixels[:part], present[:part])
            areas[strength] = auroc(tried.decision_function(pixels[part:]), present[part:])
        models.append(control(max(areas, key=areas.__getitem__)).fit(pixels, present))
    return models


def control(strength: float) -> Pipeline:
    """Return the control before it is fitted."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=200))


def auroc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Return the probability that a positive scores above a negative, ties counting half."""
    n = int(positive.sum())
    return float((rankdata(scores)[positive].sum() - n * (n + 1) / 2) / (n * (len(scores) - n)))


def rows_of(site: str, method: str, scores: np.ndarray, severity: np.ndarray) -> list[dict[str, object]]:
    """Return one row a label and severity ("all" and the three grades, each against the images without the label)."""
    rows = []
    for k, label in enumerate(CHEXPERT_LABELS):
        for grade in ("all", *(SEVERITIES if label != "no_finding" else ())):
            positive = severity[:, k] >= 0 if grade == "all" else severity[:, k] == SEVERITIES.index(grade)
            chosen = positive | (severity[:, k] < 0)
            rows.append(
                {"site": site, "method": method, "label": label, "severity": grade, "n_positive": int(positive.sum())}
                | auroc_columns(scores[chosen, k], positive[chosen])
            )
    return rows


def auroc_columns(scores: np.ndarray, positive: np.ndarray) -> dict[str, object]:
    """Return the AUROC with its 95 % interval (every image is another patient's)."""
    folds = group_folds(np.arange(len(scores)), 50, np.random.default_rng(0), strata=positive.astype(int))
    without = np.array([auroc(scores[folds != fold], positive[folds != fold]) for fold in np.unique(folds)])
    variance = auroc_variance(float(positive.sum()), float((~positive).sum()))
    area = score_interval(auroc(scores, positive), without, variance, n=len(scores), n_groups=len(scores))
    return {"auroc": round(area.value, 4), "low": round(area.low, 4), "high": round(area.high, 4), "n": area.n}


def curve_figure(curve: pd.DataFrame) -> Figure:
    """Return the validation AUROC of each label over the images seen, the mean in front."""
    with style():
        page = new_page(
            SINGLE_COLUMN_MM,
            62.0,
            title="phantom-clip while it learns",
            note="1,000 phantoms of another seed, plain prompts.",
            description="Zero-shot AUROC on held-out phantoms over training.",
        )
        axes = page.axes(12.0, page.top + 2.0, SINGLE_COLUMN_MM - 38.0, 48.0)
        seen = curve["images"] / 1000
        for label in CHEXPERT_LABELS:
            axes.plot(seen, curve[label], color=RULE, linewidth=0.8)
        axes.plot(seen, curve["mean_auroc"], color=BLUE, linewidth=1.6)
        ends = sorted((float(curve[label].iloc[-1]), display_name(label)) for label in CHEXPERT_LABELS)
        for value, name in (ends[0], ends[-1]):
            axes.annotate(name, (seen.iloc[-1], value), (3, 0), textcoords="offset points", va="center", color=MUTED)
        axes.annotate(
            "Mean",
            (seen.iloc[-1], curve["mean_auroc"].iloc[-1]),
            (3, 0),
            textcoords="offset points",
            va="center",
            color=BLUE,
        )
        axes.set(xlabel="Images seen (thousands)", ylabel="Zero-shot AUROC", ylim=(0.4, 1.0))
    return page.figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000, help="per site")
    parser.add_argument("--bundle", type=Path, default=BUNDLE)
    parser.add_argument("--out", type=Path, default=FIGURES)
    given = parser.parse_args()
    model = load_model(f"local:{given.bundle}")
    by_pixels = fitted_control()
    rows: list[dict[str, object]] = []
    for site in SITES:
        images, severity = phantoms(site, EVALUATION_SEED, given.images)
        for method, scores in zero_shot_scores(model, images).items():
            rows += rows_of(site, method, scores, severity)
        pixels = small(images)
        rows += rows_of(
            site, "pixels_32x32", np.stack([m.decision_function(pixels) for m in by_pixels], axis=1), severity
        )
    table = pd.DataFrame(rows)
    write_csv(given.out / "auroc.csv", table)
    means = table.groupby(["site", "severity", "method"], sort=False)["auroc"].mean().round(4).reset_index()
    write_csv(given.out / "auroc_mean.csv", means)
    print(means.pivot(index=["site", "severity"], columns="method", values="auroc").to_string())
    curve = curve_figure(pd.read_csv(given.out / "training_curve.csv"))
    write_bytes_atomically(given.out / "training_curve.svg", figure_bytes(curve, "svg"))
    facts = json.loads((given.out / "training.json").read_text())
    if given.bundle == BUNDLE:
        facts |= {"evaluated_generator": generator_digest(), "evaluation_seed": EVALUATION_SEED}
        write_bytes_atomically(BUNDLE / "model_card.md", card(table, facts).encode())


if __name__ == "__main__":
    main()
