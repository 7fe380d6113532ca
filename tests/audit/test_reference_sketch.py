"""Audits against a sketch: as near to those against images as the sketch tells, and silent where it tells nothing."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from medvlm_probe.audit.evidence import QUESTIONS, AuditEvidence
from medvlm_probe.audit.examine import Settings, examine
from medvlm_probe.audit.policy import parse_policy
from medvlm_probe.audit.reference_sketch import (
    refuse_other_model,
    site_of_images,
    sketched_inputs,
    sketched_side,
)
from medvlm_probe.audit.sketch_answers import NOT_FROM_A_SKETCH, AgainstSketch
from medvlm_probe.cohort.cohort import Cohort
from medvlm_probe.errors import InputError
from medvlm_probe.shift.outlier_scores import OutlierInputs, fit_outlier_score
from medvlm_probe.shift.random_features import RandomFeatures
from medvlm_probe.shift.sketch import Sketch, merge_sketches, sketch
from medvlm_probe.shift.sketch_export import export_sketch
from medvlm_probe.shift.sketch_plan import SketchPlan
from medvlm_probe.zero_shot.scores import logistic

from .two_hospitals import DIMENSIONS, LABELS, hospital, inputs_of, score

PLAN = SketchPlan(
    RandomFeatures(DIMENSIONS, 0.4, 4_096), "m", "f" * 64, "logit, prompts 1", LABELS, (0.5, 0.4), ("joint_energy",)
)
POLICY = parse_policy(
    "\n".join(
        f"[[rule]]\nrule = '{text}'"
        for text in (
            "no shift beyond 0.5",
            "no shift beyond 0.5 by frechet",
            "no shift beyond 0.5 by classifier",
            "recall(each label) >= 0.5",
            "auroc(edema) >= 0.99",
            "overconfidence <= 0.2",
            "outlier share <= 0.3",
        )
    ),
    "p",
)
Hospital = tuple[Cohort, np.ndarray]


def energy(vectors: np.ndarray) -> np.ndarray:
    inputs = OutlierInputs(logits=score(vectors).values)
    return fit_outlier_score("joint_energy", inputs).scores(inputs)


def sketch_of(side: Hospital, rows: slice = slice(None), plan: SketchPlan = PLAN) -> Sketch:
    cohort, vectors = side
    return sketch(
        plan,
        vectors[rows],
        cohort.table["patient"].tolist()[rows],
        probabilities=logistic(score(vectors).values)[rows],
        labels=cohort.targets(LABELS)[rows],
        outlier_scores={"joint_energy": energy(vectors)[rows]},
    )


def against(reference: Sketch, site: Hospital) -> AgainstSketch:
    cohort, vectors = site
    side = sketched_side(reference, LABELS, "logit", seed=0)
    images = site_of_images(cohort, vectors, score(vectors), LABELS, len(side.side))
    inputs = sketched_inputs(side, images, LABELS, seed=0)
    return AgainstSketch(side, sketch_of(site), inputs, {"joint_energy": energy(vectors)})


def examined(found: AgainstSketch) -> AuditEvidence:
    return examine(found.inputs, POLICY, Settings(n_permutations=99, n_sampled=0, instead=found.instead()))


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> tuple[Hospital, Hospital]:
    folder = tmp_path_factory.mktemp("two")
    return hospital(folder / "a", 600, 0), hospital(folder / "b", 400, 1, prefix="q")


@pytest.mark.parametrize("kind", ["working", "export"])
def test_an_audit_against_a_sketch(hospitals: tuple[Hospital, Hospital], kind: str) -> None:
    reference, site = hospitals
    shards = [sketch_of(reference, slice(k, None, 3)) for k in range(3)]
    made = merge_sketches(shards)
    exact = inputs_of(reference, site)
    case = against(made if kind == "working" else export_sketch(made), site)
    found = examined(case)
    assert {v.rule: v.verdict for v in found.verdicts} == {
        "no shift beyond 0.5": "pass",
        "no shift beyond 0.5 by frechet": "not enough evidence",
        "no shift beyond 0.5 by classifier": "not enough evidence",
        "recall(cardiomegaly) >= 0.5": "pass",
        "recall(edema) >= 0.5": "pass",
        "auroc(edema) >= 0.99": "fail",
        "overconfidence <= 0.2": "pass",
        # Passed by a score that sees less than those fitted on vectors.
        "outlier share <= 0.3": "not enough evidence",
    }
    assert {name: reason for name, reason in found.skipped.items() if name != "triggers"} == NOT_FROM_A_SKETCH
    assert all(text.endswith(".") for text in found.sentences().values())
    assert set(found.sentences()) == set(QUESTIONS)
    assert found.to_json({})["shift"]["n_shared_groups"] is None

    # Squared MMD is the exact one, within the error of 4,096 random features.
    ours = found.shift.report.tests[0] if found.shift else None
    assert ours is not None
    truth = _exact_mmd(reference[1], site[1], 0.4)
    assert abs(ours.statistic - truth) < 2e-3

    # What the site's labels tell is told in full, and the reference's AUROC holds that of its images.
    assert found.performance is not None
    for k, label in enumerate(LABELS):
        cell = found.performance.whole("site")[label].estimate("auroc")
        assert cell is not None
        y = exact.site.targets[:, k]
        assert cell.value == pytest.approx(roc_auc_score(y, score(site[1]).values[:, k]))
        there = found.performance.whole("reference")[label]
        told = there.estimate("auroc")
        assert told is not None
        whole = roc_auc_score(reference[0].targets(LABELS)[:, k], score(reference[1]).values[:, k])
        assert told.low <= whole <= told.high
        assert there.estimate("average_precision") is None
        apart = found.performance.whole("site")[label].to_reference["auroc"]
        assert apart.value == pytest.approx(cell.value - told.value)
        assert apart.low < 0 < apart.high
    # Both hospitals are of one kind: frequencies, thresholds and calibration come out alike.
    assert found.label_shift is not None
    assert not found.label_shift.doubt
    for entry in found.label_shift.labels:
        assert entry.truth is not None
        assert (
            entry.shift.misfit_test.p_value > 0.01 if kind == "working" else math.isnan(entry.shift.misfit_test.p_value)
        )
        assert abs(entry.shift.em.value - entry.truth.value) < 0.1
    thresholds = exact.deployed, case.inputs.deployed
    for label in LABELS:
        cuts = [deployed.thresholds.values[label] for deployed in thresholds if deployed is not None]
        assert abs(cuts[0] - cuts[1]) < 1.5
    assert found.calibration is not None
    rows = {(row.side, row.probabilities): row for row in found.calibration.rows}
    assert len(rows) == 4
    assert abs(rows["reference", "the model's own"].pooled["ece"].estimate.value) < 0.05
    assert not rows["reference", "the model's own"].pooled["ece"].estimate.reliable
    assert rows["site", "the model's own"].pooled["ece"].estimate.reliable
    assert found.label_free is not None
    assert sum(bool(row.holds) for row in found.label_free.rows if row.holds is not None) >= 0.8 * len(
        [row for row in found.label_free.rows if row.holds is not None]
    )
    assert found.practice is not None
    assert not found.practice.plans
    assert found.outliers is not None
    assert found.outliers.listed_by == "joint_energy"
    assert found.outliers.share.low <= 0.05 <= found.outliers.share.high + 0.03
    direct = roc_auc_score(np.repeat([0, 1], [600, 400]), np.append(energy(reference[1]), energy(site[1])))
    assert found.outliers.methods["joint_energy"].auroc.value == pytest.approx(direct, abs=0.02)


def _exact_mmd(reference: np.ndarray, site: np.ndarray, bandwidth: float) -> float:
    """Return the unbiased squared MMD between images of different patients, by all pairs."""
    first, second = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (reference, site))

    def mean(a: np.ndarray, b: np.ndarray, *, same: bool) -> float:
        kernel = np.exp(-((a[:, None] - b) ** 2).sum(axis=2) / (2 * bandwidth**2))
        return float((kernel.sum() - np.trace(kernel)) / (len(a) * (len(a) - 1)) if same else kernel.mean())

    return mean(first, first, same=True) + mean(second, second, same=True) - 2 * mean(first, second, same=False)


def test_what_moved_is_seen(hospitals: tuple[Hospital, Hospital]) -> None:
    reference, (cohort, vectors) = hospitals
    moved = vectors.copy()
    moved[:, 4] += 4
    found = examined(against(sketch_of(reference), (cohort, moved)))
    assert found.shift is not None
    assert "differ" in found.shift.sentence
    assert found.shift.report.tests[0].p_value == 1e-4
    assert found.shift.report.tests[0].effect.low > 0.02
    assert found.label_shift is not None
    assert "does not tell whether in look" in found.sentences()["label_shift"]


def test_labels_of_few_patients_and_noise_are_not_told_of(hospitals: tuple[Hospital, Hospital], tmp_path: Path) -> None:
    reference, site = hospitals
    rare = hospital(tmp_path / "c", 300, 5, prefix="r", edema=np.where(np.arange(300) < 6, 1, 0))
    side = sketched_side(export_sketch(sketch_of(rare)), LABELS, "logit", seed=0)
    assert set(side.cells) == {"cardiomegaly"}
    assert np.isnan(side.side.targets[:, 1]).all()
    assert "1 labels" in " ".join(sketched_inputs(side, side.side, LABELS, seed=0).notes)
    noisy = export_sketch(sketch_of(reference), epsilon=1.0, delta=1e-6, rng=np.random.default_rng(0))
    drowned = sketched_side(noisy, LABELS, "logit", seed=0)
    assert not drowned.cells
    assert sketched_inputs(drowned, site_of_images(*site, None, LABELS, 900), LABELS, seed=0).deployed is None
    found = examined(against(noisy, site))
    assert found.shift is not None
    assert math.isfinite(found.shift.report.tests[0].effect.value)
    assert "noise" in " ".join(found.notes)
    assert found.label_shift is None
    assert found.performance is not None


def test_a_sketch_of_another_model_or_other_prompts_is_refused() -> None:
    class Model:
        name, fingerprint = "m", "f" * 64

    model = Model()
    refuse_other_model(PLAN, model, "logit, prompts 1")  # type: ignore[arg-type]
    refuse_other_model(replace(PLAN, prompts="", labels=(), thresholds=()), model, "")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="other prompts"):
        refuse_other_model(PLAN, model, "logit, prompts 2")  # type: ignore[arg-type]
    model.fingerprint = "0" * 64
    with pytest.raises(InputError, match="other weights"):
        refuse_other_model(PLAN, model, "logit, prompts 1")  # type: ignore[arg-type]
    model.name = "n"
    with pytest.raises(InputError, match="made with m"):
        refuse_other_model(PLAN, model, "logit, prompts 1")  # type: ignore[arg-type]
