"""What repairs it: remedies fitted on part of the site's patients, measured on the others, by labels spent."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.audit.inputs import AuditInputs, people
from medvlm_probe.audit.repair_bench import Bench, Draws, Tools, make_bench
from medvlm_probe.audit.repair_journal import journal_of
from medvlm_probe.audit.repair_outcomes import Outcome, adjusted, outcome_of
from medvlm_probe.audit.repair_reread import SHARES, Reread, examine_rereading
from medvlm_probe.audit.repairs import FAMILIES, REMEDIES, SIZES, Remedy
from medvlm_probe.errors import InputError, ModelError

NOT_ASKED = "Not computed: it fits many remedies. Ask for it with --repair."
SHOWN_AUROC = 0.02
CLOSE = 0.9
"""A size nearer than this to all images is left to them."""


@dataclass(frozen=True)
class Repair:
    """Every remedy by labels spent.

    Attributes:
        outcomes: `none` first.
        labels: those that are measured.
        n_pool, n_held_out: people that labels are drawn from, and that results are of.
        seconds: it took; a run that goes on counts only what it did itself.
        left_out: remedies that were not fitted, with the reason.
        reread: what reading labels again is worth; None where too few were.
    """

    outcomes: tuple[Outcome, ...]
    labels: tuple[str, ...]
    n_pool: int
    n_held_out: int
    seconds: float
    left_out: Mapping[str, str]
    reread: Reread | None

    @property
    def cheapest(self) -> Outcome | None:
        """The repair with a gain shown that needs the fewest labelled images; of equals the one that gains most."""
        helping = [outcome for outcome in self.outcomes if outcome.helps]
        return min(helping, key=lambda o: (o.n_images, -o.brier_gain.value), default=None)

    @property
    def best(self) -> Outcome | None:
        """The repair that gains most, where a gain is shown."""
        helping = [outcome for outcome in self.outcomes if outcome.helps]
        return max(helping, key=lambda o: o.brier_gain.value, default=None)

    @property
    def sentence(self) -> str:
        """The cheapest remedy that is shown to help, the best one, and what each costs."""
        n_tested = sum(not np.isnan(outcome.p_value) for outcome in self.outcomes)
        cheapest, best = self.cheapest, self.best
        if cheapest is None or best is None:
            text = f"None of {n_tested} repairs tried is shown to help on patients that it was not fitted on"
        else:
            before = self.outcomes[0].metrics["brier"].value
            gain = cheapest.brier_gain
            text = (
                f"The cheapest repair shown to help is {_named(cheapest)}: it lowers the Brier score from {before:.3f} "
                f"by {gain.value:.3f} ({gain.low:.3f} to {gain.high:.3f}; corrected for {n_tested} repairs)"
            )
            if best is not cheapest:
                text += f"; most is gained by {_named(best)}, {best.brier_gain.value:.3f}"
        harmful = sum(outcome.harms for outcome in self.outcomes)
        if harmful:
            text += f". {harmful} of the repairs {'does' if harmful == 1 else 'do'} harm"
        order = self.outcomes[0].metrics["auroc"].value
        ranked = max(self.outcomes, key=lambda outcome: outcome.metrics["auroc"].value)
        better = ranked.metrics["auroc"].value
        if better - order > SHOWN_AUROC:
            text += f". Mean AUROC rises from {order:.2f} to at best {better:.2f} with {_named(ranked)}"
        return f"{text}. {self.reread.sentence}" if self.reread else f"{text}."

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {
            "sentence": self.sentence,
            "labels": list(self.labels),
            "n_pool": self.n_pool,
            "n_held_out": self.n_held_out,
            "outcomes": [outcome.to_json() for outcome in self.outcomes],
            "left_out": dict(self.left_out),
            "reread": self.reread.to_json() if self.reread else None,
        }


def examine_repair(
    inputs: AuditInputs,
    tools: Tools,
    *,
    remedies: Mapping[str, Remedy] = REMEDIES,
    shares: Sequence[float] = SHARES,
) -> Repair:
    """Return what remedies are worth.

    Every remedy gets the same labelled images: a draw is an order of the pool's images, and n of them are its first n.

    Args:
        inputs: of the audit.
        tools: what remedies need.
        remedies: to try.
        shares: of the labels that are read again.

    Raises:
        InputError: no labels at the site or the reference, no probabilities, or too few people.
        StoreError: finished parts cannot be kept.
    """
    started = time.perf_counter()
    rng = inputs.rng("repair")
    bench = make_bench(inputs, tools, rng)
    known = np.flatnonzero(~np.isnan(bench.taught).all(axis=1))
    orders = [rng.permutation(known) for _ in range(max(remedy.draws for remedy in remedies.values()))]
    left_out = {name: why for name, remedy in remedies.items() if (why := remedy.missing(tools))}
    plan = [
        (name, n) for name, remedy in remedies.items() if name not in left_out for n in _sizes_of(remedy, len(known))
    ]
    journal = journal_of(bench, {"plan": [list(step) for step in plan]})
    _announce(bench, remedies, plan)
    base = [bench.as_it_is()]
    truth, groups = bench.truth, bench.held_out.groups
    outcomes = [outcome_of(("none", "as it is", ""), 0, [], base, base, truth, groups)]
    for name, n in plan:
        remedy = remedies[name]
        draws = _drawn(orders, n, len(known), remedy)
        begun = time.perf_counter()
        try:
            answers = journal.answers(f"{name} {n}", partial(remedy.fit, bench, draws))
        except (InputError, ModelError) as error:
            left_out[name] = str(error)
            continue
        used = [int((~np.isnan(bench.taught[rows])).sum()) for rows in draws if n]
        about = name, remedy.words, FAMILIES[remedy.family]
        spent = time.perf_counter() - begun
        outcomes.append(outcome_of(about, n, used, answers, base, truth, groups, seconds=spent))
        tools.say(f"  {name}, {n:,} images: Brier gain {outcomes[-1].brier_gain.value:.4f}, {spent:.0f} s.")
    try:
        reread = examine_rereading(bench, shares=shares)
    except InputError as error:
        reread, left_out["reading again"] = None, str(error)
    seconds = time.perf_counter() - started
    n_pool, n_held_out = people(bench.pool.groups), people(groups)
    return Repair(adjusted(outcomes), bench.labels, n_pool, n_held_out, seconds, left_out, reread)


def _sizes_of(remedy: Remedy, n_known: int) -> list[int]:
    """Return how many images are labelled: those asked for that the site has, and all where there are fewer."""
    if not remedy.sizes:
        return [0]
    fewer = [n for n in remedy.sizes if n < CLOSE * n_known]
    every = remedy.sizes == SIZES or not fewer
    return [*fewer, n_known] if every else fewer


def _drawn(orders: list[NDArray[np.int64]], n: int, n_known: int, remedy: Remedy) -> Draws:
    """Return the images labelled in each draw, in the order in which they are read; all of them make one draw."""
    if not n:
        return [orders[0][:0]]
    # The order still decides which images are shots, so prompts keep their draws where all images are read.
    n_draws = remedy.draws if n < n_known or remedy.family == "prompts" else 1
    return [order[:n] for order in orders[:n_draws]]


def _announce(bench: Bench, remedies: Mapping[str, Remedy], plan: list[tuple[str, int]]) -> None:
    """Say what will be fitted and about how long it takes, from one measured unit of each kind of work."""
    measured: dict[Any, float] = {}
    seconds = 0.0
    for name, n in plan:
        remedy = remedies[name]
        if remedy.unit is not None:
            if remedy.unit not in measured:
                # The first time also loads and allocates.
                measured[remedy.unit] = min(remedy.unit(bench) for _ in range(2))
            n_draws = remedy.draws if n else 1
            seconds += n_draws * remedy.units(n, len(bench.held_out)) * measured[remedy.unit]
    bench.tools.say(
        f"Repairs: {len(plan)} to fit on up to {len(bench.pool):,} images and measure on {len(bench.held_out):,} "
        f"others, about {_duration(seconds)}. Killed, the same command goes on."
    )


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _named(outcome: Outcome) -> str:
    cost = f"{outcome.n_images:,} labelled images" if outcome.n_images else "no labels of the site"
    return f"{outcome.words} ({cost})"
