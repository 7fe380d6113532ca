"""CalibPrompt's published numbers, as data: ECE and accuracy by model and data set, and the ablations' curves."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from medvlm_probe.cohort.data_cards import DataCard
from medvlm_probe.cohort.importers.calibprompt_folder import DATA_SETS

FILE = Path(__file__).parent / "published" / "calibprompt.toml"
METRICS = ("ece", "accuracy")


def data_set_of(card: DataCard) -> str:
    """Return which published data set a cohort is, by its card's name; the name itself where it is none."""
    return DATA_SETS.get(card.name, card.name) if card.importer == "calibprompt" else card.name


def published_values(model: str, data_set: str) -> dict[tuple[str, str], float]:
    """Return (method, metric) to the published value in [0, 1]; empty where model and data set are not published.

    Args:
        model: name in the zoo.
        data_set: see `data_set_of`.
    """
    content, cell = _content(), f"{model}-{data_set}"
    return {
        (method, metric): value / 100 for metric in METRICS for method, value in content[metric].get(cell, {}).items()
    }


def published_ablation(what: str, model: str, data_set: str) -> pd.DataFrame:
    """Return the published curves, read off the figure: `method`, `metric`, `what`, `value` in [0, 1].

    Args:
        what: `shots` or `context`.
        model, data_set: of the results that they are to stand beside; no rows where the curves are not theirs.
    """
    found = _content()["ablation"]
    rows = [
        {"method": method, "metric": metric, what: at, "value": value / 100}
        for metric in METRICS
        for method, values in found[what][metric].items()
        for at, value in zip(found[what]["values"], values, strict=True)
        if found["cell"] == f"{model}-{data_set}"
    ]
    return pd.DataFrame(rows, columns=["method", "metric", what, "value"])


def published_source() -> str:
    """Return where the table's numbers come from."""
    return str(_content()["source"])


def published_setting() -> tuple[int, int]:
    """Return the images a class and the context vectors of the published table."""
    content = _content()
    return int(content["shots"]), int(content["context"])


@cache
def _content() -> dict[str, Any]:
    return tomllib.loads(FILE.read_text(encoding="utf-8"))
