"""Figures inside a page: SVG reduced to what draws, under names of its own, with words for those who cannot see it."""

from __future__ import annotations

import html
import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass

from markupsafe import Markup

from medvlm_probe.errors import InputError
from medvlm_probe.report.page import without_paths


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_TAGS = _names(
    "g path rect circle ellipse line polyline polygon text tspan defs use clipPath pattern image linearGradient "
    "radialGradient stop marker mask symbol"
)
_PROPERTIES = _names(
    "fill fill-opacity fill-rule stroke stroke-width stroke-linecap stroke-linejoin stroke-dasharray stroke-dashoffset "
    "stroke-opacity stroke-miterlimit opacity color clip-path clip-rule mask marker-start marker-mid marker-end "
    "stop-color stop-opacity font-family font-size font-style font-weight text-anchor dominant-baseline "
    "image-rendering"
)
_ATTRIBUTES = _PROPERTIES | _names(
    "id d x y x1 y1 x2 y2 dx dy cx cy r rx ry fx fy width height points transform viewBox preserveAspectRatio "
    "clipPathUnits patternUnits patternContentUnits patternTransform gradientUnits gradientTransform maskUnits "
    "markerUnits markerWidth markerHeight refX refY orient offset rotate textLength lengthAdjust"
)
_PICTURE = re.compile(r"data:image/(?:png|jpeg);base64,[A-Za-z0-9+/=\s]+")
_LOCAL = re.compile(r"#([\w.:-]+)")
_URL = re.compile(r"""url\(\s*["']?#([\w.:-]+)["']?\s*\)""")
_LENGTH = re.compile(r"([\d.]+)(pt|px|mm|in)?")
_PIXELS = {"pt": 96 / 72, "px": 1.0, "mm": 96 / 25.4, "in": 96.0}


@dataclass(frozen=True)
class PageFigure:
    """A figure as a page shows it: its number, its name and its description in words, and the drawing itself."""

    number: int
    name: str
    description: str
    drawing: Markup


def page_figure(number: int, name: str, svg: str) -> PageFigure:
    """Return an SVG file's figure for a page.

    Only elements that draw are kept, and of their attributes those that place and paint: no script, style sheet, link,
    animation or foreign content, nothing that refers outside the page, pictures only where they are part of the file.
    The file's own title becomes the description. Identifiers get the figure's number, so that two never meet.

    Args:
        number: of the figure on its page, from 1.
        name: what it is called, for people.
        svg: the file's text.

    Raises:
        InputError: the text is no SVG, or declares entities.
    """
    if "<!ENTITY" in svg:
        raise InputError(f"The figure '{name}' declares XML entities, which no figure needs; it was not read.")
    try:
        root = ET.fromstring(svg)
    except ET.ParseError as error:
        raise InputError(f"The figure '{name}' is no SVG file: {error}. Run the command again that drew it.") from error
    if _local(root.tag) != "svg":
        raise InputError(f"The figure '{name}' is no SVG file: it begins with <{_local(root.tag)}>.")
    titles = [child.text or "" for child in root if _local(child.tag) == "title"]
    description = " ".join("".join(titles).split()) or name
    prefix = f"figure-{number}-"
    used = set(_LOCAL.findall(" ".join(_references(root)))) | set(_URL.findall(svg))
    body = "".join(_element(child, prefix, used) for child in root)
    width, height = (_pixels(root.get(side)) for side in ("width", "height"))
    box = root.get("viewBox") or f"0 0 {width:g} {height:g}"
    words = (
        f'<title id="{prefix}title">{html.escape(without_paths(name))}</title>'
        f'<desc id="{prefix}desc">{html.escape(without_paths(description))}</desc>'
    )
    drawing = (
        f'<svg class="plot" role="img" aria-labelledby="{prefix}title" aria-describedby="{prefix}desc" '
        f'width="{width:.0f}" height="{height:.0f}" viewBox="{html.escape(box)}" stroke-linejoin="round" '
        f'stroke-linecap="butt">{words}{body}</svg>'
    )
    return PageFigure(number, name, description, Markup(drawing))


def _element(element: ET.Element, prefix: str, used: set[str]) -> str:
    tag = _local(element.tag)
    if tag not in _TAGS:
        return ""
    given = _attributes(element, prefix, used)
    if tag in {"use", "image"} and "href" not in given:
        return ""
    attributes = "".join(f' {key}="{html.escape(value)}"' for key, value in given.items())
    text = html.escape(without_paths(element.text or "")) if tag in {"text", "tspan"} else ""
    inside = text + "".join(_element(child, prefix, used) for child in element)
    return f"<{tag}{attributes}>{inside}</{tag}>" if inside else f"<{tag}{attributes}/>"


def _attributes(element: ET.Element, prefix: str, used: set[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in element.attrib.items():
        name = _local(key)
        if name == "href":
            target = _LOCAL.fullmatch(value.strip())
            if target and _local(element.tag) != "image":
                found["href"] = f"#{prefix}{target[1]}"
            elif _local(element.tag) == "image" and _PICTURE.fullmatch(value.strip()):
                found["href"] = "".join(value.split())
        elif name == "style":
            for part in value.split(";"):
                prop, _, setting = part.partition(":")
                if prop.strip() in _PROPERTIES:
                    found |= _painted(prop.strip(), setting.strip(), prefix)
        elif name == "id":
            if value in used:
                found["id"] = prefix + value
        elif name in _ATTRIBUTES:
            found |= _painted(name, value, prefix)
    return found


def _painted(name: str, value: str, prefix: str) -> dict[str, str]:
    """Return one attribute, or none where its value reaches outside the figure."""
    local = _URL.fullmatch(value)
    if local:
        return {name: f"url(#{prefix}{local[1]})"}
    return {} if "url" in value.lower() or "javascript" in value.lower() else {name: " ".join(value.split())}


def _references(root: ET.Element) -> list[str]:
    return [value for e in root.iter() for key, value in e.attrib.items() if _local(key) == "href" and value[:1] == "#"]


def _local(name: object) -> str:
    """Return a name without its namespace; comments and instructions have none."""
    return name.rpartition("}")[2] if isinstance(name, str) else ""


def _pixels(length: str | None) -> float:
    found = _LENGTH.fullmatch((length or "").strip())
    return float(found[1]) * _PIXELS[found[2] or "px"] if found else 680.0
