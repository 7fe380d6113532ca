"""Scores from embeddings by hand, text embeddings and their cache, thresholds, and analyses of a cohort."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_curve, roc_curve

from medvlm_probe.cohort.cohort import Cohort
from medvlm_probe.cohort.data_cards import DataCard
from medvlm_probe.cohort.images import FileImages
from medvlm_probe.errors import InputError, UnknownNameError
from medvlm_probe.metrics.classification import any_present
from medvlm_probe.metrics.legacy_study import legacy_labels, legacy_study, row_min_max
from medvlm_probe.types import Scores
from medvlm_probe.zero_shot.performance import analyse_performance, label_frequencies
from medvlm_probe.zero_shot.predict import legacy_products, resolve_task, zero_shot_scores
from medvlm_probe.zero_shot.prompts import LabelPrompts, PromptSet
from medvlm_probe.zero_shot.scores import prompt_scores
from medvlm_probe.zero_shot.text_embeddings import embed_texts, label_directions
from medvlm_probe.zero_shot.thresholds import choose_thresholds, threshold_curve


@dataclass
class Letters:
    """A text tower that counts letters; `together` makes a text's embedding depend on the longest of its call."""

    fingerprint: str = "a" * 64
    embedding_dim: int = 26
    logit_scale: float = 20.0
    texts_feel_each_other: bool = False
    calls: list[list[str]] = field(default_factory=list)

    def encode_texts(self, texts: list[str]) -> torch.Tensor:
        self.calls.append(list(texts))
        rows = [[1 + text.lower().count(chr(97 + i)) for i in range(26)] for text in texts]
        longest = max(map(len, texts)) if self.texts_feel_each_other else 1
        return torch.tensor(rows, dtype=torch.float32) + longest


PROMPTS = PromptSet(
    "mine", "", "", {"edema": LabelPrompts(("edema", "wet"), ("dry",)), "mass": LabelPrompts(("mass",), ("no mass",))}
)


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def test_every_kind_of_score_by_hand(tmp_path: Path) -> None:
    model = Letters()
    vectors = np.random.default_rng(0).normal(size=(5, 26)).astype(np.float32)
    directions = label_directions(model, PROMPTS, cache_dir=tmp_path)  # type: ignore[arg-type]

    def direction(*texts: str) -> np.ndarray:
        return unit(unit(model.encode_texts(list(texts)).numpy()).mean(axis=0))

    plus = unit(vectors) @ np.stack([direction("edema", "wet"), direction("mass")]).T
    minus = unit(vectors) @ np.stack([direction("dry"), direction("no mass")]).T
    logits = 20 * (plus - minus)
    wanted = {
        "cosine": plus,
        "logit": logits,
        "probability": 1 / (1 + np.exp(-logits)),
        "softmax": np.exp(20 * plus) / np.exp(20 * plus).sum(axis=1, keepdims=True),
    }
    for kind, values in wanted.items():
        found = prompt_scores(vectors, directions, kind=kind, logit_scale=20.0, ids=list("abcde"))
        np.testing.assert_allclose(found.values, values, atol=1e-5)
        assert found.kind == ("probability" if kind == "softmax" else kind)
        assert found.labels == ("edema", "mass")


def test_what_scores_refuse(tmp_path: Path) -> None:
    without = PromptSet("mine", "", "", {"edema": LabelPrompts(("edema",))})
    directions = label_directions(Letters(), without, cache_dir=tmp_path)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="needs negative prompts"):
        prompt_scores(np.ones((1, 26)), directions, kind="logit", logit_scale=1.0, ids=["a"])
    with pytest.raises(UnknownNameError, match="Did you mean logit"):
        prompt_scores(np.ones((1, 26)), directions, kind="logits", logit_scale=1.0, ids=["a"])
    with pytest.raises(InputError, match="no direction"):
        prompt_scores(np.zeros((1, 26)), directions, kind="cosine", logit_scale=1.0, ids=["a"])
    mixed = PromptSet("mine", "", "", {**PROMPTS.labels, "x": LabelPrompts(("x",))})
    with pytest.raises(InputError, match="no negative prompts for x"):
        label_directions(Letters(), mixed, cache_dir=tmp_path)  # type: ignore[arg-type]


