"""What every figure shares: type, colours, millimetres instead of fractions, and the same bytes each time."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from medvlm_probe.errors import InputError, unknown_name

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

DOUBLE_COLUMN_MM = 180.0
SINGLE_COLUMN_MM = 88.0
TEXT_PT = 8.0
LINE_MM = 3.4
MARGIN_MM = 2.0

INK = "#1A1A1A"
MUTED = "#6B6B6B"
RULE = "#D0D0D0"
PALE = "#EDEDED"
ORANGE, SKY, GREEN, BLUE, VERMILLION, PURPLE = "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7"
"""Okabe & Ito's colour-blind safe colours (https://jfly.uni-koeln.de/color/)."""
OVERLAY = (BLUE, ORANGE, "#000000")
"""Groups drawn over each other: these three stay apart for colour-blind readers and in grey."""

_RC: dict[Any, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": TEXT_PT,
    "text.color": INK,
    "text.parse_math": False,
    "text.hinting": "no_hinting",
    "axes.titlesize": TEXT_PT,
    "axes.labelsize": TEXT_PT,
    "axes.labelcolor": INK,
    "axes.labelpad": 3.0,
    "axes.edgecolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.useoffset": False,
    "axes.unicode_minus": True,
    "xtick.labelsize": TEXT_PT,
    "ytick.labelsize": TEXT_PT,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "hatch.linewidth": 0.5,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "savefig.bbox": None,
    "svg.fonttype": "path",
    "svg.hashsalt": "medvlm-probe",
    "svg.image_inline": True,
    "pdf.fonttype": 42,
}

_FORMATS: dict[str, dict[str, str | None]] = {
    "svg": {"Creator": "medvlm-probe", "Date": None},
    "png": {"Software": "medvlm-probe"},
    "pdf": {"Creator": "medvlm-probe", "Producer": None, "CreationDate": None},
}
"""The formats that a figure can be written in, with the metadata that would otherwise hold a date or a version."""


@contextmanager
def style() -> Iterator[None]:
    """Draw with the package's own settings, whatever the user's matplotlibrc says; the user's come back afterwards."""
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_RC)
        yield


def figure_bytes(figure: Figure, file_format: str, *, dpi: float = 300.0) -> bytes:
    """Return a figure as the bytes of a file; the same figure gives the same bytes under one version of matplotlib.

    Text is drawn as outlines in SVG, so that a page looks alike on machines with other fonts; the figure's description
    (`figure.get_label()`, set by every function of this package) becomes the file's title, which screen readers read.

    Args:
        figure: what a function of this package returned.
        file_format: `"svg"`, `"png"` or `"pdf"`.
        dpi: dots per inch of a PNG, and of the images and point clouds inside an SVG or PDF.

    Raises:
        UnknownNameError: any other format.
    """
    if file_format not in _FORMATS:
        raise unknown_name("figure format", file_format, _FORMATS)
    metadata = dict(_FORMATS[file_format])
    if figure.get_label():
        metadata["Title"] = str(figure.get_label())
    out = io.BytesIO()
    with style():
        figure.savefig(out, format=file_format, dpi=dpi, metadata=metadata)
    return out.getvalue()


# --- Tables -----------------------------------------------------------------------------------------------------------


def checked_table(
    table: pd.DataFrame,
    what: str,
    *,
    text: Sequence[str] = (),
    numeric: Sequence[str] = (),
    optional_text: Sequence[str] = (),
    optional_numeric: Sequence[str] = (),
    flag: str | None = None,
    key: Sequence[str] = (),
) -> pd.DataFrame:
    """Return a copy of a tidy table with text columns as str and numeric ones as float (None becomes NaN).

    Args:
        table: one row a thing to draw.
        what: what the table holds, for messages (`"estimates"`).
        text: columns that must exist, and are read as text.
        numeric: columns that must exist, and are read as numbers.
        optional_text: as `text`, where they exist.
        optional_numeric: as `numeric`, where they exist.
        flag: a column of True and False; True where it, or its cell, is absent.
        key: columns whose combination may occur once only.

    Raises:
        InputError: no rows, missing columns, a numeric or true/false column that holds text, or a repeated key.
    """
    import pandas as pd

    missing = [column for column in (*text, *numeric) if column not in table.columns]
    if missing:
        raise InputError(
            f"The table of {what} lacks the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}; "
            f"it has {', '.join(map(str, table.columns)) or 'none'}."
        )
    if len(table) == 0:
        raise InputError(f"The table of {what} has no rows, so there is nothing to draw.")
    copy = table.reset_index(drop=True).copy()
    for column in (*text, *(name for name in optional_text if name in copy.columns)):
        copy[column] = copy[column].astype(str)
    for column in (*numeric, *(name for name in optional_numeric if name in copy.columns)):
        try:
            copy[column] = pd.to_numeric(copy[column]).astype(float)
        except (ValueError, TypeError) as error:
            raise InputError(f"The column {column} of the table of {what} must hold numbers: {error}.") from error
    if flag is not None:
        given_flags = copy[flag] if flag in copy.columns else pd.Series(True, index=copy.index)
        if not bool(given_flags.dropna().isin([True, False]).all()):
            raise InputError(f"The column {flag} of the table of {what} must hold True and False.")
        copy[flag] = [bool(pd.isna(value) or value) for value in given_flags]
    if key and bool(copy.duplicated(list(key)).any()):
        first = copy.loc[copy.duplicated(list(key)), list(key)].iloc[0]
        given = ", ".join(f"{column} {first[column]!r}" for column in key)
        raise InputError(f"The table of {what} has more than one row for {given}; it takes one.")
    return copy


