"""`tune` on a model of BiomedCLIP's true structure against CalibPrompt's released loop (see `released_prompt_loop`).

    python -m benchmarks.prompt_tuning [--quick]

Two classes, 8 shots, 16 context vectors, 50 epochs of one step, 8 random crops an image for us and a new crop in each
step for the released loop, radiographs of 512 pixels read from PNG files. (a) One tuning run. (b) A sweep of 10 losses
by 3 seeds, each with the evaluation of a test set. The released loop is timed over 3 steps of each loss and over whole
test batches, in turn with our parts, and EXTRAPOLATED to all steps, seeds and test images; ours is timed whole. In the
steps that are timed, both are given the same views, and the largest difference of their losses is shown (float32 both).
Ours embeds images at the precision that `tune` takes by itself; its seconds with float32 stand beside.

Seconds are the processor's (core-seconds), not the clock's: on a machine that others use too, those can be compared.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.biomedclip_bundle import write_bundle
from benchmarks.embed_throughput import write_radiographs
from benchmarks.machine import processor
from benchmarks.released_prompt_loop import TEST_BATCH, ReleasedLoop
from benchmarks.table import Row
from medvlm_probe.cohort.catalog import load_cohort
from medvlm_probe.cohort.cohort import Cohort
from medvlm_probe.embeddings.extract import embed
from medvlm_probe.embeddings.precision import Precision, fast_precision
from medvlm_probe.embeddings.threads import available_cores
from medvlm_probe.metrics.calibration import expected_calibration_error
from medvlm_probe.models.open_clip_adapter import OpenClipModel
from medvlm_probe.models.zoo import load_model
from medvlm_probe.runs import write_csv
from medvlm_probe.tuning.few_shot import FewShotSet, draw_few_shot
from medvlm_probe.tuning.losses import parse_losses
from medvlm_probe.tuning.prompt_learner import ContextSettings, PromptLearner, prompt_learner
from medvlm_probe.tuning.prompt_tuning import EmbeddedViews, Schedule, Training, class_logits, train_prompts
from medvlm_probe.tuning.views import Views, embed_views, viewing
from medvlm_probe.zero_shot.prompts import prompts_of_names
from medvlm_probe.zero_shot.scores import softmax
from medvlm_probe.zero_shot.text_embeddings import unit_rows

FIGURES = Path(__file__).resolve().parents[1] / "figures" / "benchmarks"
CLASSES = ("covid", "normal")
LOSSES = ("ce", "fl", "ls", "ls+mdca", "ce+dca", "ce+mmce", "mbls", "logitnorm", "ls+smac", "ls+smac+as")
SHOTS, N_CONTEXT = 8, 16
TOLERANCE = 2e-4
"""Of losses, step by step: float32 logits near 85 are rounded to about 1e-5."""


@dataclass(frozen=True)
class Sizes:
    """How much is done; the released loop is timed over `timed_steps` steps of each loss."""

    losses: tuple[str, ...] = LOSSES
    seeds: int = 3
    views: int = 8
    epochs: int = 50
    n_train: int = 48
    n_test: int = 100
    timed_steps: int = 3
    repeats: int = 3

    @property
    def test_batches(self) -> int:
        """How many batches of test images the released evaluation has."""
        return -(-self.n_test // TEST_BATCH)


QUICK = Sizes(losses=("ls+smac+as",), seeds=1, views=2, epochs=3, n_train=24, n_test=8, timed_steps=2, repeats=1)


@dataclass(frozen=True)
class Bench:
    """What both sides work on."""

    model: OpenClipModel
    learner: PromptLearner
    cohort: Cohort
    test: Cohort
    sets: tuple[FewShotSet, ...]
    views: Views
    sizes: Sizes
    folder: Path


@dataclass(frozen=True)
class LossRow:
    """A loss of the sweep: the released loop's seconds are extrapolated from its median step."""

    loss: str
    released_step_seconds: float
    released_training_seconds_extrapolated: float
    our_training_seconds: float
    times_faster_training_alone: float
    largest_loss_difference: float
    steps_compared: int
    largest_loss: float


