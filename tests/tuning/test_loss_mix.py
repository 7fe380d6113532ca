"""Losses read from a line: weights, options, refusals; and the forms for several labels against one label at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medvlm_probe.errors import InputError, UnknownNameError
from medvlm_probe.tuning.losses import (
    LOSSES,
    LossMix,
    LossTerm,
    angular_separation,
    cross_entropy,
    focal,
    label_smoothing,
    mdca,
    mmce,
    pair_separation,
    parse_losses,
    penalty,
    smac,
    zs_norm,
)

TEACHING = [name for name, kind in LOSSES.items() if kind.teaches]


def single(seed: int = 0, n: int = 10, k: int = 3) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(seed)
    text = torch.from_numpy(rng.normal(size=(k, 6)))
    return {
        "logits": torch.from_numpy(rng.normal(size=(n, k), scale=2)),
        "labels": torch.from_numpy(rng.integers(k, size=n)),
        "text_features": text / text.norm(dim=1, keepdim=True),
        "zero_shot_logits": torch.from_numpy(rng.normal(size=(n, k))),
    }


def several(seed: int = 0, n: int = 20, n_labels: int = 3) -> dict[str, torch.Tensor]:
    """Labels 0 and 1 with unknown entries; label 2 not known at all."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, n_labels)) < 0.4).astype(float)
    labels[rng.random((n, n_labels)) < 0.3] = np.nan
    labels[:, 2] = np.nan
    text = torch.from_numpy(rng.normal(size=(n_labels, 2, 6)))
    return {
        "logits": torch.from_numpy(rng.normal(size=(n, n_labels, 2), scale=2)),
        "labels": torch.from_numpy(labels),
        "text_features": text / text.norm(dim=2, keepdim=True),
        "zero_shot_logits": torch.from_numpy(rng.normal(size=(n, n_labels, 2))),
    }


def test_a_line_is_the_weighted_sum_of_its_losses() -> None:
    given_ = single()
    z, y, t, s = (given_[name] for name in ("logits", "labels", "text_features", "zero_shot_logits"))
    mix = parse_losses("ls+0.5*smac(alpha=0.2)+3.0*as+1e-1*penalty")
    expected = label_smoothing(z, y) + 0.5 * smac(z, y, alpha=0.2) + 3 * angular_separation(t) + 0.1 * penalty(z, y, s)
    assert mix(**given_).item() == pytest.approx(expected.item(), rel=1e-12)
    parts = mix.parts(**given_)
    assert list(parts) == ["ls", "smac", "as", "penalty"]
    assert parts["as"].item() == pytest.approx(angular_separation(t).item())


def test_shared_options_reach_every_term_that_has_them_and_states_none() -> None:
    mix = parse_losses("ls+smac+mbls(alpha=0.5)+as", alpha=0.2)
    assert [dict(term.options) for term in mix.terms] == [{"alpha": 0.2}, {"alpha": 0.2}, {"alpha": 0.5}, {}]
    with pytest.raises(InputError, match="No term of loss 'ce' has an option 'alpha'"):
        parse_losses("ce", alpha=0.2)


@pytest.mark.parametrize(
    ("text", "name"),
    [("focal(gamma=2)", "fl"), ("Label_Smoothing", "ls"), ("CE", "ce"), ("ce+angular_separation", "as")],
)
def test_other_names_and_cases_are_the_same_losses(text: str, name: str) -> None:
    assert name in [term.name for term in parse_losses(text).terms]


def test_every_option_of_every_loss_changes_its_value() -> None:
    given_ = several(1)
    given_["logits"] = 8 * given_["logits"]
    changed = {"alpha": 0.4, "gamma": 1.0, "margin": 0.1, "temperature": 3.0, "bandwidth": 0.05, "across": 0.9}
    for name, kind in LOSSES.items():
        plain = LossMix((LossTerm(name),))(**given_).item()
        for option, default in kind.options.items():
            value = not default if isinstance(default, bool) else changed[option]
            assert LossMix((LossTerm(name, options={option: value}),))(**given_).item() != plain, (name, option)


def test_spaces_and_exponents_are_read() -> None:
    mix = parse_losses(" 2 * ce + 1e+2*smac( alpha = 1e-3 ) ")
    assert mix.terms == (LossTerm("ce", 2.0), LossTerm("smac", 100.0, {"alpha": 0.001}))


@given(
    st.lists(st.sampled_from(sorted(LOSSES)), unique=True, min_size=1, max_size=5),
    st.lists(st.floats(1e-6, 1e6), min_size=5, max_size=5),
)
@settings(max_examples=60, deadline=None)
def test_a_mix_reads_back_from_what_it_prints(names: list[str], weights: list[float]) -> None:
    if not set(names) & set(TEACHING):
        names = ["ce", *names]
    mix = LossMix(
        tuple(LossTerm(n, w, {"alpha": 0.25} if n == "smac" else {}) for n, w in zip(names, weights * 2, strict=False))
    )
    assert parse_losses(str(mix)) == mix


@pytest.mark.parametrize("text", ["smac", "as", "dca+mdca", "mmce", "2*penalty", "smac+3.0*as", "o-tpt"])
def test_a_line_without_a_term_that_teaches_is_refused_with_the_reason(text: str) -> None:
    with pytest.raises(InputError, match=r"no term that teaches the classes.*Add one of ce, fl, ls"):
        parse_losses(text)


