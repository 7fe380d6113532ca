"""Repair by fine-tuning the last block of the image tower on the labelled images; begins at the linear probe."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from medvlm_probe.audit.repair_bench import Answer, Bench, Draws, logistic
from medvlm_probe.audit.repair_probes import probe_on
from medvlm_probe.errors import InputError
from medvlm_probe.tuning.fine_tune_settings import FineTuneSettings

if TYPE_CHECKING:
    from torch import Tensor

    from medvlm_probe.audit.inputs import Side
    from medvlm_probe.tuning.last_block import LastBlock

SETTINGS = FineTuneSettings(epochs=8, batch_size=16, rate=3e-5, head_rate=3e-4, patience=3, last_blocks=1)
VALIDATION = 5
"""One in so many of the labelled patients chooses the epoch: the labels of these are part of the cost."""

AT_ONCE = 16


def last_block(bench: Bench, draws: Draws) -> list[Answer]:
    """Train the last block on the site's labelled images; the held-out images pass the other blocks once.

    Raises:
        InputError: no model is given.
    """
    import torch

    model = bench.tools.model
    if model is None:
        raise InputError("A model is needed.")
    from medvlm_probe.tuning.last_block import LastBlock

    block = LastBlock(model)
    start = block.tower.state()
    rows = np.unique(np.concatenate(list(draws)))
    tokens = _tokens(bench, block, rows)
    tuned, cuts = [], []
    for seed, drawn in enumerate(draws):
        mine = np.sort(drawn)
        people = np.unique(bench.pool.groups[mine])
        choosing = np.random.default_rng([bench.inputs.seed, seed]).permutation(people)[
            : max(1, len(people) // VALIDATION)
        ]
        validation = np.isin(bench.pool.groups[mine], choosing)
        # A head that had seen the labels which choose the epoch would make every training look worse than none.
        probe, vectors, targets = probe_on(bench, mine[~validation])
        kept = tokens[np.searchsorted(rows, mine)]
        tuned.append(block.train(kept, vectors, bench.taught[mine], validation, probe.head, SETTINGS, start))
        cuts.append(_youden(probe.out_of_fold, targets, bench.labels))
        bench.tools.say(f"  last block, draw {seed + 1} of {len(draws)}: epoch {tuned[-1].kept_epoch} kept.")
    logits: list[list[Any]] = [[] for _ in draws]
    for at in range(0, len(bench.held_out), AT_ONCE):
        shown = block.tokens(_pixels(bench.held_out, range(at, min(at + AT_ONCE, len(bench.held_out))), model))
        for place, found in enumerate(tuned):
            logits[place].append(block.logits(found, shown))
    answers = []
    for parts, cut in zip(logits, cuts, strict=True):
        values = torch.cat(parts).double().numpy()
        answers.append(Answer(logistic(values), np.asarray(values >= cut)))
    return answers


def seconds_of_a_pass(bench: Bench) -> float:
    """Return what one image takes through the tower here."""
    import torch

    model = bench.tools.model
    if model is None:
        raise InputError("A model is needed.")
    pixels = _pixels(bench.held_out, range(min(4, len(bench.held_out))), model)
    started = time.perf_counter()
    with torch.no_grad():
        model.encode_images(pixels)
    return (time.perf_counter() - started) / len(pixels)


def passes_of(n: int, n_held_out: int) -> float:
    """Return what a training on n images and its use cost, in passes of an image: a block is about a twelfth.

    Args:
        n: labelled images. n_held_out: that are measured on.
    """
    return n + n_held_out + SETTINGS.epochs * n * 3 / 12


def _tokens(bench: Bench, block: LastBlock, rows: Any) -> Tensor:
    """Return what reaches the last block of rows of the pool."""
    import torch

    parts = [rows[at : at + AT_ONCE] for at in range(0, len(rows), AT_ONCE)]
    return torch.cat([block.tokens(_pixels(bench.pool, part, block.model)) for part in parts])


def _pixels(side: Side, rows: Any, model: Any) -> Tensor:
    import torch

    return torch.stack([model.preprocess(side.cohort.source.read(int(row))) for row in rows])


def _youden(logits: Any, targets: Any, labels: tuple[str, ...]) -> Any:
    from medvlm_probe.types import Scores
    from medvlm_probe.zero_shot.thresholds import choose_thresholds

    inner = Scores(logits, "logit", labels, tuple(map(str, range(len(logits)))))
    limits = choose_thresholds(inner, targets, rule="youden", source="out of fold").values
    return np.array([limits.get(label, np.inf) for label in labels])
