"""Everything that resamples groups, in one place to import from: jackknife, bootstrap, permutations."""

from medvlm_probe.metrics.intervals import jackknife_interval
from medvlm_probe.metrics.permutation import (
    ExchangePlan,
    GroupPermutations,
    group_permutations,
    holm,
    permutation_blocks,
    permutation_p_value,
    plan_exchange,
)

__all__ = [
    "ExchangePlan",
    "GroupPermutations",
    "group_permutations",
    "holm",
    "jackknife_interval",
    "permutation_blocks",
    "permutation_p_value",
    "plan_exchange",
]