def prepare(folder: Path, sizes: Sizes) -> Bench:
    """Write model and images, load them, and draw the few-shot sets."""
    words = ("x", *CLASSES)
    model: Any = load_model(f"local:{write_bundle(folder / 'model', words)}")
    n = sizes.n_train + sizes.n_test
    paths = write_radiographs(folder / "images", n, 512, 512)
    table = pd.DataFrame({"image": [path.name for path in paths], "patient": [f"p{row}" for row in range(n)]})
    table["split"] = np.where(np.arange(n) < sizes.n_train, "train", "test")
    table[list(CLASSES)] = np.eye(2, dtype=int)[np.arange(n) % 2]
    table.to_csv(folder / "images" / "manifest.csv", index=False)
    labels = "".join(f"  {name}: {name}\n" for name in CLASSES)
    (folder / "images" / "DATA_CARD.md").write_text(
        f"---\nname: made\ntask: single_label\nmanifest: manifest.csv\nlabels:\n{labels}---\n"
    )
    cohort = load_cohort(str(folder / "images" / "manifest.csv"))
    train = cohort.splits() == "train"
    sets = [draw_few_shot(cohort, train, CLASSES, shots=SHOTS, seed=seed) for seed in range(sizes.seeds)]
    settings = ContextSettings(N_CONTEXT, legacy=True)
    learner = prompt_learner(model, prompts_of_names({c: c for c in CLASSES}), settings, single_label=True)
    views = Views(sizes.views, "crops")
    return Bench(model, learner, cohort, cohort.select(~train), tuple(sets), views, sizes, folder)


def timed(name: str, task: Callable[[], Any]) -> tuple[float, Any]:
    """Return a task's core-seconds, and its result; says so on stderr."""
    wall, started = time.perf_counter(), time.process_time()
    result = task()
    seconds, wall = time.process_time() - started, time.perf_counter() - wall
    said = f"{name}: {seconds:.2f} core-seconds in {wall:.2f} s, load {os.getloadavg()[0]:.1f}"
    print(said, file=sys.stderr, flush=True)
    return seconds, result


_fresh = count()


def our_views(bench: Bench, seeds: int, precision: Precision) -> EmbeddedViews:
    """Return the embedded views of the first few-shot sets, with an empty cache."""
    rows = np.unique(np.concatenate([few_shot.rows for few_shot in bench.sets[:seeds]]))
    cache = bench.folder / f"cache-{next(_fresh)}"
    found = embed_views(bench.cohort.select(rows), bench.model, bench.views, precision=precision, cache_dir=cache)
    units = torch.from_numpy(np.stack([unit_rows(view) for view in found]))
    return EmbeddedViews(rows, units, units[0])


def our_test_units(bench: Bench, precision: str) -> np.ndarray:
    """Return the test images' unit embeddings, with an empty cache."""
    cache = bench.folder / f"cache-{next(_fresh)}"
    return unit_rows(embed(bench.test, bench.model, precision=precision, cache_dir=cache).vectors)


def our_trainings(bench: Bench, loss: str, seeds: int, images: EmbeddedViews, schedule: Schedule) -> Any:
    """Return what the trainings of a loss give, one for each seed."""
    trainings = [Training(parse_losses(loss), bench.sets[seed], seed) for seed in range(seeds)]
    return train_prompts(bench.learner, trainings, images, schedule, logit_scale=bench.model.logit_scale)


def our_evaluation(bench: Bench, trained: Any, units: np.ndarray) -> list[float]:
    """Return the calibration error of each training on the embedded test images."""
    truth = bench.test.targets(CLASSES).argmax(axis=1)
    with torch.inference_mode():
        features = bench.learner.features(torch.stack([torch.from_numpy(one.context) for one in trained]))
        problem = torch.from_numpy(units)[:, None]
        logits = [class_logits(problem, of_one, bench.model.logit_scale).numpy() for of_one in features]
    return [expected_calibration_error(softmax(of_one), truth) for of_one in logits]