def one_of(kind: str, value: str, known: Sequence[str]) -> None:
    """Raise UnknownNameError unless `value` is one of `known`."""
    if value not in known:
        raise unknown_name(kind, value, known)


# --- Words and numbers ------------------------------------------------------------------------------------------------


def plain(text: str) -> str:
    """Return text on one line: white space and unprintable characters become single spaces."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def shown(label: str, labels_words: Mapping[str, str] | None) -> str:
    """Return a label as people read it: its entry in `labels_words`, else `pleural_effusion` as "Pleural effusion"."""
    if labels_words is not None and label in labels_words:
        return plain(labels_words[label])
    words = plain(label.replace("_", " "))
    return words[:1].upper() + words[1:]


def decimals_for(intervals: Sequence[tuple[float, float]], span: float) -> int:
    """Return how many decimals show the intervals: about 20 steps of the last digit within one of middling width.

    Args:
        intervals: their (low, high); undefined ones do not count.
        span: the axis's length, used where no interval is defined.
    """
    widths = sorted(high - low for low, high in intervals if math.isfinite(high - low) and high > low)
    step = widths[len(widths) // 2] / 20.0 if widths else span / 200.0
    if not math.isfinite(step) or step <= 0:
        return 3
    return min(max(math.ceil(-math.log10(step) - 0.2), 0), 6)


def number(value: float, decimals: int) -> str:
    """Return a number for people: fixed decimals, thousands apart, a true minus sign, an en dash where undefined."""
    if not math.isfinite(value):
        return "–"
    text = f"{value:,.{decimals}f}"
    if float(text.replace(",", "")) == 0:
        text = text.removeprefix("-")
    return text.replace("-", "\u2212")


def value_words(value: float, low: float, high: float, decimals: int) -> str:
    """Return `0.612 [0.580, 0.644]`, without brackets where the interval is undefined."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return number(value, decimals)
    return f"{number(value, decimals)} [{number(low, decimals)}, {number(high, decimals)}]"


