"""Heat maps: colours against Oklab's definition, one scale, hatching, and figures without cut or crossing text."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from medvlm_probe.errors import InputError
from medvlm_probe.plots.reader_sheet import SheetPage, sheet_page, sheet_pdf
from medvlm_probe.plots.saliency import GalleryEntry, HeatMapRow, error_gallery, heat_map_panels
from medvlm_probe.plots.saliency_faithfulness import CURVES, faithfulness_figure
from medvlm_probe.plots.saliency_ink import AGAINST, FOR, LARGEST_SHOWN, coloured, scale_limit, shrunk
from medvlm_probe.plots.saliency_measures import localization_figure
from medvlm_probe.plots.style import BLUE, MUTED, figure_bytes

Texts = Callable[[Figure], list[tuple[str, np.ndarray]]]


def oklab_to_srgb(lightness: float, a: float, b: float) -> np.ndarray:
    """Ottosson's published two matrices, one colour at a time."""
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = (
        4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
    )
    curve = [12.92 * v if v <= 0.0031308 else 1.055 * v ** (1 / 2.4) - 0.055 for v in np.clip(linear, 0, 1)]
    return np.array(curve)


def test_zero_leaves_the_radiograph_as_it_was_and_so_does_what_was_never_seen() -> None:
    grey = np.linspace(0, 1, 32).reshape(4, 8)
    for values in (np.zeros((4, 8)), np.full((4, 8), np.nan)):
        np.testing.assert_allclose(coloured(grey, values, 2.0), np.repeat(grey[..., None], 3, axis=2), atol=2e-4)


@pytest.mark.parametrize(("share", "end"), [(1.0, FOR), (-1.0, AGAINST), (0.5, FOR), (-3.0, AGAINST)])
def test_a_share_of_the_limit_goes_that_share_of_the_way_to_its_end(share: float, end: tuple[float, ...]) -> None:
    weight = 0.75 * min(abs(share), 1.0)
    ground = ((0.5 + 0.055) / 1.055) ** 2.4
    expected = oklab_to_srgb(*((1 - weight) * np.array([np.cbrt(ground), 0, 0]) + weight * np.array(end)))
    np.testing.assert_allclose(coloured(np.full((1, 1), 0.5), np.full((1, 1), 4.0 * share), 4.0)[0, 0], expected)


def test_both_ends_are_equally_light() -> None:
    assert FOR[0] == AGAINST[0]


def test_one_outlier_does_not_set_the_scale_and_flat_maps_have_one() -> None:
    values = np.zeros((100, 100))
    values[0, :50] = -3.0
    values[0, 0] = 1e9
    assert scale_limit([values]) == pytest.approx(3.0)
    assert scale_limit([np.zeros((4, 4)), np.full((4, 4), np.nan)]) == 1.0


def test_large_images_are_shown_by_the_means_of_blocks() -> None:
    image = np.arange(900 * 600, dtype=np.float64).reshape(900, 600)
    small = shrunk(image)
    assert small.shape == (300, 200)
    assert max(small.shape) <= LARGEST_SHOWN
    assert small[7, 11] == image[21:24, 33:36].mean()


def row(name: str = "img-01234567, site a, labelled x", height: int = 60, width: int = 48, **maps: float) -> HeatMapRow:
    image = (np.arange(height * width) % 256).astype(np.uint8).reshape(height, width)
    wave = np.sin(np.arange(width) / 6)[None] * np.cos(np.arange(height) / 9)[:, None]
    values = {key: (wave * scale).astype(np.float32) for key, scale in maps.items()}
    for each in values.values():
        each[:5] = np.nan
    region = np.zeros((height, width), dtype=bool)
    region[20:40, 10:30] = True
    return HeatMapRow(name, image, values, region, {"own": "above 97 %"})


COLUMNS = {"own": "Zero-shot", "probe": "Linear probe", "wrong": "Control: as enlarged cardiomediastinum"}


def panels() -> Figure:
    rows = [row(own=1.0, probe=0.2, wrong=5.0), row("img-89abcdef", 40, 50, own=0.5, wrong=1.0)]
    return heat_map_panels(
        rows, COLUMNS, unit="Grad-CAM, logits", scale_from=("own", "probe"), title="Where", note="N."
    )


def gallery() -> Figure:
    one = row(own=1.0)
    entries = [GalleryEntry((one.name, "above 3 % of negatives"), one.image, one.maps["own"], one.region)] * 5
    return error_gallery({"Misses: labelled x": entries, "False alarms": entries[:1]}, unit="logits", title="Errors")


def measures(reliable: bool = False) -> Figure:
    table = pd.DataFrame(
        [
            (label, setting, metric, 0.6, 0.5, 0.7, 23, 0.1, 0.3, reliable)
            for label in ("cardiomegaly", "enlarged_cardiomediastinum", "lung_opacity")
            for setting in ("a", "b", "wrong")
            for metric in ("pointing_game", "iou")
            if (label, metric) != ("lung_opacity", "iou")
        ],
        columns=["label", "setting", "metric", "value", "low", "high", "n_images", "uniform", "centre", "reliable"],
    )
    words = {"a": "Zero-shot", "b": "Linear probe of a long name, fitted elsewhere", "wrong": "Map of another label"}
    metrics = {"pointing_game": "Pointing game", "iou": "IoU"}
    return localization_figure(table, metrics, settings=words, controls=("wrong",), title="Found?", note="N.")


