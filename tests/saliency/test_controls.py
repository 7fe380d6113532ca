"""Controls: which maps they are, that the model stays as it is, similarity by definition, and the verdict."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from tiny_towers import LABELS, TOWERS, pixels_for, target_for, tower

from medvlm_probe.errors import InputError, ModelError
from medvlm_probe.saliency.controls import CONTROLS, cascade_maps, control_maps, control_verdict, map_similarity
from medvlm_probe.saliency.controls import wrong_label as another
from medvlm_probe.saliency.grad_cam import saliency_maps
from medvlm_probe.saliency.random_weights import ABOVE, BELOW, cascade
from medvlm_probe.saliency.targets import Target


def state_of(model: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.module.state_dict().items()}


@pytest.mark.parametrize("name", TOWERS)
def test_controls_leave_the_model_as_it_is(name: str) -> None:
    model, pixels = tower(name), pixels_for(tower(name), 2)
    target, before = target_for(model), state_of(tower(name))
    own = saliency_maps(model, pixels, target, labels=["edema"])
    controls = control_maps(model, pixels, target, "edema", seed=3)
    assert list(controls) == list(CONTROLS)
    for maps in controls.values():
        assert maps.values.shape == own.values.shape
        assert np.isfinite(maps.values).all()
        assert not np.allclose(maps.values, own.values)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.module.state_dict().items())
    assert not any(parameter.requires_grad for parameter in model.module.parameters())
    np.testing.assert_array_equal(saliency_maps(model, pixels, target, labels=["edema"]).values, own.values)


def test_controls_are_what_they_are_called() -> None:
    model, pixels = tower("open_clip ViT"), pixels_for(tower("open_clip ViT"), 3)
    target = target_for(model)
    controls = control_maps(model, pixels, target, ["edema", "opacity"], seed=3)
    wrong = controls["wrong_label"]
    assert all(label in LABELS and label != own for label, own in zip(wrong.labels, ("edema", "opacity"), strict=True))
    np.testing.assert_allclose(wrong.values, saliency_maps(model, pixels, target, labels=wrong.labels).values)
    nonsense = saliency_maps(model, pixels, target.nonsense_target())
    np.testing.assert_array_equal(controls["nonsense"].values[:, 1], nonsense.values[:, 0])
    *_, (_, last) = cascade(model, seed=3)
    shuffled = saliency_maps(last, pixels, target, labels=["edema", "opacity"])
    np.testing.assert_array_equal(controls["random_weights"].values, shuffled.values)
    again = control_maps(model, pixels, target, ["edema", "opacity"], seed=3)
    assert all(np.array_equal(again[name].values, controls[name].values) for name in CONTROLS)


def test_a_single_label_has_no_wrong_one_and_findings_come_first() -> None:
    model = tower("open_clip ViT")
    found = control_maps(model, pixels_for(model, 1), target_for(model, ("edema",)), "edema")
    assert list(found) == ["nonsense", "random_weights"]
    labels = ("no_finding", "edema", "fracture")
    assert {another(labels, "edema", seed) for seed in range(20)} == {"fracture"}
    assert another(labels[:2], "edema", 0) == "no_finding"
    many = [f"finding_{number}" for number in range(13)]
    assert len({another(many, own, 0) for own in many}) > 4
    without = Target("mine", ("edema",), lambda embeddings: embeddings[:, :1])
    with pytest.raises(ModelError, match="'mine' has no nonsense label"):
        control_maps(model, pixels_for(model, 1), without, "edema")


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("timm ViT, class token", [f"visual.trunk.blocks.{n}" for n in (5, 4, 3, 2, 1, 0)]),
        ("open_clip ViT", [f"visual.transformer.resblocks.{n}" for n in (2, 1, 0)]),
        ("open_clip ResNet", [f"visual.layer{n}.0" for n in (4, 3, 2, 1)]),
        ("CLIP folder", [f"vision_model.encoder.layers.{n}" for n in (1, 0)]),
        ("MedCLIP Swin", [f"vision_model.model.encoder.layers.{n}" for n in (3, 2, 1, 0)]),
    ],
)
def test_the_cascade_goes_from_the_top_down(name: str, parts: list[str]) -> None:
    model = tower(name)
    before, changed = state_of(model), set()
    expected = [ABOVE, *parts, BELOW]
    for (part, shuffled), own in zip(cascade(model, seed=1), expected, strict=True):
        assert part == own
        after = shuffled.module.state_dict()
        new = {key for key in after if not torch.equal(after[key], before[key])} - changed
        assert new
        if own in parts:
            assert all(key.startswith(own) for key in new)
        changed |= new
        for key in new:
            assert torch.equal(after[key].flatten().sort().values, before[key].flatten().sort().values)
    if name == "open_clip ViT":
        top = {"visual.proj", "visual.ln_post.weight", "visual.ln_post.bias"}
        first = next(cascade(model, seed=1))[1].module.state_dict()
        assert {key for key in first if not torch.equal(first[key], before[key])} <= top
    assert not any("text" in key or key == "logit_scale" for key in changed)


def test_cascade_maps_drift_away() -> None:
    model, pixels = tower("timm ViT, class token"), pixels_for(tower("timm ViT, class token"), 2)
    target = target_for(model, ("edema",))
    own = saliency_maps(model, pixels, target).values[:, 0]
    steps = cascade_maps(model, pixels, target, seed=1)
    assert next(iter(steps)) == ABOVE
    alike = [map_similarity(own, maps.values[:, 0])["spearman"].mean() for maps in steps.values()]
    assert abs(alike[-1]) < 0.4


def test_similarity_by_definition() -> None:
    rng = np.random.default_rng(0)
    maps, others = rng.normal(size=(2, 3, 9, 10))
    others[1] = maps[1] * 5
    found = map_similarity(maps, others)
    for image in range(3):
        expected = stats.spearmanr(maps[image].ravel(), others[image].ravel()).statistic
        assert found["spearman"][image] == pytest.approx(expected)
        x, y = (part[image] / np.abs(part[image]).max() for part in (maps, others))
        values = []
        for row in range(3):
            for column in range(4):
                a, b = x[row : row + 7, column : column + 7], y[row : row + 7, column : column + 7]
                covariance = ((a - a.mean()) * (b - b.mean())).mean()
                top = (2 * a.mean() * b.mean() + 4e-4) * (2 * covariance + 36e-4)
                values.append(top / ((a.mean() ** 2 + b.mean() ** 2 + 4e-4) * (a.var() + b.var() + 36e-4)))
        assert found["ssim"][image] == pytest.approx(np.mean(values))
    assert found["spearman"][1] == pytest.approx(1)
    assert found["ssim"][1] == pytest.approx(1)
    flat = map_similarity(np.ones((1, 4, 4)), rng.normal(size=(1, 4, 4)))
    assert np.isnan(flat["spearman"]).all()
    assert np.isnan(flat["ssim"]).all()
    with pytest.raises(InputError, match=r"expected \(N, h, w\)"):
        map_similarity(maps, others[:2])


def test_the_verdict_is_read_from_one_sided_bounds() -> None:
    rng = np.random.default_rng(0)
    groups = np.arange(40)
    wrong = rng.random(40) * 0.4
    better, same, worse = wrong + rng.random(40) * 0.4, rng.permutation(wrong), wrong * rng.random(40)
    verdicts = [control_verdict(own, wrong, groups) for own in (better, same, worse)]
    assert [verdict.outcome for verdict in verdicts] == ["pass", "not enough evidence", "fail"]
    expected = stats.ttest_rel(better, wrong)
    low, high = expected.confidence_interval(0.90)
    assert (verdicts[0].low, verdicts[0].high) == pytest.approx((low, high), rel=0.02)
    assert verdicts[0].difference.low < verdicts[0].low < verdicts[0].difference.value
    few = control_verdict(better[:5], wrong[:5], groups[:5])
    assert few.outcome == "not enough evidence"
    # Few images that lie far apart: no bound leaves what a difference of shares can be.
    own, other = np.array([1.0, 1.0, 0.0, 1.0]), np.array([0.0, 0.1, 0.9, 0.0])
    for a, b in ((own, other), (other, own)):
        verdict = control_verdict(a, b, np.arange(4))
        assert -1 <= verdict.difference.low < verdict.low < verdict.high < verdict.difference.high <= 1


def test_hits_without_exception_pass_and_no_regions_never_do() -> None:
    always = control_verdict(np.ones(30), np.zeros(30), np.arange(30))
    assert always.outcome == "pass"
    assert 0.5 < always.low < 1
    assert control_verdict(np.ones(30), np.ones(30), np.arange(30)).outcome == "not enough evidence"
    assert control_verdict(None, None, np.arange(30)).outcome == "similarities only"
    assert np.isnan(control_verdict(None, None, np.arange(30)).difference.value)
