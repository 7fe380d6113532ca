"""What CalibPrompt's study is run on: a cohort as a problem with one right label or several, and its splits."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from medvlm_probe.cohort.cohort import Cohort, resolve_labels
from medvlm_probe.cohort.splits import make_splits, with_splits
from medvlm_probe.errors import InputError
from medvlm_probe.tuning.calibration_sweep import SweepMethod
from medvlm_probe.tuning.loss_mix import LossMix, LossTerm
from medvlm_probe.tuning.prompt_recipes import PromptRecipe, prompt_recipes

TEMPLATE = "a chest radiograph showing {}"
"""Around the names of classes where the data card has no template."""

SHARES = {"train": 0.5, "calib": 0.2, "test": 0.3}
"""Of a cohort without splits, or with others than `train`, `calib` and `test`."""

RECIPE_NAMES = {"kather_colon": "kather"}
"""Data sets whose recipes go by another name."""

SMOOTHED = ("ls", "smac")
"""Losses that share a recipe's smoothing."""


@dataclass(frozen=True, eq=False)
class Problem:
    """A cohort to be studied.

    Attributes:
        cohort: with splits.
        labels: that are scored; None for all that prompts are known for.
        words: what is told apart, for people.
        train_from: few-shot images are drawn from this split.
        fit_from: a temperature is fitted on this split.
        split: results are for this one.
        note: how the splits came about.
    """

    cohort: Cohort
    labels: tuple[str, ...] | None
    words: str
    train_from: str
    fit_from: str
    split: str
    note: str


def one_right_label(cohort: Cohort, classes: Sequence[str]) -> Cohort:
    """Return a cohort's images that have exactly one of some labels, as a cohort with one right label an image.

    Args:
        cohort: several labels an image.
        classes: two or more of its labels, in any spelling.

    Raises:
        InputError: the cohort has one right label an image already, or fewer than two classes.
        UnknownNameError: no such label.
    """
    if cohort.card.task == "single_label":
        raise InputError(f"'{cohort.name}' has one right label an image already: leave --classes out.")
    names = resolve_labels(cohort, classes)
    if len(names) < 2:
        raise InputError(f"--classes {','.join(classes)}: expected two labels or more, such as pneumonia,no_finding.")
    targets = cohort.targets(names)
    kept = cohort.select((targets == 1).sum(axis=1) == 1)
    # An image with one of them and another not known stays: what is known decides.
    table = kept.table.assign(**{name: (kept.targets([name])[:, 0] == 1).astype("float32") for name in names})
    template = cohort.card.prompt_template or TEMPLATE
    words = {name: _within(cohort.card.words(name)) for name in names}
    card = cohort.card.model_copy(update={"task": "single_label", "labels": words, "prompt_template": template})
    return replace(kept, table=table, labels=names, card=card)


def problem_of(
    cohort: Cohort,
    *,
    labels: Sequence[str] | None = None,
    train_from: str | None = None,
    fit_from: str | None = None,
    split: str | None = None,
    seed: int = 0,
) -> Problem:
    """Return a cohort with what its splits are for.

    Splits that are not named: `test` is shown, `train` (else `calib`) is drawn from, and `calib`, `val` or else the
    training split fits temperatures; a cohort without these is parted by patient.

    Args:
        cohort: one right label an image, or several.
        labels: of several, those studied.
        train_from, fit_from, split: names of splits.
        seed: of the parting.

    Raises:
        InputError: no such label.
    """
    names = resolve_labels(cohort, labels) if labels else None
    known = set(cohort.splits().tolist()) - {""}
    note = ""
    if train_from is None and ("test" not in known or not known & {"train", "calib"}):
        parted = make_splits(cohort, SHARES, seed)
        cohort, known = with_splits(cohort, parted.assigned), set(SHARES)
        note = f"'{cohort.name}' has no splits train and test: parted by {cohort.group_kind}, {_shares_words()}."
    train = train_from or ("train" if "train" in known else "calib")
    fit = fit_from or next((name for name in ("calib", "val") if name in known), train)
    words = _words(cohort, names)
    return Problem(cohort, names, words, train, fit, split or "test", note)


def with_recipe(methods: Sequence[SweepMethod], model: str, data_set: str) -> tuple[tuple[SweepMethod, ...], str]:
    """Return the methods with the published smoothing and weights of a model and data set, and a sentence; unchanged
    and "" where nothing is published for them.

    Names stay: `ls+smac+as` is then what the paper calls so.
    """
    recipe = prompt_recipes().get(f"{model}-{RECIPE_NAMES.get(data_set, data_set)}")
    if recipe is None:
        return tuple(methods), ""
    found = tuple(
        method if method.loss is None else replace(method, loss=_with_weights(method.loss, recipe))
        for method in methods
    )
    return found, f"'ls+smac+as' is '{recipe.loss}' here, the published recipe for {recipe.name}."


def _with_weights(loss: LossMix, recipe: PromptRecipe) -> LossMix:
    def term(given: LossTerm) -> LossTerm:
        if given.name in SMOOTHED and not given.options:
            return replace(given, options={"alpha": recipe.alpha})
        return replace(given, weight=recipe.separation) if given.name == "as" and given.weight == 1 else given

    return LossMix(tuple(map(term, loss.terms)))


def slug(*parts: str) -> str:
    """Return a name for files."""
    return "_".join(re.sub(r"[^a-z0-9]+", "-", part.lower()).strip("-") for part in parts)


def _words(cohort: Cohort, labels: Sequence[str] | None) -> str:
    names = [_within(cohort.card.words(name)) for name in labels or cohort.labels]
    if cohort.card.task == "single_label":
        return f"{', '.join(names[:-1])} or {names[-1]}" if len(names) <= 4 else f"{len(names)} classes"
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]])) if len(names) <= 4 else f"{len(names)} labels"


def _within(words: str) -> str:
    """Return words as they stand within a sentence."""
    return words if words[1:2].isupper() else words[:1].lower() + words[1:]


def _shares_words() -> str:
    return ", ".join(f"{share:.0%} {name}" for name, share in SHARES.items())
