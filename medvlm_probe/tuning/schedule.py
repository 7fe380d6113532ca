"""How the learning rate goes over the steps of a training."""

from __future__ import annotations

import math


def warmup_cosine(step: int, n_steps: int, n_warmup: int) -> float:
    """Return the share of the full learning rate at a step, in (0, 1]: a straight rise, then half a cosine towards 0.

    Args:
        step: from 0 to n_steps - 1.
        n_steps: all steps of the training.
        n_warmup: the steps of the rise; the first has 1 / n_warmup of the rate.
    """
    if step < n_warmup:
        return (step + 1) / n_warmup
    return 0.5 * (1 + math.cos(math.pi * (step - n_warmup) / max(1, n_steps - n_warmup)))


def warmup_steps(n_steps: int, share: float) -> int:
    """Return how many of the steps are warm-up for a share in [0, 1): rounded, and fewer than all."""
    return min(round(share * n_steps), max(0, n_steps - 1))
