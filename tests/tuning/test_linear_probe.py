"""The linear probe: strengths by grouped cross-validation, labels that are rare or not known, weights to use later."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.preprocessing import StandardScaler, normalize

from medvlm_probe.errors import InputError
from medvlm_probe.tuning import linear_probe
from medvlm_probe.tuning.linear_probe import LinearProbe, fit_linear_probe

LABELS = ("common", "rare", "two_groups", "one_group", "none", "unknown")


def study(seed: int = 0, n: int = 240, d: int = 24) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return embeddings, targets and groups of two images each; the first two labels can be learnt."""
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(n, d)) + 3).astype(np.float32)
    groups = np.arange(n) // 2
    y = np.zeros((n, 6))
    y[:, 0] = x[:, 0] + rng.normal(scale=0.5, size=n) > 3
    y[:, 1] = x[:, 1] + rng.normal(scale=0.5, size=n) > 4.7
    y[[0, 1, 50], 2] = 1
    y[[4, 5], 3] = 1
    y[:, 5] = np.nan
    y[rng.random(n) < 0.1, 0] = np.nan
    return x, y, groups


@pytest.fixture(scope="module")
def probe() -> LinearProbe:
    return fit_linear_probe(*study(), LABELS)


def standardised(x: np.ndarray) -> np.ndarray:
    return StandardScaler().fit_transform(normalize(x.astype(np.float64)))


def test_each_label_is_fitted_as_far_as_it_can_be(probe: LinearProbe) -> None:
    by_label = {fit.label: fit for fit in probe.fits}
    hows = ["cross-validated", "cross-validated", "shared", "constant", "constant", "constant"]
    assert [fit.how for fit in probe.fits] == hows
    assert by_label["common"].n_unknown > 0
    assert (by_label["two_groups"].n_positive, by_label["two_groups"].n_groups_positive) == (3, 2)
    assert by_label["common"].held_out_loss < by_label["common"].prior_loss
    own = sorted(by_label[name].strength for name in ("common", "rare"))
    assert by_label["two_groups"].strength == own[0]
    assert np.isnan(by_label["none"].strength)


def test_constant_labels_get_their_prevalence(probe: LinearProbe) -> None:
    x, _, _ = study(1)
    chances = probe.head.probabilities(x)
    np.testing.assert_allclose(chances[:, 3], 2.5 / 241)
    np.testing.assert_allclose(chances[:, 4], 0.5 / 241)
    np.testing.assert_allclose(chances[:, 5], 0.5)
    assert np.isfinite(probe.out_of_fold).all()


def test_the_final_fit_is_scikit_learns_at_that_strength(probe: LinearProbe) -> None:
    x, y, _ = study()
    logits = probe.head.logits(x)
    for k in range(3):
        known = ~np.isnan(y[:, k])
        theirs = LogisticRegression(C=probe.fits[k].strength, tol=1e-10, max_iter=10_000)
        theirs.fit(standardised(x)[known], y[known, k])
        np.testing.assert_allclose(logits[:, k], theirs.decision_function(standardised(x)), atol=1e-4)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_strength_and_held_out_losses_are_scikit_learns_cross_validation(probe: LinearProbe) -> None:
    x, y, groups = study()
    for k in range(2):
        known = ~np.isnan(y[:, k])
        fold = linear_probe._folds(y[:, k] == 1, groups, 5, k)[known]
        parts = [(np.flatnonzero(fold != f), np.flatnonzero(fold == f)) for f in range(5)]
        theirs = LogisticRegressionCV(
            Cs=list(probe.strengths), cv=parts, scoring="neg_log_loss", tol=1e-8, max_iter=10_000
        ).fit(standardised(x)[known], y[known, k])
        losses = -theirs.scores_[1.0] if isinstance(theirs.scores_, dict) else -theirs.scores_
        sizes = np.array([len(held_out) for _, held_out in parts])
        pooled = sizes @ losses.reshape(5, -1) / sizes.sum()
        tried = ~np.isnan(probe.held_out_loss[k])
        np.testing.assert_allclose(probe.held_out_loss[k][tried], pooled[tried], rtol=2e-3)
        assert probe.fits[k].strength == probe.strengths[int(pooled.argmin())]


