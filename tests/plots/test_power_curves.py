"""Curves of power: which lines are drawn where, and what is refused."""

from __future__ import annotations

import itertools

import pandas as pd
import pytest

from medvlm_probe.errors import InputError
from medvlm_probe.plots.power_curves import LINES, power_curves
from medvlm_probe.plots.style import figure_bytes

WORDS = {"spread": "Deviations", "mean": "Mean"}


def points() -> pd.DataFrame:
    rows = [
        {"shift": shift, "severity": severity, "patients_a_side": n, "test": test, "rejected": 0.1 + 0.2 * k + n / 1000}
        for k, (severity, shift) in enumerate(itertools.product((0.5, 1.0), WORDS))
        for n in (25, 150)
        for test in ("mmd", "classifier")
    ]
    return pd.DataFrame(rows)


def test_every_point_stands_in_its_panel() -> None:
    figure = power_curves(points(), WORDS)
    assert len(figure.axes) == 4
    table = points()
    for axes, (shift, n) in zip(figure.axes, itertools.product(WORDS, (25, 150)), strict=True):
        own = table[(table["shift"] == shift) & (table["patients_a_side"] == n)]
        for test in ("mmd", "classifier"):
            drawn = next(line for line in axes.lines if line.get_marker() == LINES[test][3])
            assert list(drawn.get_ydata()) == list(own[own["test"] == test]["rejected"])
    written = [text.get_text() for text in figure.texts]
    assert written.count("MMD") == written.count("Classifier") == 2
    assert figure_bytes(figure, "svg") == figure_bytes(power_curves(points(), WORDS), "svg")


def test_no_two_tests_look_alike() -> None:
    assert len({mark for _, _, _, mark in LINES.values()}) == len(LINES)


def test_a_point_given_twice_is_refused() -> None:
    with pytest.raises(InputError, match="more than one row"):
        power_curves(pd.concat([points(), points()]), WORDS)
