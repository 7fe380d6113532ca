"""Conclusions by source of labels against the metrics' own functions, and shifts and corrections with known truth."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import label_ranking_average_precision_score, roc_auc_score

from medvlm_probe.errors import InputError, UnknownNameError
from medvlm_probe.metrics.separability import class_distances
from medvlm_probe.types import Estimate, Scores
from medvlm_probe.zero_shot.label_agreement import AgreementAnalysis, analyse_label_agreement
from medvlm_probe.zero_shot.label_agreement_tables import conclusion_table, correction_table, pair_table, plot_table
from medvlm_probe.zero_shot.label_conclusions import conclusions_by_source
from medvlm_probe.zero_shot.label_sources import LabelSources, resolve_blanks, shared_labels
from medvlm_probe.zero_shot.thresholds import Thresholds

LABELS = ("cardiomegaly", "edema", "no_finding")


def simulated(n: int = 1200, seed: int = 0) -> tuple[LabelSources, Scores, np.ndarray]:
    """Truth, a labeler with known errors, and scores that know the truth but not the labeler; vectors that do too."""
    rng = np.random.default_rng(seed)
    truth = rng.random((n, 3)) < (0.3, 0.15, 0.5)
    labeler = np.where(truth, rng.random((n, 3)) < 0.8, rng.random((n, 3)) < 0.05)
    scores = rng.normal(size=(n, 3)) + 1.2 * truth
    vectors = rng.normal(size=(n, 6)) + 1.5 * truth @ rng.normal(size=(3, 6))
    sources = LabelSources(LABELS, {"truth": truth.astype(float), "rules": labeler.astype(float)}, np.arange(n))
    return sources, Scores(scores, "logit", LABELS, tuple(map(str, range(n)))), vectors


THRESHOLDS = Thresholds(dict.fromkeys(LABELS, 0.6), "calib", "youden", {})


@pytest.fixture(scope="module")
def analysis() -> AgreementAnalysis:
    sources, scores, vectors = simulated()
    shown = np.arange(1200) < 600
    return analyse_label_agreement(
        sources,
        shown,
        scores=scores,
        scored=np.arange(1200),
        thresholds=THRESHOLDS,
        embeddings=vectors,
        truth="truth",
        errors_rows=~shown,
        errors_from="train",
    )


def test_conclusions_are_those_of_the_metrics(analysis: AgreementAnalysis) -> None:
    sources, scores, vectors = simulated()
    found = {(entry.label, entry.metric, entry.source): entry for entry in analysis.conclusions}
    for name, values in sources.values.items():
        y = values[:600]
        for k, label in enumerate(LABELS):
            s = scores.values[:600, k]
            assert found[label, "auroc", name].estimate.value == pytest.approx(roc_auc_score(y[:, k], s))
            assert found[label, "recall", name].estimate.value == pytest.approx((s >= 0.6)[y[:, k] == 1].mean())
            ratio = class_distances(vectors[:600], y[:, k], np.arange(600), n_permutations=0)[0].ratio
            assert found[label, "ratio", name].estimate.value == pytest.approx(ratio.value)
        rows = y.any(axis=1)
        lrap = label_ranking_average_precision_score(y[rows], scores.values[:600][rows])
        assert found["", "label_ranking_average_precision", name].estimate.value == pytest.approx(lrap)


def test_shifts_are_differences_from_the_reference(analysis: AgreementAnalysis) -> None:
    found = {(entry.label, entry.metric, entry.source): entry for entry in analysis.conclusions}
    for (label, metric, source), entry in found.items():
        if source == "truth":
            assert entry.shift is None
            continue
        base = found[label, metric, "truth"].estimate.value
        assert entry.shift is not None
        assert entry.shift.value == pytest.approx(entry.estimate.value - base)
        if metric == "ratio":
            assert math.isnan(entry.shift.low)
        else:
            assert entry.shift.low <= entry.shift.value <= entry.shift.high


def test_correction_comes_nearer_to_the_truth_than_the_labels(analysis: AgreementAnalysis) -> None:
    assert {entry.metric for entry in analysis.corrections} == {"prevalence", "recall", "specificity"}
    for entry in analysis.corrections:
        assert entry.corrected.low <= entry.against_truth.value <= entry.corrected.high
    moved = [abs(entry.apparent.value - entry.against_truth.value) for entry in analysis.corrections]
    left = [abs(entry.corrected.value - entry.against_truth.value) for entry in analysis.corrections]
    assert np.mean(left) < 0.7 * np.mean(moved)
    assert not any(entry.independence_refuted for entry in analysis.corrections)
    for errors in analysis.errors:
        assert errors.sensitivity is not None
        assert errors.sensitivity.value == pytest.approx(0.8, abs=0.1)


def test_json_and_tables_hold_the_same_numbers(analysis: AgreementAnalysis) -> None:
    result = json.loads(json.dumps(analysis.to_json(), allow_nan=False))
    assert result["reference"] == "truth"
    assert len(result["pairs"]) == len(LABELS)
    conclusions, pairs, corrections = conclusion_table(analysis), pair_table(analysis), correction_table(analysis)
    assert len(conclusions) == len(result["conclusions"])
    assert pairs["value"].iloc[0] == pytest.approx(result["pairs"][0]["agreement"]["value"])
    assert set(corrections["form"]) == {"measured", "apparent", "corrected", "against_truth"}
    assert set(plot_table(analysis)["metric"]) == {"kappa", "recall", "auroc", "ratio"}


def test_only_images_that_all_sources_know_are_compared() -> None:
    sources, scores, _ = simulated(200)
    values = {name: v.copy() for name, v in sources.values.items()}
    values["rules"][:150, 0] = np.nan
    found = conclusions_by_source(values, LABELS, np.arange(200), scores=scores, thresholds=None, embeddings=None)
    sizes = {(entry.label, entry.source): entry.estimate.n for entry in found if entry.metric == "auroc"}
    assert sizes["cardiomegaly", "truth"] == sizes["cardiomegaly", "rules"] == 50
    assert sizes["edema", "truth"] == 200


def test_the_same_labels_move_nothing() -> None:
    sources, scores, _ = simulated(200)
    twice = {"truth": sources.values["truth"], "copy": sources.values["truth"]}
    found = conclusions_by_source(twice, LABELS, np.arange(200), scores=scores, thresholds=THRESHOLDS, embeddings=None)
    shifts = [entry.shift for entry in found if entry.shift is not None]
    assert {(shift.value, shift.low, shift.high) for shift in shifts} == {(0.0, 0.0, 0.0)}


def test_scores_of_some_labels_and_images_suffice() -> None:
    sources, scores, _ = simulated(300)
    some = Scores(scores.values[100:, :1], "logit", LABELS[:1], scores.ids[100:])
    found = analyse_label_agreement(sources, np.arange(300) < 200, scores=some, scored=np.arange(100, 300))
    assert {entry.label for entry in found.conclusions} == {"cardiomegaly"}
    assert {entry.estimate.n for entry in found.conclusions} == {100}
    assert found.n_images == 200


def test_without_scores_or_truth_there_is_agreement_only() -> None:
    sources, _, _ = simulated(100)
    found = analyse_label_agreement(sources, np.ones(100, bool))
    assert found.conclusions == found.corrections == found.errors == ()
    assert len(found.pairs) == 3


def test_a_source_that_is_chance_is_not_corrected_and_says_why() -> None:
    sources, _, _ = simulated(400)
    values = dict(sources.values) | {"coin": 1 - sources.values["truth"]}
    shown = np.arange(400) < 200
    found = analyse_label_agreement(
        LabelSources(LABELS, values, sources.groups), shown, truth="truth", errors_rows=~shown, errors_from="train"
    )
    refused = [entry for entry in found.errors if entry.source == "coin"]
    assert all("sum to 1 or less" in entry.refused for entry in refused)
    assert not [entry for entry in found.corrections if entry.source == "coin"]


def test_errors_must_come_from_other_patients() -> None:
    sources, _, _ = simulated(100)
    groups = np.arange(100) // 2
    shown = np.arange(100) % 2 == 0
    with pytest.raises(InputError, match="50 patients"):
        analyse_label_agreement(
            LabelSources(LABELS, sources.values, groups), shown, truth="truth", errors_rows=~shown, errors_from="train"
        )
    with pytest.raises(UnknownNameError, match="rules"):
        analyse_label_agreement(sources, shown, truth="rule")


def test_sources_must_be_two_and_of_one_shape() -> None:
    with pytest.raises(InputError, match="at least two"):
        LabelSources(LABELS, {"one": np.zeros((2, 3))}, np.arange(2))
    with pytest.raises(InputError, match="shape"):
        LabelSources(LABELS, {"one": np.zeros((2, 3)), "two": np.zeros((2, 2))}, np.arange(2))


def test_blanks_and_uncertain_labels() -> None:
    values = np.array([[1, np.nan, -1], [np.nan] * 3])
    nan = np.nan
    np.testing.assert_array_equal(
        resolve_blanks(values, blank="absent", uncertainty="ones"), [[1, 0, 1], [nan, nan, nan]]
    )
    np.testing.assert_array_equal(
        resolve_blanks(values, blank="unknown", uncertainty="ignore"), [[1, nan, nan], [nan, nan, nan]]
    )
    np.testing.assert_array_equal(
        resolve_blanks(values, blank="absent", uncertainty="zeros"), [[1, 0, 0], [nan, nan, nan]]
    )
    with pytest.raises(UnknownNameError):
        resolve_blanks(values, blank="nothing", uncertainty="ones")
    with pytest.raises(UnknownNameError):
        resolve_blanks(values, blank="absent", uncertainty="one")


def test_shared_labels_keep_the_first_order() -> None:
    named = {"a": ["x", "y", "z"], "b": ["z", "x"]}
    assert shared_labels(named, None) == ("x", "z")
    assert shared_labels(named, ["z"]) == ("z",)
    with pytest.raises(InputError, match="missing from b"):
        shared_labels(named, ["y"])
    with pytest.raises(InputError, match="share no label"):
        shared_labels({"a": ["x"], "b": ["y"]}, None)


METRICS = ("recall", "specificity", "auroc", "average_precision", "label_ranking_average_precision")


def shifts(n: int, seed: int, groups: np.ndarray) -> dict[str, Estimate]:
    sources, scores, _ = simulated(n, seed)
    found = conclusions_by_source(sources.values, LABELS, groups, scores=scores, thresholds=THRESHOLDS, embeddings=None)
    return {e.metric: e.shift for e in found if e.shift is not None and e.label in ("", "edema")}


@pytest.mark.parametrize("n", [300, pytest.param(900, marks=pytest.mark.slow)])
def test_interval_of_a_shift_covers_where_it_claims_to(n: int) -> None:
    """Half of the images share a patient. The truth is the shift over very many images."""
    truth = shifts(60_000, 99, np.arange(60_000))
    groups = np.minimum(np.arange(n), np.arange(n) // 2 + n // 4)
    found = [shifts(n, seed, groups) for seed in range(100)]
    for metric in METRICS:
        covered = [e[metric].low <= truth[metric].value <= e[metric].high for e in found if e[metric].reliable]
        assert len(covered) >= 70
        assert stats.binom.cdf(sum(covered), len(covered), 0.92) >= 0.001, f"{metric}: {sum(covered)}"
