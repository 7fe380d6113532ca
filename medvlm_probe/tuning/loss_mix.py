"""Losses composed from a line such as `ls+1.0*smac(alpha=0.1)+3.0*as`: read, checked, and summed with their weights."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from medvlm_probe.errors import InputError, unknown_name
from medvlm_probe.tuning.calibration_losses import (
    angular_separation,
    dca,
    mdca,
    mmce,
    orthogonality,
    penalty,
    smac,
)
from medvlm_probe.tuning.prompt_pair_losses import by_label, over_entries, pair_orthogonality, pair_separation
from medvlm_probe.tuning.task_losses import brier, cross_entropy, focal, label_smoothing, logitnorm, mbls, zs_norm

if TYPE_CHECKING:
    from torch import Tensor

Needs = Literal["logits", "zero-shot logits", "text features"]


@dataclass(frozen=True)
class LossKind:
    """One entry of the registry.

    Attributes:
        compute: for several classes; options are its keyword-only arguments.
        teaches: whether it teaches the classes: a composition needs one that does.
        needs: what it reads: `logits` (and labels), those and `zero-shot logits`, or `text features` alone.
        of_pairs: for several labels: a function of logits and labels' own, or of text features (L, 2, D).
    """

    compute: Callable[..., Tensor]
    teaches: bool
    needs: Needs
    of_pairs: Callable[..., Tensor]

    @property
    def options(self) -> Mapping[str, Any]:
        """The options by name, with their defaults."""
        both = {**_keywords(self.compute), **(_keywords(self.of_pairs) if self.needs == "text features" else {})}
        return dict(sorted(both.items()))


LOSSES: Mapping[str, LossKind] = {
    "ce": LossKind(cross_entropy, True, "logits", over_entries),
    "fl": LossKind(focal, True, "logits", over_entries),
    "ls": LossKind(label_smoothing, True, "logits", over_entries),
    "mbls": LossKind(mbls, True, "logits", over_entries),
    "logitnorm": LossKind(logitnorm, True, "logits", over_entries),
    "brier": LossKind(brier, True, "logits", over_entries),
    "zs-norm": LossKind(zs_norm, True, "zero-shot logits", over_entries),
    "dca": LossKind(dca, False, "logits", by_label),
    "mdca": LossKind(mdca, False, "logits", by_label),
    "mmce": LossKind(mmce, False, "logits", by_label),
    "smac": LossKind(smac, False, "logits", by_label),
    "penalty": LossKind(penalty, False, "zero-shot logits", over_entries),
    "as": LossKind(angular_separation, False, "text features", pair_separation),
    "o-tpt": LossKind(orthogonality, False, "text features", pair_orthogonality),
}
"""The losses by the name that commands take."""

ALIASES: Mapping[str, str] = {
    "cross_entropy": "ce",
    "focal": "fl",
    "label_smoothing": "ls",
    "zs_norm": "zs-norm",
    "angular_separation": "as",
    "otpt": "o-tpt",
    "orthogonality": "o-tpt",
}
"""Other names of the same losses: the functions'."""

_NUMBER = r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_TERM = re.compile(rf"(?:(?P<weight>{_NUMBER})\*)?(?P<name>[A-Za-z][A-Za-z_-]*)(?:\((?P<options>[^()]*)\))?")
_OPTION = re.compile(rf"(?P<name>[a-z_]+)=(?P<value>{_NUMBER}|true|false)")


@dataclass(frozen=True)
class LossTerm:
    """A loss of `LOSSES` by name, its weight (above 0) and the options that differ from its defaults."""

    name: str
    weight: float = 1.0
    options: Mapping[str, float | bool] = field(default_factory=dict)

    @property
    def kind(self) -> LossKind:
        """The registry's entry."""
        return LOSSES[self.name]

    def __str__(self) -> str:
        options = ",".join(f"{name}={_shown(value)}" for name, value in sorted(self.options.items()))
        weight = "" if self.weight == 1 else f"{_shown(self.weight)}*"
        return f"{weight}{self.name}{f'({options})' if options else ''}"


