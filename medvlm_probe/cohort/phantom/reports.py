"""Reports in words, built from phrases; every word they can hold is listed by `vocabulary`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from medvlm_probe.cohort.phantom.case import Finding
from medvlm_probe.cohort.phantom.phrases import NORMAL, PHRASES, WORDS, Phrasing

Unit = Callable[[], float]


def _pick(options: tuple[str, ...], unit: Unit) -> str:
    return options[int(unit() * len(options))]


def _fill(template: str, finding: Finding, phrasing: Phrasing, unit: Unit) -> str:
    """Fill a template's slots with the finding's words, and tidy the spaces that empty words leave."""
    words = {
        "severity": _pick(phrasing.severity[finding.severity], unit),
        "side": finding.side if finding.side != "midline" else "",
        "zone": _pick(WORDS["zone"][finding.zone], unit) if finding.zone else "lung",
        "lobe": _pick(WORDS["lobe"][finding.zone], unit) if finding.zone else "lung",
    }
    return re.sub(r"\s+", " ", template.format(**words)).strip()


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def _templates(finding: Finding, phrasing: Phrasing) -> tuple[str, ...]:
    key = f"{finding.kind}:{finding.variant}" if finding.variant else finding.kind
    return phrasing.present.get(key) or phrasing.present[finding.kind]


def write_report(findings: tuple[Finding, ...], style: str, view: str, unit: Unit) -> str:
    """Return findings and impression in words.

    Args:
        findings: what is present.
        style: a key of `PHRASES`.
        view: `"PA"` or `"AP"`.
        unit: returns the next uniform number in [0, 1).
    """
    phrasing = PHRASES[style]
    present = {finding.kind for finding in findings}
    opacity = present & {"lung_opacity", "lung_lesion", "edema", "consolidation", "pneumonia", "atelectasis"}
    body = [_pick(phrasing.opening[view], unit)] if unit() < 0.5 else []
    body += [_fill(_pick(_templates(finding, phrasing), unit), finding, phrasing, unit) for finding in findings]
    for kind, options in phrasing.absent.items():
        ruled_out = kind not in present and not (kind == "lung_opacity" and opacity)
        if ruled_out and unit() < (0.55 if not findings else 0.3):
            body.append(_pick(options, unit))
    for organ, options in NORMAL.items():
        if not present & set(organ.split()) and unit() < 0.35:
            body.append(_pick(options, unit))
    if findings:
        main = findings[: 2 if unit() < 0.5 else 3]
        impression = [
            _fill(_pick(phrasing.impression[finding.kind], unit), finding, phrasing, unit) for finding in main
        ]
    else:
        impression = [_pick(phrasing.no_finding, unit)]
    if not body:
        body = [_pick(phrasing.no_finding if not findings else phrasing.opening[view], unit)]
    return " ".join(["Findings:", *map(_sentence, body), "Impression:", *map(_sentence, dict.fromkeys(impression))])


def _texts(tree: object) -> Iterable[str]:
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, dict):
        for value in tree.values():
            yield from _texts(value)
    elif isinstance(tree, tuple):
        for value in tree:
            yield from _texts(value)


def vocabulary() -> list[str]:
    """Return every word and punctuation mark that reports can hold, lower case, sorted."""
    texts = [*_texts(WORDS), *_texts(NORMAL), "findings: impression. left right bilateral lung"]
    for phrasing in PHRASES.values():
        texts.extend(_texts(tuple(vars(phrasing).values())))
    words = re.findall(r"[a-z]+|[^\sa-z]", re.sub(r"\{\w+\}", " ", " ".join(texts).lower()))
    return sorted(set(words))
