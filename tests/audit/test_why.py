"""Why it moved, from image files to the page: one changed acquisition is named, a pair too, and the control."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from medvlm_probe.audit.examine import Settings, examine
from medvlm_probe.audit.inputs import AuditInputs
from medvlm_probe.audit.policy import parse_policy
from medvlm_probe.audit.why import TRIED, Why, examine_why
from medvlm_probe.cli.audit_figures import audit_figures
from medvlm_probe.cli.audit_tables import audit_tables
from medvlm_probe.cohort.acquisition_source import acquired
from medvlm_probe.cohort.catalog import load_cohort
from medvlm_probe.cohort.cohort import Cohort
from medvlm_probe.report.audit_page import audit_page

from .two_hospitals import LABELS, inputs_of, score

SIDE, CELLS = 32, 8


@dataclass(frozen=True)
class Greys:
    """A model that embeds an image as the greys of 8 x 8 cells and their spreads."""

    name: str = "greys"
    fingerprint: str = "greys"
    embedding_dim: int = 2 * CELLS**2 + 1
    image_size: int = SIDE

    def preprocess(self, image: Image.Image) -> torch.Tensor:
        pixels = np.asarray(image.convert("L"), dtype=np.float32) / 255
        return torch.from_numpy(np.stack([pixels] * 3))

    def encode_images(self, pixels: torch.Tensor) -> torch.Tensor:
        cells = pixels[:, 0].reshape(-1, CELLS, SIDE // CELLS, CELLS, SIDE // CELLS)
        parts = (cells.mean((2, 4)), 4 * cells.std((2, 4)))
        return torch.cat([*(part.flatten(1) for part in parts), torch.full((len(pixels), 1), 4.0)], dim=1)


def films(folder: Path, n: int, seed: int) -> Cohort:
    """Write n patients' films: a bright body that varies, a darker field for each label."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    labels = {name: rng.integers(0, 2, n) for name in LABELS}
    y, x = np.mgrid[:SIDE, :SIDE] / (SIDE - 1) - 0.5
    for k in range(n):
        body = np.exp(-6 * (x**2 + (y - 0.1 * rng.normal()) ** 2) / rng.uniform(0.7, 1.4))
        for place, name in enumerate(LABELS):
            body -= 0.3 * labels[name][k] * np.exp(-40 * ((x - 0.3 * (place - 0.5)) ** 2 + y**2))
        grey = 40 + 170 * body + rng.normal(0, 14, body.shape)
        Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8)).save(folder / f"{folder.name}{k}.png")
    table = {"image": [f"{folder.name}{k}.png" for k in range(n)], "patient": [f"{folder.name}-{k}" for k in range(n)]}
    pd.DataFrame(table | labels).to_csv(folder / "manifest.csv", index=False)
    return load_cohort(str(folder / "manifest.csv"))


def embedded(cohort: Cohort, model: Greys) -> tuple[Cohort, np.ndarray]:
    pixels = [model.preprocess(cohort.source.read(row)) for row in range(len(cohort))]
    return cohort, model.encode_images(torch.stack(pixels)).numpy()


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDVLM_PROBE_CACHE", str(tmp_path / "cache"))


def asked(tmp_path: Path, transform: str, said: list[str] | None = None) -> tuple[AuditInputs, Any]:
    """Return the inputs of an audit whose site is other patients' films under a transform, and what asks why."""
    model = Greys()
    here = acquired(films(tmp_path / "site", 60, 1), transform)
    inputs = inputs_of(embedded(films(tmp_path / "reference", 70, 0), model), embedded(here, model))

    def ask(given: AuditInputs) -> Why:
        say = None if said is None else said.append
        return examine_why(given, model, score, precision="float32", workers=1, n_images=60, say=say)  # type: ignore[arg-type]

    return inputs, ask


def test_a_changed_acquisition_reaches_the_page(tmp_path: Path) -> None:
    said: list[str] = []
    inputs, ask = asked(tmp_path, "contrast/v1@0.65", said)
    policy = parse_policy("[[rule]]\nrule = 'no shift beyond 0.5'", "p")
    found = examine(inputs, policy, Settings(n_permutations=99, n_sampled=0, why=ask))
    assert found.why is not None
    assert found.why.found.verdict == "acquisition"
    assert found.why.found.best == "contrast/v1@0.7"
    assert found.why.sentence.startswith("Most of the distance is another contrast: it explains ")
    assert "In the control, between two halves of the reference, " in found.why.sentence
    assert found.why.n_images == 60
    assert said[0] == f"60 of 70 images, untouched and under {len(TRIED)} transforms: at most 1,200 passes more."
    assert "min left" in said[1]
    result = json.loads(json.dumps(found.to_json({"model": "greys"}), allow_nan=False))
    assert [row["part"] for row in result["why"]["parts"]][:3] == ["best", "mix", "both"]
    tables = audit_tables(found)
    assert set(tables["why_sensitivity"]["transform"]) == {name.partition("/")[0] for name in TRIED}
    figures = audit_figures(found, tables)
    assert {"why_shares", "why_score_curves", "why_recall_curves"} <= set(figures)
    page = audit_page(result, {name: svg for name, svg in figures.items() if name.startswith("why")}, title="t")
    for words in (found.why.sentence, "The transform that fits best", "another contrast (x 0.7)"):
        assert words.casefold() in page.casefold().replace("&#39;", "'")


def test_two_changes_are_named_together(tmp_path: Path) -> None:
    inputs, ask = asked(tmp_path, "collimation/v1@6+contrast/v1@0.65")
    why = ask(inputs)
    found = why.found
    assert found.verdict.startswith("acquisition")
    assert found.best == "collimation/v1@5+contrast/v1@0.7"
    assert found.pair_adds is not None
    assert found.pair_adds.low > 0.05
    assert "black borders and another contrast" in why.sentence
    assert "the second change adds" in why.sentence
