"""Every figure at its edges: no warning, no text cut or over another, no small type, the same bytes each time."""

from __future__ import annotations

import itertools
import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from medvlm_probe.errors import InputError
from medvlm_probe.plots.contact_sheet import contact_sheet
from medvlm_probe.plots.crowding import cross_site, crowding_heat_map
from medvlm_probe.plots.distances import distance_distributions, distance_forest
from medvlm_probe.plots.projection import projection_by_label, projection_scatter
from medvlm_probe.plots.style import figure_bytes

NOTE = "Synthetic phantoms seen through phantom-clip: not medicine."
HOSTILE = ("$x^{2$ </script>", "a & b 'c' \"d\"\n\t", "=cmd()|' /C calc'!A0", "%s {0} \\frac")


def _pixels(height: int, width: int) -> np.ndarray:
    return (np.arange(height * width).reshape(height, width) % 256).astype(np.uint8)


def _sheet(make: SimpleNamespace) -> Figure:
    mask = np.zeros((40, 30), dtype=bool)
    mask[10:20, 5:25] = True
    return contact_sheet(
        [_pixels(40, 30), _pixels(30, 40), _pixels(40, 30), _pixels(20, 20)],
        ["Cardiomegaly, pleural effusion, support devices and more", "none", "enlarged_cardiomediastinum", "x"],
        n_columns=3,
        column_titles=["first", "second", "third"],
        row_titles=["reference", "inverted_archive"],
        boxes=[[(3, 4, 10, 12)], [], [], []],
        masks=[[mask], [], [np.zeros((40, 30), dtype=bool)], []],
        note=NOTE,
    )


def _labelled(make: SimpleNamespace) -> pd.DataFrame:
    table = make.coordinates(2)
    for k, label in enumerate(make.labels):
        table[label] = (np.arange(len(table)) % (k + 2) == 0).astype(float)
    return table


CASES: dict[str, Callable[[SimpleNamespace], Figure]] = {
    "distances of 1 label": lambda make: distance_distributions(*make.distance_tables(("cardiomegaly",)), note=NOTE),
    "distances of 3 labels": lambda make: distance_distributions(
        *make.distance_tables(make.labels[:3]), title="A title"
    ),
    "distances of 14 labels": lambda make: distance_distributions(
        *make.distance_tables(make.labels), group_words="patients", title="A title", note=NOTE
    ),
    "distances, long names, raw": lambda make: distance_distributions(
        *make.distance_tables(make.long, 31_000.0), space="raw", note=NOTE * 3
    ),
    "distances, hostile names": lambda make: distance_distributions(
        *make.distance_tables(HOSTILE), title=HOSTILE[0], note=HOSTILE[1]
    ),
    "forest of 1 label": lambda make: distance_forest(make.contrasts(("cardiomegaly",))),
    "forest of 14 labels": lambda make: distance_forest(make.contrasts(make.labels), title="A title", note=NOTE),
    "forest of 14 labels, one column": lambda make: distance_forest(
        make.contrasts(make.labels), note=NOTE, width_mm=88
    ),
    "forest of 14 labels at 5 sites": lambda make: distance_forest(make.contrasts(make.labels, make.sites), note=NOTE),
    "forest of 3 labels at 8 sites": lambda make: distance_forest(
        make.contrasts(make.labels[:3], tuple(f"hospital {i}" for i in range(8))), quantity="ratio"
    ),
    "forest, long names, large": lambda make: distance_forest(make.contrasts(make.long, scale=3e5), note=NOTE),
    "forest, hostile names and sites": lambda make: distance_forest(make.contrasts(HOSTILE, HOSTILE)),
    "cross-site, 1 label": lambda make: cross_site(
        make.contrasts(("cardiomegaly",), ("portable",)), reference="reference"
    ),
    "cross-site, one column": lambda make: cross_site(
        make.contrasts(make.labels[:2], ("portable",)), reference="reference", width_mm=88, note=NOTE
    ),
    "cross-site, 14 labels at 4 sites": lambda make: cross_site(
        make.contrasts(make.labels, make.sites[1:]), reference="reference", note=NOTE
    ),
    "crowding of 1 label": lambda make: crowding_heat_map(make.crowding(("cardiomegaly",)), n_neighbors=10, note=NOTE),
    "crowding of 3 labels": lambda make: crowding_heat_map(make.crowding(make.labels[:3]), n_neighbors=10),
    "crowding of 14 labels": lambda make: crowding_heat_map(
        make.crowding(make.labels), n_neighbors=10, title="A title", note=NOTE
    ),
    "crowding, long names": lambda make: crowding_heat_map(make.crowding(make.long), n_neighbors=5, note=NOTE),
    "crowding, hostile names": lambda make: crowding_heat_map(make.crowding(HOSTILE), n_neighbors=5),
    "projection without groups": lambda make: projection_scatter(make.coordinates(2), width_mm=88, note=NOTE),
    "projection of 2 sites": lambda make: projection_scatter(make.coordinates(2), by="site", note=NOTE),
    "projection of 3 sites, one column": lambda make: projection_scatter(
        make.coordinates(3), by="site", width_mm=88, note=NOTE
    ),
    "projection of 6 sites": lambda make: projection_scatter(make.coordinates(6), by="site", note=NOTE),
    "projection of 6 sites, one column": lambda make: projection_scatter(
        make.coordinates(6), by="site", width_mm=88, note=NOTE
    ),
    "projection of one point": lambda make: projection_scatter(make.coordinates(2).iloc[[30]], by="site"),
    "projection by 14 labels": lambda make: projection_by_label(
        _labelled(make), list(make.labels), note=NOTE, title="A title"
    ),
    "projection by 3 labels, one column": lambda make: projection_by_label(
        _labelled(make),
        list(make.labels[:3]),
        labels_words=dict(zip(make.labels, make.long, strict=False)),
        width_mm=88,
    ),
    "contact sheet": _sheet,
}


