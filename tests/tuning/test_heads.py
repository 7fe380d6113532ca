"""Heads on disk: whole or not at all, and the same logits afterwards."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from medvlm_probe.errors import InputError, ModelError
from medvlm_probe.tuning.heads import FACTS_FILE, TENSORS_FILE, LinearHead, read_head, write_head


def head(space: str = "l2", seed: int = 0) -> LinearHead:
    rng = np.random.default_rng(seed)
    weight, bias = rng.normal(size=(3, 8)), rng.normal(size=3)
    about = {"folds": 5, "labels": [{"label": "edema", "strength": 0.01}]}
    return LinearHead(("edema", "fracture", "no_finding"), weight, bias, space, "linear_probe", "abc", about)


@pytest.mark.parametrize("space", ["l2", "raw"])
def test_logits_are_products_in_the_declared_space(space: str, rng: np.random.Generator) -> None:
    x = rng.normal(size=(5, 8)).astype(np.float32)
    own = head(space)
    vectors = x.astype(float) / np.linalg.norm(x.astype(float), axis=1, keepdims=True) if space == "l2" else x
    np.testing.assert_allclose(own.logits(x), vectors @ own.weight.T + own.bias, rtol=1e-12)
    np.testing.assert_allclose(own.probabilities(x), 1 / (1 + np.exp(-own.logits(x))), rtol=1e-12)
    scores = own.scores(x, tuple("abcde"))
    assert scores.kind == "logit"
    assert scores.labels == own.labels


def test_a_head_comes_back_as_it_was(tmp_path: Path, rng: np.random.Generator) -> None:
    own = head()
    assert {path.name for path in write_head(tmp_path, own)} == {FACTS_FILE, TENSORS_FILE}
    back = read_head(tmp_path)
    x = rng.normal(size=(4, 8))
    assert (back.logits(x) == own.logits(x)).all()
    assert (back.labels, back.space, back.kind, back.model_fingerprint) == (own.labels, "l2", "linear_probe", "abc")
    assert back.about == own.about


def test_half_a_head_is_refused(tmp_path: Path) -> None:
    write_head(tmp_path, head())
    first = (tmp_path / TENSORS_FILE).read_bytes()
    write_head(tmp_path / "other", head(seed=1))
    (tmp_path / TENSORS_FILE).write_bytes((tmp_path / "other" / TENSORS_FILE).read_bytes())
    with pytest.raises(ModelError, match="not the one"):
        read_head(tmp_path)
    (tmp_path / TENSORS_FILE).write_bytes(first[:50])
    with pytest.raises(ModelError, match="no whole head"):
        read_head(tmp_path)
    (tmp_path / TENSORS_FILE).write_bytes(first)
    facts = json.loads((tmp_path / FACTS_FILE).read_text())
    (tmp_path / FACTS_FILE).write_text(json.dumps(facts | {"space": "cosine"}))
    with pytest.raises(ModelError, match="space cosine"):
        read_head(tmp_path)
    with pytest.raises(ModelError, match="no whole head"):
        read_head(tmp_path / "nowhere")


def test_embeddings_of_another_model_are_refused() -> None:
    with pytest.raises(InputError, match=r"takes \(n, 8\)"):
        head().logits(np.zeros((2, 9)))
    with pytest.raises(InputError, match=r"needs weights \(L, D\)"):
        LinearHead(("a",), np.zeros((2, 8)), np.zeros(2), "l2", "linear_probe")