def released_steps(bench: Bench, loss: str, batches: Sequence[Any]) -> tuple[list[float], list[float]]:
    """Return the seconds and the losses of the released loop's first steps; reading and cropping images is part."""
    schedule = replace(Schedule(), epochs=bench.sizes.timed_steps)
    loop = ReleasedLoop(bench.model, CLASSES, bench.learner.start(0)[0], schedule)
    mix, seconds, losses = parse_losses(loss), [], []
    for epoch, (rows, views, labels) in enumerate(batches):
        started = time.process_time()
        pixels = [
            viewing(bench.model, bench.views, view).preprocess(bench.cohort.source.read(row))
            for row, view in zip(rows, views, strict=True)
        ]
        losses.append(loop.step(epoch, torch.stack(pixels), labels, mix))
        seconds.append(time.process_time() - started)
    return seconds, losses


def released_test_batch(bench: Bench) -> None:
    """Evaluate one whole batch of test images as the released code does."""
    loop = ReleasedLoop(bench.model, CLASSES, bench.learner.start(0)[0], Schedule())
    rows = range(min(TEST_BATCH, len(bench.test)))
    loop.evaluate([torch.stack([bench.model.preprocess(bench.test.source.read(row)) for row in rows])])


def batches_of(few_shot: FewShotSet, n_views: int, steps: int) -> list[tuple[list[int], list[int], torch.Tensor]]:
    """Return the images, views and classes of the first steps of seed 0, in the order that `train_prompts` draws."""
    problem, found = few_shot.train[0], []
    for epoch in range(steps):
        rng = np.random.default_rng([few_shot.seed, 1, epoch])
        order, view = rng.permutation(len(problem.rows)), rng.integers(n_views, size=len(problem.rows))
        labels = torch.from_numpy(problem.truth[order])
        found.append((problem.rows[order].tolist(), view[order].tolist(), labels))
    return found


def one_run(bench: Bench, batches: Sequence[Any]) -> tuple[dict[str, Any], EmbeddedViews]:
    """Return part (a), and the float32 views of seed 0."""
    sizes, schedule = bench.sizes, replace(Schedule(), epochs=bench.sizes.epochs)
    fast = fast_precision(torch.device("cpu"))
    seconds: dict[str, list[float]] = {"released_step": [], fast: []}

    def ours(precision: Precision) -> EmbeddedViews:
        found = our_views(bench, 1, precision)
        our_trainings(bench, LOSSES[-1], 1, found, schedule)
        return found

    for _ in range(sizes.repeats):
        seconds["released_step"] += timed("released steps", lambda: released_steps(bench, LOSSES[-1], batches))[1][0]
        seconds[fast].append(timed(f"our run, {fast}", lambda: ours(fast))[0])
    float32_seconds, float32 = timed("our run, float32", lambda: ours("float32"))
    released = statistics.median(seconds["released_step"]) * sizes.epochs
    our_seconds = {"float32": float32_seconds, fast: statistics.median(seconds[fast])}
    return {
        "released_seconds_extrapolated": released,
        "released_steps_timed": len(seconds["released_step"]),
        "our_seconds": our_seconds,
        "times_faster": {name: released / value for name, value in our_seconds.items()},
        "seconds": seconds,
    }, float32


def sweep(bench: Bench, batches: Sequence[Any], float32: EmbeddedViews) -> tuple[dict[str, Any], list[LossRow]]:
    """Return part (b) and its rows."""
    sizes, fast = bench.sizes, fast_precision(torch.device("cpu"))
    evaluation = timed("released test batch", lambda: released_test_batch(bench))[0] * sizes.test_batches
    views_seconds, images = timed("our views", lambda: our_views(bench, sizes.seeds, fast))
    test_seconds, units = timed("our test images", lambda: our_test_units(bench, fast))
    rows = [one_loss(bench, loss, batches, images, float32, units) for loss in sizes.losses]
    released = sum(row.released_training_seconds_extrapolated for row in rows) + len(rows) * sizes.seeds * evaluation
    trainings = sum(row.our_training_seconds for row in rows)
    total = views_seconds + test_seconds + trainings
    return {
        "losses": len(rows),
        "seeds": sizes.seeds,
        "test_images": sizes.n_test,
        "precision": fast,
        "released_seconds_extrapolated": released,
        "released_evaluation_seconds_of_one_run": evaluation,
        "our_seconds": {"views": views_seconds, "test images": test_seconds, "trainings": trainings, "total": total},
        "times_faster": released / total,
        "largest_loss_difference": max(row.largest_loss_difference for row in rows),
    }, rows