def text_width(text: str, *, size: float = TEXT_PT, bold: bool = False) -> float:
    """Return how wide a line of text is, in millimetres."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(family=["DejaVu Sans"], size=size, weight="bold" if bold else "normal")
    points, _, _ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    return float(points) * 25.4 / 72.0


def wrapped(
    text: str, width_mm: float, *, size: float = TEXT_PT, bold: bool = False, max_lines: int | None = None
) -> list[str]:
    """Return text broken into lines of at most `width_mm`; words too long for a line are cut, after a mark where
    there is one; a last line too many ends in an ellipsis."""

    def fits(line: str) -> bool:
        return text_width(line, size=size, bold=bold) <= width_mm

    lines: list[str] = []
    line = ""
    for word in plain(text).split():
        joined = f"{line} {word}" if line else word
        if fits(joined):
            line = joined
            continue
        if line:
            lines.append(line)
        rest = word
        while not fits(rest) and len(rest) > 1:
            longest = next((n for n in range(len(rest) - 1, 1, -1) if fits(rest[:n])), 1)
            cut = next((n for n in range(longest, longest // 2, -1) if rest[n - 1] in "_-/.,;:"), longest)
            lines.append(rest[:cut])
            rest = rest[cut:]
        line = rest
    lines.append(line)
    if max_lines is not None and len(lines) > max_lines:
        last = lines[max_lines - 1]
        while last and not fits(f"{last}…"):
            last = last.rpartition(" ")[0] or last[:-1]
        lines = [*lines[: max_lines - 1], f"{last.rstrip()}…"]
    return lines


# --- Pages in millimetres ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Page:
    """A figure addressed in millimetres from its top left corner.

    `top` is where the drawing may begin, below the title; `height` includes the note at the bottom.
    """

    figure: Figure
    width: float
    height: float
    top: float

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Return new axes in the rectangle."""
        return self.figure.add_axes(
            (left / self.width, 1.0 - (top + height) / self.height, width / self.width, height / self.height)
        )

    def text(self, x: float, y: float, text: str, **properties: Any) -> Text:
        """Write one line whose capital letters are centred on `y`; `x` is its left end unless `ha` says otherwise."""
        size = float(properties.setdefault("fontsize", TEXT_PT))
        baseline = y + 0.36 * size * 25.4 / 72.0
        return self.figure.text(x / self.width, 1.0 - baseline / self.height, text, va="baseline", **properties)

    def lines(self, x: float, y: float, lines: Sequence[str], **properties: Any) -> None:
        """Write lines below each other, the first centred on `y`."""
        for index, line in enumerate(lines):
            self.text(x, y + index * LINE_MM, line, **properties)

    def rule(self, y: float) -> None:
        """Draw a hairline from margin to margin."""
        from matplotlib.lines import Line2D

        height = 1.0 - y / self.height
        ends = [MARGIN_MM / self.width, 1.0 - MARGIN_MM / self.width]
        self.figure.add_artist(Line2D(ends, [height, height], color=RULE, linewidth=0.5))


def new_page(width_mm: float, body_mm: float, *, title: str | None, note: str | None, description: str) -> Page:
    """Return a page with its title at the top, its note in small grey type at the bottom, and `body_mm` between them.

    Args:
        width_mm: the width in print.
        body_mm: the height that the drawing needs.
        title: a line or two above the drawing; None for none.
        note: what the reader has to know beside it; None for none.
        description: what the figure shows, in words, for those who cannot see it.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    inner = width_mm - 2 * MARGIN_MM
    title_lines = wrapped(title, inner, bold=True) if title else []
    note_lines = wrapped(note, inner) if note else []
    top = MARGIN_MM + (len(title_lines) * LINE_MM + 1.5 if title_lines else 0.0)
    foot = MARGIN_MM + (len(note_lines) * LINE_MM + 1.5 if note_lines else 0.0)
    height = top + body_mm + foot
    figure = Figure(figsize=(width_mm / 25.4, height / 25.4))
    FigureCanvasAgg(figure)
    figure.set_label(plain(" ".join(part for part in (title, description, note) if part)))
    page = Page(figure=figure, width=width_mm, height=height, top=top)
    page.lines(MARGIN_MM, MARGIN_MM + LINE_MM / 2, title_lines, fontweight="bold")
    page.lines(MARGIN_MM, height - foot + 1.5 + LINE_MM / 2, note_lines, color=MUTED)
    return page


def bare(axes: Axes) -> None:
    """Take ticks and spines from axes."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def ticks_along(axes: Axes, length_mm: float, *, upwards: bool = False) -> None:
    """Give an axis whose limits are set as many round ticks as its labels leave room for, at most one every 9 mm.

    Args:
        axes: the axes.
        length_mm: the length of its x axis, or of its y axis with `upwards`.
        upwards: the y axis.
    """
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

    low, high = sorted(axes.get_ylim() if upwards else axes.get_xlim())
    shortest: tuple[list[float], int] = ([], 0)
    for n_ticks in range(max(int(length_mm / 9.0), 2), 0, -1):
        places = MaxNLocator(nbins=n_ticks, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
        ticks = [float(place) for place in places if low <= place <= high]
        exact = (d for d in range(9) if all(abs(round(tick, d) - tick) <= 1e-6 * (high - low) for tick in ticks))
        decimals = next(exact, 8)
        widest = LINE_MM if upwards else max((text_width(number(tick, decimals)) for tick in ticks), default=0.0)
        shortest = (ticks, decimals)
        if len(ticks) < 2 or (widest + 2.5) * (high - low) <= (ticks[1] - ticks[0]) * length_mm:
            break
    ticks, decimals = shortest
    axis = axes.yaxis if upwards else axes.xaxis
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_major_formatter(FuncFormatter(lambda tick, _: number(tick, decimals)))
