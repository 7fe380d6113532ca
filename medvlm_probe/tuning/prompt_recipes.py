"""The published recipes of prompt tuning, as data by model and data set."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from medvlm_probe.errors import unknown_name
from medvlm_probe.tuning.prompt_tuning import Schedule

FILE = Path(__file__).parent / "recipes" / "calibprompt.toml"


@dataclass(frozen=True)
class PromptRecipe:
    """What the released code sets for one model and data set.

    Attributes:
        name: `MODEL-DATASET`.
        alpha: smoothing of label smoothing and SMAC.
        separation: weight of angular separation.
        context: context vectors. shots: images a class.
        schedule: of the optimiser.
    """

    name: str
    alpha: float
    separation: float
    context: int
    shots: int
    schedule: Schedule

    @property
    def loss(self) -> str:
        """The line that `parse_losses` reads."""
        return f"ls(alpha={self.alpha})+smac(alpha={self.alpha})+{self.separation}*as"


def prompt_recipe(name: str) -> PromptRecipe:
    """Return a recipe by name. Raises UnknownNameError."""
    found = prompt_recipes()
    if name not in found:
        raise unknown_name("recipe", name, found)
    return found[name]


@cache
def prompt_recipes() -> dict[str, PromptRecipe]:
    """Return all recipes by name."""
    content = tomllib.loads(FILE.read_text(encoding="utf-8"))
    return {name: _recipe(name, content["common"] | own) for name, own in content["recipes"].items()}


def _recipe(name: str, fields: dict[str, Any]) -> PromptRecipe:
    own = {key: fields.pop(key) for key in ("alpha", "separation", "context", "shots")}
    return PromptRecipe(name=name, schedule=Schedule(**fields), **own)
