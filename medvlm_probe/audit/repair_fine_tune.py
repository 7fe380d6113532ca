"""Repair by fine-tuning the last block of the image tower on the labelled images; begins at the linear probe."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from medvlm_probe.audit.repair_bench import Answer, Bench, Draws, logistic
from medvlm_probe.audit.repair_probes import probe_on
from medvlm_probe.audit.why import TRIED
from medvlm_probe.cohort.acquisition_source import AcquiredImages
from medvlm_probe.errors import InputError
from medvlm_probe.tuning.fine_tune_settings import FineTuneSettings

if TYPE_CHECKING:
    from torch import Tensor

    from medvlm_probe.cohort.images import ImageSource
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
    return _trained(bench, draws, copies=False)


def last_block_augmented(bench: Bench, draws: Draws) -> list[Answer]:
    """Train it on a copy of each image too, as one of the acquisitions that `--why` tries would have given it."""
    return _trained(bench, draws, copies=True)


def _trained(bench: Bench, draws: Draws, *, copies: bool) -> list[Answer]:
    import torch

    model = bench.tools.model
    if model is None:
        raise InputError("A model is needed.")
    from medvlm_probe.tuning.last_block import LastBlock

    block = LastBlock(model)
    start = block.tower.state()
    rows = np.unique(np.concatenate(list(draws)))
    tokens = _tokens(bench, block, rows)
    copied = _tokens(bench, block, rows, _acquisitions(bench, len(rows))) if copies else tokens[:0]
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
        kept, taught = tokens[np.searchsorted(rows, mine)], bench.taught[mine]
        if copies:
            kept = torch.cat([kept, copied[np.searchsorted(rows, mine[~validation])]])
            taught = np.concatenate([taught, taught[~validation]])
            validation = np.concatenate([validation, np.zeros(int((~validation).sum()), dtype=bool)])
        tuned.append(block.train(kept, vectors, taught, validation, probe.head, SETTINGS, start))
        cuts.append(_youden(probe.out_of_fold, targets, bench.labels))
        bench.tools.say(f"  last block, draw {seed + 1} of {len(draws)}: epoch {tuned[-1].kept_epoch} kept.")
    logits: list[list[Any]] = [[] for _ in draws]
    for at in range(0, len(bench.held_out), AT_ONCE):
        source = bench.held_out.cohort.source
        shown = block.tokens(_pixels(source, range(at, min(at + AT_ONCE, len(bench.held_out))), model))
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
    pixels = _pixels(bench.held_out.cohort.source, range(min(4, len(bench.held_out))), model)
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


def passes_with_copies(n: int, n_held_out: int) -> float:
    """Return the same with a copy of each image."""
    return passes_of(2 * n, n_held_out)


def _acquisitions(bench: Bench, n: int) -> list[str]:
    """Draw the acquisition of each copy."""
    return [str(name) for name in bench.inputs.rng("repair copies of the site").choice(TRIED, n)]


def _tokens(bench: Bench, block: LastBlock, rows: Any, acquisitions: Sequence[str] = ()) -> Tensor:
    """Return what reaches the last block of rows of the pool, as they are or as other acquisitions would give them."""
    import torch

    source = bench.pool.cohort.source
    parts = []
    for at in range(0, len(rows), AT_ONCE):
        some = rows[at : at + AT_ONCE]
        if acquisitions:
            moved = [AcquiredImages(source, name) for name in acquisitions[at : at + AT_ONCE]]
            images = [one.read(int(row)) for one, row in zip(moved, some, strict=True)]
            pixels = torch.stack([block.model.preprocess(image) for image in images])
        else:
            pixels = _pixels(source, some, block.model)
        parts.append(block.tokens(pixels))
    return torch.cat(parts)


def _pixels(source: ImageSource, rows: Any, model: Any) -> Tensor:
    import torch

    return torch.stack([model.preprocess(source.read(int(row))) for row in rows])


def _youden(logits: Any, targets: Any, labels: tuple[str, ...]) -> Any:
    from medvlm_probe.types import Scores
    from medvlm_probe.zero_shot.thresholds import choose_thresholds

    inner = Scores(logits, "logit", labels, tuple(map(str, range(len(logits)))))
    limits = choose_thresholds(inner, targets, rule="youden", source="out of fold").values
    return np.array([limits.get(label, np.inf) for label in labels])
