"""Many ways to get probabilities from one model, each for many few-shot draws: trained or fitted, kept on disk."""

from __future__ import annotations

import re
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from medvlm_probe.errors import InputError
from medvlm_probe.tuning.loss_mix import LossMix, parse_losses
from medvlm_probe.tuning.post_hoc import LEAST, POST_HOC, Calibrator, Task, fit_post_hoc
from medvlm_probe.types import BoolArray, FloatArray, Scores
from medvlm_probe.zero_shot.text_embeddings import label_directions, unit_rows

if TYPE_CHECKING:
    from medvlm_probe.cohort.cohort import Cohort
    from medvlm_probe.tuning.few_shot import FewShotSet
    from medvlm_probe.tuning.tune_prompts import Material
    from medvlm_probe.zero_shot.prompts import PromptSet

ZERO_SHOT = "zero-shot"
SHOTS, SPLIT = "shots", "split"

DEFAULT_METHODS = (
    ZERO_SHOT,
    "temperature",
    "ce",
    "ls",
    "fl",
    "brier",
    "mbls",
    "logitnorm",
    "ce+dca",
    "ce+mdca",
    "ls+mdca",
    "fl+mdca",
    "ce+2*mmce",
    "ce+penalty",
    "ce+zs-norm",
    "ls+o-tpt",
    "ls+smac",
    "ls+smac+as",
    "ce+smac+as",
)
"""What is compared unless methods are named: CalibPrompt, the baselines of its paper, and those that it leaves out.
Weights are those of the released configuration."""

ABLATED_METHODS = (ZERO_SHOT, "temperature", "ce", "ls", "ls+smac", "ls+smac+as", "ce+smac+as")
"""What is compared for each value of an ablation unless methods are named."""


@dataclass(frozen=True)
class SweepMethod:
    """One way to get probabilities.

    Attributes:
        name: as tables show it.
        loss: that prompts are tuned with; None for zero-shot prompts.
        post_hoc: key of `POST_HOC`, of zero-shot scores; "" for none.
        fitted_on: `shots` (the few-shot draw's images) or `split`; "" where nothing is fitted after the fact.
    """

    name: str
    loss: LossMix | None = None
    post_hoc: str = ""
    fitted_on: Literal["", "shots", "split"] = ""

    @property
    def folder(self) -> str:
        """A name for files."""
        return re.sub(r"[^a-z0-9.]+", "-", self.name.replace("*", "x").replace("=", "")).strip("-")


def parse_methods(
    names: Sequence[str], task: Task, n_classes: int, *, has_split: bool
) -> tuple[tuple[SweepMethod, ...], tuple[str, ...]]:
    """Return the methods that names stand for, zero-shot first, each once, and sentences about what is left out.

    A name is `zero-shot`, a line of losses (`ls+smac+as`), or a post-hoc method of `POST_HOC`: `temperature@shots`
    (fitted on each draw's images), `temperature@split` (on the split for fits), `temperature` for both that there are.

    Args:
        names: in the order of tables.
        task: of the cohort.
        n_classes: labels of a single-label cohort; several labels are two classes each.
        has_split: whether a split for fits is named.

    Raises:
        InputError: a line that is no composition of losses, or a fit on a split where none is named.
        UnknownNameError: no such loss.
    """
    found, notes = [SweepMethod(ZERO_SHOT)], []
    for name in names:
        kind, _, where = name.partition("@")
        if kind in POST_HOC and kind != "none":
            found += _post_hoc_methods(kind, where, task, has_split)
            if not has_split and not where:
                notes.append(f"No split for fits is named, so {kind} is fitted on the few-shot images alone.")
        elif name != ZERO_SHOT:
            loss = parse_losses(name)
            note = loss.without_gradient(2 if task == "multi_label" else n_classes)
            notes += [f"{note} '{loss}' is left out."] if note else []
            found += [] if note else [SweepMethod(str(loss), loss)]
    return tuple({method.name: method for method in found}.values()), tuple(dict.fromkeys(notes))


def _post_hoc_methods(kind: str, where: str, task: Task, has_split: bool) -> list[SweepMethod]:
    if where not in ("", SHOTS, SPLIT):
        raise InputError(f"'{kind}@{where}': expected {kind}@{SHOTS} or {kind}@{SPLIT}.")
    if where == SPLIT and not has_split:
        raise InputError(f"'{kind}@{SPLIT}' is fitted on a split that no result uses: name it with --fit-from.")
    if task not in POST_HOC[kind].tasks:
        raise InputError(f"'{kind}' is not for {task} cohorts. Take temperature or platt.")
    wanted = (where,) if where else (SHOTS, SPLIT) if has_split else (SHOTS,)
    places: dict[str, Literal["shots", "split"]] = {SHOTS: "shots", SPLIT: "split"}
    return [SweepMethod(f"{kind}@{w}", None, kind, places[w]) for w in wanted]


