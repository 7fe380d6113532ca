"""The figure of sources: every text on the page, none over another, each mark at its value, apart without colour."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from medvlm_probe.errors import InputError
from medvlm_probe.plots.label_agreement import _MARKS, MOST_SOURCES, sources_figure
from medvlm_probe.plots.style import figure_bytes

Texts = Callable[[Figure], list[tuple[str, np.ndarray]]]


def table(labels: tuple[str, ...], sources: tuple[str, ...], metrics: tuple[str, ...]) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = []
    for label, source, metric in itertools.product(labels, sources, metrics):
        if metric == "kappa" and source == sources[0]:
            continue
        value = float(rng.uniform(1.0, 1.3) if metric == "ratio" else rng.uniform(0.3, 0.95))
        rows.append((label, metric, source, value, value - 0.05, min(value + 0.05, 1.35), bool(rng.random() < 0.8)))
    return pd.DataFrame(rows, columns=["label", "metric", "source", "value", "low", "high", "reliable"])


ALL = ("kappa", "recall", "auroc", "ratio")
CASES = {
    "all metrics, 14 labels": lambda make: (table(make.labels, ("manifest", "rules", "lstm"), ALL), "manifest"),
    "kappa only": lambda make: (table(make.labels, ("manifest", "rules"), ("kappa",)), "manifest"),
    "one label": lambda make: (table(("edema",), ("a", "b"), ("kappa", "auroc")), "a"),
    "long names": lambda make: (
        table(make.long, ("a source with a long name of many words", "b" * 60, "c", "d", "e"), ALL),
        "a source with a long name of many words",
    ),
    "hostile names": lambda make: (table(("$x^{2$", "a & b"), ("$y", "{z}"), ALL), "$y"),
}


@pytest.mark.parametrize("case", CASES)
def test_texts_lie_on_the_page_and_apart(case: str, make: SimpleNamespace, texts_of: Texts) -> None:
    rows, reference = CASES[case](make)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = sources_figure(rows, reference=reference, note="Synthetic phantoms: not medicine.")
    width, height = figure.get_size_inches() * figure.dpi
    boxes = texts_of(figure)
    for text, corners in boxes:
        assert corners[:, 0].min() >= -1, text
        assert corners[:, 0].max() <= width + 1, text
        assert corners[:, 1].min() >= -1, text
        assert corners[:, 1].max() <= height + 1, text
    for (one, a), (other, b) in itertools.combinations(boxes, 2):
        apart = (a.max(axis=0) - 0.5 <= b.min(axis=0)) | (b.max(axis=0) - 0.5 <= a.min(axis=0))
        assert apart.any(), f"'{one}' lies over '{other}'"


def test_marks_stand_at_their_values() -> None:
    rows = table(("edema", "fracture"), ("manifest", "rules"), ("auroc",))
    figure = sources_figure(rows, reference="manifest")
    drawn = [float(line.get_xdata()[0]) for line in figure.axes[0].lines if line.get_marker() in ("o", "s")]
    assert drawn == pytest.approx(rows["value"].tolist())


def test_sources_differ_in_shape_and_neighbours_in_grey() -> None:
    shapes = [marker for marker, _ in _MARKS]
    greys = [float(np.dot(to_rgb(colour), (0.299, 0.587, 0.114))) for _, colour in _MARKS]
    assert len(set(shapes)) == len(shapes)
    assert min(abs(a - b) for a, b in itertools.pairwise(greys)) > 0.12


def test_the_same_table_gives_the_same_bytes() -> None:
    rows = table(("edema",), ("a", "b"), ALL)
    one, other = (figure_bytes(sources_figure(rows, reference="a"), "svg") for _ in range(2))
    assert one == other


def test_undefined_values_and_too_many_sources_are_left_out() -> None:
    rows = table(("edema",), tuple("abcdefgh"), ("auroc",))
    rows.loc[0, "value"] = np.nan
    figure = sources_figure(rows, reference="a")
    marked = [line for line in figure.axes[0].lines if line.get_marker() not in ("None", None, "")]
    assert len(marked) == MOST_SOURCES - 1
    with pytest.raises(InputError, match="more than one row"):
        sources_figure(pd.concat([rows, rows]), reference="a")
