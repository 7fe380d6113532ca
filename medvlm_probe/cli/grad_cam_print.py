"""What `grad-cam` prints: where the maps lie, whether they follow the label, whether they mark what moves the logit."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from medvlm_probe.cli.output import Output, interval, number

if TYPE_CHECKING:
    from medvlm_probe.cli.grad_cam_run import MapResult
    from medvlm_probe.saliency.heat_map_study import LabelMaps
    from medvlm_probe.saliency.localization_estimates import LocalizationEstimate

MEASURES_SHOWN = {"pointing_game": "Pointing game", "iou": "IoU", "relevance_mass": "Relevance mass"}
ALIKE = {"wrong_label": "Like wrong label", "nonsense": "Like nonsense", "random_weights": "Like random weights"}

FOLLOW_CAPTION = (
    "Own less wrong label: pixel AP of the maps, same images; it decides. Like: rank correlation with a control's "
    "maps, 1 for the same map. Without regions, or under 10 patients with one, nothing passes."
)
GAIN_CAPTION = (
    "How much sooner than patches in random order the map's highest patches lower the logit when they are taken out, "
    "and raise it when they are put back: areas in units of the logit, above 0 is better."
)
OUTSIDE = (
    "the maps lie outside the regions more than a flat map would. Either the model's signal comes from elsewhere, or "
    "these maps do not show it: --faithfulness tells which. Choose another --layer or --method on another split."
)
GAINS = {"deletion_gain": "Gain, taken out", "insertion_gain": "Gain, put back"}


def print_maps(output: Output, result: MapResult) -> None:
    """Print where the maps lie and whether they follow the label, for each setting."""
    from medvlm_probe.saliency.heat_map_study import DECIDES
    from medvlm_probe.saliency.methods import METHODS

    words = result.material.done.cohort.card.words
    for place, one in enumerate(result.settings):
        entries = [entry for entry in result.found if entry.setting == one.setting.name]
        measured = [entry for entry in entries if entry.estimates]
        title, last = f"{one.setting.words}, {one.setting.model.name}", place == len(result.settings) - 1
        if measured:
            output.table(
                f"{title}: do the maps lie in the regions?",
                ("Label", "Images", *MEASURES_SHOWN.values()),
                [
                    (
                        words(entry.label),
                        str(int(entry.located.sum())),
                        *(_with_chance(entry, measure) for measure in MEASURES_SHOWN),
                    )
                    for entry in measured
                ],
                caption=_how_measured(measured) if last else "",
            )
        output.table(
            f"{title}: do the maps follow the label?",
            ("Label", "Images", "Own less wrong label", *ALIKE.values(), "Verdict"),
            [
                (
                    words(entry.label),
                    str(len(entry.rows)),
                    interval(entry.verdict.difference, 2),
                    *(_alike(entry, name) for name in ALIKE),
                    entry.verdict.outcome,
                )
                for entry in entries
            ],
            caption=FOLLOW_CAPTION if last else "",
        )
        _print_faithfulness(output, title, entries, words, last)
        outside = [words(entry.label) for entry in measured if _below_chance(entry.estimates[DECIDES])]
        if outside:
            output.line(f"{', '.join(outside)}: {OUTSIDE}")
        for entry in entries:
            if DECIDES in entry.found_less_missed:
                apart = interval(entry.found_less_missed[DECIDES], 2)
                output.line(f"{words(entry.label)}: pixel AP where it is found less where it is missed: {apart}.")
        output.line(one.seen.reason)
    method = METHODS[result.json["method"]]
    output.line(f"{method.title}: {method.says}")
    if result.note:
        output.line(result.note)
    output.line("Figures hold the images themselves, under pseudonyms; key.csv tells which they are.")


def _how_measured(measured: list[LabelMaps]) -> str:
    """Return what stands below the table of measures: what chance is, and where the threshold of IoU is from."""
    from medvlm_probe.saliency.localization import OTSU

    sources = sorted({entry.threshold.source for entry in measured})
    chosen = [source for source in sources if source != OTSU.source]
    chance = "a flat map and a centred one"
    if chosen:
        chance = f"a flat map, a centred one and the label's mean region on '{chosen[0]}'"
    marked = "Otsu's threshold of each map" if not chosen else f"a threshold chosen on '{chosen[0]}'"
    if chosen and OTSU.source in sources:
        marked = f"a threshold chosen on '{chosen[0]}', Otsu's for labels without a region there"
    return (
        "Value [95 % interval], ? where it is unreliable at this size; in brackets chance: the best of "
        f"{chance}. IoU at {marked}."
    )


def _print_faithfulness(
    output: Output, title: str, entries: list[LabelMaps], words: Callable[[str], str], last: bool
) -> None:
    rows = [
        (
            words(entry.label),
            str(len(entry.faithfulness.deletion)),
            *(interval(entry.faithfulness_estimates[name], 2) for name in GAINS),
        )
        for entry in entries
        if entry.faithfulness is not None
    ]
    if rows:
        output.table(
            f"{title}: do the maps mark what moves the logit?",
            ("Label", "Images", *GAINS.values()),
            rows,
            caption=GAIN_CAPTION if last else "",
        )


def _below_chance(measure: LocalizationEstimate) -> bool:
    gain = measure.over_chance["uniform"]
    return gain.reliable and gain.high < 0


def _with_chance(entry: LabelMaps, measure: str) -> str:
    found = entry.estimates[measure]
    chance = max(level.value for level in found.chance.values())
    return f"{interval(found.estimate, 2)} ({number(chance, 2)})"


def _alike(entry: LabelMaps, control: str) -> str:
    return interval(entry.controls[control].similarity["spearman"], 2) if control in entry.controls else "–"
