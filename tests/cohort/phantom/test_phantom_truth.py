"""The phantoms' truth held against sources outside the generator: IU-Xray's counts, the phrase tables, the pixels."""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest

from medvlm_probe.cohort.labels import CHEXPERT_LABELS
from medvlm_probe.cohort.phantom import SITES, Case, case_key, draw, sample_cases, sample_patient, vocabulary
from medvlm_probe.cohort.phantom.phrases import NORMAL, PHRASES, WORDS, Phrasing

# Positives among IU-Xray's 3,818 frontal images, as the radiology study (arXiv 2506.14136) counts them.
IU_XRAY_IMAGES = 3818
IU_XRAY_POSITIVES = {
    "no_finding": 2400,
    "lung_opacity": 516,
    "cardiomegaly": 415,
    "atelectasis": 216,
    "lung_lesion": 165,
    "support_devices": 163,
    "pleural_effusion": 129,
    "fracture": 127,
    "enlarged_cardiomediastinum": 70,
    "pneumonia": 68,
    "pleural_other": 56,
    "edema": 49,
    "consolidation": 31,
    "pneumothorax": 20,
}
CHILDREN = {"lung_lesion", "edema", "consolidation", "pneumonia", "atelectasis"}


@pytest.fixture(scope="module")
def reports() -> list[Case]:
    return [case for site in SITES for how in ("iu_xray", "balanced") for case in sample_cases(site, 200, 17, how)]


def test_the_reference_site_has_iu_xrays_prevalences() -> None:
    first = [case.labels for case in sample_cases("reference", 20_000, 11) if case.image_index == 0]
    assert set(IU_XRAY_POSITIVES) == set(CHEXPERT_LABELS)
    for label, positives in IU_XRAY_POSITIVES.items():
        share = positives / IU_XRAY_IMAGES
        observed = np.mean([labels[label] for labels in first])
        assert observed == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / len(first))), label


def possible_sentences(phrasing: Phrasing) -> tuple[dict[str, set[str]], dict[str, set[str]], set[str]]:
    """Return, in lower case, the sentences that assert each finding, that deny each, and that do neither."""
    slots = {
        "severity": [word for words in phrasing.severity.values() for word in words],
        "side": ["left", "right", "bilateral", ""],
        "zone": [*itertools.chain(*WORDS["zone"].values()), "lung"],
        "lobe": [*itertools.chain(*WORDS["lobe"].values()), "lung"],
    }
    asserting: dict[str, set[str]] = defaultdict(set)
    for key, templates in [*phrasing.present.items(), *phrasing.impression.items()]:
        for template in templates:
            names = re.findall(r"\{(\w+)\}", template)
            for words in itertools.product(*(slots[name] for name in names)):
                filled = template.format(**dict(zip(names, words, strict=True)))
                asserting[key.split(":")[0]].add(" ".join(filled.split()).lower())
    denying = {label: set(texts) for label, texts in phrasing.absent.items()}
    for organs, texts in NORMAL.items():
        for label in organs.split():
            denying.setdefault(label, set()).update(texts)
    denying["any finding"] = set(phrasing.no_finding)
    neutral = {text.lower() for texts in phrasing.opening.values() for text in texts}
    return asserting, denying, neutral


def test_reports_assert_what_is_present_and_deny_what_is_absent(reports: list[Case]) -> None:
    tables = {style: possible_sentences(phrasing) for style, phrasing in PHRASES.items()}
    for case in reports:
        asserting, denying, neutral = tables[SITES[case.site].phrasing]
        present = {finding.kind for finding in case.findings}
        shown = present | ({"lung_opacity"} if present & CHILDREN else set()) | ({"any finding"} if present else set())
        asserted = set()
        text = re.sub(r"(findings|impression): ", "", case.report.lower()).removesuffix(".")
        for sentence in text.split(". "):
            asserts = {label for label, sentences in asserting.items() if sentence in sentences}
            denies = {label for label, sentences in denying.items() if sentence in sentences}
            assert asserts or denies or sentence in neutral, sentence
            assert not asserts or asserts & present, (sentence, present)
            assert not denies & shown, (sentence, shown)
            asserted |= asserts
        assert present <= asserted, case.report


def test_the_vocabulary_holds_every_word_of_every_site(reports: list[Case]) -> None:
    assert len(reports) == 2000
    words = {word for case in reports for word in re.findall(r"[a-z]+|[^\sa-z]", case.report.lower())}
    assert words <= set(vocabulary())