def test_texts_are_encoded_once_and_never_stale(tmp_path: Path) -> None:
    model = Letters()
    first = embed_texts(model, ["b", "a"], cache_dir=tmp_path)  # type: ignore[arg-type]
    again = embed_texts(model, ["a", "b", "c"], cache_dir=tmp_path)  # type: ignore[arg-type]
    np.testing.assert_array_equal(first, again[[1, 0]])
    assert model.calls == [["b", "a"], ["c"]]
    other = Letters(fingerprint="b" * 64)
    embed_texts(other, ["a"], cache_dir=tmp_path)  # type: ignore[arg-type]
    assert other.calls == [["a"]]
    for path in tmp_path.rglob("*.npz"):
        path.write_bytes(path.read_bytes()[:100])
    embed_texts(model, ["a"], cache_dir=tmp_path)  # type: ignore[arg-type]
    assert model.calls[-1] == ["a"]


def test_texts_that_feel_each_other_are_encoded_alone(tmp_path: Path) -> None:
    model = Letters(texts_feel_each_other=True)
    together = embed_texts(model, ["a", "much longer"], cache_dir=tmp_path / "1")  # type: ignore[arg-type]
    alone = embed_texts(model, ["a"], cache_dir=tmp_path / "2")  # type: ignore[arg-type]
    np.testing.assert_array_equal(together[0], alone[0])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 3), st.sampled_from(["youden", "f1", "recall:0.8"]))
def test_thresholds_are_the_best_there_are(seed: int, decimals: int, rule: str) -> None:
    rng = np.random.default_rng(seed)
    positive = rng.random(30) < 0.4
    positive[:2] = True, False
    scores = (rng.normal(size=30) + positive).round(decimals)
    chosen = choose_thresholds(
        Scores(scores[:, None], "logit", ("edema",), tuple(map(str, range(30)))),
        positive[:, None].astype(float),
        rule=rule,
        source="calib",
    )
    predicted = scores >= chosen.values["edema"]
    recall = predicted[positive].mean()
    if rule == "youden":
        fpr, tpr, _ = roc_curve(positive, scores, drop_intermediate=False)
        assert recall - predicted[~positive].mean() == pytest.approx((tpr - fpr).max())
    elif rule == "f1":
        precision, recalls, _ = precision_recall_curve(positive, scores)
        best = (2 * precision * recalls / np.maximum(precision + recalls, 1e-12)).max()
        assert 2 * (predicted & positive).sum() / (positive.sum() + predicted.sum()) == pytest.approx(best)
    else:
        assert recall >= 0.8
        higher = scores > scores[predicted].min()
        assert (higher & positive).sum() < 0.8 * positive.sum()
    assert not np.isin(chosen.values["edema"], scores) or len(np.unique(scores)) == 1
    assert chosen.n_positive["edema"] == positive.sum()


def test_no_threshold_from_one_kind_of_label() -> None:
    scores = Scores(np.zeros((3, 2)), "logit", ("a", "b"), ("1", "2", "3"))
    labels = np.array([[1, np.nan], [1, 0], [np.nan, 1]])
    chosen = choose_thresholds(scores, labels, rule="youden", source="calib")
    assert set(chosen.values) == {"b"}
    assert chosen.n_positive == {"a": 2, "b": 1}


def test_curve_begins_with_nothing_and_ends_with_everything() -> None:
    curve = threshold_curve(np.array([True, False, True]), np.array([0.3, 0.2, 0.1]))
    assert curve["recall"].tolist() == [0, 0.5, 0.5, 1]
    assert curve["specificity"].tolist() == [1, 1, 0, 0]
    assert math.isnan(curve["precision"][0])
    assert (np.diff(curve["threshold"]) < 0).all()


def cohort_of(table: pd.DataFrame, labels: tuple[str, ...], task: str = "multi_label") -> Cohort:
    table = table.assign(image=[f"{i}.png" for i in range(len(table))])
    card = DataCard(name="c", task=task)  # type: ignore[arg-type]
    return Cohort("c", table, labels, "ignore", FileImages(Path(), tuple(table["image"])), card)


