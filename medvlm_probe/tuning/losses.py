"""The losses of prompt learning and fine-tuning, to import from one place.

Each takes `(logits, labels)` and its options as keywords; `parse_losses` composes them from a line. `task_losses` holds
those that teach the classes, `calibration_losses` the regularisers, `prompt_pair_losses` the forms for several labels
with prompts, `multilabel_losses` those of heads with one logit a label.
"""

from medvlm_probe.tuning.calibration_losses import (
    angular_separation,
    dca,
    mdca,
    mmce,
    orthogonality,
    penalty,
    smac,
)
from medvlm_probe.tuning.loss_mix import LOSSES, LossKind, LossMix, LossTerm, parse_losses
from medvlm_probe.tuning.prompt_pair_losses import by_label, over_entries, pair_orthogonality, pair_separation
from medvlm_probe.tuning.task_losses import brier, cross_entropy, focal, label_smoothing, logitnorm, mbls, zs_norm

__all__ = [
    "LOSSES",
    "LossKind",
    "LossMix",
    "LossTerm",
    "angular_separation",
    "brier",
    "by_label",
    "cross_entropy",
    "dca",
    "focal",
    "label_smoothing",
    "logitnorm",
    "mbls",
    "mdca",
    "mmce",
    "orthogonality",
    "over_entries",
    "pair_orthogonality",
    "pair_separation",
    "parse_losses",
    "penalty",
    "smac",
    "zs_norm",
]
