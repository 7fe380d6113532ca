"""A sweep over methods: the same probabilities as each method alone, resumed, measured and compared."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_prompts import CLASSES, LABELS, class_prompts, cohort_of, label_prompts, small_clip, vectors_of

from medvlm_probe.cohort.cohort import Cohort
from medvlm_probe.errors import InputError, UnknownNameError
from medvlm_probe.metrics.calibration import expected_calibration_error, negative_log_likelihood
from medvlm_probe.metrics.permutation import holm
from medvlm_probe.tuning.calibration_comparison import classes_of
from medvlm_probe.tuning.calibration_sweep import DEFAULT_METHODS, Outcome, SweepMaterial, parse_methods, run_sweep
from medvlm_probe.tuning.calibration_sweep_measures import MACRO, POOLED, SweepResult, measure_sweep
from medvlm_probe.tuning.calibration_sweep_tables import (
    alike,
    comparison_table,
    comparisons,
    cosine_correlations,
    cosine_table,
    draw_table,
    estimate_table,
    not_worse_than_cross_entropy,
    sweep_json,
)
from medvlm_probe.tuning.few_shot import draw_few_shot
from medvlm_probe.tuning.post_hoc import fit_post_hoc
from medvlm_probe.tuning.prompt_learner import ContextSettings, prompt_learner
from medvlm_probe.tuning.prompt_tuning import EmbeddedViews, Schedule
from medvlm_probe.tuning.tune_prompts import Material
from medvlm_probe.tuning.views import Views
from medvlm_probe.zero_shot.prompts import prompts_of_tuned
from medvlm_probe.zero_shot.scores import prompt_scores
from medvlm_probe.zero_shot.text_embeddings import label_directions
from medvlm_probe.zero_shot.tuned_prompts import read_tuned_prompts

NAMES = ("zero-shot", "temperature", "ce", "ls", "ls+smac+as")
DRAWS = 3


@pytest.fixture(scope="module")
def model() -> Any:
    return small_clip()


def material_of(model: Any, cohort: Cohort) -> SweepMaterial:
    single = cohort.card.task == "single_label"
    vectors, pool = vectors_of(cohort, 2), cohort.splits() == "train"
    prompts, labels = (class_prompts(), CLASSES) if single else (label_prompts(), LABELS)
    tuning = Material(
        learner=prompt_learner(model, prompts, ContextSettings(3), single_label=single),
        labels=labels,
        images=EmbeddedViews(np.arange(len(cohort)), torch.from_numpy(vectors), torch.from_numpy(vectors[0])),
        keys=[f"key {name}" for name in cohort.table["image"]],
        views=Views(2, "light"),
        schedule=Schedule(epochs=3, batch_size=8, rate=0.5),
        logit_scale=12.0,
        zero_shot=None,
        facts={"cohort": "mine"},
    )
    few_shot = tuple(draw_few_shot(cohort, pool, labels, shots=4, seed=seed) for seed in range(DRAWS))
    fitted_on = pool & (np.arange(len(cohort)) < 40)
    return SweepMaterial(tuning, few_shot, cohort, vectors[0], prompts, fitted_on)


@pytest.fixture(scope="module", params=[True, False], ids=["one label", "several labels"])
def swept(request: pytest.FixtureRequest, model: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    single = request.param
    cohort = cohort_of(CLASSES if single else LABELS, single=single)
    material, folder = material_of(model, cohort), tmp_path_factory.mktemp("tuned")
    methods, _ = parse_methods(NAMES, cohort.card.task, 3, has_split=True)
    outcomes = list(run_sweep(material, methods, folder, source="calib"))
    shown = cohort.splits() == "test"
    result = measure_sweep(outcomes, material.vectors[shown], cohort.select(shown), n_draws=DRAWS, n_resamples=200)
    return material, methods, outcomes, result, folder, shown


def outcome_of(outcomes: list[Outcome], name: str) -> Outcome:
    return next(outcome for outcome in outcomes if outcome.method.name == name)


def test_the_names_of_methods() -> None:
    found, notes = parse_methods(DEFAULT_METHODS, "single_label", 2, has_split=False)
    names = [method.name for method in found]
    assert names[:2] == ["zero-shot", "temperature@shots"]
    assert len(names) == len(set(names)) == len({method.folder for method in found}) == len(DEFAULT_METHODS) - 1
    assert [note for note in notes if "ZS-Norm has no gradient with two classes" in note and "'ce+zs-norm'" in note]
    assert [note for note in notes if "few-shot images alone" in note]
    assert "ce+zs-norm" in [m.name for m in parse_methods(DEFAULT_METHODS, "single_label", 3, has_split=True)[0]]
    assert parse_methods(["ce+zs-norm"], "multi_label", 9, has_split=True)[1]
    twice = parse_methods(["ls", "temperature", "platt@split", "LS"], "multi_label", 3, has_split=True)[0]
    assert [m.name for m in twice] == ["zero-shot", "ls", "temperature@shots", "temperature@split",
                                      "platt@split"]  # fmt: skip
    for wrong, says in (("smac", "no term that teaches"), ("platt@shot", "expected platt@shots"),
                        ("platt@split", "--fit-from"), ("vector", "not for multi_label")):  # fmt: skip
        with pytest.raises(InputError, match=says):
            parse_methods([wrong], "multi_label", 3, has_split=False)
    with pytest.raises(UnknownNameError, match="Did you mean smac"):
        parse_methods(["ce+smacc"], "multi_label", 3, has_split=False)


def test_tuned_methods_give_what_their_prompts_give_alone(swept: Any) -> None:
    material, _, outcomes, _, folder, shown = swept
    kind = "softmax" if material.single else "probability"
    outcome = outcome_of(outcomes, "ls+smac+as")
    found = outcome.probabilities(material.vectors[shown])
    for draw in range(DRAWS):
        tuned = read_tuned_prompts(folder / "ls-smac-as" / f"seed-{draw:02d}")
        directions = label_directions(material.tuning.learner.model, prompts_of_tuned(tuned))
        ids = list(map(str, range(int(shown.sum()))))
        alone = prompt_scores(material.vectors[shown], directions, kind=kind, logit_scale=12.0, ids=ids)
        np.testing.assert_allclose(found[draw], alone.values, atol=1e-4)
        units = [directions.positive] if directions.negative is None else [directions.negative, directions.positive]
        texts = np.concatenate(units)
        pairs = [texts[i] @ texts[j] for i in range(len(texts)) for j in range(i)]
        assert outcome.cosines[draw] == pytest.approx(np.mean(pairs), abs=1e-4)
    assert outcome.labels_used == material.few_shot[0].n_labels_used
    assert (outcome.n_parameters, outcome.n_steps) == (3 * 32, 3)


def test_temperatures_are_fitted_on_what_they_say(swept: Any) -> None:
    material, _, outcomes, _, _, shown = swept
    cohort, labels = material.cohort, material.tuning.labels
    task = cohort.card.task
    directions = label_directions(material.tuning.learner.model, material.prompts)
    kind = "softmax" if material.single else "logit"
    ids = cohort.table["image"].tolist()
    scores = prompt_scores(material.vectors, directions, kind=kind, logit_scale=12.0, ids=ids)
    on_split = fit_post_hoc("temperature", scores.rows(material.fitted_on), cohort.targets()[material.fitted_on],
                            task=task, source="calib", share_temperature=True)  # fmt: skip
    found = outcome_of(outcomes, "temperature@split").probabilities(material.vectors[shown])
    np.testing.assert_allclose(found[0], on_split.apply(scores.rows(shown)).values, atol=1e-5)
    few = outcome_of(outcomes, "temperature@shots")
    assert (len(few.calibrators), few.labels_used) == (DRAWS, material.few_shot[0].n_labels_used)
    for calibrator, drawn in zip(few.calibrators, material.few_shot, strict=True):
        targets = np.full((len(cohort), len(labels)), np.nan)
        for problem in drawn.train:
            columns = [labels.index(problem.label)] if problem.label else list(range(len(labels)))
            targets[np.ix_(problem.rows, columns)] = cohort.targets()[np.ix_(problem.rows, columns)]
        expected = fit_post_hoc("temperature", scores, targets, task=task, source="", least=4)
        assert calibrator.curves[0].numbers == pytest.approx(expected.curves[0].numbers, rel=1e-3)


def test_a_rerun_reads_what_lies_there(swept: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    material, methods, outcomes, _, folder, _ = swept
    monkeypatch.setattr("medvlm_probe.tuning.tune_prompts.train_prompts", None)
    again = list(run_sweep(material, methods, folder, source="calib"))
    for before, after in zip(outcomes, again, strict=True):
        assert np.array_equal(before.features, after.features)
        assert np.isnan(after.seconds) == (after.method.loss is not None)


def test_the_measures_are_those_of_each_draw(swept: Any) -> None:
    material, _, outcomes, result, _, shown = swept
    targets = material.cohort.targets(material.tuning.labels)[shown].astype(float)
    measured = result.named("ls")
    p = outcome_of(outcomes, "ls").probabilities(material.vectors[shown])
    for draw in range(DRAWS):
        if material.single:
            truth = classes_of(targets)
            assert measured.scopes[POOLED]["accuracy"].values[draw] == (p[draw].argmax(axis=1) == truth).mean()
            values, labels = p[draw], truth
        else:
            values, labels = p[draw].ravel(), targets.ravel()
            each = [expected_calibration_error(p[draw][:, k], targets[:, k]) for k in range(len(LABELS))]
            assert measured.scopes[MACRO]["ece"].values[draw] == pytest.approx(np.mean(each))
            assert measured.scopes[LABELS[1]]["ece"].values[draw] == pytest.approx(each[1])
        assert measured.scopes[POOLED]["ece"].values[draw] == pytest.approx(expected_calibration_error(values, labels))
        assert measured.scopes[POOLED]["nll"].values[draw] == pytest.approx(negative_log_likelihood(values, labels))
    assert len(result.named("zero-shot").scopes[POOLED]["ece"].values) == 1
    assert 0 <= measured.band.low <= measured.band.high
    assert set(result.methods[0].scopes) == ({POOLED} if material.single else {POOLED, MACRO, *LABELS})


def test_differences_are_corrected_over_methods(swept: Any) -> None:
    result: SweepResult = swept[3]
    found = [c for c in comparisons(result, scopes=[POOLED]) if (c.against, c.metric) == ("zero-shot", "ece")]
    assert [c.method for c in found] == [method.name for method in result.methods[1:]]
    assert [c.p_adjusted for c in found] == holm(np.array([c.difference.p_value for c in found])).tolist()
    means = {method.name: method.scopes[POOLED]["ece"].mean for method in result.methods}
    for entry in found:
        assert entry.difference.estimate.value == pytest.approx(means[entry.method] - means["zero-shot"])
    assert {c.against for c in comparisons(result)} == {
        "zero-shot",
        "temperature@split",
        "temperature@shots",
        "ls",
        "ce",
    }
    verdicts = not_worse_than_cross_entropy(result)
    assert set(verdicts) == {method.name for method in result.methods} - {"ce"}


def test_tables_and_json(swept: Any) -> None:
    result: SweepResult = swept[3]
    content = sweep_json(result)
    json.dumps(content, allow_nan=False)
    assert [entry["method"] for entry in content["methods"]] == [method.name for method in result.methods]
    keys = {"method", "labels_used", "accuracy", "ece", "ace", "mce", "ece_kde", "brier", "nll", "overconfidence"}
    assert keys | {"per_label"} <= set(content["methods"][0])
    table = draw_table([result])
    wide = table[(table["scope"] == POOLED) & (table["metric"] == "brier")].groupby("method")["value"].mean()
    estimates = estimate_table([result]).query("scope == 'pooled' and metric == 'brier'").set_index("method")
    assert wide.to_dict() == pytest.approx(estimates["value"].to_dict())
    assert not comparison_table([result]).duplicated(["method", "against", "scope", "metric"]).any()
    cosines = cosine_table(result)
    assert set(cosines["method"]) == {"zero-shot", "ce", "ls", "ls+smac+as"}
    assert cosine_correlations(result)["n_methods"] == 4


def test_methods_that_learn_the_same_are_named(model: Any, tmp_path: Path) -> None:
    cohort = cohort_of(LABELS, single=False)
    material = material_of(model, cohort)
    # With as many images of either kind in every batch, SMAC's target is one half: MDCA's.
    methods, _ = parse_methods(["ls+mdca", "ls+smac", "ls"], "multi_label", 2, has_split=False)
    outcomes = run_sweep(material, methods, None)
    shown = cohort.splits() == "test"
    result = measure_sweep(outcomes, material.vectors[shown], cohort.select(shown), n_draws=DRAWS, n_resamples=50)
    assert alike(result) == [("ls+mdca", "ls+smac")]


def test_images_without_labels_are_refused(swept: Any) -> None:
    material, _, outcomes, _, _, shown = swept
    cohort = material.cohort.select(shown)
    blank = cohort.table.assign(**dict.fromkeys(material.tuning.labels, np.nan))
    with pytest.raises(InputError, match="of north has a known label"):
        measure_sweep(outcomes, material.vectors[shown], replace(cohort, table=blank), n_draws=DRAWS, site="north")