@pytest.mark.parametrize("name", TEACHING)
def test_each_teaching_loss_may_stand_alone(name: str) -> None:
    assert str(parse_losses(name)) == name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read"),
        ("ce+", "cannot be read"),
        ("+ce", "cannot be read"),
        ("ce++as", "cannot be read"),
        ("-1*ce", "cannot be read"),
        ("ce*2", "cannot be read"),
        ("__import__('os').system('true')", "cannot be read"),
        ("0*ce", "weight 0"),
        ("ce+0.0*smac", "weight 0"),
        ("ce+ce", "twice"),
        ("ce+cross_entropy", "twice"),
        ("ls(0.1)", "name=number"),
        ("ls(alpha=true)", "a number"),
        ("ce+mmce(legacy=1)", "true or false"),
    ],
)
def test_a_line_that_is_not_of_the_form_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_losses(text)


def test_unknown_names_are_answered_with_near_ones() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean smac"):
        parse_losses("ce+smca")
    with pytest.raises(UnknownNameError, match="Did you mean alpha"):
        parse_losses("ls(alhpa=0.1)")


def test_what_a_term_needs_and_is_not_given_is_named() -> None:
    given_ = single()
    with pytest.raises(InputError, match="'as' needs text features"):
        parse_losses("ce+as")(given_["logits"], given_["labels"])
    with pytest.raises(InputError, match="'zs-norm' needs zero-shot logits"):
        parse_losses("zs-norm")(given_["logits"], given_["labels"])
    assert parse_losses("ce+as").needs("text features")
    assert not parse_losses("ce").needs("zero-shot logits")


def test_an_option_for_several_labels_is_refused_for_several_classes() -> None:
    with pytest.raises(InputError, match=r"'across'.*several labels"):
        parse_losses("ce+as(across=0.2)")(**single())


def test_several_labels_are_problems_of_two_classes() -> None:
    given_ = several()
    z, y, s = given_["logits"], given_["labels"], given_["zero_shot_logits"]
    known = ~y.isnan()
    entries = [(i, k) for i in range(len(y)) for k in range(3) if known[i, k]]
    rows = torch.stack([z[i, k] for i, k in entries])
    targets = torch.tensor([int(y[i, k]) for i, k in entries])
    others = torch.stack([s[i, k] for i, k in entries])
    for text, expected in {
        "ce": cross_entropy(rows, targets),
        "fl(gamma=2)": focal(rows, targets, gamma=2),
        "zs-norm": zs_norm(rows, targets, others),
    }.items():
        assert parse_losses(text)(**given_).item() == pytest.approx(expected.item(), rel=1e-12)
    assert parse_losses("ce+penalty").parts(**given_)["penalty"].item() == pytest.approx(
        penalty(rows, targets, others).item()
    )
    for name, loss in {"smac": smac, "mdca": mdca, "mmce": mmce}.items():
        of_labels = [loss(z[known[:, k], k], y[known[:, k], k].long()).item() for k in range(2)]
        assert parse_losses(f"ce+{name}").parts(**given_)[name].item() == pytest.approx(np.mean(of_labels), rel=1e-9)


@pytest.mark.parametrize("name", [n for n, kind in LOSSES.items() if kind.needs != "text features"])
def test_unknown_labels_do_not_matter_and_have_no_gradient(name: str) -> None:
    given_ = several(2)
    mix = LossMix((LossTerm(name),))
    unknown = given_["labels"].isnan()
    other = given_ | {
        "logits": torch.where(unknown[..., None], torch.tensor(9.0, dtype=torch.float64), given_["logits"])
    }
    z = given_["logits"].requires_grad_()
    loss = mix(**given_)
    loss.backward()
    assert mix(**other).item() == loss.item()
    assert (z.grad[unknown] == 0).all()
    assert (z.grad[~unknown] != 0).any()


@pytest.mark.parametrize("name", [n for n, kind in LOSSES.items() if kind.needs != "text features"])
def test_without_a_known_label_the_loss_is_zero_and_differentiable(name: str) -> None:
    given_ = several(3) | {"labels": torch.full((20, 3), torch.nan, dtype=torch.float64)}
    z = given_["logits"].requires_grad_()
    loss = LossMix((LossTerm(name),))(**given_)
    loss.backward()
    assert loss.item() == 0
    assert (z.grad == 0).all()


@pytest.mark.parametrize("text", ["ls+smac+3*as", "fl+mmce+o-tpt", "brier+mdca+dca+as(across=1)"])
def test_gradients_for_several_labels_are_those_of_finite_differences(text: str) -> None:
    given_ = several(4, n=8)
    mix = parse_losses(text)
    y = given_["labels"]
    z, t = given_["logits"].requires_grad_(), given_["text_features"].requires_grad_()
    assert torch.autograd.gradcheck(lambda z, t: mix(z, y, text_features=t), (z, t))


def test_angular_separation_of_prompt_pairs_is_within_labels_and_across_them() -> None:
    t = several()["text_features"]
    within = np.mean([float(pair[0] @ pair[1]) for pair in t])
    across = np.mean([float(t[a, side] @ t[b, side]) for side in (0, 1) for a in range(3) for b in range(3) if a != b])
    assert pair_separation(t, across=0.3).item() == pytest.approx(0.7 * within + 0.3 * across)
    assert pair_separation(t[:1], across=0.3).item() == pytest.approx(float(t[0, 0] @ t[0, 1]))
    with pytest.raises(InputError, match="from 0 to 1"):
        pair_separation(t, across=2)


def test_shapes_that_do_not_fit_are_refused() -> None:
    given_ = several()
    for changed in (
        {"labels": given_["labels"][:, :2]},
        {"logits": given_["logits"][..., :1]},
        {"zero_shot_logits": given_["zero_shot_logits"][:-1]},
        {"text_features": given_["text_features"][:, 0]},
    ):
        with pytest.raises(InputError):
            parse_losses("ce+penalty+as")(**(given_ | changed))