@dataclass(frozen=True, eq=False)
class SweepMaterial:
    """What all methods share.

    Attributes:
        tuning: of prompts: learner, embedded views, schedule, scale.
        few_shot: D draws, of rows of the cohort.
        cohort: all images that have a part.
        vectors: their embeddings before normalisation, (n, D).
        prompts: of zero-shot.
        fitted_on: images of the split for fits, (n,); none where there is no such split.
    """

    tuning: Material
    few_shot: tuple[FewShotSet, ...]
    cohort: Cohort
    vectors: NDArray[np.floating]
    prompts: PromptSet
    fitted_on: BoolArray

    @property
    def single(self) -> bool:
        """Whether exactly one label is right an image."""
        return self.cohort.card.task == "single_label"


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a method gives, for each draw or, where it does not depend on the draw, once.

    Attributes:
        method: which.
        features: unit text features, (D, K, E) for one right label an image, else (D, L, 2, E), absence first.
        calibrators: fitted afterwards, D of them, or none.
        logit_scale: the multiplier of cosines.
        labels: of the task.
        labels_used: known labels that a draw's fit rests on.
        n_parameters: numbers fitted.
        n_steps: of training.
        seconds: of training or fitting all draws; NaN where all were read from disk.
        peak_bytes: the process's largest memory so far, of a GPU's the largest of this method.
        notes: sentences of the fits.
    """

    method: SweepMethod
    features: NDArray[np.float32]
    calibrators: tuple[Calibrator, ...]
    logit_scale: float
    labels: tuple[str, ...]
    labels_used: int
    n_parameters: int
    n_steps: int
    seconds: float
    peak_bytes: int
    notes: tuple[str, ...] = ()

    def probabilities(self, vectors: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return each draw's probabilities of images, (D, n, K), or (1, n, K) where they do not depend on the draw."""
        logits = class_scores(vectors, self.features, self.logit_scale)
        if self.calibrators:
            ids = tuple(map(str, range(len(vectors))))
            scores = Scores(logits[0], "logit", self.labels, ids)
            return np.stack([calibrator.apply(scores).values for calibrator in self.calibrators])
        return np.asarray(softmax(logits, axis=-1) if self.features.ndim == 3 else expit(logits))

    @property
    def cosines(self) -> NDArray[np.float64]:
        """The mean cosine between the texts' features, over all pairs, of each draw, (D,)."""
        flat = self.features.reshape(len(self.features), -1, self.features.shape[-1]).astype(np.float64)
        n = flat.shape[1]
        products = np.einsum("dke,dle->dkl", flat, flat)
        return np.asarray((products.sum(axis=(1, 2)) - np.trace(products, axis1=1, axis2=2)) / (n * (n - 1)))


def class_scores(
    vectors: NDArray[np.floating], features: NDArray[np.floating], logit_scale: float
) -> NDArray[np.float64]:
    """Return logits (D, n, K) of images (n, E) by features as `Outcome` has them; of several labels presence less
    absence."""
    units = unit_rows(vectors)
    directions = features if features.ndim == 3 else features[:, :, 1] - features[:, :, 0]
    n_draws, n_labels, width = directions.shape
    products = units @ directions.reshape(-1, width).T
    return logit_scale * products.reshape(len(units), n_draws, n_labels).transpose(1, 0, 2).astype(np.float64)


def run_sweep(
    material: SweepMaterial,
    methods: Sequence[SweepMethod],
    folder: Path | None,
    *,
    source: str = "",
    say: Callable[[str], None] = lambda words: None,
) -> Iterator[Outcome]:
    """Yield what each method gives, in order; tuned prompts lie in the folder, and a rerun goes on from there.

    Args:
        material: what they share.
        methods: from `parse_methods`.
        folder: of tuned prompts, a folder a method in it; None keeps nothing.
        source: the name of the split for fits.
        say: takes a line for people, a method.

    Raises:
        InputError: a folder that holds prompts of another configuration, or a loss that is no longer finite.
        StoreError: the folder cannot be written.
    """
    untuned = zero_shot_features(material)
    for number, method in enumerate(methods, start=1):
        if method.loss is not None:
            outcome = _tuned(material, method, folder)
            done = "read" if np.isnan(outcome.seconds) else f"tuned in {outcome.seconds:.1f} s"
            say(f"{number} of {len(methods)}: {method.name}, {len(outcome.features)} draws {done}.")
        else:
            outcome = _untuned(material, method, untuned, source)
        yield outcome