@pytest.mark.parametrize("label", ["pleural_effusion", "pneumothorax", "lung_lesion", "consolidation"])
def test_severe_findings_cover_more_than_mild_ones(label: str) -> None:
    areas: dict[str, list[int]] = {"mild": [], "severe": []}
    patients = (sample_patient("reference", 23, index, "balanced")[0] for index in itertools.count())
    for case in itertools.islice((case for case in patients if case.labels[label]), 8):
        own = tuple(finding for finding in case.findings if finding.kind == label)
        for severity in ("mild", "severe"):
            graded = replace(case, findings=tuple(replace(finding, severity=severity) for finding in own))
            areas[severity].append(int(draw(graded, 112).masks[label].sum()))
    assert np.mean(areas["severe"]) > 1.3 * np.mean(areas["mild"]), areas


@pytest.mark.parametrize("size", [112, 512])
def test_pictures_of_other_sizes_are_the_same_picture(size: int) -> None:
    from PIL import Image

    case = sample_cases("reference", 1, 3, "balanced")[0]
    pictures = [draw(case, pixels).pixels for pixels in (224, size)]
    assert pictures[1].shape == (size, size)
    small = [np.asarray(Image.fromarray(picture).resize((56, 56), Image.Resampling.BOX), float) for picture in pictures]
    assert np.corrcoef(small[0].ravel(), small[1].ravel())[0, 1] > 0.98


def test_low_dose_is_the_noisiest_site() -> None:
    def noise(site: str) -> float:
        """Return the median variance of the finest diagonal detail over the films' contrast; anatomy hardly has any."""
        shares = []
        for case in sample_cases(site, 8, 5, "balanced"):
            film = draw(case).pixels[60:180, 60:180].astype(float)
            detail = film[:-1, :-1] - film[1:, :-1] - film[:-1, 1:] + film[1:, 1:]
            shares.append(detail.var() / film.var())
        return float(np.median(shares))

    noises = {site: noise(site) for site in SITES}
    assert noises["low_dose"] > 2 * max(value for site, value in noises.items() if site != "low_dose"), noises


def test_raw_values_lie_in_the_sites_window_inverted_where_the_archive_inverts() -> None:
    for site in SITES.values():
        phantom = draw(sample_cases(site.name, 1, 5)[0], 96)
        centre, width = site.window
        stored = 4095 - phantom.raw.astype(float) if site.name == "inverted_archive" else phantom.raw.astype(float)
        shown = 255 * ((stored / 4095 - centre) / width + 0.5)
        assert np.abs(shown - phantom.pixels).max() < 1, site.name


def test_keys_change_with_all_that_changes_the_picture() -> None:
    case = next(
        cases[0] for index in itertools.count() if len(cases := sample_patient("reference", 0, index)) > 1 and index
    )
    others = [
        sample_patient("reference", 0, case.index)[1],
        sample_patient("reference", 0, case.index + 1)[0],
        sample_patient("reference", 1, case.index)[0],
        sample_patient("portable", 0, case.index)[0],
        sample_patient("reference", 0, case.index, "balanced")[0],
    ]
    keys = [case_key(case), case_key(case, 112), *(case_key(other) for other in others)]
    assert len(set(keys)) == len(keys)
    assert case_key(case) == case_key(sample_patient("reference", 0, case.index)[0], 224)


@pytest.mark.slow
def test_findings_are_neither_loud_nor_invisible() -> None:
    """A linear model of 32 x 32 pixels, the crudest reader, finds something but not the most of it."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score

    cases = [sample_patient("reference", 41, index, "balanced")[0] for index in range(900)]
    pixels = np.stack([draw(case).pixels.reshape(32, 7, 32, 7).mean(axis=(1, 3)).ravel() for case in cases])
    pixels = (pixels - pixels[:600].mean(axis=0)) / (pixels[:600].std(axis=0) + 1e-6)
    areas = []
    for label in CHEXPERT_LABELS:
        truth = np.array([case.labels[label] for case in cases])
        reader = LogisticRegression(C=1e-3, max_iter=300).fit(pixels[:600], truth[:600])
        areas.append(roc_auc_score(truth[600:], reader.decision_function(pixels[600:])))
    assert 0.60 < np.mean(areas) < 0.78, dict(zip(CHEXPERT_LABELS, areas, strict=True))
