"""What is drawn is what the table says: places, shapes, order, numbers and refusals."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from medvlm_probe.errors import InputError, UnknownNameError
from medvlm_probe.plots.contact_sheet import contact_sheet
from medvlm_probe.plots.crowding import cross_site, crowding_heat_map
from medvlm_probe.plots.distance_rows import _outline
from medvlm_probe.plots.distances import distance_distributions, distance_forest
from medvlm_probe.plots.point_panels import mixed
from medvlm_probe.plots.projection import projection_by_label, projection_scatter


def _words(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]


def _marks(axes: Axes, marker: str) -> list[tuple[float, float, bool]]:
    """The (x, y, filled) of all marks of a kind in some axes."""
    return [
        (float(line.get_xdata()[0]), float(line.get_ydata()[0]), line.get_markerfacecolor() != "white")
        for line in axes.lines
        if line.get_marker() == marker
    ]


def _largest(figure: Figure) -> Axes:
    return max(figure.axes, key=lambda axes: axes.get_position().width * axes.get_position().height)


# --- Distributions ----------------------------------------------------------------------------------------------------


def test_an_outline_holds_the_histograms_area_and_falls_to_the_axis_in_gaps() -> None:
    bins = pd.DataFrame({"left": [0.4, 0.0, 0.1, 0.6], "right": [0.5, 0.1, 0.2, 0.7], "density": [3.0, 0.0, 2.0, 5.0]})
    x, y = _outline(bins)
    assert np.trapezoid(y, x) == pytest.approx(0.1 * (3.0 + 2.0 + 5.0))
    assert (x[0], y[0], x[-1], y[-1]) == (0.1, 0.0, 0.7, 0.0)
    for place, expected in ((0.15, 2.0), (0.3, 0.0), (0.45, 3.0), (0.55, 0.0), (0.65, 5.0)):
        assert np.interp(place, x, y) == expected


def test_each_mean_stands_at_its_value_and_is_open_where_unreliable(make: SimpleNamespace) -> None:
    labels = ("cardiomegaly", "consolidation")
    histogram, estimates = make.distance_tables(labels)
    figure = distance_distributions(histogram, estimates)
    wide = figure.axes[0].get_position().width
    rows = [axes for axes in figure.axes[1:] if axes.get_position().width == pytest.approx(wide)]
    assert len(rows) == len(labels)
    for label, axes in zip(labels, rows, strict=True):
        for kind, marker in (("intra_positive", "o"), ("intra_negative", "s"), ("inter", "D")):
            given = estimates[(estimates["label"] == label) & (estimates["kind"] == kind)].iloc[0]
            [(x, _, filled)] = _marks(axes, marker)
            assert x == given["value"]
            assert filled == given["reliable"]


def test_few_positives_are_said_and_undefined_means_are_dashes(make: SimpleNamespace) -> None:
    words = _words(distance_distributions(*make.distance_tables(("cardiomegaly", "support_devices"))))
    assert words.count("too few positives") == 1
    assert "0 positive, 573 negative" in words
    # no pair of positives, and no pair of a positive and a negative
    assert words.count("–") == 2
    words = _words(distance_distributions(*make.distance_tables(("cardiomegaly",)), too_few=63))
    assert words.count("too few positives") == 1


def test_all_rows_share_the_axis_and_reliable_intervals_lie_on_it(make: SimpleNamespace) -> None:
    histogram, estimates = make.distance_tables(make.labels[:7])
    figure = distance_distributions(histogram, estimates)
    wide = figure.axes[0].get_position().width
    limits = {axes.get_xlim() for axes in figure.axes if axes.get_position().width == pytest.approx(wide)}
    assert len(limits) == 1
    [(low, high)] = limits
    reliable = estimates[estimates["reliable"]]
    assert low <= reliable["low"].min()
    assert reliable["high"].max() <= high


def test_a_spike_of_few_positives_does_not_flatten_the_others_and_its_cut_is_said(make: SimpleNamespace) -> None:
    histogram, estimates = make.distance_tables(("cardiomegaly",))
    assert not any("is cut" in words for words in _words(distance_distributions(histogram, estimates)))
    spike = histogram["kind"] == "intra_positive"
    histogram.loc[spike, "density"] = 0.0
    histogram.loc[histogram.index[spike][20], "density"] = 25.0
    figure = distance_distributions(histogram, estimates)
    assert any("is cut" in words for words in _words(figure))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"space": "cosine"}, UnknownNameError, "Unknown space 'cosine'"),
        ({"kind": "intra"}, UnknownNameError, "Unknown kind of distance 'intra'"),
        ({"right": -1.0}, InputError, "right edge must lie above"),
    ],
)
def test_distributions_refuse_what_they_do_not_know(
    make: SimpleNamespace, change: dict[str, object], error: type[Exception], message: str
) -> None:
    histogram, estimates = make.distance_tables(("cardiomegaly",))
    space = change.pop("space", "l2")
    with pytest.raises(error, match=message):
        distance_distributions(histogram.assign(**change), estimates, space=space)


def test_distributions_name_the_columns_that_are_missing(make: SimpleNamespace) -> None:
    histogram, estimates = make.distance_tables(("cardiomegaly",))
    with pytest.raises(InputError, match="table of histograms lacks the columns left, density; it has label"):
        distance_distributions(histogram.drop(columns=["left", "density"]), estimates)
    with pytest.raises(InputError, match="table of estimates lacks the column kind; it has label"):
        distance_distributions(histogram, estimates.drop(columns="kind"))


# --- Forest and cross-site --------------------------------------------------------------------------------------------


def test_forest_is_ordered_by_effect_with_the_undefined_last() -> None:
    table = pd.DataFrame(
        {
            "label": ["a", "b", "c", "d"],
            "value": [0.1, math.nan, 0.3, -0.2],
            "low": [0.0, math.nan, 0.2, -0.6],
            "high": [0.2, math.nan, 0.4, 0.2],
            "reliable": [True, True, True, False],
            "n_positive": [30, 0, 40, 8],
        }
    )
    figure = distance_forest(table)
    words = _words(figure)
    assert [word for word in words if word in "ABCD"] == ["C", "A", "D", "B"]
    assert [(x, filled) for x, _, filled in _marks(_largest(figure), "o")] == [(0.3, True), (0.1, True), (-0.2, False)]
    assert {"0.30 [0.20, 0.40]", "8, too few", "0, too few", "too few", "–"} <= set(words)
    as_given = _words(distance_forest(table, sort=False))
    assert [word for word in as_given if word in "ABCD"] == ["A", "B", "C", "D"]


@pytest.mark.parametrize(("quantity", "null"), [("difference", 0.0), ("ratio", 1.0)])
def test_the_null_line_is_always_in_sight(make: SimpleNamespace, quantity: str, null: float) -> None:
    table = make.contrasts(make.labels[:3])
    far = table.assign(**{column: table[column].abs() + 5.0 for column in ("value", "low", "high")})
    axes = _largest(distance_forest(far, quantity=quantity))
    low, high = axes.get_xlim()
    assert low < null < high
    assert any(list(line.get_xdata()) == [null, null] for line in axes.lines)


def test_intervals_that_leave_the_axis_end_in_arrows() -> None:
    table = pd.DataFrame(
        {"label": ["a", "b"], "value": [0.1, 0.2], "low": [0.0, -9.0], "high": [0.2, 9.0], "reliable": [True, False]}
    )
    axes = _largest(distance_forest(table))
    assert axes.get_xlim()[1] < 1.0
    assert len(_marks(axes, "<")) == len(_marks(axes, ">")) == 1


def test_sites_share_the_axis_and_the_first_sites_order() -> None:
    table = pd.DataFrame(
        {
            "site": ["near", "near", "far", "far"],
            "label": ["a", "b", "a", "b"],
            "value": [-0.3, 0.1, 0.2, -0.4],
            "low": [-0.4, 0.0, 0.1, -0.5],
            "high": [-0.2, 0.2, 0.3, -0.3],
        }
    )
    figure = cross_site(table, reference="ours")
    assert len({axes.get_xlim() for axes in figure.axes}) == 1
    assert [[x for x, _, _ in _marks(axes, "o")] for axes in figure.axes] == [[0.1, -0.3], [-0.4, 0.2]]
    words = _words(figure)
    assert {"near", "far", "← nearer to reference positives", "nearer to reference negatives →"} <= set(words)
    assert "Distance to positives of ours minus distance to its negatives" in words


def test_a_site_without_a_label_says_so() -> None:
    table = pd.DataFrame({"site": ["p", "p", "q"], "label": ["a", "b", "a"], "value": 0.1, "low": 0.0, "high": 0.2})
    assert _words(cross_site(table, reference="r")).count("not known") == 1


def test_contrasts_refuse_what_they_do_not_know(make: SimpleNamespace) -> None:
    with pytest.raises(UnknownNameError, match="Unknown quantity 'odds'"):
        distance_forest(make.contrasts(("a",)), quantity="odds")
    with pytest.raises(InputError, match="lacks the column site"):
        cross_site(make.contrasts(("a",)), reference="r")
    with pytest.raises(InputError, match="more than one row for site 'p', label 'a'"):
        cross_site(make.contrasts(("a", "a"), ("p",)), reference="r")


# --- Crowding ---------------------------------------------------------------------------------------------------------


def _pairs(enrichment: list[float], p_adjusted: list[float]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "label": ["a", "a", "b", "b"],
            "neighbour": ["a", "b", "a", "b"],
            "share": [0.3, 0.04, 0.1, 0.2],
            "expected": 0.1,
            "enrichment": enrichment,
            "p_adjusted": p_adjusted,
        }
    )


def test_only_cells_that_differ_from_chance_hold_numbers() -> None:
    figure = crowding_heat_map(_pairs([3.0, 0.4, 1.0, math.nan], [0.001, 0.04, 0.9, math.nan]), n_neighbors=7)
    axes = _largest(figure)
    cells = [(text.get_position()[0], text.get_text()) for text in axes.texts]
    assert cells == [
        (0.5, "3.0 ×"), (0.5, "30 %"), (0.5, "(10 %)"), (1.5, "0.4 ×"), (1.5, "4.0 %"), (1.5, "(10 %)"),
    ]  # fmt: skip
    assert [patch.get_xy() for patch in axes.patches if patch.get_hatch()] == [(1, 1)]
    assert "their 7 nearest neighbours" in " ".join(_words(figure))
    stricter = crowding_heat_map(_pairs([3.0, 0.4, 1.0, 1.0], [0.001, 0.04, 0.9, 0.9]), n_neighbors=7, alpha=0.01)
    assert len(_largest(stricter).texts) == 3


def test_an_enrichment_of_nothing_is_drawn_as_zero() -> None:
    figure = crowding_heat_map(_pairs([0.0, 40.0, 1.0, 1.0], [0.001] * 4), n_neighbors=7)
    assert {"0.0 ×", "40 ×"} <= {text.get_text() for text in _largest(figure).texts}


def test_crowding_follows_the_order_given_and_refuses_one_that_lacks_a_label() -> None:
    pairs = _pairs([3.0, 0.4, 1.0, 1.0], [0.001, 0.9, 0.9, 0.9])
    axes = _largest(crowding_heat_map(pairs, n_neighbors=7, order=["b", "c", "a"]))
    assert axes.texts[0].get_position()[0] == 1.5
    assert axes.texts[0].get_position()[1] > 1.0
    with pytest.raises(InputError, match="leaves out b; it must name every label"):
        crowding_heat_map(pairs, n_neighbors=7, order=["a"])
    with pytest.raises(InputError, match="cannot be negative"):
        crowding_heat_map(pairs.assign(enrichment=-1.0), n_neighbors=7)
    with pytest.raises(InputError, match="lacks the columns neighbour, p_adjusted"):
        crowding_heat_map(pairs.drop(columns=["neighbour", "p_adjusted"]), n_neighbors=7)


# --- Projection and contact sheet -------------------------------------------------------------------------------------


def test_projection_counts_its_groups_and_says_that_it_is_an_illustration(make: SimpleNamespace) -> None:
    table = make.coordinates(3)
    words = " ".join(_words(projection_scatter(table, by="site")))
    defined = table.dropna(subset=["x"])
    for site, count in defined["site"].value_counts().items():
        assert f"{site} (n = {count})" in words
    assert f"Unknown (n = {defined['site'].isna().sum()})" in words
    assert "no statistic is computed on these coordinates. 1 image without coordinates left out." in words


def test_projection_shows_a_labels_values_in_the_order_of_the_words() -> None:
    table = pd.DataFrame({"x": [0.0, 1.0, 2.0], "y": [0.0, 1.0, 0.0], "edema": [1.0, 0.0, math.nan]})
    words = _words(projection_scatter(table, by="edema", labels_words={"1": "Present", "0": "Absent"}))
    shown = [word for word in words if "(n = 1)" in word]
    assert shown == ["Present (n = 1)", "Absent (n = 1)", "Unknown (n = 1)"]


def test_projection_has_one_scale_for_both_axes(make: SimpleNamespace) -> None:
    figure = projection_scatter(make.coordinates(6), by="site")
    for axes in figure.axes:
        box = axes.get_window_extent()
        per_pixel = np.ptp(axes.get_xlim()) / box.width, np.ptp(axes.get_ylim()) / box.height
        assert per_pixel[0] == pytest.approx(per_pixel[1])


def test_points_are_drawn_in_a_fixed_order_that_mixes_neighbours() -> None:
    order = mixed(1000)
    assert sorted(order) == list(range(1000))
    assert abs(np.corrcoef(np.arange(1000), order)[0, 1]) < 0.05


def test_projection_by_label_draws_each_image_once_a_panel_and_says_who_has_several() -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"x": rng.normal(size=200), "y": rng.normal(size=200), "a": 0.0, "b": 1.0})
    table.loc[:9, "a"] = 1.0
    table.loc[10:19, "a"] = math.nan
    figure = projection_by_label(table, ["a", "b"], labels_words={"a": "Rare", "b": "Frequent"})
    drawn = [sum(len(points.get_offsets()) for points in axes.collections) for axes in figure.axes]
    assert drawn == [190, 200]
    words = " ".join(_words(figure))
    assert "n = 10; 10 unknown" in words
    assert "10 of 200 images have several of these labels" in words
    rare = figure.axes[0].collections[-1]
    assert np.array_equal(rare.get_offsets(), table.loc[:9, ["x", "y"]].to_numpy())
    with pytest.raises(InputError, match="at least one label"):
        projection_by_label(table, [])


def test_projection_refuses_what_it_cannot_draw(make: SimpleNamespace) -> None:
    with pytest.raises(InputError, match="lacks the column scanner"):
        projection_scatter(make.coordinates(2), by="scanner")
    with pytest.raises(InputError, match="nothing to draw"):
        projection_scatter(make.coordinates(2).assign(x=math.nan))


def test_contact_sheet_shows_the_pixels_on_one_grey_scale() -> None:
    images = [np.full((8, 6), value, dtype=np.uint8) for value in (10, 200)]
    figure = contact_sheet(images, n_columns=2)
    for axes, image in zip(figure.axes, images, strict=True):
        [shown] = axes.images
        assert np.array_equal(shown.get_array(), image)
        assert shown.get_clim() == (0, 255)
        box = axes.get_window_extent()
        assert box.height / box.width == pytest.approx(8 / 6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": []}, "at least one image"),
        ({"images": [np.zeros((4, 4))]}, "Image 0 is float64 of shape"),
        ({"images": [np.zeros((4, 4, 3), dtype=np.uint8)]}, r"shape \(4, 4, 3\)"),
        ({"titles": ["a", "b"]}, "takes 1 titles; 2 were given"),
        ({"n_columns": 0}, "at least one column"),
        ({"masks": [[np.zeros((3, 4), dtype=bool)]]}, r"mask of image 0 has shape \(3, 4\)"),
    ],
)
def test_contact_sheet_refuses_what_it_cannot_draw(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        contact_sheet(**{"images": [np.zeros((4, 4), dtype=np.uint8)], "n_columns": 1, **arguments})
