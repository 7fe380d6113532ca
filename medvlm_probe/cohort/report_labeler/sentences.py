"""From a report to the sentences that are read: sections, sentence ends, de-identification blanks, one spelling."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

BLANK = "xxxx"
"""What every blank of a de-identified report becomes: Open-i's XXXX, MIMIC-CXR's ___ and [**...**]."""

_BLANKS = re.compile(r"\[\*\*.*?\*\*\]|X{3,}|_{2,}", re.DOTALL)
_PARAGRAPH = re.compile(r"\n\s*\n|\n(?=\s*(?:[-•*]|\d+[.)]))")
_END = re.compile(
    r"(?<!\bdr)(?<!\bmr)(?<!\bms)(?<!\bvs)(?<!\bmrs)(?<!\bapprox)(?<!\be\.g)(?<!\bi\.e)"
    r"(?:[.!?]+(?=[\s,.]|$)|(?<=[a-z)])[.!?](?=(?-i:[A-Z])))",
    re.IGNORECASE,
)
_MARKS = re.compile(r"\s*([,;:/])\s*")
_BRACKETS = re.compile(r"[()\[\]{}]")
_DROPPED = re.compile(r"[\"“”.!?<>=•*]+")
_SPACES = re.compile(r"\s+")
_NUMBERING = re.compile(r"^[\s,]*(?:\d+\s*[.)]|[-•*]|\d+\s)?[\s,]*")
_DECIMAL = re.compile(r"(?<=\d)\.(?=\d)")


@dataclass(frozen=True)
class SentenceReader:
    """Splits reports.

    Attributes:
        heading: finds "Impression:" and its like where a sentence begins, in capitals anywhere; its name is group 1 or
            2.
        skipped: the names of sections that tell why the image was taken or how, not what it shows.
        spellings: pairs of an expression and what it becomes.
    """

    heading: re.Pattern[str]
    skipped: frozenset[str]
    spellings: tuple[tuple[re.Pattern[str], str], ...]

    @classmethod
    def of(cls, read: Sequence[str], skipped: Sequence[str], spellings: Mapping[str, str]) -> SentenceReader:
        """Return a reader for these section names (lower case) and spellings (whole words)."""
        names = "|".join(re.escape(name) for name in sorted((*read, *skipped), key=len, reverse=True))
        return cls(
            heading=re.compile(rf"(?:(?:^|[\n.])\s*({names})|(?<!\S)((?-i:{names.upper()})))\s*:", re.IGNORECASE),
            skipped=frozenset(skipped),
            spellings=tuple(
                (re.compile(rf"(?<![^ ]){re.escape(found)}(?![^ ])"), becomes) for found, becomes in spellings.items()
            ),
        )

    def sentences(self, report: str) -> Iterator[str]:
        """Yield the sentences of the sections that are read: lower case, marks apart, single spaces."""
        for paragraph in _PARAGRAPH.split(_BLANKS.sub(BLANK.upper(), self._read_sections(report))):
            for sentence in _END.split(paragraph):
                plain = self.normalised(sentence)
                if plain:
                    yield plain

    def normalised(self, sentence: str) -> str:
        """Return a sentence as phrases are compared with it."""
        text = _NUMBERING.sub("", sentence.lower(), count=1)
        text = _MARKS.sub(r" \1 ", _DECIMAL.sub("·", _BRACKETS.sub(" , ", text)))
        text = _SPACES.sub(" ", _DROPPED.sub(" ", text)).strip(" ,;:/")
        for expression, becomes in self.spellings:
            text = expression.sub(becomes, text)
        return text

    def _read_sections(self, report: str) -> str:
        """Return the text before the first heading and that of the sections that are read, as paragraphs."""
        headings = list(self.heading.finditer(report))
        starts, ends = [0, *(match.end() for match in headings)], [*(match.start() for match in headings), len(report)]
        names = ["", *((match[1] or match[2]).lower() for match in headings)]
        return "\n\n".join(
            report[start:end] for name, start, end in zip(names, starts, ends, strict=True) if name not in self.skipped
        )
