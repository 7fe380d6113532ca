"""The confusion matrix of identification against its table, and nothing cut."""

from __future__ import annotations

import pandas as pd
import pytest

from medvlm_probe.errors import InputError
from medvlm_probe.plots.identification import NAMED, identification_figure
from medvlm_probe.plots.style import figure_bytes


def table() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "block": ["Features\nfew", "Features\nfew", "Phantoms\nmany"],
            "side": [0, 0, 1],
            "injected": ["none", "both", "covariate"],
            "severity": ["", ".30 to .45, moved", "gamma 2"],
            "runs": [50, 50, 50],
            "none": [48, 0, 0],
            "prevalence": [2, 5, 0],
            "covariate": [0, 20, 50],
            "both": [0, 25, 0],
        }
    )


def test_every_share_is_written_and_stays_on_the_page() -> None:
    figure = identification_figure(table(), title="A title", note="Phantoms: not medicine.")
    cells = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert cells == ["96", "4", "10", "40", "50", "100"]
    words = [text.get_text() for text in figure.texts]
    assert {"none", "both: .30 to .45, moved", "covariate: gamma 2", "Phantoms", "many"} <= set(words)
    assert all(words.count(name) >= 2 for name in NAMED)
    figure.canvas.draw()
    width, height = figure.bbox.width, figure.bbox.height
    for text in [*figure.texts, *(text for axes in figure.axes for text in axes.texts)]:
        box = text.get_window_extent()
        assert -1 <= box.x0 <= box.x1 <= width + 1
        assert -1 <= box.y0 <= box.y1 <= height + 1
    assert figure_bytes(figure, "svg") == figure_bytes(
        identification_figure(table(), title="A title", note="Phantoms: not medicine."), "svg"
    )


def test_a_table_without_rows_is_refused() -> None:
    with pytest.raises(InputError):
        identification_figure(table().iloc[:0])
