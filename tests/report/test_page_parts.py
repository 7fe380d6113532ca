"""The parts of a page: paths taken out, figures made harmless, colours that can be read."""

from __future__ import annotations

import re

import pytest

from medvlm_probe.errors import InputError
from medvlm_probe.report.inline_svg import page_figure
from medvlm_probe.report.page import style_sheet, without_paths

KEPT = [
    "phantom/v1",
    "precision and/or recall, 3/4 of n = 12",
    "hf:microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224",
    "https://doi.org/10.1000/182",
    "Platt 1999; n/a",
    "2026-11-22T05:06:31+00:00",
    "torch 2.14.1, open_clip_torch 3.3.0",
    "recall(pleural effusion) >= 0.80",
]
TAKEN = [
    "/data/jane/x",
    "~/cohorts/x",
    "./x/y",
    "../x/y.csv",
    "manifest.csv",
    "images/CXR3223_IM-1523-1001.jpg",
    "C:\\Users\\jane\\x.dcm",
    "D:/pacs/export",
    "\\\\server\\share\\x",
    "file:///data/x",
    "(/data/jane/x.png)",
    "local:/models/dino",
]


@pytest.mark.parametrize("text", KEPT)
def test_words_that_only_look_like_paths_stay(text) -> None:
    assert without_paths(text) == text


@pytest.mark.parametrize("text", TAKEN)
def test_paths_are_taken_out(text) -> None:
    found = without_paths(f"Cannot read {text} today")
    assert "[path]" in found
    assert not re.search(r"jane|manifest|CXR3223|pacs|server|models|cohorts|data", found)


HOSTILE = """<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="72pt"
 height="36pt" onload="alert(1)" viewBox="0 0 72 36"><title>What &lt;b&gt; shows</title>
<script>alert(2)</script><style>@import url(http://a.example/x.css)</style>
<foreignObject><iframe xmlns="http://www.w3.org/1999/xhtml" src="http://b.example"/></foreignObject>
<a xlink:href="http://c.example"><rect width="5" height="5"/></a>
<image xlink:href="http://d.example/x.png" width="5" height="5"/>
<image xlink:href="data:image/svg+xml;base64,AAAA" width="5" height="5"/>
<image xlink:href="data:image/png;base64,iVBORw0KGgo=" width="5" height="5"/>
<use xlink:href="http://e.example/x.svg#a"/><use xlink:href="#shape"/>
<path id="shape" d="M 0 0 L 1 1" onclick="alert(3)"
 style="fill: url(http://f.example/x); stroke: #ff0000; behavior: x"/>
<g clip-path="url(#box)" fill="url('#box')"><text x="1" y="2">5 &lt; 6</text></g><clipPath id="box"/>
<animate attributeName="href" to="javascript:alert(4)"/><set attributeName="onload" to="alert(5)"/></svg>"""


def test_a_hostile_figure_keeps_only_what_draws() -> None:
    found = page_figure(3, "Name <i>", HOSTILE)
    assert found.description == "What <b> shows"
    drawing = str(found.drawing)
    assert not re.search(r"alert|example|script|import|foreign|behavior|javascript|svg\+xml|<a\b|animate|<set", drawing)
    assert drawing.count("<image") == 1
    assert drawing.count("<use") == 1
    assert 'href="#figure-3-shape"' in drawing
    assert '<path id="figure-3-shape" d="M 0 0 L 1 1" stroke="#ff0000"/>' in drawing
    assert (
        '<g clip-path="url(#figure-3-box)" fill="url(#figure-3-box)"><text x="1" y="2">5 &lt; 6</text></g>' in drawing
    )
    assert '<title id="figure-3-title">Name &lt;i&gt;</title>' in drawing
    assert 'width="96" height="48"' in drawing


@pytest.mark.parametrize(
    "text",
    ["", "no svg", "<html/>", '<!DOCTYPE svg [<!ENTITY a "b">]><svg xmlns="http://www.w3.org/2000/svg">&a;</svg>'],
)
def test_what_is_no_figure_is_refused(text) -> None:
    with pytest.raises(InputError, match="figure 'x'"):
        page_figure(1, "x", text)


# --- Colours ----------------------------------------------------------------------------------------------------------

PAIRS = [
    ("ink", "paper"),
    ("ink", "panel"),
    ("muted", "paper"),
    ("muted", "panel"),
    ("link", "paper"),
    *((kind, f"{kind}-panel") for kind in ("pass", "fail", "unsure")),
]


def colours(scheme: str) -> dict[str, str]:
    css = style_sheet()
    blocks = {
        "light": css,
        "dark": css[css.index("prefers-color-scheme: dark") :],
        "print": css[css.index("@media print") :],
    }
    block = blocks[scheme]
    root = block[block.index(":root") : block.index("}", block.index(":root"))]
    return dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", root))


def luminance(colour: str) -> float:
    channels = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark", "print"])
@pytest.mark.parametrize("pair", PAIRS, ids="-on-".join)
def test_text_stands_out(scheme, pair) -> None:
    ink, paper = (luminance(colours(scheme)[name]) for name in pair)
    ratio = (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05)
    assert ratio >= 5, f"{ratio:.2f}"


def test_print_has_no_dark_ground() -> None:
    found = colours("print")
    assert {found[name] for name in found if name in ("paper", "panel") or name.endswith("-panel")} == {"#ffffff"}
