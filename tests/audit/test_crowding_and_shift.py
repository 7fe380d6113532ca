"""Crowding, shift by label and subgroup, and scanners, against loops over all pairs on small arrays."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pydicom
import pytest

from medvlm_probe.audit.crowding import examine_crowding
from medvlm_probe.audit.performance_by_site import examine_performance
from medvlm_probe.audit.scanners import safe_names, scanners_of, with_scanners
from medvlm_probe.audit.shift_by_label import MOST_PEOPLE, examine_shift_by_label
from medvlm_probe.cohort.catalog import load_cohort
from medvlm_probe.cohort.phantom_export import export_phantoms
from medvlm_probe.metrics.label_distances import label_distances
from medvlm_probe.metrics.resampling import holm
from medvlm_probe.metrics.separability import class_distances

from .two_hospitals import LABELS, hospital, inputs_of


def unit(vectors: np.ndarray) -> np.ndarray:
    wide = vectors.astype(np.float64)
    return wide / np.linalg.norm(wide, axis=1, keepdims=True)


def mean_distance(x: np.ndarray, first: np.ndarray, second: np.ndarray, groups: np.ndarray) -> float:
    found = [
        float(np.linalg.norm(x[i] - x[j]))
        for i in np.flatnonzero(first)
        for j in np.flatnonzero(second)
        if groups[i] != groups[j]
    ]
    return float(np.mean(found))


def test_label_distances_are_those_of_a_loop_and_of_the_full_study() -> None:
    rng = np.random.default_rng(0)
    vectors, groups = rng.normal(size=(30, 5)) + 1, rng.integers(0, 14, 30)
    y = rng.integers(0, 2, (30, 2)).astype(float)
    y[:4, 1] = np.nan
    found = label_distances(vectors, y, groups, label_names=LABELS, block_size=7)
    full = {entry.label: entry for entry in class_distances(vectors, y, groups, label_names=LABELS)}
    x = unit(vectors)
    for k, label in enumerate(LABELS):
        present, absent = y[:, k] == 1, y[:, k] == 0
        intra = mean_distance(x, present, present, groups), mean_distance(x, absent, absent, groups)
        inter = mean_distance(x, present, absent, groups)
        assert found[label].intra_positive.value == pytest.approx(intra[0], rel=1e-5)
        assert found[label].intra_negative.value == pytest.approx(intra[1], rel=1e-5)
        assert found[label].inter.value == pytest.approx(inter, rel=1e-5)
        assert found[label].ratio.value == pytest.approx(inter / np.mean(intra), rel=1e-5)
        for name in ("ratio", "intra_positive", "energy_distance"):
            mine = getattr(found[label], name)
            other = getattr(full[label], {"energy_distance": "energy_distance_estimate"}.get(name, name))
            assert (mine.value, mine.low, mine.high) == pytest.approx((other.value, other.low, other.high), abs=1e-5)
            assert mine.reliable == other.reliable


def test_crowding_compares_both_sides_and_says_what_is_too_few(tmp_path: Path) -> None:
    rare = np.zeros(60)
    rare[:6] = 1
    reference, site = hospital(tmp_path / "a", 120, 0), hospital(tmp_path / "b", 60, 1, prefix="q", edema=rare)
    cohort, vectors = site
    vectors[:, 0] = np.random.default_rng(2).normal(size=60)  # cardiomegaly no longer moves it
    found = examine_crowding(inputs_of(reference, (cohort, vectors)))
    cardiomegaly, edema = found.labels
    assert cardiomegaly.reference is not None
    assert cardiomegaly.site is not None
    apart = cardiomegaly.to_reference["ratio"]
    assert apart.value == pytest.approx(cardiomegaly.site.ratio.value - cardiomegaly.reference.ratio.value)
    assert apart.high < 0
    down = cardiomegaly.site.ratio.value - cardiomegaly.site.ratio.low
    up = cardiomegaly.reference.ratio.high - cardiomegaly.reference.ratio.value
    assert apart.low == pytest.approx(apart.value - math.hypot(down, up))
    assert edema.site is None
    assert edema.to_reference == {}
    assert edema.why_not == "too few: under 10 people with or without it here"
    assert "closer for 1 (Heart" in found.sentence({"cardiomegaly": "Heart"})
    assert found.to_json()["labels"][1]["site"] is None


def squared_mmd(x: np.ndarray, y: np.ndarray, bandwidth: float) -> float:
    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.exp(-((a[:, None] - b[None]) ** 2).sum(axis=2) / (2 * bandwidth**2))

    n, m = len(x), len(y)
    own = (kernel(x, x).sum() - n) / (n * (n - 1)) + (kernel(y, y).sum() - m) / (m * (m - 1))
    return float(own - 2 * kernel(x, y).mean())


def test_images_with_a_label_are_compared_with_those_that_have_it(tmp_path: Path) -> None:
    reference, site = hospital(tmp_path / "a", 150, 0), hospital(tmp_path / "b", 90, 1, prefix="q")
    cohort, vectors = site
    here = cohort.targets()
    vectors[here[:, 0] == 1, 5] += 12  # images with cardiomegaly look different, and with them many others
    vectors[cohort.table["view"].to_numpy() == "PA", 6] += 12
    inputs = inputs_of(reference, (cohort, vectors))
    found = examine_shift_by_label(inputs, n_permutations=499)
    cells = {(cell.by, cell.group): cell for cell in found.cells}
    assert set(cells) >= {("label", "cardiomegaly"), ("label", "edema"), ("view", "PA"), ("view", "AP"), ("sex", "F")}
    for k, label in enumerate(LABELS):
        x, y = (unit(s.vectors[s.targets[:, k] == 1]) for s in (inputs.whole_reference, inputs.site))
        effect = cells["label", label].effect
        assert effect is not None
        assert effect.value == pytest.approx(squared_mmd(x, y, found.bandwidth), abs=2e-6)
        assert cells["label", label].n_people == (len(x), len(y))
    tested = [cell for cell in found.cells if cell.effect is not None]
    assert [c.p_adjusted for c in tested] == holm(np.array([c.p_value for c in tested])).tolist()
    assert cells["label", "cardiomegaly"].moved
    assert cells["view", "PA"].moved
    assert "most" in found.sentence({})


def test_nothing_is_found_where_nothing_moved_and_small_cells_are_too_few(tmp_path: Path) -> None:
    few = np.array(["F"] * 6 + ["M"] * 84)
    reference, site = hospital(tmp_path / "a", 150, 0), hospital(tmp_path / "b", 90, 1, prefix="q", sex=few)
    inputs = inputs_of(reference, site)
    found = examine_shift_by_label(inputs, n_permutations=199)
    women = next(cell for cell in found.cells if (cell.by, cell.group) == ("sex", "F"))
    assert women.effect is None
    assert women.n_people is None
    assert women.why_not.startswith("too few")
    assert math.isnan(women.p_adjusted)
    assert women.to_json()["effect"] is None
    assert not any(cell.moved for cell in found.cells)
    assert "none is shown" in found.sentence({})
    again = examine_shift_by_label(inputs, n_permutations=199)
    assert again.to_json() == found.to_json()


def test_large_cells_are_drawn_down(tmp_path: Path) -> None:
    n = MOST_PEOPLE + 50
    reference = hospital(tmp_path / "a", n, 0, view=["PA"] * n)
    site = hospital(tmp_path / "b", 40, 1, prefix="q", view=["PA"] * 40)
    found = examine_shift_by_label(inputs_of(reference, site), n_permutations=99)
    assert next(cell for cell in found.cells if cell.by == "view").n_people == (MOST_PEOPLE, 40)


def test_scanners_have_safe_names() -> None:
    given = ["Siemens Ysio of Dr Jones"] * 3 + ["SIEMENS Axiom"] * 5 + ["Acme 9000"] + ["Fujifilm FDR"] * 2
    assert safe_names(given) == {
        "SIEMENS Axiom": "siemens 1",
        "Siemens Ysio of Dr Jones": "siemens 2",
        "Fujifilm FDR": "fuji",
        "Acme 9000": "scanner 1",
    }
    assert safe_names(["A", "12", "A"]) == {"A": "scanner A", "12": "scanner 12"}


def test_performance_by_scanner_of_the_manifest(tmp_path: Path) -> None:
    scanners = ["Philips Smith"] * 50 + ["Canon Baker"] * 45 + ["Agfa X"] * 5
    reference = hospital(tmp_path / "a", 150, 0, scanner="Canon Baker")
    inputs = inputs_of(reference, hospital(tmp_path / "b", 100, 1, prefix="q", scanner=scanners))
    assert set(scanners_of(inputs.site.cohort)) == {"philips", "canon", "agfa"}
    assert set(scanners_of(inputs.reference.cohort)) == {"canon"}
    cells = [cell for cell in examine_performance(inputs).cells if cell.by == "scanner"]
    assert {cell.group for cell in cells} == {"philips", "canon", "agfa"}
    assert all((cell.n_people is None) == (cell.group == "agfa") for cell in cells)
    assert "Smith" not in str([cell.to_json() for cell in cells])


def test_scanners_from_dicom_headers(tmp_path: Path) -> None:
    cases = load_cohort("phantom:sites=reference,n=4,size=32").source.cases  # type: ignore[attr-defined]
    export_phantoms(cases, tmp_path / "d", format="dicom", size=32)
    for k, path in enumerate(sorted((tmp_path / "d").rglob("*.dcm"))):
        header = pydicom.dcmread(path)
        header.Manufacturer, header.ManufacturerModelName = "SIEMENS", f"Ysio Smith {k % 2}"
        header.save_as(path)
    cohort = load_cohort(str(tmp_path / "d"))
    named, other = with_scanners(cohort, hospital(tmp_path / "a", 5, 0)[0])
    assert sorted(scanners_of(named)) == ["siemens 1", "siemens 1", "siemens 2", "siemens 2"]
    assert set(scanners_of(other)) == {""}
