"""What repairs are fitted on and measured on: labels of part of the site's patients, and the other patients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.audit.calibration import known_columns
from medvlm_probe.audit.inputs import AuditInputs, Deployed, Side, halves, people
from medvlm_probe.errors import InputError
from medvlm_probe.types import BoolArray, FloatArray, Scores

if TYPE_CHECKING:
    from medvlm_probe.embeddings.acquisition_embeddings import AcquisitionEmbeddings
    from medvlm_probe.models.contract import VisionLanguageModel
    from medvlm_probe.zero_shot.prompts import PromptSet

FEWEST = 20
"""People in either half of the site."""


@dataclass(frozen=True, eq=False)
class Tools:
    """What repairs need besides the audit's inputs; a repair whose tool is missing is left out and says so.

    Attributes:
        score: from vectors before normalisation to the model's scores of the audited labels.
        model: for prompts and fine-tuning.
        prompts: plain texts of the audited labels, for their presence and absence.
        augmented: gives images of the reference under acquisition transforms.
        train: whether prompts and the last block are trained too, which takes minutes to hours.
        reread: labels of the site's images read again, NaN where they were not, (n, L) of `AuditInputs.site`.
        folder: where finished parts are kept until the end, so that a killed run goes on; None keeps nothing.
        say: told what is done next, and what it takes.
    """

    score: Callable[[FloatArray], Scores]
    model: VisionLanguageModel | None = None
    prompts: PromptSet | None = None
    augmented: Callable[[], AcquisitionEmbeddings] | None = None
    train: bool = False
    reread: NDArray[np.float64] | None = None
    folder: Path | None = None
    say: Callable[[str], None] = lambda text: None


class Answer(NamedTuple):
    """What a repaired model says of the held-out images: P(present) and what it calls, (n, L) each."""

    p: NDArray[np.float64]
    called: NDArray[np.bool_]


Draws = Sequence[NDArray[np.int64]]
"""Rows of the pool that are labelled, in the order in which they are read; each draw another order."""


@dataclass(frozen=True, eq=False)
class Bench:
    """What every repair shares.

    Attributes:
        inputs, deployed, tools: of the audit.
        columns: the labels measured, as columns of the audited ones: ten people with and without each in both halves.
        in_pool: which of the site's images labels may be drawn of, (n,); the others are held out.
        pool, held_out: those images.
        shared: what several repairs use and one of them computed.
    """

    inputs: AuditInputs
    deployed: Deployed
    tools: Tools
    columns: list[int]
    in_pool: BoolArray
    pool: Side
    held_out: Side
    shared: dict[str, Any] = field(default_factory=dict)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels measured."""
        return tuple(self.inputs.labels[k] for k in self.columns)

    @property
    def truth(self) -> NDArray[np.float64]:
        """1, 0 or NaN of the held-out images, (n, L)."""
        return np.asarray(self.held_out.targets[:, self.columns])

    @property
    def taught(self) -> NDArray[np.float64]:
        """1, 0 or NaN of the pool's images, (m, L)."""
        return np.asarray(self.pool.targets[:, self.columns])

    def deploy(self, scores: Scores | None) -> Answer:
        """Return what the model with the reference's calibration and thresholds says of scored images."""
        if scores is None or self.deployed.calibrator is None:
            raise InputError("Nothing was scored.")
        p = self.deployed.calibrator.apply(scores).values[:, self.columns].astype(np.float64)
        return Answer(p, np.asarray(self.deployed.called(scores)[:, self.columns]))

    def as_it_is(self) -> Answer:
        """Return what the unrepaired model says of the held-out images."""
        return self.deploy(self.held_out.scores)


def make_bench(inputs: AuditInputs, tools: Tools, rng: np.random.Generator) -> Bench:
    """Return the site's patients in two halves, alike in labels.

    Raises:
        InputError: no labels at the site or the reference, no probabilities, or too few people.
    """
    if inputs.deployed is None or inputs.deployed.calibrator is None or inputs.site.scores is None:
        raise InputError("The model as it is needs labels at the reference, and prompts that give probabilities.")
    in_pool = halves(inputs.site.groups, inputs.site.targets, rng)
    pool, held_out = inputs.site.rows(in_pool), inputs.site.rows(~in_pool)
    columns = [k for k in known_columns(held_out) if np.isfinite(inputs.deployed.cuts[k])]
    if not columns or min(people(pool.groups), people(held_out.groups)) < FEWEST:
        raise InputError("The site has too few people, or no label known of ten with and ten without it in each half.")
    return Bench(inputs, inputs.deployed, tools, columns, in_pool, pool, held_out)


def logistic(logits: FloatArray) -> NDArray[np.float64]:
    """Return 1 / (1 + exp(-x)), without overflow."""
    return np.asarray(1 / (1 + np.exp(-np.clip(logits, -50, 50))))