@dataclass(frozen=True)
class LossMix:
    """A weighted sum of losses, at least one of which teaches the classes; `str()` of it reads back to the same mix."""

    terms: tuple[LossTerm, ...]

    def needs(self, what: Needs) -> bool:
        """Say whether a term reads this."""
        return any(term.kind.needs == what for term in self.terms)

    def without_gradient(self, n_classes: int) -> str:
        """Return a sentence about a term that cannot teach anything, "" where all can.

        ZS-Norm scales an image's logits to the range of its zero-shot ones: two classes' become the ends of that range
        wherever they were. Several labels are two classes each.
        """
        if n_classes > 2 or not any(term.name == "zs-norm" for term in self.terms):
            return ""
        return "ZS-Norm has no gradient with two classes: scaled to a range, two logits are always its ends."

    def parts(
        self,
        logits: Tensor,
        labels: Tensor,
        *,
        text_features: Tensor | None = None,
        zero_shot_logits: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Return each term's value before its weight, scalars by name.

        Args:
            logits: (N, K), or (N, L, 2) for several labels, their negative prompt first.
            labels: integers (N,), or (N, L) of 1, 0 and NaN.
            text_features: unit vectors (K, D) or (L, 2, D), where a term needs them.
            zero_shot_logits: of the logits' shape, where a term needs them.

        Raises:
            InputError: what a term needs is missing, or shapes do not fit.
        """
        given = {"text features": text_features, "zero-shot logits": zero_shot_logits}
        return {term.name: _value(term, logits, labels, given) for term in self.terms}

    def __call__(
        self,
        logits: Tensor,
        labels: Tensor,
        *,
        text_features: Tensor | None = None,
        zero_shot_logits: Tensor | None = None,
    ) -> Tensor:
        """Return the weighted sum, a scalar; arguments as in `parts`."""
        parts = self.parts(logits, labels, text_features=text_features, zero_shot_logits=zero_shot_logits)
        weighted = [term.weight * parts[term.name] for term in self.terms]
        return sum(weighted[1:], weighted[0])

    def __str__(self) -> str:
        return "+".join(str(term) for term in self.terms)


def parse_losses(text: str, **shared: float) -> LossMix:
    """Return the mix that a line such as `ls+1.0*smac(alpha=0.1)+3.0*as` composes.

    Terms are joined by `+`; a term is `[weight*]name[(option=number,...)]`, weight 1 unless given. No code is run.

    Args:
        text: the line; names of `LOSSES` or `ALIASES`, in either case.
        shared: options for every term that has them and does not state its own: `alpha=0.1` for `ls` and `smac` alike.

    Raises:
        InputError: a line that is not of this form, a loss named twice, a weight of 0, a shared option that no term
            has, or no term that teaches the classes.
        UnknownNameError: a name or option that does not exist.
    """
    terms = _terms(text)
    names = [term.name for term in terms]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"Loss '{text}' names {' and '.join(twice)} twice: give it once, with a weight.")
    if not any(term.kind.teaches for term in terms):
        teaching = ", ".join(name for name, kind in LOSSES.items() if kind.teaches)
        raise InputError(
            f"Loss '{text}' has no term that teaches the classes: {' and '.join(names)} alone can be smallest for a "
            f"model that tells nothing apart. Add one of {teaching}: 'ce+{text}'."
        )
    for option in shared:
        if not any(option in term.kind.options for term in terms):
            raise InputError(f"No term of loss '{text}' has an option '{option}'; leave it out.")
    return LossMix(
        tuple(
            LossTerm(
                term.name, term.weight, {k: v for k, v in shared.items() if k in term.kind.options} | dict(term.options)
            )
            for term in terms
        )
    )


def _terms(text: str) -> list[LossTerm]:
    line = re.sub(r"\s+", "", text)
    terms: list[LossTerm] = []
    start = 0
    while not terms or start < len(line):
        # A plus sign may also stand in a number (1e+2), so terms are read in turn rather than split.
        found = _TERM.match(line, start)
        if found is None or line[found.end() : found.end() + 1] not in ("", "+") or line.endswith("+"):
            raise InputError(
                f"Loss '{text}' cannot be read at '{line[start:]}': expected [weight*]name[(option=number,...)] joined "
                "by +, as in ls+0.5*smac(alpha=0.1)+3*as."
            )
        terms.append(_term(found))
        start = found.end() + 1
    return terms


def _term(found: re.Match[str]) -> LossTerm:
    given = found["name"].lower()
    name = ALIASES.get(given, given)
    if name not in LOSSES:
        raise unknown_name("loss", given, [*LOSSES, *ALIASES])
    weight = float(found["weight"] or 1)
    if weight == 0:
        raise InputError(f"Loss '{name}' has weight 0: expected above 0, or leave the term out.")
    return LossTerm(name, weight, _options(name, found["options"]))


def _options(name: str, text: str | None) -> dict[str, float | bool]:
    known = LOSSES[name].options
    options: dict[str, float | bool] = {}
    for item in text.split(",") if text else []:
        found = _OPTION.fullmatch(item)
        if found is None:
            raise InputError(f"'{item}' is no option of loss '{name}': expected name=number.")
        if found["name"] not in known:
            raise unknown_name(f"option of loss '{name}'", found["name"], known)
        value = found["value"]
        if isinstance(known[found["name"]], bool) != (value in ("true", "false")):
            expected = "true or false" if isinstance(known[found["name"]], bool) else "a number"
            raise InputError(f"Option {item} of loss '{name}': expected {expected}.")
        options[found["name"]] = value == "true" if value in ("true", "false") else float(value)
    return options


def _value(term: LossTerm, logits: Tensor, labels: Tensor, given: Mapping[str, Tensor | None]) -> Tensor:
    kind = term.kind
    extra = given.get(kind.needs)
    if kind.needs != "logits" and extra is None:
        raise InputError(f"Loss '{term.name}' needs {kind.needs}, which were not given.")
    several_labels = logits.ndim == 3
    if kind.needs == "text features":
        function = kind.of_pairs if several_labels else kind.compute
        unused = [option for option in term.options if option not in _keywords(function)]
        if unused:
            raise InputError(
                f"Option '{unused[0]}' of loss '{term.name}' is for several labels, each with two prompts."
            )
        return function(extra, **term.options)
    others = [extra] if extra is not None and kind.needs == "zero-shot logits" else []

    def compute(*arguments: Tensor) -> Tensor:
        return kind.compute(*arguments, **term.options)

    return kind.of_pairs(compute, logits, labels, *others) if several_labels else compute(logits, labels, *others)


def _keywords(function: Callable[..., Any]) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


def _shown(value: float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value!r}"
