"""The study's figures: what is drawn is what the tables say, legible at both widths."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from medvlm_probe.errors import InputError
from medvlm_probe.plots.similarity import cosine_distributions
from medvlm_probe.plots.study import label_counts, recall_by_setting
from medvlm_probe.plots.style import figure_bytes
from medvlm_probe.plots.threshold_curves import threshold_curves

SETTINGS = ("Zero-shot", "Linear probe", "Fine-tuned")
POSITIVES = (360, 10, 62, 77, 25, 7, 5, 10, 32, 3, 19, 1, 19, 0)


def recalls(labels: tuple[str, ...]) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = []
    for label, n in zip(labels, POSITIVES, strict=False):
        for setting in SETTINGS:
            value = rng.uniform(0.2, 1.0) if n else math.nan
            half = 0.8 / math.sqrt(max(n, 1))
            bounds = max(value - half, 0.0), min(value + half, 1.0)
            rows.append((label, setting, value, *(bounds if n else (math.nan, math.nan)), n, n >= 8, 0.3))
    columns = ["label", "setting", "value", "low", "high", "n_positive", "reliable", "chance"]
    return pd.DataFrame(rows, columns=columns)


def counts(labels: tuple[str, ...]) -> pd.DataFrame:
    rows = [
        (label, split, int(n * factor))
        for label, n in zip(labels, POSITIVES, strict=False)
        for split, factor in (("train", 40), ("calib", 0.3), ("test", 1))
    ]
    return pd.DataFrame(rows, columns=["label", "split", "n_positive"])


def curves(settings: tuple[str, ...], scale: float = 1.0) -> pd.DataFrame:
    at = np.linspace(0, 1, 21)
    parts = {"recall": 1 - at, "precision": np.where(at > 0.9, np.nan, at), "f1": at * (1 - at)}
    return pd.concat(
        [
            pd.DataFrame({"setting": setting, "metric": metric, "threshold": scale * at, "value": values})
            for setting in settings
            for metric, values in parts.items()
        ]
    )


def cosines(labels: tuple[str, ...], sites: tuple[str, ...]) -> tuple[pd.DataFrame, pd.DataFrame]:
    grid = np.linspace(-0.2, 0.6, 50)
    densities, overlaps = [], []
    for site in sites:
        for label, n in zip(labels, POSITIVES, strict=False):
            known = n > 1
            value = 0.7 if known else math.nan
            overlaps.append((site, label, value, value - 0.1, value + 0.1, n >= 20, n, 573 - n))
            for kind, centre in (("positive", 0.3), ("negative", 0.1)):
                if known:
                    density = np.exp(-50 * (grid - centre) ** 2)
                    densities.append(
                        pd.DataFrame({"site": site, "label": label, "kind": kind, "cosine": grid, "density": density})
                    )
    columns = ["site", "label", "value", "low", "high", "reliable", "n_positive", "n_negative"]
    return pd.concat(densities), pd.DataFrame(overlaps, columns=columns)


CHOSEN = pd.DataFrame(
    [(setting, metric, 0.4) for setting in SETTINGS for metric in ("recall", "precision", "f1")],
    columns=["setting", "metric", "value"],
)
CASES: dict[str, Callable[[SimpleNamespace], Figure]] = {
    "recalls": lambda make: recall_by_setting(recalls(make.labels), title="A title", note="A note."),
    "recalls, one column": lambda make: recall_by_setting(recalls(make.labels), width_mm=88),
    "recalls, long names": lambda make: recall_by_setting(
        recalls(make.long).replace({"setting": {"Fine-tuned": "Fine-tuned for ten epochs with an asymmetric loss"}}),
        width_mm=88,
    ),
    "counts": lambda make: label_counts(counts(make.labels), note="A note."),
    "counts, one column": lambda make: label_counts(counts(make.labels), width_mm=88),
    "counts, long names": lambda make: label_counts(counts(make.long)),
    "curves": lambda make: threshold_curves(curves(SETTINGS), CHOSEN, note="A note."),
    "curves of one": lambda make: threshold_curves(curves(SETTINGS[:1], 30.0)),
    "curves of four, one column": lambda make: threshold_curves(curves((*SETTINGS, "Another")), CHOSEN, width_mm=88),
    "cosines": lambda make: cosine_distributions(*cosines(make.labels, ("",)), title="A title"),
    "cosines at sites": lambda make: cosine_distributions(*cosines(make.labels[:4], ("", *make.sites)), note="A note."),
    "cosines, one column": lambda make: cosine_distributions(*cosines(make.long, ("", *make.sites[:3])), width_mm=88),
}


@pytest.fixture(scope="module", params=list(CASES))
def figure(request: pytest.FixtureRequest, make: SimpleNamespace) -> Figure:
    return CASES[request.param](make)


def _words(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]


def test_texts_lie_inside_apart_and_are_large_enough(
    figure: Figure, texts_of: Callable[[Figure], list[tuple[str, np.ndarray]]]
) -> None:
    found = texts_of(figure)
    width, height = figure.bbox.size
    for text, corners in found:
        assert corners.min() >= -0.1, text
        assert corners[:, 0].max() <= width + 0.1, text
        assert corners[:, 1].max() <= height + 0.1, text
    shared = 0.35 * figure.dpi / 25.4  # room for descenders
    for place, (one, a) in enumerate(found):
        for other, b in found[place + 1 :]:
            apart = np.maximum(a.min(axis=0) - b.max(axis=0), b.min(axis=0) - a.max(axis=0))
            assert apart.max() >= -shared, (one, other)
    assert min(text.get_fontsize() for text in figure.findobj(Text) if text.get_text().strip()) >= 8.0
    assert figure_bytes(figure, "svg", dpi=60) == figure_bytes(figure, "svg", dpi=60)


def test_recalls_stand_at_their_values_beside_what_chance_finds() -> None:
    table = recalls(("a", "b", "c"))
    table.loc[0, "reliable"] = False
    figure = recall_by_setting(table)
    axes = max(figure.axes, key=lambda axes: axes.get_position().width)
    marks = [line for line in axes.lines if line.get_marker() in ("o", "s", "D")]
    assert sorted(float(line.get_xdata()[0]) for line in marks) == sorted(table["value"])
    assert sum(line.get_markerfacecolor() == "white" for line in marks) == 1
    ticks = [line for line in axes.lines if list(line.get_xdata()) == [0.3, 0.3]]
    assert len(ticks) == 9
    assert "360" in _words(figure)
    assert any("at random" in words for words in _words(figure))
    assert not any("at random" in words for words in _words(recall_by_setting(table.drop(columns="chance"))))


def test_counts_stand_at_their_logarithm_and_none_has_a_place() -> None:
    table = pd.DataFrame({"label": ["a", "a"], "split": ["train", "test"], "n_positive": [1000, 0]})
    figure = label_counts(table)
    axes = max(figure.axes, key=lambda axes: axes.get_position().width)
    places = {line.get_marker(): float(line.get_xdata()[0]) for line in axes.lines if line.get_marker() in ("o", "s")}
    assert places["o"] == pytest.approx(3.0)
    assert places["s"] < 0
    assert {"1,000", "0", "train", "test"} <= set(_words(figure))


def test_curves_break_where_undefined_and_chosen_points_stand_in_their_strip() -> None:
    figure = threshold_curves(curves(SETTINGS[:1]), CHOSEN.iloc[:3])
    [panel, strip] = [axes for axes in figure.axes if axes.get_position().height > 0.2]
    drawn = {line.get_color(): line.get_ydata() for line in panel.lines if len(line.get_xdata()) == 21}
    assert len(drawn) == 3
    assert sum(np.isnan(values).any() for values in drawn.values()) == 1
    assert [float(line.get_ydata()[0]) for line in strip.lines] == [0.4] * 3
    placed = threshold_curves(curves(SETTINGS[:1]), CHOSEN.iloc[:3].assign(threshold=0.5))
    assert len([axes for axes in placed.axes if axes.get_position().height > 0.2]) == 1


def test_a_site_without_the_label_says_so() -> None:
    words = _words(cosine_distributions(*cosines(("a", *"bcdefghijkl"), ("", "p"))))
    assert words.count("too few (n = 1)") == 2
    assert "All images" in words


def test_what_cannot_be_drawn_is_refused() -> None:
    table = recalls(("a",))
    with pytest.raises(InputError, match="more than one row"):
        recall_by_setting(pd.concat([table, table]))
    five = pd.concat([table.iloc[:1].assign(setting=f"setting {k}") for k in range(5)])
    with pytest.raises(InputError, match="takes up to 4"):
        recall_by_setting(five)
    with pytest.raises(InputError, match="expected recall, precision, f1"):
        threshold_curves(curves(("a",)).assign(metric="auroc"))
    for draw in (recall_by_setting, label_counts, threshold_curves):
        with pytest.raises(InputError, match=r"has no rows|lacks the column"):
            draw(table.iloc[:0])