@pytest.fixture(scope="module", params=list(CASES))
def figure(request: pytest.FixtureRequest, make: SimpleNamespace) -> Figure:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return CASES[request.param](make)


def _apart(one: np.ndarray, other: np.ndarray, tolerance: float) -> bool:
    """Whether two convex polygons overlap by less than `tolerance` pixels along some edge's normal."""
    for polygon in (one, other):
        for start, end in itertools.pairwise([*polygon, polygon[0]]):
            normal = np.array([start[1] - end[1], end[0] - start[0]])
            normal = normal / np.linalg.norm(normal)
            a, b = one @ normal, other @ normal
            if a.max() <= b.min() + tolerance or b.max() <= a.min() + tolerance:
                return True
    return False


def test_texts_lie_inside_the_figure_and_apart(
    figure: Figure, texts_of: Callable[[Figure], list[tuple[str, np.ndarray]]]
) -> None:
    pixel_mm = figure.dpi / 25.4
    found = texts_of(figure)
    width, height = figure.bbox.size
    outside = [
        (text, corners / pixel_mm)
        for text, corners in found
        if corners.min() < -0.1 or corners[:, 0].max() > width + 0.1 or corners[:, 1].max() > height + 0.1
    ]
    assert not outside
    # A line's box has room for descenders that it may lack, so neighbouring boxes may share a third of a millimetre.
    overlapping = [
        (one[0], other[0])
        for one, other in itertools.combinations(found, 2)
        if not _apart(one[1], other[1], 0.35 * pixel_mm)
    ]
    assert not overlapping


def test_type_is_never_smaller_than_eight_points(figure: Figure) -> None:
    sizes = {text.get_fontsize() for text in figure.findobj(Text) if text.get_text().strip()}
    assert min(sizes) >= 8.0


@pytest.mark.parametrize(
    ("name", "file_format"),
    [
        *itertools.product(["distances of 1 label", "crowding of 1 label", "projection of 2 sites"], ["svg", "png"]),
        ("contact sheet", "svg"),
        ("contact sheet", "pdf"),
    ],
)
def test_bytes_are_those_of_the_first_time(make: SimpleNamespace, name: str, file_format: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first = CASES[name](make)
        data = figure_bytes(first, file_format, dpi=60)
        assert data == figure_bytes(first, file_format, dpi=60)
        assert data == figure_bytes(CASES[name](make), file_format, dpi=60)


def test_tables_without_rows_are_refused(make: SimpleNamespace) -> None:
    histogram, estimates = make.distance_tables(("cardiomegaly",))
    for draw in (
        lambda: distance_distributions(histogram.iloc[:0], estimates),
        lambda: distance_distributions(histogram, estimates.iloc[:0]),
        lambda: distance_forest(make.contrasts(("a",)).iloc[:0]),
        lambda: cross_site(make.contrasts(("a",), ("p",)).iloc[:0], reference="r"),
        lambda: crowding_heat_map(make.crowding(("a",)).iloc[:0], n_neighbors=5),
        lambda: projection_scatter(make.coordinates(2).iloc[:0]),
    ):
        with pytest.raises(InputError, match="has no rows, so there is nothing to draw"):
            draw()


def test_svg_has_a_title_and_nothing_that_runs_or_loads(figure: Figure) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        root = ElementTree.fromstring(figure_bytes(figure, "svg", dpi=60))
    svg = "{http://www.w3.org/2000/svg}"
    assert root.findtext(f"{svg}title") == figure.get_label()
    tags = {element.tag for element in root.iter()}
    assert not tags & {f"{svg}script", f"{svg}foreignObject", f"{svg}text"}
    links = [value for element in root.iter() for key, value in element.attrib.items() if key.endswith("}href")]
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in links)
