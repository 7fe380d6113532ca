"""The drawn phantoms: determinism, masks and boxes, severities, the cardiothoracic ratio, sites."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from medvlm_probe.cohort.labels import CHEXPERT_LABELS
from medvlm_probe.cohort.phantom import SEVERITIES, SITES, Case, Phantom, draw, sample_cases, sample_patient
from medvlm_probe.errors import InputError

FINDINGS = CHEXPERT_LABELS[1:]


def cases_with(label: str, n: int, seed: int = 21) -> Iterator[Case]:
    """Yield n cases whose finding `label` stands in a list of findings of that kind alone."""
    found = 0
    for index in range(10_000):
        case = sample_patient("reference", seed, index, "balanced")[0]
        own = tuple(finding for finding in case.findings if finding.kind == label)
        if own:
            yield replace(case, findings=own, labels={name: int(name == label) for name in CHEXPERT_LABELS})
            found += 1
        if found == n:
            return


@pytest.fixture(scope="module")
def phantoms() -> list[Phantom]:
    return [draw(case) for site in SITES for case in sample_cases(site, 30, 8, "balanced")]


def test_pixels_and_masks_are_of_the_right_kind(phantoms: list[Phantom]) -> None:
    for phantom in phantoms:
        assert phantom.pixels.dtype == np.uint8
        assert phantom.pixels.shape == (224, 224)
        assert phantom.pixels.std() > 20
        assert phantom.pixels.max() > 200
        assert phantom.raw.dtype == np.uint16
        assert phantom.raw.max() < 4096
        for mask in [*phantom.masks.values(), *phantom.anatomy.values()]:
            assert mask.dtype == np.bool_
            assert mask.shape == phantom.pixels.shape
            assert mask.any()


def test_every_finding_present_has_a_mask_and_boxes_that_span_it(phantoms: list[Phantom]) -> None:
    seen = set()
    for phantom in phantoms:
        present = {label for label in FINDINGS if phantom.case.labels[label]}
        assert set(phantom.masks) == set(phantom.boxes) == present
        seen |= present
        for label, mask in phantom.masks.items():
            rows, columns = np.nonzero(mask)
            corners = np.array([(x, y, x + w, y + h) for x, y, w, h in phantom.boxes[label]])
            assert (corners[:, 2:] > corners[:, :2]).all()
            assert corners[:, :2].min(axis=0).tolist() == [columns.min(), rows.min()]
            assert corners[:, 2:].max(axis=0).tolist() == [columns.max() + 1, rows.max() + 1]
            covered = np.zeros_like(mask)
            for x, y, w, h in phantom.boxes[label]:
                assert mask[y : y + h, x : x + w].any()
                covered[y : y + h, x : x + w] = True
            assert not (mask & ~covered).any()
    assert seen == set(FINDINGS)


def test_a_film_depends_on_its_case_alone() -> None:
    cases = sample_cases("portable", 6, 4, "balanced")
    forwards = [draw(case).pixels for case in cases]
    backwards = [draw(case).pixels for case in reversed(cases)][::-1]
    for first, second in zip(forwards, backwards, strict=True):
        np.testing.assert_array_equal(first, second)
    code = (
        "import hashlib; from medvlm_probe.cohort.phantom import draw, sample_cases;"
        "c = sample_cases('portable', 6, 4, 'balanced')[5]; print(hashlib.sha256(draw(c).pixels.tobytes()).hexdigest())"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert printed == hashlib.sha256(forwards[5].tobytes()).hexdigest()


def test_a_patients_films_differ_in_pose_not_in_findings() -> None:
    patient = next(
        cases
        for index in range(500)
        if len(cases := sample_patient("reference", 2, index, "balanced")) > 1 and cases[0].labels["lung_lesion"]
    )
    first, second = draw(patient[0]), draw(patient[1])
    assert (first.pixels != second.pixels).mean() > 0.5
    assert set(first.masks) == set(second.masks)
    areas = [phantom.masks["lung_lesion"].sum() for phantom in (first, second)]
    assert max(areas) < 2.5 * min(areas)


@pytest.mark.parametrize("label", FINDINGS)
def test_a_finding_changes_the_film_where_its_mask_is(label: str) -> None:
    shares = []
    for case in cases_with(label, 6):
        phantom = draw(case)
        if label in ("cardiomegaly", "enlarged_cardiomediastinum"):
            continue  # these reshape the anatomy: tested by the heart's ratio and the mediastinum's width
        without = draw(replace(case, findings=(), labels={**case.labels, label: 0}))
        change = np.abs(phantom.pixels.astype(float) - without.pixels)
        mask = phantom.masks[label]
        shares.append(change[mask].mean() / max(change[~mask].mean(), 0.5))
    assert not shares or np.median(shares) > 1.5, shares


@pytest.mark.parametrize("label", FINDINGS)
def test_severe_findings_are_larger_or_denser_than_mild_ones(label: str) -> None:
    weight: dict[str, list[float]] = {severity: [] for severity in SEVERITIES}
    for case in cases_with(label, 8):
        for severity in ("mild", "severe"):
            findings = tuple(replace(finding, severity=severity) for finding in case.findings)
            ratio = case.ctr if label != "cardiomegaly" else {"mild": 0.52, "severe": 0.65}[severity]
            graded = replace(case, findings=findings, ctr=ratio)
            phantom = draw(graded, 128)
            without = draw(replace(graded, findings=(), labels={**case.labels, label: 0}), 128)
            change = np.abs(phantom.pixels.astype(float) - without.pixels)
            area = float(phantom.masks[label].sum()) if label in phantom.masks else 0.0
            silhouette = label in ("cardiomegaly", "enlarged_cardiomediastinum")
            weight[severity].append(area if silhouette else float(change[phantom.masks[label]].sum()))
    assert np.mean(weight["severe"]) > 1.1 * np.mean(weight["mild"]), weight


def test_the_ratio_measured_on_the_masks_is_the_cases() -> None:
    for site in SITES:
        for case in sample_cases(site, 12, 6, "balanced"):
            anatomy = draw(case, 448).anatomy
            widths = [np.ptp(np.nonzero(anatomy[name].any(axis=0))[0]) + 1 for name in ("heart", "thorax")]
            assert widths[0] / widths[1] == pytest.approx(case.ctr, abs=0.035), case


@pytest.mark.parametrize("size", [96, 448, 1024])
def test_other_sizes_show_the_same_anatomy(size: int) -> None:
    case = next(cases_with("pleural_effusion", 1))
    small, large = draw(case, 224), draw(case, size)
    assert large.pixels.shape == (size, size)
    for name in ("heart", "lungs", "thorax"):
        assert large.anatomy[name].mean() == pytest.approx(small.anatomy[name].mean(), abs=0.01)
    x, y, w, h = np.array(small.boxes["pleural_effusion"][0]) / 224
    assert np.array(large.boxes["pleural_effusion"][0]) / size == pytest.approx([x, y, w, h], abs=0.04)


def test_sizes_out_of_range_are_refused() -> None:
    case = sample_cases("reference", 1)[0]
    for size in (0, 31, 1025):
        with pytest.raises(InputError, match="32 to 1024"):
            draw(case, size)


def test_sites_differ_as_their_scanners_do() -> None:
    def look(site: str) -> tuple[float, float]:
        films = [draw(case).pixels.astype(float) for case in sample_cases(site, 12, 5)]
        centre = [film[40:180, 40:180] for film in films]
        grain = [np.abs(np.diff(film, 2, axis=0)).mean() / film.std() for film in centre]
        return float(np.mean(grain)), float(np.mean([film.mean() for film in centre]))

    looks = {site: look(site) for site in SITES}
    assert looks["community"][1] > looks["reference"][1] > looks["inverted_archive"][1]
    assert max(abs(look[0] / looks["reference"][0] - 1) for look in looks.values()) > 0.15


def test_the_inverted_archive_stores_dense_as_dark() -> None:
    for site, direction in (("inverted_archive", -1), ("reference", 1)):
        phantom = draw(sample_cases(site, 1, 3)[0])
        correlation = np.corrcoef(phantom.pixels.ravel(), phantom.raw.ravel())[0, 1]
        assert correlation * direction > 0.99