def test_an_analysis_keeps_choices_and_results_apart() -> None:
    rng = np.random.default_rng(0)
    truth = (rng.random((60, 3)) < (0.4, 0.3, 0.5)).astype(np.float32)
    labels = ("cardiomegaly", "edema", "no_finding")
    table = pd.DataFrame(truth, columns=list(labels)).assign(
        site=np.where(np.arange(60) < 40, "a", "b"), patient=[f"p{i // 2}" for i in range(60)]
    )
    cohort = cohort_of(table, labels)
    scores = Scores(rng.normal(size=(60, 3)) + truth, "logit", labels, tuple(table.index.astype(str)))
    chosen = choose_thresholds(scores, truth, rule="f1", source="calib")
    found = analyse_performance(
        scores, cohort, thresholds=chosen, prior=label_frequencies(cohort, labels), prior_from="calib"
    )
    assert set(found.by_site) == {"a", "b"}
    assert found.by_site["a"][0].n_positive == truth[:40, 0].sum()
    assert {entry.label for entry in found.domains} == {"cardiovascular", "pulmonary"}
    assert found.findings is not None
    assert found.findings.labels == ("cardiomegaly", "edema")
    assert found.ranking.n_undefined == (truth.sum(axis=1) == 0).sum()
    assert not math.isnan(found.ranking.estimates["exact_match"].value)
    assert set(found.macro) == {"auroc", "average_precision", "recall", "precision", "f1", "specificity"}
    json = found.to_json()
    assert json["prior_from"] == "calib"
    assert len(json["sites"]) == 2
    with pytest.raises(InputError, match="do not fit"):
        analyse_performance(scores.rows(np.arange(10)), cohort)


def test_any_present_is_not_known_where_it_cannot_be() -> None:
    labels = np.array([[1, np.nan], [0, np.nan], [0, 0], [np.nan, np.nan]])
    assert np.array_equal(any_present(labels), [1, np.nan, 0, np.nan], equal_nan=True)


def test_tasks_take_what_has_prompts() -> None:
    table = pd.DataFrame({"edema": [1.0, 0.0], "covid19": [0.0, 1.0]})
    task = resolve_task(cohort_of(table, ("edema", "covid19")), "chexzero", None, None)
    assert task.labels == ("edema",)
    assert task.left_out == ("covid19",)
    assert task.kind == "logit"
    with pytest.raises(InputError, match="no prompts for covid19"):
        resolve_task(cohort_of(table, ("edema", "covid19")), "chexzero", ["covid19"], None)
    named = resolve_task(cohort_of(table, ("edema", "covid19"), "single_label"), "names", None, None)
    assert named.kind == "softmax"
    assert named.prompts.labels["covid19"].positive == ("Covid19",)
    with pytest.raises(InputError, match="none of the cohort's labels"):
        resolve_task(cohort_of(table[["covid19"]], ("covid19",)), "bare", None, None)


def test_zero_shot_scores_and_legacy_products(tmp_path: Path) -> None:
    model = Letters()
    table = pd.DataFrame({"edema": [1.0, 0.0], "mass": [0.0, 1.0]})
    cohort = cohort_of(table, ("edema", "mass"))
    vectors = np.random.default_rng(0).normal(size=(2, 26)).astype(np.float32)
    task = resolve_task(cohort, "names", None, None)
    found = zero_shot_scores(vectors, cohort, model, task, cache_dir=tmp_path)  # type: ignore[arg-type]
    texts = model.encode_texts(["Edema", "Mass"]).numpy()
    np.testing.assert_allclose(found.values, unit(vectors) @ unit(texts).T, atol=1e-6)
    assert found.ids == ("0.png", "1.png")
    products = legacy_products(vectors, model, {"edema": "Edema", "mass": "Mass"}, cache_dir=tmp_path)  # type: ignore[arg-type]
    np.testing.assert_allclose(products, vectors @ texts.T, rtol=1e-5)


def test_the_studys_rules_by_hand() -> None:
    labels = np.array([[1, 0, 0], [np.nan, -1, 0], [0, 1, 1]], dtype=float)
    names = ("edema", "mass", "no_finding")
    truth = legacy_labels(labels, names)
    assert truth.tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 1]]
    scores = np.array([[3.0, 1.0, 2.5], [0.0, 0.0, 0.0], [1.0, 2.0, 3.0]])
    assert row_min_max(scores).tolist() == [[1, 0, 0.75], [0, 0, 0], [0, 0.5, 1]]
    found = legacy_study(labels, scores, label_names=names)
    assert found.exact_match == 0
    # Edema is right in its image; mass is missed; "no finding" is called in the first image and found in the third.
    assert found.macro_f1 == pytest.approx((1 + 0 + 2 * 1 / (2 + 2)) / 3)
    assert found.coverage_error == pytest.approx((1 + 3 + 2) / 3)
    assert found.label_ranking_average_precision == pytest.approx((1 + 1 / 3 + 1) / 3)
