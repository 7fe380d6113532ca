"""CalibPrompt's study on methods whose calibration is known by construction, and its published numbers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from medvlm_probe.cohort.catalog import load_cohort
from medvlm_probe.cohort.cohort import Cohort
from medvlm_probe.cohort.data_cards import DataCard
from medvlm_probe.cohort.images import FileImages
from medvlm_probe.errors import InputError, UnknownNameError
from medvlm_probe.report.calibprompt_cells import one_right_label, problem_of, with_recipe
from medvlm_probe.report.calibprompt_published import data_set_of, published_ablation, published_values
from medvlm_probe.report.calibprompt_study import (
    Ablation,
    CalibPromptStudy,
    Cell,
    calibprompt_study,
    claim_table,
    cosines_of,
    draws_of,
    spread_words,
    study_table,
)
from medvlm_probe.tuning.calibration_sweep import Outcome, SweepMethod, parse_methods
from medvlm_probe.tuning.calibration_sweep_measures import SweepResult, measure_sweep
from medvlm_probe.tuning.loss_mix import parse_losses

N, DRAWS, TRUE_SCALE = 600, 5, 3.0
SCALES = {"zero-shot": 3.0, "ce": 20.0, "fl": 12.0, "ls": 8.0, "ls+mdca": 5.0, "ls+smac": 5.0, "ls+smac+as": 3.0}
"""Truth is drawn at 3: larger multipliers are over-confident, and accuracy is the same."""


@pytest.fixture(scope="module")
def result() -> SweepResult:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(N, 3))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    classes = np.eye(3)[:2]
    odds = TRUE_SCALE * (vectors @ (classes[0] - classes[1]))
    truth = rng.random(N) < 1 / (1 + np.exp(-odds))
    names = [f"{row}.png" for row in range(N)]
    table = pd.DataFrame({"image": names, "first": truth.astype("float32"), "second": (~truth).astype("float32")})
    card = DataCard(name="mine", task="single_label")
    cohort = Cohort("mine", table, ("first", "second"), "ignore", FileImages(Path(), tuple(names)), card)

    def outcome(name: str, scale: float) -> Outcome:
        # Methods that share a multiplier share their prompts; the more over-confident, the closer the texts.
        noise = np.random.default_rng(int(scale)).normal(scale=0.02, size=(DRAWS, 2, 3))
        apart = 5.0 if name == "fl" else scale
        features = classes + (0 if name == "zero-shot" else noise) + [0, 0, apart / 20]
        features = np.broadcast_to(features, (1 if name == "zero-shot" else DRAWS, 2, 3))
        features = features / np.linalg.norm(features, axis=-1, keepdims=True)
        method = SweepMethod(name, None if name == "zero-shot" else parse_losses(name))
        return Outcome(method, features.astype(np.float32), (), scale, ("first", "second"), 16, 8, 50, 1.0, 1)

    outcomes = [outcome(name, scale) for name, scale in SCALES.items()]
    return measure_sweep(outcomes, vectors, cohort, n_draws=DRAWS, n_resamples=300)


@pytest.fixture(scope="module")
def study(result: SweepResult) -> CalibPromptStudy:
    cells = [
        Cell("plip", "kather", "kather_colon", "first or second", result, True),
        Cell("phantom-clip", "mine", "mine", "first or second", result, True, ("parted",)),
    ]
    ablation = Ablation("plip", "kather", "kather_colon", "first or second", "shots", {4: result, 8: result})
    return calibprompt_study(cells, [ablation])


def test_claims_follow_the_truth(study: CalibPromptStudy) -> None:
    claims = {claim.text: claim for claim in study.claims[0]}
    assert claims["LS+SMAC+AS lowers ECE against CE"].verdict == "holds"
    assert claims["LS+SMAC+AS lowers ECE against LS"].verdict == "holds"
    assert claims["LS lowers ECE against CE"].verdict == "holds"
    assert claims["LS+SMAC+AS lowers ECE against zero-shot"].verdict == "cannot be told"
    same = claims["LS+SMAC lowers ECE against LS+MDCA"]
    assert (same.verdict, same.difference.value, same.difference.method) == ("does not hold", 0, "the same prompts")
    assert claims["LS+SMAC+AS keeps CE's accuracy to a point"].verdict == "holds"
    assert not any("temperature" in text for text in claims)
    gain = claims["LS+SMAC+AS lowers ECE against CE"]
    assert gain.difference.low < gain.difference.value < gain.difference.high
    assert 0 <= gain.p_adjusted < 0.05


def test_the_cosine_claims_by_hand(study: CalibPromptStudy) -> None:
    claims = {claim.text: claim.difference for claim in study.claims[0] if "Closer" in claim.text}
    table = cosines_of(study).query("model == 'plip' and method != 'zero-shot'")
    means = table.groupby("method")[["cosine", "ece"]].mean()
    over = claims["Closer texts, larger ECE: over the means of 6 losses"]
    assert over.value == pytest.approx(stats.spearmanr(means["cosine"], means["ece"]).statistic)
    reach = 1.959964 * np.sqrt((1 + over.value**2 / 2) / 3)
    ends = [np.tanh(np.arctanh(over.value) + side * reach) for side in (-1, 1)]
    assert [over.low, over.high] == pytest.approx(ends)
    assert not over.reliable
    ranks = table.groupby("method")[["cosine", "ece"]].rank()
    ranks -= ranks.groupby(table["method"]).transform("mean")
    within = claims["Closer texts, larger ECE: over draws within a loss"]
    assert within.value == pytest.approx(np.corrcoef(ranks["cosine"], ranks["ece"])[0, 1])
    assert -1 <= within.low <= within.value <= within.high <= 1
    assert within.n_groups == DRAWS


def test_the_tables_and_json(study: CalibPromptStudy, result: SweepResult) -> None:
    table = study_table(study).set_index(["model", "method", "metric"])
    assert table.loc[("plip", "ce", "ece"), "published_value"] == pytest.approx(0.0592)
    assert table.loc[("plip", "ls+smac+as", "ece"), "published_value"] == pytest.approx(0.0311)
    assert table["published_value"].notna().sum() == 2
    assert table.loc[("plip", "ce", "ece"), "value"] == pytest.approx(result.named("ce").scopes["pooled"]["ece"].mean)
    assert table.loc[("plip", "ce", "ece"), "calibrated_high"] < table.loc[("plip", "ce", "ece"), "low"]
    assert set(claim_table(study)["verdict"]) == {"holds", "does not hold", "cannot be told"}
    draws = draws_of(study)
    assert set(draws["metric"]) == {"ece", "accuracy"}
    content = study.to_json()
    json.dumps(content, allow_nan=False)
    assert [len(cell["published"]) for cell in content["cells"]] == [2, 0]
    assert content["cells"][1]["notes"] == ["parted"]
    assert [value["shots"] for value in content["ablations"][0]["values"]] == [4, 8]
    assert spread_words(result, "no-such", "ece") == "–"
    assert spread_words(result, "ls", "main").startswith(
        f"{result.named('ls').scopes['pooled']['accuracy'].mean:.3f} ±"
    )


def test_published_curves_stand_beside_their_own_cell_alone(study: CalibPromptStudy, result: SweepResult) -> None:
    ours = study.ablations[0].table().set_index(["method", "metric", "shots"])
    assert ours.loc[("ls+smac", "ece", 4), "read_off_the_figure"] == pytest.approx(0.088)
    assert np.isnan(ours.loc[("ce", "ece", 4), "read_off_the_figure"])
    other = Ablation("phantom-clip", "mine", "mine", "", "context", {4: result})
    assert other.table()["read_off_the_figure"].isna().all()
    assert len(other.published()) == 0


def test_the_published_numbers() -> None:
    cells = [
        published_values(model, data)
        for models, datas in (
            (("plip", "quiltnet"), ("kather_colon", "pannuke", "digestpath")),
            (("biomedclip", "medclip"), ("covidx", "rsna18")),
        )
        for model in models
        for data in datas
    ]
    # The README's own column of means.
    for method, mean in (("ce", 0.1251), ("ls+smac+as", 0.0702)):
        assert np.mean([cell[method, "ece"] for cell in cells]) == pytest.approx(mean, abs=6e-5)
    assert published_values("phantom-clip", "covidx") == {}
    for what, at in (("shots", 8), ("context", 16)):
        curve = published_ablation(what, "plip", "kather_colon").set_index(["method", "metric", what])["value"]
        table = published_values("plip", "kather_colon")["ls+smac+as", "ece"]
        assert curve["ls+smac+as", "ece", at] == pytest.approx(table, abs=5e-4)
    assert data_set_of(DataCard(name="kather", importer="calibprompt")) == "kather_colon"
    assert data_set_of(DataCard(name="kather")) == "kather"


def test_a_cohort_with_one_right_label() -> None:
    cohort = load_cohort("phantom:prevalence=balanced,sites=reference,n=80")
    classes = ("lung_opacity", "no_finding", "fracture")
    single = one_right_label(cohort, classes)
    assert (single.targets().sum(axis=1) == 1).all()
    assert len(single) == int((cohort.targets(classes).sum(axis=1) == 1).sum())
    assert (single.labels, single.card.task) == (classes, "single_label")
    problem = problem_of(single)
    assert (problem.train_from, problem.fit_from, problem.split, problem.note) == ("calib", "calib", "test", "")
    assert problem.words == "lung opacity, no finding or fracture"
    with pytest.raises(InputError, match="leave --classes out"):
        one_right_label(single, classes)
    with pytest.raises(InputError, match="two labels or more"):
        one_right_label(cohort, ["edema"])
    with pytest.raises(UnknownNameError, match="Did you mean edema"):
        one_right_label(cohort, ["edemas", "no_finding"])


def test_splits_are_found_or_made() -> None:
    cohort = load_cohort("phantom:prevalence=balanced,sites=reference,n=60")
    n = len(cohort)

    def roles(split: list[str] | None) -> tuple[str, str, str, bool]:
        table = cohort.table.drop(columns="split") if split is None else cohort.table.assign(split=split)
        found = problem_of(replace(cohort, table=table), labels=["edema"])
        assert {found.train_from, found.fit_from, found.split} <= set(found.cohort.splits())
        return found.train_from, found.fit_from, found.split, bool(found.note)

    assert roles(["train"] * (n - 20) + ["test"] * 20) == ("train", "train", "test", False)
    assert roles(["train"] * (n - 30) + ["val"] * 10 + ["test"] * 20) == ("train", "val", "test", False)
    assert roles(None) == roles(["fold_1"] * 30 + ["fold_2"] * (n - 30)) == ("train", "calib", "test", True)


def test_published_weights_where_there_are_some() -> None:
    methods, _ = parse_methods(["zero-shot", "ce", "ls+smac+as", "ls+2*as"], "single_label", 2, has_split=False)
    found, note = with_recipe(methods, "biomedclip", "covidx")
    losses = [None if method.loss is None else str(method.loss) for method in found]
    assert losses == [None, "ce", "ls(alpha=0.1)+smac(alpha=0.1)+3.0*as", "ls(alpha=0.1)+2.0*as"]
    assert [method.name for method in found] == [method.name for method in methods]
    assert "biomedclip-covidx" in note
    assert "plip-kather" in with_recipe(methods, "plip", "kather_colon")[1]
    assert with_recipe(methods, "phantom-clip", "phantom") == (methods, "")
