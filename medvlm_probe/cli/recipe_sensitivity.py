"""`medvlm-probe cohort check --recipe-sensitivity`: how far windows and scalings move a model's embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from medvlm_probe.cli.output import Output, interval

if TYPE_CHECKING:
    from medvlm_probe.cohort.cohort import Cohort
    from medvlm_probe.embeddings.recipe_sensitivity import RecipeSensitivity


def measure(output: Output, cohort: Cohort, model: str, device: str, workers: int | None) -> RecipeSensitivity:
    """Return how far every other recipe moves the cohort's embeddings, saying what is done."""
    from medvlm_probe.embeddings.recipe_sensitivity import recipe_sensitivity
    from medvlm_probe.models.zoo import load_model

    return recipe_sensitivity(cohort, load_model(model, device=device), workers=workers, say=output.say)


def print_sensitivity(output: Output, found: RecipeSensitivity) -> None:
    """Print a row a recipe, and what the numbers mean."""
    rows = [
        (
            effect.recipe,
            f"{effect.n_images:,}",
            f"{effect.n_unreadable:,}",
            f"{effect.n_changed:,}",
            interval(effect.displacement, 2),
            interval(effect.recognised, 2),
        )
        for effect in found.effects
    ]
    output.table(
        f"How far other recipes move {found.model}'s embeddings from those of {found.recipe}",
        ("Recipe", "Images", "Not readable", "Changed", "Displacement ↓", "Recognised ↑"),
        rows,
        caption=f"{found.n_sampled:,} of {found.n_given:,} images; value [95 % interval]. Displacement: 0 is none, 1 "
        "as far as another patient's image lies. Recognised: the nearest image is still the same one.",
    )


def sensitivity_json(found: RecipeSensitivity) -> dict[str, Any]:
    """Return what the JSON of `cohort check` holds."""
    effects = [
        {
            "recipe": effect.recipe,
            "n_images": effect.n_images,
            "n_unreadable": effect.n_unreadable,
            "n_changed": effect.n_changed,
            "displacement": effect.displacement.to_json(),
            "recognised": effect.recognised.to_json(),
        }
        for effect in found.effects
    ]
    return {"recipe": found.recipe, "model": found.model, "n_sampled": found.n_sampled, "effects": effects}
