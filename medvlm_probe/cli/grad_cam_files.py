"""The files of `grad-cam`: tidy tables, everything as JSON, panels, error galleries and the measures against chance."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from medvlm_probe.cli.distance_files import FIGURE_FORMATS, write_figure
from medvlm_probe.runs import write_bytes_atomically, write_csv, write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from medvlm_probe.cli.grad_cam_run import MapRequest, MapResult
    from medvlm_probe.cli.output import Output
    from medvlm_probe.plots.saliency import HeatMapRow
    from medvlm_probe.saliency.heat_map_study import LabelMaps

CONTROL_WORDS = {
    "wrong_label": "Control: as {label}",
    "nonsense": "Control: nonsense label",
    "random_weights": "Control: random weights",
}
GALLERY = 4
IMAGES_DPI = 180.0
FALSE_ALARM_FROM = 0.9
FIGURE_MEASURES = {
    "pointing_game": "Pointing game",
    "iou": "IoU",
    "relevance_mass": "Relevance mass",
    "average_precision": "Pixel AP",
}


def write_maps(output: Output, folder: Path, result: MapResult, request: MapRequest) -> list[Path]:
    """Write the tables, the JSON and the figures; returns the files written."""
    from medvlm_probe.cli.grad_cam_run import DRAWN_UNASKED
    from medvlm_probe.saliency.heat_map_tables import (
        control_table,
        curve_table,
        faithfulness_table,
        image_table,
        localization_table,
        strata_table,
    )

    material, found = result.material, result.found
    cohort = material.done.cohort
    tables = {
        "localization": localization_table(found),
        "strata": strata_table(found),
        "controls": control_table(found),
        "faithfulness": faithfulness_table(found),
        "faithfulness_curves": curve_table(found),
        "images": image_table(found, cohort, material.names, result.scores),
        "key": _key(result),
    }
    if request.regions is not None:
        tables["regions_skipped"] = request.regions.skipped
    written = []
    for name, table in tables.items():
        path = folder / f"{name}.csv"
        if len(table):
            write_csv(path, table)
            written.append(path)
        else:
            path.unlink(missing_ok=True)
    write_json(folder / "grad-cam.json", result.json)
    written.append(folder / "grad-cam.json")

    labels = list(dict.fromkeys(entry.label for entry in found))
    drawn = [label for label in labels if label in request.labels]
    if not drawn:
        most = {label: max(int(e.located.sum()) for e in found if e.label == label) for label in labels}
        drawn = sorted(labels, key=lambda label: -most[label])[:DRAWN_UNASKED]
        if len(labels) > len(drawn):
            names = ", ".join(cohort.card.words(label) for label in drawn)
            output.say(f"Drawing panels of {names}; name others with --label.")
    for label in drawn if request.panels else ():
        written += _write_images(folder / f"panels_{label}", _panels(result, request, label))
        gallery = _gallery(result, request, label)
        if gallery is not None:
            written += _write_images(folder / f"errors_{label}", gallery)
    if len(tables["localization"]):
        written += write_figure(folder / "localization", _measures(result, tables["localization"]))
    if len(tables["faithfulness"]):
        figure = _faithfulness(result, tables["faithfulness_curves"], tables["faithfulness"])
        written += write_figure(folder / "faithfulness", figure)
    return written


def _write_images(path: Path, figure: Figure) -> list[Path]:
    """Write a figure of many images at the resolution that radiographs of a few centimetres need."""
    from medvlm_probe.plots.style import figure_bytes

    written = []
    for file_format in FIGURE_FORMATS:
        target = path.with_name(f"{path.name}.{file_format}")
        write_bytes_atomically(target, figure_bytes(figure, file_format, dpi=IMAGES_DPI))
        written.append(target)
    return written


def _key(result: MapResult) -> pd.DataFrame:
    """Return which image a pseudonym stands for; this file stays on the machine."""
    cohort = result.material.done.cohort
    used = sorted({int(row) for entry in result.found for row in entry.rows} | _rows_of_alarms(result))
    images = cohort.table["image"].to_numpy(dtype=str)
    return pd.DataFrame({"image": [result.material.names[row] for row in used], "original_image": images[used]})


def _panels(result: MapResult, request: MapRequest, label: str) -> Figure:
    from medvlm_probe.plots.saliency import HeatMapRow, heat_map_panels

    entries = [entry for entry in result.found if entry.label == label]
    by_name = {one.setting.name: one for one in result.settings}
    cohort, first = result.material.done.cohort, entries[0]
    card = cohort.card
    settings = {entry.setting: by_name[entry.setting].setting.words for entry in entries}
    controls = {
        name: CONTROL_WORDS[name].format(label=card.words(control.label).lower())
        for name, control in first.controls.items()
    }
    rows: list[HeatMapRow] = []
    for at, row in enumerate(first.rows[: request.panels].tolist()):
        picture = result.material.images.image(row)
        image = np.asarray(picture.convert("L"))
        maps = {entry.setting: _on_image(result, entry, picture.size, entry.maps[at]) for entry in entries}
        maps |= {
            name: _on_image(result, first, picture.size, control.maps[at]) for name, control in first.controls.items()
        }
        region = result.material.images.region(row, label)
        mask = None if region is None else region.mask(*image.shape)
        words = {entry.setting: _score_words(result, entry, row) for entry in entries}
        rows.append(HeatMapRow(_name(result, row, label), image, maps, mask, words))
    base = result.material.done.model.name
    drawn_from = "drawn at random among those with a region" if first.located.all() else "drawn at random"
    drawn = f"{len(rows)} image{'s' if len(rows) > 1 else ''} {drawn_from}." if len(request.cohort) > 1 else ""
    note = " ".join(filter(None, [_scale_note(result, first), drawn, result.note]))
    return heat_map_panels(
        rows,
        settings | controls,
        unit=_unit(result, request, label),
        scale_from=tuple(settings),
        title=f"Where {base} looks: {card.words(label)}",
        note=note,
    )


def _gallery(result: MapResult, request: MapRequest, label: str) -> Figure | None:
    """Return the most confident misses and false alarms of the first setting; None where there are none to show."""
    from medvlm_probe.plots.saliency import GalleryEntry, error_gallery
    from medvlm_probe.saliency.heat_map_study import maps_of

    entry = next(found for found in result.found if found.label == label)
    score = result.scores[entry.setting, label]
    if score.scales[0] != "percentile":
        return None
    card = result.material.done.cohort.card
    setting = next(one.setting for one in result.settings if one.setting.name == entry.setting)
    values = score.values[:, 0]
    missed = [at for at in np.argsort(values[entry.rows], kind="stable") if values[entry.rows[at]] < 0.5][:GALLERY]
    alarms = _alarms(result, entry)
    maps = {int(entry.rows[at]): entry.maps[at] for at in missed}
    if alarms:
        made = maps_of(result.material.images, setting, label, alarms, request.options)
        maps |= dict(zip(alarms, made, strict=True))

    def shown(row: int) -> GalleryEntry:
        picture = result.material.images.image(row)
        image = np.asarray(picture.convert("L"))
        region = result.material.images.region(row, label)
        site = str(result.material.done.cohort.sites()[row])
        words = [", ".join(filter(None, [result.material.names[row], site])), _above(values[row], "negatives")]
        mask = None if region is None else region.mask(*image.shape)
        return GalleryEntry(words, image, _on_image(result, entry, picture.size, maps[row]), mask)

    words = card.words(label)
    groups = {
        f"Misses: labelled {words.lower()}, ranked below the median negative": [
            shown(int(entry.rows[at])) for at in missed
        ],
        f"False alarms: not labelled {words.lower()}, ranked above {100 * FALSE_ALARM_FROM:.0f} % of negatives": [
            shown(row) for row in alarms
        ],
    }
    if not any(groups.values()):
        return None
    note = f"{setting.words}. The worst of {len(entry.rows)} positives and {int(score.n_negatives[0])} negatives."
    return error_gallery(
        groups,
        unit=_unit(result, request, label),
        n_columns=GALLERY,
        title=f"Most confident errors of {result.material.done.model.name}: {words}",
        note=" ".join(filter(None, [note, result.note])),
    )


def _measures(result: MapResult, table: pd.DataFrame) -> Figure:
    from medvlm_probe.plots.saliency_measures import localization_figure

    cohort = result.material.done.cohort
    first = result.settings[0].setting.name
    own = table[table["maps"] == "own"]
    wrong = table[(table["maps"] == "wrong_label") & (table["setting"] == first)].assign(setting="wrong_label")
    settings = {one.setting.name: one.setting.words for one in result.settings}
    if len(wrong):
        settings["wrong_label"] = f"{settings[first]}, map of another label"
    return localization_figure(
        pd.concat([own, wrong]),
        FIGURE_MEASURES,
        settings=settings,
        controls=("wrong_label",),
        labels_words={label: cohort.card.words(label) for label in own["label"].unique()},
        title=f"Do maps of {result.material.done.model.name} find the findings?",
        note=result.note or None,
    )


def _faithfulness(result: MapResult, curves: pd.DataFrame, areas: pd.DataFrame) -> Figure:
    from medvlm_probe.plots.saliency_faithfulness import faithfulness_figure
    from medvlm_probe.saliency.faithfulness import FILLS

    fills = {entry.faithfulness.fill for entry in result.found if entry.faithfulness is not None}
    words = [f"In a patch's place: {FILLS[fill]}." for fill in sorted(fills)]
    return faithfulness_figure(
        curves,
        areas[areas["measure"].str.endswith("_gain")],
        settings={one.setting.name: one.setting.words for one in result.settings},
        labels_words={label: result.material.done.cohort.card.words(label) for label in areas["label"].unique()},
        title=f"Do maps of {result.material.done.model.name} mark what moves its logit?",
        note=" ".join(filter(None, [*words, result.note])),
    )


def _alarms(result: MapResult, entry: LabelMaps) -> list[int]:
    """Return the negatives that a setting ranks highest among the negatives, the worst first."""
    score = result.scores[entry.setting, entry.label]
    if score.scales[0] != "percentile":
        return []
    targets = result.material.done.cohort.targets([entry.label])[:, 0]
    rows = np.flatnonzero((targets == 0) & result.material.reference & (score.values[:, 0] >= FALSE_ALARM_FROM))
    order = np.argsort(-score.values[rows, 0], kind="stable")
    return [int(row) for row in rows[order][:GALLERY]]


def _rows_of_alarms(result: MapResult) -> set[int]:
    first = result.settings[0].setting.name
    return {row for entry in result.found if entry.setting == first for row in _alarms(result, entry)}


def _on_image(
    result: MapResult,
    entry: LabelMaps,
    size: tuple[int, int],
    values: np.ndarray[tuple[int, int], np.dtype[np.float32]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    model = next(one.setting.model for one in result.settings if one.setting.name == entry.setting)
    return result.material.images.on_original(model, size, values)


def _name(result: MapResult, row: int, label: str) -> str:
    cohort = result.material.done.cohort
    words = cohort.card.words(label)
    value = float(cohort.targets([label])[row, 0])
    state = {1.0: f"labelled {words.lower()}", 0.0: f"not labelled {words.lower()}"}.get(value, "")
    return ", ".join(filter(None, [result.material.names[row], str(cohort.sites()[row]), state]))


def _score_words(result: MapResult, entry: LabelMaps, row: int) -> str:
    score = result.scores[entry.setting, entry.label]
    value = float(score.values[row, 0])
    return _above(value) if score.scales[0] == "percentile" else f"p = {value:.2f}"


def _above(share: float, of: str = "") -> str:
    """Return a place among the negatives in words: `above 87 %`, and with what they are `above 87 % of negatives`."""
    if share == 1:
        return f"above all {of}".rstrip()
    return f"above {100 * share:.0f} %" + (f" of {of}" if of else "")


def _scale_note(result: MapResult, entry: LabelMaps) -> str:
    from medvlm_probe.saliency.comparable_scores import SCALE_WORDS

    return SCALE_WORDS[result.scores[entry.setting, entry.label].scales[0]]


def _unit(result: MapResult, request: MapRequest, label: str) -> str:
    from medvlm_probe.saliency.methods import METHODS

    method = METHODS[request.options.method]
    words = result.material.done.cohort.card.words(label).lower()
    reading = f"orange speaks for {words}, blue against it" if method.signed else "the larger, the more it counts"
    return f"{method.title} in units of the logit: {reading}. One scale for all maps of this figure."