def faithfulness(reliable: bool = False) -> Figure:
    places = [("enlarged_cardiomediastinum", "a"), ("edema", "b")]
    curves = pd.DataFrame(
        [
            (*place, curve, order, share, 3 - share - (order == "map"))
            for place in places
            for curve in ("deletion", "insertion")
            for order in ("map", "random")
            for share in (0.0, 0.5, 1.0)
        ],
        columns=["label", "setting", "curve", "order", "share", "logit"],
    )
    gains = pd.DataFrame(
        [(*place, f"{curve}_gain", 1.234, -0.5, 3.0, 12, reliable) for place in places for curve in CURVES],
        columns=["label", "setting", "measure", "value", "low", "high", "n_images", "reliable"],
    )
    words = {"a": "Zero-shot", "b": "Tuned prompts, seed-00"}
    return faithfulness_figure(curves, gains, settings=words, title="What moves it?", note="N.")


def page() -> Figure:
    image = np.zeros((300, 220), dtype=np.uint8)
    return sheet_page(SheetPage("img-01234567", image, "Asked about: edema."), number=1, n_pages=2, note="A note.")


@pytest.mark.parametrize("make_figure", [panels, gallery, measures, faithfulness, page])
def test_no_text_is_cut_or_lies_over_another(make_figure: Callable[[], Figure], texts_of: Texts) -> None:
    figure = make_figure()
    texts = texts_of(figure)
    width, height = figure.get_size_inches() * figure.dpi
    for text, corners in texts:
        assert (corners >= -1).all(), text
        assert (corners[:, 0] <= width + 1).all(), text
        assert (corners[:, 1] <= height + 1).all(), text
    for (text, a), (other, b) in itertools.combinations(texts, 2):
        apart = (a.max(axis=0) <= b.min(axis=0) + 1.5) | (b.max(axis=0) <= a.min(axis=0) + 1.5)
        assert apart.any(), (text, other)
    assert figure.get_label()


def test_panels_state_scale_range_and_what_the_lines_mean(texts_of: Texts) -> None:
    texts = [text for text, _ in texts_of(panels())]
    joined = " ".join(texts)
    shown = [row(own=1.0, probe=0.2), row(height=40, width=50, own=0.5)]
    limit = scale_limit([values for one in shown for values in one.maps.values()])
    assert f"+{limit:.3f}" in texts
    assert f"−{limit:.3f}" in texts
    assert "above 97 %" in texts
    control = row(wrong=5.0).maps["wrong"]
    assert f"−{-np.nanmin(control):.3f} to {np.nanmax(control):.3f}" in texts
    for words in ("Grad-CAM, logits", "dashed against it", "Yellow: where the finding lies", "never seen by the model"):
        assert words in joined


def test_the_same_panels_give_the_same_bytes() -> None:
    one = [row(own=1.0)]
    figures = [heat_map_panels(one, {"own": "Zero-shot"}, unit="logits") for _ in range(2)]
    assert figure_bytes(figures[0], "svg", dpi=40) == figure_bytes(figures[1], "svg", dpi=40)
    pages = [SheetPage("img-1", np.zeros((50, 40), dtype=np.uint8), "Asked about: edema.")]
    assert sheet_pdf(pages, note="n") == sheet_pdf(pages, note="n")


def test_a_label_without_a_measure_says_so_and_unreliable_intervals_are_named(texts_of: Texts) -> None:
    texts = [text for text, _ in texts_of(measures())]
    assert "no region" in texts
    assert "Dashed: interval unreliable." in " ".join(texts)
    assert "Dashed" not in " ".join(text for text, _ in texts_of(measures(reliable=True)))


def test_gains_stand_above_their_curves_and_unreliable_ones_are_marked(texts_of: Texts) -> None:
    texts = [text for text, _ in texts_of(faithfulness())]
    assert texts.count("Patches taken out: gain 1.2 [−0.5, 3.0]?") == 2
    assert "Edema, Tuned prompts, seed-00 (12 images)" in texts
    assert "?" not in "".join(text for text, _ in texts_of(faithfulness(reliable=True)) if "gain 1.2" in text)
    first = faithfulness().axes[0]
    blue, grey = ({tuple(line.get_ydata()) for line in first.lines if line.get_color() == c} for c in (BLUE, MUTED))
    assert (blue, grey) == ({(2.0, 1.5, 1.0)}, {(3.0, 2.5, 2.0)})


def test_nothing_to_draw_is_refused() -> None:
    with pytest.raises(InputError, match="nothing to draw"):
        heat_map_panels([], COLUMNS, unit="")
    with pytest.raises(InputError, match="does not fit"):
        heat_map_panels([HeatMapRow("a", np.zeros((4, 4), np.uint8), {"own": np.zeros((3, 3))})], COLUMNS, unit="")
    with pytest.raises(InputError, match="at least one image"):
        error_gallery({"Misses": []}, unit="")
    with pytest.raises(InputError, match="at least one image"):
        sheet_pdf([], note="")