def one_loss(
    bench: Bench, loss: str, batches: Sequence[Any], images: EmbeddedViews, float32: EmbeddedViews, units: np.ndarray
) -> LossRow:
    """Return a row: the released loop's first steps, then our trainings and their evaluation; losses are compared."""
    sizes = bench.sizes
    schedule, short = replace(Schedule(), epochs=sizes.epochs), replace(Schedule(), epochs=sizes.timed_steps)
    seconds, theirs = timed(f"released, {loss}", lambda: released_steps(bench, loss, batches))[1]

    def ours() -> list[float]:
        return our_evaluation(bench, our_trainings(bench, loss, sizes.seeds, images, schedule), units)

    our_seconds = timed(f"ours, {loss}", ours)[0]
    same = our_trainings(bench, loss, 1, float32, short)[0].losses
    difference = float(np.abs(np.subtract(same, theirs)).max())
    if difference > TOLERANCE:
        raise SystemExit(f"Losses of {loss} differ by {difference:g} with the same views: {same}, {theirs}.")
    step = statistics.median(seconds)
    training = step * sizes.epochs * sizes.seeds
    return LossRow(loss, step, training, our_seconds, training / our_seconds, difference, len(theirs), max(theirs))


def measure(sizes: Sizes) -> tuple[dict[str, Any], list[LossRow]]:
    """Return all facts and the sweep's rows."""
    load = [os.getloadavg()[0]]
    with tempfile.TemporaryDirectory() as name:
        bench = prepare(Path(name), sizes)
        batches = batches_of(bench.sets[0], bench.sizes.views, bench.sizes.timed_steps)
        one, float32 = one_run(bench, batches)
        load.append(os.getloadavg()[0])
        many, losses = sweep(bench, batches, float32)
    load.append(os.getloadavg()[0])
    machine = {"processor": processor(), "cores": available_cores(), "threads": torch.get_num_threads()}
    machine |= {"torch": torch.__version__, "load_average_before_between_after": load}
    machine["busy"] = min(load) > available_cores()
    return {"machine": machine, "sizes": asdict(bench.sizes), "one_run": one, "sweep": many}, losses


def rows(quick: bool) -> list[Row]:
    """Return the rows of one run and of the sweep."""
    return rows_of(measure(QUICK if quick else Sizes(repeats=1))[0])


def rows_of(found: dict[str, Any]) -> list[Row]:
    """Return the rows of what was measured; the sweep's floor is the embedding of its images."""
    one, many, sizes = found["one_run"], found["sweep"], found["sizes"]
    fast, spent = many["precision"], many["our_seconds"]
    agreement = f"{many['largest_loss_difference']:.0e} of a loss, same views"
    return [
        Row(
            "prompt tuning, one run",
            f"{SHOTS} shots, {sizes['epochs']} epochs",
            one["our_seconds"][fast],
            "CalibPrompt's released loop",
            one["released_seconds_extrapolated"],
            extrapolated=True,
            agreement=agreement,
        ),
        Row(
            "prompt-tuning sweep",
            f"{many['losses']} losses x {many['seeds']} seeds",
            spent["total"],
            "CalibPrompt's released loop",
            many["released_seconds_extrapolated"],
            extrapolated=True,
            agreement=agreement,
            floor_seconds=spent["views"] + spent["test images"],
            floor="embedding its images once",
            bar=30,
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one loss, few steps and images, nothing written")
    parser.add_argument("--repeats", type=int, default=Sizes.repeats, help="of the one run, whose median is shown")
    given = parser.parse_args()
    facts, losses = measure(QUICK if given.quick else Sizes(repeats=given.repeats))
    table = pd.DataFrame([asdict(row) for row in losses])
    print(table.round(4).to_string(index=False))
    print(json.dumps(facts, indent=2))
    if not given.quick:
        write_csv(FIGURES / "prompt_tuning.csv", table.round(6))
        (FIGURES / "prompt_tuning.json").write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main()