def zero_shot_features(material: SweepMaterial) -> NDArray[np.float32]:
    """Return the untuned prompts' unit features, (1, K, E) or (1, L, 2, E)."""
    directions = label_directions(material.tuning.learner.model, material.prompts)
    if material.single:
        return directions.positive[None]
    if directions.negative is None:
        raise InputError(f"Prompt set '{material.prompts.name}' has no texts for absence. Take --prompts chexzero.")
    return np.stack([directions.negative, directions.positive], axis=1)[None]


def _tuned(material: SweepMaterial, method: SweepMethod, folder: Path | None) -> Outcome:
    import torch

    from medvlm_probe.tuning import tune_prompts as tuning
    from medvlm_probe.tuning.prompt_tuning import TEXTS_AT_ONCE, Training

    shared = material.tuning
    if method.loss is None:
        raise InputError(f"{method.name} tunes nothing.")
    device = shared.images.views.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    names = {f"seed-{drawn.seed:02d}": Training(method.loss, drawn, drawn.seed) for drawn in material.few_shot}
    before = _prompt_files(folder, method)
    start = time.monotonic()
    tuned = tuning.tune_prompts(shared, names, None if folder is None else folder / method.folder)
    seconds = time.monotonic() - start
    contexts = torch.from_numpy(np.stack([prompts.context for prompts in tuned.values()]))
    at_once = max(1, TEXTS_AT_ONCE // len(shared.learner.context_of))
    with torch.inference_mode():
        parts = [shared.learner.features(part.to(device)).float().cpu() for part in torch.split(contexts, at_once)]
    first = next(iter(tuned.values()))
    return Outcome(
        method,
        torch.cat(parts).numpy(),
        (),
        shared.logit_scale,
        shared.labels,
        labels_used=material.few_shot[0].n_labels_used,
        n_parameters=int(first.context.size),
        n_steps=int(first.about["steps"]),
        seconds=float("nan") if before == len(names) else seconds,
        peak_bytes=torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _peak_bytes(),
    )


def _prompt_files(folder: Path | None, method: SweepMethod) -> int:
    from medvlm_probe.zero_shot.tuned_prompts import FACTS_FILE

    return 0 if folder is None else len(list((folder / method.folder).glob(f"*/{FACTS_FILE}")))


def _untuned(material: SweepMaterial, method: SweepMethod, features: NDArray[np.float32], source: str) -> Outcome:
    shared, start = material.tuning, time.monotonic()
    calibrators: list[Calibrator] = []
    used = 0
    if method.fitted_on:
        logits = class_scores(material.vectors, features, shared.logit_scale)[0]
        task: Task = "single_label" if material.single else "multi_label"
        shots = material.few_shot[0].shots
        least = LEAST if method.fitted_on == SPLIT else min(LEAST, shots)
        for scores, targets, name in _fit_sets(material, method, logits, source):
            calibrators.append(
                fit_post_hoc(
                    method.post_hoc, scores, targets, task=task, source=name, least=least, share_temperature=True
                )
            )
            used = int((targets == targets).any(axis=1).sum()) if material.single else int((targets == targets).sum())
    return Outcome(
        method,
        features,
        tuple(calibrators),
        shared.logit_scale,
        shared.labels,
        labels_used=used,
        n_parameters=calibrators[0].n_parameters if calibrators else 0,
        n_steps=0,
        seconds=time.monotonic() - start if calibrators else 0.0,
        peak_bytes=_peak_bytes(),
        notes=tuple(dict.fromkeys(note for calibrator in calibrators for note in calibrator.notes)),
    )


def _fit_sets(
    material: SweepMaterial, method: SweepMethod, logits: FloatArray, source: str
) -> Iterator[tuple[Scores, FloatArray, str]]:
    """Yield scores and targets that a post-hoc method is fitted on: the split's, or each draw's own labels alone."""
    labels = material.tuning.labels
    if method.fitted_on == SPLIT:
        rows = np.flatnonzero(material.fitted_on)
        targets = material.cohort.targets(labels)[rows]
        yield Scores(logits[rows], "logit", labels, tuple(map(str, rows))), targets, source
        return
    for drawn in material.few_shot:
        rows = drawn.rows
        targets = np.full((len(rows), len(labels)), np.nan)
        for problem in (*drawn.train, *drawn.validation):
            at = np.searchsorted(rows, problem.rows)
            if material.single:
                targets[at] = np.eye(len(labels))[problem.truth]
            else:
                targets[at, labels.index(problem.label)] = problem.truth
        yield Scores(logits[rows], "logit", labels, tuple(map(str, rows))), targets, f"draw {drawn.seed}"


def _peak_bytes() -> int:
    """Return the process's largest resident memory so far."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
