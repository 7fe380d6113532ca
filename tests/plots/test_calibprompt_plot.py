"""The figures of CalibPrompt's study show what its tables say."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from medvlm_probe.errors import InputError
from medvlm_probe.plots.calibprompt import claims_figure, cosine_figure
from medvlm_probe.plots.style import figure_bytes

CELLS = ("plip on kather_colon: 9 classes", "mine", "pleural effusion, pneumothorax or no finding at two sites")
METHODS = ("ce", "ls", "ls+smac+as", "ce+smac+as")


def test_every_mean_and_draw_is_drawn() -> None:
    rng = np.random.default_rng(0)
    rows = [(cell, method, draw, *rng.random(2)) for cell in CELLS for method in METHODS for draw in range(3)]
    table = pd.DataFrame(rows, columns=["cell", "method", "draw", "cosine", "ece"])
    figure = cosine_figure(table, title="a study", note="small print")
    panels = [axes for axes in figure.axes if axes.collections]
    assert len(panels) == len(CELLS)
    for cell, axes in zip(CELLS, panels, strict=True):
        mine = table[table["cell"] == cell]
        drawn = np.concatenate([points.get_offsets() for points in axes.collections])
        assert sorted(drawn[:, 1]) == pytest.approx(sorted(mine["ece"]))
        means = [(float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in axes.lines]
        wanted = mine.groupby("method", sort=False)[["cosine", "ece"]].mean()
        np.testing.assert_allclose(means, wanted.to_numpy())
    of = dict(zip(METHODS, panels[0].lines, strict=True))
    assert of["ls"].get_color() == of["ls+smac+as"].get_color() != of["ce"].get_color()
    assert of["ce+smac+as"].get_marker() == of["ls+smac+as"].get_marker() != of["ce"].get_marker()
    texts = " ".join(text.get_text() for text in figure.texts)
    for words in ("ls+smac+as", "Mean cosine between texts", "a study", "small print"):
        assert words in texts
    assert figure_bytes(figure, "svg").startswith(b"<?xml")
    with pytest.raises(InputError, match="lacks the column ece"):
        cosine_figure(table.drop(columns="ece"))


def test_claims_have_a_panel_a_cell() -> None:
    rows = [(cell, claim, 0.01, -0.02, 0.04, claim == "LS below CE") for cell in CELLS
            for claim in ("LS below CE", "LS+SMAC+AS below temperature at the same shots")]  # fmt: skip
    figure = claims_figure(pd.DataFrame(rows, columns=["cell", "claim", "difference", "low", "high", "reliable"]))
    assert len(figure.axes) == len(CELLS)
    texts = " ".join(text.get_text() for text in figure.texts)
    assert "LS below CE" in texts
    assert "How much lower ECE is" in texts
    assert "unreliable" in texts
