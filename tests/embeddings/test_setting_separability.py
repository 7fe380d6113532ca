"""Settings side by side: shared vectors are found and said, and the published numbers stand beside."""

from __future__ import annotations

import numpy as np
import pytest

from medvlm_probe.embeddings.setting_separability import compare_settings
from medvlm_probe.errors import InputError
from medvlm_probe.metrics.legacy_separability import legacy_separability
from medvlm_probe.metrics.separation_scores import QUANTITIES


def test_settings_with_the_same_vectors_share_a_row_and_say_so(
    rng: np.random.Generator,
) -> None:
    groups = np.repeat(np.arange(45), 2)
    labels = (rng.random((90, 3)) < [0.4, 0.5, 0.05]).astype(float)
    x = rng.normal(size=(90, 6)) + labels @ np.eye(3, 6)
    names = ("edema", "pneumonia", "fracture")
    vectors = {"zero-shot": x, "linear probe": x.copy(), "fine-tuned": 2 * x[:, ::-1] + 1}
    found = compare_settings(vectors, labels, groups, names, legacy=True)
    first, second, third = found.settings
    assert (first.same_as, second.same_as, third.same_as) == ("", "zero-shot", "")
    assert second.estimates is first.estimates
    assert third.estimates["inter"] != first.estimates["inter"]
    expected = legacy_separability(x, labels, names, groups)
    assert first.legacy is not None
    assert (first.legacy.inter, first.legacy.ratio) == (expected.inter, expected.ratio)
    assert found.left_out == ("fracture",)
    assert "the same by construction" in found.sentences[0]
    table = found.table()
    assert len(table) == 3 * (len(QUANTITIES) + 7)
    assert found.to_json()["settings"][1]["same_vectors_as"] == "zero-shot"
    with pytest.raises(InputError, match="No settings"):
        compare_settings({}, labels, groups, names)
