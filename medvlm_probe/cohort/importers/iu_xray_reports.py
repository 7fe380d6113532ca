"""The report files of IU-Xray: XML as Open-i publishes it, parsed without entities or document types."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from medvlm_probe.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

MAX_REPORT_BYTES = 4 << 20
"""The largest report file that is parsed; the published ones have about 10 KB."""


FILE_SUFFIXES = (".png", ".dcm", ".jpg", ".jpeg")
REPORT_COLUMNS = ("uid", "mesh", "findings", "impression")
PROJECTION_COLUMNS = ("uid", "filename", "projection")

_IMAGE_ID = re.compile(r"(?:CXR)?(\d+)_(?:\1_)?(IM-.+)")


@dataclass(frozen=True)
class Report:
    """One study.

    Attributes:
        uid: the study's number, without the prefix `CXR`.
        findings, impression: with white space collapsed; "" where the report has none.
        major: the codes that people gave (MeSH and RadLex headings with qualifiers).
        automatic: the terms that a program found in the text.
        images: each image's id, or the file name where the source names files.
        views: each image's view where the source says it, else "".
    """

    uid: str
    findings: str
    impression: str
    major: tuple[str, ...]
    automatic: tuple[str, ...]
    images: tuple[str, ...]
    views: tuple[str, ...]

    @property
    def text(self) -> str:
        """Findings and impression, as one line."""
        return " ".join(part for part in (self.findings, self.impression) if part)


def image_key(name: str) -> str:
    """Return what an image is called in every layout: `1_IM-0001-3001` for `CXR1_1_IM-0001-3001.png` and its kin."""
    stem = name
    while stem.lower().endswith(FILE_SUFFIXES):
        stem = stem[: stem.rindex(".")]
    match = _IMAGE_ID.fullmatch(stem)
    return f"{match[1]}_{match[2]}" if match else stem


def read_report(path: Path) -> Report:
    """Read one report file.

    Raises:
        InputError: too large, not well-formed, a document type declared, or no study id.
    """
    size = path.stat().st_size
    if size > MAX_REPORT_BYTES:
        raise InputError(f"the report file has {size:,} bytes, which no report has")
    return parse_report(path.read_bytes())


def parse_report(data: bytes) -> Report:
    """Return the report that a file's bytes hold; InputError as in `read_report`."""
    root = _parsed(data)
    uid_element = root.find("uId")
    uid = "" if uid_element is None else uid_element.get("id", "").removeprefix("CXR")
    if not uid.isascii() or not uid.isdecimal():
        raise InputError("the report file has no study id (uId) of the form CXR123")
    sections = {element.get("Label", ""): _collapsed(element.text) for element in root.iter("AbstractText")}
    found = [(_collapsed(image.get("id")), _collapsed(image.findtext("caption"))) for image in root.iter("parentImage")]
    images = tuple(image for image, _ in found if image)
    view = view_of_caption(found[0][1]) if len(found) == 1 else ""
    return Report(
        uid=uid,
        findings=sections.get("FINDINGS", ""),
        impression=sections.get("IMPRESSION", ""),
        major=_texts(root, "major"),
        automatic=_texts(root, "automatic"),
        images=images,
        views=tuple(view for _ in images),
    )


def view_of_caption(caption: str) -> str:
    """Return PA, AP or LATERAL where the caption of a study's only image names that view and no other, else ""."""
    words = "".join(letter if letter.isalnum() else " " for letter in caption.lower()).split()
    named = {view for view, word in (("PA", "pa"), ("AP", "ap"), ("LATERAL", "lateral")) if word in words}
    several = {"frontal", "lat", "views", "two", "2", "2v"} & set(words)
    return named.pop() if len(named) == 1 and not several else ""


def kaggle_reports(reports: pd.DataFrame, projections: pd.DataFrame) -> list[Report]:
    """Return the reports of the Kaggle layout: `indiana_reports.csv` and `indiana_projections.csv` as text columns."""
    files: dict[str, list[tuple[str, str]]] = {}
    for uid, name, projection in projections[list(PROJECTION_COLUMNS)].itertuples(index=False):
        files.setdefault(uid, []).append((name, projection.strip().upper()))
    return [
        Report(
            uid=uid,
            findings=_collapsed(findings),
            impression=_collapsed(impression),
            major=tuple(code.strip() for code in mesh.split(";") if code.strip()),
            automatic=(),
            images=tuple(name for name, _ in files.get(uid, [])),
            views=tuple(view for _, view in files.get(uid, [])),
        )
        for uid, mesh, findings, impression in reports[["uid", "mesh", "findings", "impression"]].itertuples(
            index=False
        )
    ]


def _parsed(data: bytes) -> Element:
    builder = TreeBuilder()
    parser = expat.ParserCreate()
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    # Entities can only be declared in a document type, which no published report has.
    parser.StartDoctypeDeclHandler = _refuse
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise InputError(f"the report file is not well-formed XML (line {error.lineno})") from error
    return builder.close()


def _refuse(*_: object) -> NoReturn:
    raise InputError("the report file declares a document type, which may hide entities")


def _texts(root: Element, name: str) -> tuple[str, ...]:
    return tuple(text for text in (_collapsed(element.text) for element in root.iter(name)) if text)


def _collapsed(text: str | None) -> str:
    return " ".join((text or "").split())
