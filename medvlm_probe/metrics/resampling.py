"""Everything that resamples groups, to import from one place: jackknife, score intervals, bootstrap, permutations."""

from medvlm_probe.metrics.bootstrap import bca_bootstrap, group_bootstrap_weights, strata_with, studentised_bootstrap
from medvlm_probe.metrics.intervals import (
    auroc_variance,
    binomial_variance,
    effective_size,
    group_folds,
    jackknife_interval,
    leave_one_out,
    score_interval,
)
from medvlm_probe.metrics.permutation import (
    GroupLabelPermutations,
    GroupPermutations,
    NullBand,
    group_label_permutations,
    group_permutations,
    holm,
    null_band,
    permutation_blocks,
    permutation_p_value,
    plan_exchange,
    sequential_p_value,
)

__all__ = [
    "GroupLabelPermutations",
    "GroupPermutations",
    "NullBand",
    "auroc_variance",
    "bca_bootstrap",
    "binomial_variance",
    "effective_size",
    "group_bootstrap_weights",
    "group_folds",
    "group_label_permutations",
    "group_permutations",
    "holm",
    "jackknife_interval",
    "leave_one_out",
    "null_band",
    "permutation_blocks",
    "permutation_p_value",
    "plan_exchange",
    "score_interval",
    "sequential_p_value",
    "strata_with",
    "studentised_bootstrap",
]
