"""What a head's scores are worth on the images shown, with thresholds and prior from images that are not shown."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from medvlm_probe.embeddings.seen import SeenInTraining, seen_in_training
from medvlm_probe.errors import InputError
from medvlm_probe.zero_shot.performance import PerformanceAnalysis, analyse_performance
from medvlm_probe.zero_shot.thresholds import choose_thresholds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from medvlm_probe.cohort.cohort import Cohort
    from medvlm_probe.models.training_data import TrainingData
    from medvlm_probe.tuning.roles import Roles
    from medvlm_probe.types import FloatArray, Scores


@dataclass(frozen=True, eq=False)
class Evaluated:
    """The images shown, their scores, what those are worth, and whether the model has seen the images."""

    cohort: Cohort
    scores: Scores
    analysis: PerformanceAnalysis
    seen: SeenInTraining


def evaluate(
    scores: Scores,
    cohort: Cohort,
    roles: Roles,
    *,
    prior: Mapping[str, float],
    rule: str,
    out_of_fold: FloatArray | None = None,
    model: str,
    trained_on: Sequence[TrainingData],
    keys: Sequence[str],
) -> Evaluated:
    """Return what scores are worth on the shown images.

    Args:
        scores: of all images of the cohort, in its order.
        cohort: the images that have roles.
        roles: of these images.
        prior: label to its frequency in the training split.
        rule: how thresholds are chosen, where `roles` names images for it.
        out_of_fold: scores of the training images from fits that had not seen them, (n_train, L): what thresholds are
            chosen on where that is the training split.
        model: its name.
        trained_on: what it declares.
        keys: the images' content keys, (n,).

    Raises:
        InputError: thresholds from the training split without `out_of_fold`.
    """
    thresholds = None
    if roles.threshold_from:
        chosen_on = scores
        if (roles.thresholds & roles.train).any():
            if out_of_fold is None:
                raise InputError(
                    f"Thresholds cannot be chosen on '{roles.threshold_from}', which the weights were fitted on. Name "
                    "another split, or the validation split."
                )
            values = scores.values.copy()
            values[roles.train] = out_of_fold
            chosen_on = replace(scores, values=values)
        thresholds = choose_thresholds(
            chosen_on.rows(roles.thresholds),
            cohort.select(roles.thresholds).targets(scores.labels),
            rule=rule,
            source=roles.threshold_from,
        )
    shown = cohort.select(roles.shown)
    shown_scores = scores.rows(roles.shown)
    analysis = analyse_performance(
        shown_scores,
        shown,
        thresholds=thresholds,
        prior=prior,
        prior_from=roles.train_from,
    )
    shown_keys = [key for key, here in zip(keys, roles.shown, strict=True) if here]
    return Evaluated(shown, shown_scores, analysis, seen_in_training(shown, model, trained_on, shown_keys))
