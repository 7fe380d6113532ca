"""Type, numbers, tables and bytes that every figure shares."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medvlm_probe.errors import InputError, UnknownNameError
from medvlm_probe.plots import style
from medvlm_probe.plots.crowding import _cell_colour, _limit, _luminance
from medvlm_probe.plots.distance_rows import KINDS
from medvlm_probe.plots.distances import distance_forest


def _lightness(colour: str) -> float:
    """CIE L* in [0, 100]."""
    luminance = _luminance(mpl.colors.to_rgb(colour))
    return 116 * luminance ** (1 / 3) - 16 if luminance > 0.008856 else 903.3 * luminance


TABLE = pd.DataFrame({"label": ["a", "b"], "value": [0.1, 0.2], "low": [0.0, 0.1], "high": [0.2, None]})


def test_overlaid_colours_differ_in_grey() -> None:
    for one, other in itertools.combinations(style.OVERLAY, 2):
        assert abs(_lightness(one) - _lightness(other)) > 20


def test_kinds_of_distance_differ_in_grey_and_stand_out_from_paper() -> None:
    colours = [kind.colour for kind in KINDS.values()]
    assert len(colours) == 3
    for one, other in itertools.combinations(colours, 2):
        assert abs(_lightness(one) - _lightness(other)) > 15
    for colour in colours:
        assert 1.05 / (_luminance(mpl.colors.to_rgb(colour)) + 0.05) >= 3.0


@pytest.mark.parametrize(
    ("enrichment", "limit"),
    [([1.0, 1.0], 1.0), ([3.0, 0.9], 2.0), ([0.3, 1.1], 2.0), ([0.0, math.nan], 1.0), ([99.0], 4.0)],
)
def test_heat_maps_scale_is_symmetric_in_log2(enrichment: list[float], limit: float) -> None:
    assert _limit(np.array(enrichment)) == limit
    assert _cell_colour(2.0**-limit, limit) == _cell_colour(0.0, limit)
    assert _cell_colour(2.0**limit, limit) == _cell_colour(2.0 ** (limit + 3), limit)
    for fold in np.linspace(0.0, limit, 9):
        places = [_place(_cell_colour(2.0 ** (sign * fold), limit)) for sign in (1, -1)]
        assert sum(places) == pytest.approx(1.0, abs=0.01)


def _place(colour: tuple[float, float, float]) -> float:
    """Where in [0, 1] a colour of the heat map stands on its colour map."""
    steps = np.linspace(0.0, 1.0, 256)
    return float(steps[np.abs(mpl.colormaps["PuOr_r"](steps)[:, :3] - np.array(colour)).sum(axis=1).argmin()])


def test_heat_map_darkens_steadily_away_from_one() -> None:
    for sign in (1, -1):
        luminance = [_luminance(_cell_colour(2.0 ** (sign * fold), 3.0)) for fold in np.linspace(0, 3, 25)]
        assert all(later < earlier for earlier, later in itertools.pairwise(luminance))


@pytest.mark.parametrize("colour", [style.INK, style.MUTED, "#A33F00"])
def test_type_has_the_contrast_that_wcag_asks_for(colour: str) -> None:
    assert 1.05 / (_luminance(mpl.colors.to_rgb(colour)) + 0.05) >= 4.5


@pytest.mark.parametrize(
    ("value", "decimals", "expected"),
    [
        (0.6124, 3, "0.612"),
        (-0.05, 2, "\u22120.05"),
        (-0.0001, 2, "0.00"),
        (1234567.0, 0, "1,234,567"),
        (math.nan, 2, "–"),
        (math.inf, 2, "–"),
    ],
)
def test_number(value: float, decimals: int, expected: str) -> None:
    assert style.number(value, decimals) == expected


@pytest.mark.parametrize(
    ("intervals", "span", "expected"),
    [
        ([(0.60, 0.62)], 1.0, 3),
        ([(0.5, 0.75)], 1.0, 2),
        ([(12000.0, 13000.0)], 30000.0, 0),
        ([(math.nan, math.nan)], 1.0, 3),
        ([], 0.0, 3),
        ([(1.0, 1.0)], math.nan, 3),
    ],
)
def test_decimals_follow_the_width_of_the_intervals(
    intervals: list[tuple[float, float]], span: float, expected: int
) -> None:
    assert style.decimals_for(intervals, span) == expected


@settings(max_examples=25, deadline=None)
@given(st.text(st.characters(codec="latin-1"), max_size=60), st.floats(8.0, 60.0))
def test_wrapped_lines_fit_and_lose_nothing(text: str, width: float) -> None:
    lines = style.wrapped(text, width)
    assert all(style.text_width(line) <= width or len(line) == 1 for line in lines)
    assert "".join(lines).replace(" ", "") == style.plain(text).replace(" ", "")
    shortened = style.wrapped(text, width, max_lines=2)
    assert len(shortened) <= 2
    assert all(style.text_width(line) <= width or len(line) == 1 for line in shortened)


def test_wrapped_drops_whole_words_before_an_ellipsis() -> None:
    width = style.text_width("judged by a consensus of")
    assert style.wrapped("judged by a consensus of three radiologists", width, max_lines=1) == [
        "judged by a consensus…"
    ]
    assert style.wrapped("Averylongword", style.text_width("Averylong"), max_lines=1)[0].endswith("…")


def test_wrapped_cuts_names_after_their_marks() -> None:
    width = style.text_width("inverted_arch", bold=True)
    assert style.wrapped("inverted_archive", width, bold=True) == ["inverted_", "archive"]


def test_labels_are_shown_in_words() -> None:
    assert style.shown("pleural_effusion", None) == "Pleural effusion"
    assert style.shown("pleural_effusion", {"pleural_effusion": "Water\non the lung"}) == "Water on the lung"


def test_tables_are_checked() -> None:
    def check(table: pd.DataFrame) -> pd.DataFrame:
        return style.checked_table(
            table, "estimates", text=("label",), numeric=("value", "low", "high"), flag="reliable", key=("label",)
        )

    checked = check(TABLE)
    assert math.isnan(checked["high"][1])
    assert list(checked["reliable"]) == [True, True]
    assert list(check(TABLE.assign(reliable=[None, False]))["reliable"]) == [True, False]
    with pytest.raises(InputError, match="lacks the columns value, low; it has label, high"):
        check(TABLE[["label", "high"]])
    with pytest.raises(InputError, match="estimates has no rows"):
        check(TABLE.iloc[:0])
    with pytest.raises(InputError, match="column value of the table of estimates must hold numbers"):
        check(TABLE.assign(value=["much", "little"]))
    with pytest.raises(InputError, match="more than one row for label 'a'"):
        check(TABLE.assign(label="a"))
    with pytest.raises(InputError, match="column reliable of the table of estimates must hold True and False"):
        check(TABLE.assign(reliable=["False", "True"]))


def test_the_table_given_is_left_as_it_was() -> None:
    before = TABLE.copy(deep=True)
    distance_forest(TABLE)
    pd.testing.assert_frame_equal(TABLE, before)


def test_unknown_formats_are_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"Unknown figure format 'svgg'\. Did you mean svg"):
        style.figure_bytes(distance_forest(TABLE), "svgg")


def test_the_users_settings_change_nothing_and_come_back() -> None:
    usual = style.figure_bytes(distance_forest(TABLE), "svg")
    with mpl.rc_context({"font.size": 21.0, "axes.facecolor": "red", "svg.hashsalt": "x", "savefig.bbox": "tight"}):
        assert style.figure_bytes(distance_forest(TABLE), "svg") == usual
        assert mpl.rcParams["font.size"] == 21.0
        assert mpl.rcParams["svg.hashsalt"] == "x"


def test_another_process_gives_the_same_bytes_without_pyplot_or_heavy_imports() -> None:
    script = """
import sys
import medvlm_probe.plots.contact_sheet, medvlm_probe.plots.crowding, medvlm_probe.plots.distances
import medvlm_probe.plots.projection
assert "matplotlib" not in sys.modules and "pandas" not in sys.modules
import pandas as pd
from medvlm_probe.plots.style import figure_bytes
table = pd.DataFrame({"label": ["a"], "value": [0.1], "low": [0.0], "high": [0.2]})
first = figure_bytes(medvlm_probe.plots.distances.distance_forest(table), "svg")
assert "matplotlib.pyplot" not in sys.modules
sys.stdout.buffer.write(first)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert run.returncode == 0, run.stderr.decode()
    table = pd.DataFrame({"label": ["a"], "value": [0.1], "low": [0.0], "high": [0.2]})
    assert run.stdout == style.figure_bytes(distance_forest(table), "svg")
