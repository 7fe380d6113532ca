"""The audit's questions on two synthetic hospitals whose truth is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from medvlm_probe.audit.age_probe import compare_ages, fit_age_probe
from medvlm_probe.audit.bounds import performance_bounds, rescaled
from medvlm_probe.audit.differences import difference
from medvlm_probe.audit.evidence import QUESTIONS
from medvlm_probe.audit.examine import Settings, examine
from medvlm_probe.audit.facts import pixel_facts
from medvlm_probe.audit.inputs import Side, halves
from medvlm_probe.audit.performance_by_site import examine_performance
from medvlm_probe.audit.policy import parse_policy
from medvlm_probe.audit.traps import find_traps
from medvlm_probe.audit.verdicts import Explanation
from medvlm_probe.cohort.catalog import load_cohort
from medvlm_probe.cohort.phantom_export import export_phantoms
from medvlm_probe.errors import InputError
from medvlm_probe.metrics.proportions import clopper_pearson_interval, wilson_interval
from medvlm_probe.types import Estimate

from .two_hospitals import LABELS, hospital, inputs_of

POLICY = parse_policy(
    "\n".join(
        f"[[rule]]\nrule = '{text}'"
        for text in (
            "no shift beyond 0.5",
            "recall(each label) >= 0.5",
            "auroc(edema) >= 0.99",
            "overconfidence <= 0.2",
            "outlier share <= 0.3",
            "recall(pneumothorax) >= 0.5",
            "explanation usable",
        )
    ),
    "p",
)


def test_an_audit_of_the_same_kind_of_hospital(tmp_path: Path) -> None:
    inputs = inputs_of(hospital(tmp_path / "a", 400, 0), hospital(tmp_path / "b", 300, 1, prefix="q"))
    studied = {"edema": Explanation("pass", 40), "cardiomegaly": Explanation("pass", 12)}
    found = examine(inputs, POLICY, Settings(n_permutations=199, n_sampled=0, explanations=studied))
    verdicts = {verdict.rule: verdict.verdict for verdict in found.verdicts}
    assert verdicts == {
        "no shift beyond 0.5": "pass",
        "recall(cardiomegaly) >= 0.5": "pass",
        "recall(edema) >= 0.5": "pass",
        "auroc(edema) >= 0.99": "fail",
        "overconfidence <= 0.2": "pass",
        "outlier share <= 0.3": "pass",
        "recall(pneumothorax) >= 0.5": "not enough evidence",
        "explanation(edema) usable": "pass",
        "explanation(cardiomegaly) usable": "not enough evidence",
    }
    assert found.overall == "fail"
    result = json.loads(json.dumps(found.to_json({"model": "m"}), allow_nan=False))
    assert {"verdicts", "shift", "label_shift", "label_free", "performance", "provenance"} <= set(result)
    assert set(result["verdicts"][0]) >= {"rule", "verdict", "value", "low", "high", "n_groups"}
    assert set(result["label_free"][0]) >= {"label", "metric", "estimate", "truth"}
    assert list(result["sentences"]) == list(QUESTIONS)
    assert all(text.endswith(".") for text in result["sentences"].values())
    assert set(found.skipped) == {"why", "repair", "triggers"}
    assert found.shift is not None
    assert found.shift.sentence.startswith("No shift")
    assert found.label_shift is not None
    for entry in found.label_shift.labels:
        assert entry.truth is not None
        assert abs(entry.shift.em.value - entry.truth.value) < 0.1
    whole = {cell.label: cell for cell in examine_performance(inputs).cells if cell.side == "site" and cell.by == "all"}
    for k, label in enumerate(LABELS):
        estimate = whole[label].estimate("auroc")
        assert inputs.site.scores is not None
        assert estimate is not None
        truth = roc_auc_score(inputs.site.targets[:, k], inputs.site.scores.values[:, k])
        assert estimate.value == pytest.approx(truth)


def test_without_labels_nothing_is_invented(tmp_path: Path) -> None:
    site = hospital(tmp_path / "b", 120, 1, prefix="q", cardiomegaly=np.nan, edema=np.nan)
    inputs = inputs_of(hospital(tmp_path / "a", 300, 0), site)
    assert np.isnan(inputs.site.targets).all()
    found = examine(inputs, POLICY, Settings(n_permutations=99, n_sampled=0))
    assert found.performance is None
    assert "no known label" in found.skipped["performance"]
    assert found.label_free is not None
    assert all(row.truth is None and row.holds is None for row in found.label_free.rows)
    outcomes = {v.rule: v.verdict for v in found.verdicts}
    assert outcomes["recall(edema) >= 0.5"] == "not enough evidence"
    assert outcomes["explanation usable"] == "not enough evidence"
    assert "labels_missing" in {trap.kind for trap in found.traps}


def test_choices_and_results_share_no_patient_and_shared_images_are_left_out(tmp_path: Path) -> None:
    reference, site = hospital(tmp_path / "a", 200, 0), hospital(tmp_path / "b", 60, 1, start=1150)
    inputs = inputs_of(reference, site)  # patients p-1150 ... p-1199 are in both
    assert inputs.n_shared == 50
    assert len(inputs.site) == 10
    assert not set(inputs.chosen_on.groups) & set(inputs.reference.groups)
    assert not set(inputs.whole_reference.groups) & set(inputs.site.groups)
    assert abs(len(inputs.chosen_on) - len(inputs.reference)) <= 1
    with pytest.raises(InputError, match="no new site"):
        inputs_of(reference, reference)
    groups = np.repeat(np.arange(50), 3)
    rare = (groups < 4).astype(float)[:, None]
    first = halves(groups, rare, np.random.default_rng(0))
    assert all(len(set(first[groups == group])) == 1 for group in range(50))
    assert 0 < rare[first].sum() < rare.sum()


def test_probability_cuts_call_what_thresholds_call(tmp_path: Path) -> None:
    inputs = inputs_of(hospital(tmp_path / "a", 300, 0), hospital(tmp_path / "b", 100, 1, prefix="q"))
    deployed, scores = inputs.deployed, inputs.site.scores
    assert deployed is not None
    assert scores is not None
    p = deployed.probabilities(scores)
    assert p is not None
    assert np.array_equal(p >= deployed.cuts, deployed.called(scores))


def test_small_cells_and_one_sided_labels_are_not_shown(tmp_path: Path) -> None:
    n = 120
    rare = np.where(np.arange(n) < 6, 1, 0)
    views = np.where(np.arange(n) < 7, "LATERAL", "PA")
    site = hospital(tmp_path / "b", n, 1, prefix="q", edema=rare, cardiomegaly=1, view=views)
    inputs = inputs_of(hospital(tmp_path / "a", 300, 0), site)
    performance = examine_performance(inputs)
    cells = {(c.by, c.group, c.label): c for c in performance.cells if c.side == "site"}
    hidden = cells["all", "", "edema"].to_json()
    assert hidden["n_positive"] is None
    assert hidden["auroc"] is None
    assert "fewer than 10" in hidden["not_shown"]
    assert cells["view", "LATERAL", "cardiomegaly"].to_json()["n_people"] is None
    only = cells["all", "", "cardiomegaly"].to_json()
    assert only["recall"]["value"] is not None
    assert only["auroc"] is None
    assert only["specificity"] is None
    assert "recall only" in only["not_shown"]
    kinds = {trap.kind: trap.sentence for trap in find_traps(inputs, None)}
    assert "no absent examples" in kinds["recall_only"]


def test_traps_are_found_and_said(tmp_path: Path) -> None:
    n = 200
    late = (np.arange(n) >= n // 2).astype(int)
    site = hospital(tmp_path / "b", n, 1, prefix="q", age=np.where(np.arange(n) % 4 == 0, 9, 50), edema=late)
    traps = {trap.kind: trap for trap in find_traps(inputs_of(hospital(tmp_path / "a", 300, 0), site), None)}
    assert traps["shortcut"].labels == ("edema",)
    assert "order of patient numbers" in traps["shortcut"].sentence
    assert "25 %" in traps["children"].sentence
    clean = inputs_of(hospital(tmp_path / "a", 300, 0), hospital(tmp_path / "c", n, 2, prefix="c"))
    assert not {"shortcut", "children", "recall_only"} & {trap.kind for trap in find_traps(clean, None)}


def test_one_sided_bounds_are_those_of_the_interval_at_that_level(tmp_path: Path) -> None:
    inputs = inputs_of(hospital(tmp_path / "a", 300, 0), hospital(tmp_path / "b", 100, 1, prefix="q"))
    assert inputs.deployed is not None
    assert inputs.site.scores is not None
    present = inputs.site.targets[:, 0] == 1
    called = inputs.deployed.called(inputs.site.scores)[present, 0]
    bound, n_people = performance_bounds(inputs, "cardiomegaly", "recall", 0.95)
    n, hits = float(len(called)), float(called.sum())
    interval = (wilson_interval if n >= 20 else clopper_pearson_interval)(np.array(hits), np.array(n), level=0.90)
    assert (bound.low, bound.high) == pytest.approx(tuple(map(float, interval)))
    assert n_people == present.sum()
    normal = Estimate(1.0, 1 - 1.959964, 1 + 1.959964, 10, 10, "m")
    one_sided = rescaled(normal, 0.95)
    assert one_sided.low == pytest.approx(1 - stats.norm.ppf(0.95), abs=1e-5)
    wider, there = (
        performance_bounds(inputs, "edema", "auroc", 0.95),
        performance_bounds(inputs, "edema", "auroc", 0.99),
    )
    assert there[0].low < wider[0].low < wider[0].value


def test_differences_square_and_add() -> None:
    site, reference = Estimate(0.7, 0.6, 0.78, 50, 50, "m"), Estimate(0.8, 0.75, 0.84, 90, 80, "m")
    found = difference(site, reference)
    assert found.value == pytest.approx(-0.1)
    assert found.low == pytest.approx(-0.1 - np.hypot(0.1, 0.04))
    assert found.high == pytest.approx(-0.1 + np.hypot(0.08, 0.05))
    assert (found.n, found.n_groups) == (50, 50)


def test_an_age_probe_finds_children_where_ages_are_not_given(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    ages = np.where(np.arange(300) < 60, 5.0, 50.0)

    def looking(child: np.ndarray) -> np.ndarray:
        vectors = rng.normal(size=(len(child), 6)) + 4
        vectors[:, 0] += np.where(child, 4, 0)
        return vectors

    probe = fit_age_probe(looking(ages < 18), ages, np.arange(300))
    assert probe.auroc.low > 0.9
    adults, mixed = looking(np.zeros(200, bool)), looking(np.arange(200) < 100)
    found = compare_ages(probe, (adults, np.arange(200)), (mixed, np.arange(200)))
    assert 0.4 < found.site.value < 0.6
    assert found.reference.value < 0.12
    site = hospital(tmp_path / "b", 100, 1, prefix="q", age="")
    inputs = inputs_of(hospital(tmp_path / "a", 200, 0), site)
    assert "look like children's" in {t.kind: t.sentence for t in find_traps(inputs, None, childlike=found)}["children"]
    assert "age_unknown" in {t.kind for t in find_traps(inputs, None)}
    with pytest.raises(InputError, match="ten patients under 18"):
        fit_age_probe(adults, np.full(200, 50.0), np.arange(200))


def test_dicom_tags_are_shown_only_where_their_value_is_allowed(tmp_path: Path) -> None:
    folder = tmp_path / "dicom"
    cases = load_cohort("phantom:sites=inverted_archive,n=2,size=32").source.cases  # type: ignore[attr-defined]
    export_phantoms(cases, folder, format="dicom", size=32)
    files = sorted(folder.rglob("*.dcm"))
    for path, maker in zip(files, ("Miller's siemens", "ZZCANARY"), strict=True):
        data = pydicom.dcmread(path)
        data.Manufacturer, data.PatientName = maker, "ZZCANARY"
        data.Modality = "ZZCANARY" if maker == "ZZCANARY" else "DX"
        data.save_as(path)
    cohort = load_cohort(str(folder))
    side = Side(cohort, np.zeros((2, 2), np.float32), np.arange(2), None, np.zeros((2, 0)))
    found = pixel_facts(side, 2, np.random.default_rng(0))
    assert set(found["maker"]) == {"siemens", "other"}
    assert set(found["modality"]) == {"DX", "other"}
    assert set(found["photometric"]) == {"MONOCHROME1"}
    assert set(found["width"]) == {32.0}
    assert "ZZCANARY" not in found.to_csv()