def test_out_of_fold_logits_are_of_probes_that_had_not_seen_the_group(probe: LinearProbe) -> None:
    x, y, groups = study()
    fold = linear_probe._folds(y[:, 1] == 1, groups, 5, 1)
    for f in range(5):
        theirs = LogisticRegression(C=probe.fits[1].strength, tol=1e-10, max_iter=10_000)
        theirs.fit(standardised(x)[fold != f], y[fold != f, 1])
        held_out = theirs.decision_function(standardised(x)[fold == f])
        np.testing.assert_allclose(probe.out_of_fold[fold == f, 1], held_out, atol=2e-2)
    known = ~np.isnan(y[:, 1])
    loss = log_loss(y[known, 1], 1 / (1 + np.exp(-probe.out_of_fold[known, 1])))
    assert probe.fits[1].held_out_loss == pytest.approx(loss, rel=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_groups_are_never_split_and_positives_are_spread(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, 60, size=200)
    codes = np.unique(groups, return_inverse=True)[1]
    positive = rng.random(200) < 0.1
    fold = linear_probe._folds(positive, codes, 5, seed)
    assert all(len(set(fold[codes == group])) == 1 for group in set(codes))
    with_positive = [len({c for c in codes[positive] if fold[codes == c][0] == f}) for f in range(5)]
    assert max(with_positive) - min(with_positive) <= 1


def test_unknown_entries_are_left_out_label_by_label() -> None:
    x, y, groups = study()
    y = y[:, :2].copy()
    y[::7, 1] = np.nan
    known = ~np.isnan(y[:, 1])
    both = fit_linear_probe(x, y, groups, LABELS[:2], strengths=[0.01])
    # Standardisation is over all training images, so leaving rows out changes nothing else of the other label.
    z = standardised(x)
    theirs = LogisticRegression(C=0.01, tol=1e-10, max_iter=10_000).fit(z[known], y[known, 1])
    np.testing.assert_allclose(both.head.logits(x)[:, 1], theirs.decision_function(z), atol=1e-4)


def test_raw_vectors_and_dimensions_that_do_not_vary() -> None:
    x, y, groups = study()
    x[:, 3] = 7.0
    probe = fit_linear_probe(x, y[:, :1], groups, LABELS[:1], space="raw", strengths=[0.01])
    assert probe.head.weight[0, 3] == 0
    np.testing.assert_allclose(probe.head.logits(x), x @ probe.head.weight.T + probe.head.bias, rtol=1e-12)
    known = ~np.isnan(y[:, 0])
    z = StandardScaler().fit_transform(x.astype(np.float64))
    theirs = LogisticRegression(C=0.01, tol=1e-10, max_iter=10_000).fit(z[known], y[known, 0])
    np.testing.assert_allclose(probe.head.logits(x)[:, 0], theirs.decision_function(z), atol=1e-4)


def test_equal_inputs_give_equal_bytes() -> None:
    again = [fit_linear_probe(*study(), LABELS) for _ in range(2)]
    assert again[0].head.weight.tobytes() == again[1].head.weight.tobytes()
    assert again[0].out_of_fold.tobytes() == again[1].out_of_fold.tobytes()


def test_without_a_label_of_its_own_strength_the_penalty_is_strongest() -> None:
    x, y, groups = study()
    probe = fit_linear_probe(x, y[:, 2:], groups, LABELS[2:])
    assert [fit.how for fit in probe.fits] == ["shared", "constant", "constant", "constant"]
    assert probe.fits[0].strength == probe.strengths[0]
    nothing = fit_linear_probe(x, y[:, 3:], groups, LABELS[3:])
    assert (nothing.head.weight == 0).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": LABELS[:2]}, "none empty"),
        ({"n_folds": 1}, "1 folds"),
        ({"strengths": [0.0, 1.0]}, "above 0"),
        ({"targets": np.full((240, 6), -1.0)}, "uncertainty policy"),
        ({"embeddings": np.full((240, 24), np.nan)}, "NaN or infinity"),
    ],
)
def test_wrong_inputs_are_told(change: dict[str, object], words: str) -> None:
    x, y, groups = study()
    given = {"embeddings": x, "targets": y, "groups": groups, "labels": LABELS} | change
    with pytest.raises(InputError, match=words):
        fit_linear_probe(**given)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_equal_auroc_to_scikit_learn_on_real_radiographs(shared_dir: Path) -> None:
    """Real images as 256 principal pixels, patients of the manifest's test split halved."""
    from sklearn.decomposition import PCA

    from medvlm_probe.cohort.catalog import load_cohort

    cohort = load_cohort(str(shared_dir / "real_cxr" / "iu_xray" / "manifest.csv"), split="test")
    pixels = np.stack([np.asarray(cohort.source.read(i).convert("L").resize((32, 32))) for i in range(len(cohort))])
    x = PCA(256, random_state=0).fit_transform(pixels.reshape(len(cohort), -1) / 255.0)
    y, groups = cohort.targets(), cohort.groups()
    train = groups % 2 == 0
    probe = fit_linear_probe(x[train], y[train], groups[train], cohort.labels)
    z, held_out = standardised(x[train]), normalize(x[~train])
    held_out = (held_out - normalize(x[train]).mean(axis=0)) / normalize(x[train]).std(axis=0)
    ours = probe.head.logits(x[~train])
    codes = np.unique(groups[train], return_inverse=True)[1]
    for k, fit in enumerate(probe.fits):
        if fit.how != "cross-validated":
            continue
        known = ~np.isnan(y[train, k])
        fold = linear_probe._folds(y[train, k] == 1, codes, 5, k)[known]
        parts = [(np.flatnonzero(fold != f), np.flatnonzero(fold == f)) for f in range(5)]
        theirs = LogisticRegressionCV(Cs=list(probe.strengths), cv=parts, scoring="neg_log_loss", max_iter=1000)
        theirs.fit(z[known], y[train, k][known])
        shown = ~np.isnan(y[~train, k])
        found = roc_auc_score(y[~train, k][shown], ours[shown, k])
        assert found == pytest.approx(
            roc_auc_score(y[~train, k][shown], theirs.decision_function(held_out)[shown]), abs=0.005
        )
