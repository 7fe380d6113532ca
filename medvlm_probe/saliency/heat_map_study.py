"""Maps of one label in one setting: held against regions, against chance, and against maps that must not find anything.

A setting is a model and whose logits are explained: prompts, a linear probe, a fine-tuned model's head, tuned prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.cohort.cohort import Cohort
from medvlm_probe.cohort.regions import Region, Regions
from medvlm_probe.embeddings.precision import device_of
from medvlm_probe.embeddings.threads import torch_threads
from medvlm_probe.metrics.intervals import paired_mean
from medvlm_probe.saliency.comparable_scores import ComparableScores
from medvlm_probe.saliency.controls import ControlVerdict, control_maps, control_verdict, map_similarity
from medvlm_probe.saliency.faithfulness import Faithfulness, deletion_and_insertion
from medvlm_probe.saliency.grad_cam import saliency_maps
from medvlm_probe.saliency.heat_map_strata import Stratum, found_less_missed, outcomes_of, strata_of
from medvlm_probe.saliency.image_choice import Rows
from medvlm_probe.saliency.localization import OTSU, IouThreshold, Localization, choose_threshold, measure_sets
from medvlm_probe.saliency.localization_chance import RegionPrior, region_prior
from medvlm_probe.saliency.localization_estimates import LocalizationEstimate
from medvlm_probe.saliency.methods import METHODS
from medvlm_probe.saliency.pixel_geometry import geometry_of
from medvlm_probe.saliency.random_weights import with_random_weights
from medvlm_probe.saliency.targets import Target
from medvlm_probe.types import BoolArray, Estimate, IntArray

if TYPE_CHECKING:
    import PIL.Image
    from torch import Tensor

    from medvlm_probe.models.contract import VisionLanguageModel

OWN = "own"
"""What files call the label's own maps, beside the names of `controls.CONTROLS`."""

DECIDES = "average_precision"
"""The measure that the verdict on the controls compares: defined for every map, whatever its scale and sign."""

PIXEL_PATCHES = (16, 16)
"""The patches that are taken out one by one where a map has no patches of its own."""


@dataclass(frozen=True, eq=False)
class MapSetting:
    """One way to use a model, whose maps are drawn: its key, its words for people, the model and its logits."""

    name: str
    words: str
    model: VisionLanguageModel
    target: Target


@dataclass(frozen=True)
class MapOptions:
    """How maps are made, and what is done with them.

    Attributes:
        method: a key of `methods.METHODS`.
        layer: in place of the model's own.
        seed: of the controls, and of the random orders of patches.
        faithfulness: images of each label, the first ones, whose patches are taken out and put back; 0 for none.
    """

    method: str = "grad-cam"
    layer: str | None = None
    seed: int = 0
    faithfulness: int = 0


@dataclass(frozen=True, eq=False)
class Control:
    """Maps that should not find the label.

    Attributes:
        label: what they are of.
        maps: (n, h, w), of the label's images.
        similarity: `spearman` and `ssim` of each image's map to the label's own, as means.
        localization: of the images with a region; None where there are none.
        estimates: of those.
    """

    label: str
    maps: NDArray[np.float32]
    similarity: Mapping[str, Estimate]
    localization: Localization | None
    estimates: Mapping[str, LocalizationEstimate]


@dataclass(frozen=True, eq=False)
class LabelMaps:
    """One label's maps in one setting.

    Attributes:
        label, setting: names.
        rows: the images, (n,).
        maps: (n, h, w), signed, as the method gives them.
        logits: (n,).
        layer: where they were taken.
        located: which images have a region, (n,).
        localization: of those; None without any.
        estimates: measure to its mean, chance levels and differences to them; empty without regions.
        controls: by the names of `controls.CONTROLS`.
        verdict: whether the maps follow the label.
        strata: of the images with a region.
        found_less_missed: measure to its mean on images that the setting found less that on those it missed with
            confidence; empty where there are too few of either, or where nothing says which they are.
        faithfulness: of the first images; None where it was not asked for.
        faithfulness_estimates: its areas and gains over random order; empty without it.
        threshold: of IoU.
    """

    label: str
    setting: str
    rows: Rows
    maps: NDArray[np.float32]
    logits: NDArray[np.float32]
    layer: str
    located: BoolArray
    localization: Localization | None
    estimates: Mapping[str, LocalizationEstimate]
    controls: Mapping[str, Control]
    verdict: ControlVerdict
    strata: tuple[Stratum, ...]
    found_less_missed: Mapping[str, Estimate] = field(default_factory=dict)
    faithfulness: Faithfulness | None = None
    faithfulness_estimates: Mapping[str, Estimate] = field(default_factory=dict)
    threshold: IouThreshold = OTSU


@dataclass(frozen=True, eq=False)
class Chosen:
    """What was chosen for one label and setting on a split that no result uses."""

    threshold: IouThreshold = OTSU
    prior: RegionPrior | None = None


@dataclass(frozen=True, eq=False)
class StudyImages:
    """A cohort's images with their regions; images and preprocessed pixels are made when they are asked for.

    Attributes:
        cohort: images that can all be read.
        regions: of them; None where none are known.
    """

    cohort: Cohort
    regions: Regions | None
    names: NDArray[np.str_] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", self.cohort.table["image"].to_numpy(dtype=str))

    def image(self, row: int) -> PIL.Image.Image:
        """Return an image as it is shown."""
        return self.cohort.source.read(row)

    def region(self, row: int, label: str) -> Region | None:
        """Return where the label is in an image; None where that is not known."""
        return None if self.regions is None else self.regions.get(str(self.names[row]), label)

    def on_original(
        self, model: VisionLanguageModel, size: tuple[int, int], values: NDArray[np.floating]
    ) -> NDArray[np.float32]:
        """Return a model's map (h, w) on the pixels of an original image of this size (width, height)."""
        return geometry_of(model, size).to_original(values)


def study_label(
    images: StudyImages,
    setting: MapSetting,
    label: str,
    rows: Rows,
    options: MapOptions,
    *,
    scores: ComparableScores | None = None,
    chosen: Chosen | None = None,
    randomised: VisionLanguageModel | None = None,
) -> LabelMaps:
    """Return the maps of a label's images, and all that is measured on them.

    Args:
        images: the cohort.
        setting: whose maps.
        label: one of its target's.
        rows: the images.
        options: of the maps.
        scores: of all images of the cohort in this setting, its one label: strata by how sure the setting was.
        chosen: thresholds and a prior from another split; None takes Otsu's threshold and no prior.
        randomised: the setting's model with random weights, see `control_maps`.

    Raises:
        ModelError: of the method, the layer or the model's geometry.
        InputError: a region that does not fit its image.
    """
    import torch

    chosen = chosen or Chosen()
    pictures = [images.image(row) for row in rows.tolist()]
    sizes = [picture.size for picture in pictures]
    regions = [images.region(row, label) for row in rows.tolist()]
    located = np.array([region is not None for region in regions], dtype=bool)
    masks = [r.mask(h, w) for r, (w, h) in zip(regions, sizes, strict=True) if r is not None]
    groups = images.cohort.groups()[rows]
    model = setting.model
    with torch_threads():
        pixels = torch.stack([model.preprocess(picture) for picture in pictures]).to(device_of(model))
        own = saliency_maps(model, pixels, setting.target, labels=[label], method=options.method, layer=options.layer)
        others = control_maps(
            model,
            pixels,
            setting.target,
            label,
            seed=options.seed,
            method=options.method,
            layer=options.layer,
            randomised=randomised,
        )

    maps = {OWN: own.values[:, 0]} | {name: made.values[:, 0] for name, made in others.items()}
    measured = {}
    if located.any():
        on_pixels = (
            {name: images.on_original(model, sizes[at], values[at]) for name, values in maps.items()}
            for at in np.flatnonzero(located).tolist()
        )
        measured = measure_sets(on_pixels, masks, list(maps), threshold=chosen.threshold, prior=chosen.prior)
    with_region = groups[located]
    estimates = {name: found.estimates(with_region) for name, found in measured.items()}
    controls = {
        name: Control(
            made.labels[0],
            maps[name],
            {kind: _mean(v, groups) for kind, v in map_similarity(maps[OWN], maps[name]).items()},
            measured.get(name),
            estimates.get(name, {}),
        )
        for name, made in others.items()
    }
    found = measured.get(OWN)
    outcomes = outcomes_of(scores, rows[located])
    faithful = _faithfulness(setting, label, pixels, maps[OWN], options)
    return LabelMaps(
        label=label,
        setting=setting.name,
        rows=rows,
        maps=maps[OWN],
        logits=own.logits[:, 0],
        layer=own.layer,
        located=located,
        localization=found,
        estimates=estimates.get(OWN, {}),
        controls=controls,
        verdict=_verdict(found, controls, with_region),
        strata=strata_of(found, images.cohort.sites()[rows[located]], with_region, outcomes) if found else (),
        found_less_missed=found_less_missed(found.values, outcomes, with_region) if found else {},
        faithfulness=faithful,
        faithfulness_estimates=faithful.estimates(groups[: len(faithful.deletion)]) if faithful else {},
        threshold=chosen.threshold,
    )


def choose_on_split(
    images: StudyImages, setting: MapSetting, label: str, rows: Rows, options: MapOptions, source: str
) -> Chosen:
    """Return the IoU threshold and the label's mean region from images of a split that no result uses.

    Without a region there, Otsu's threshold and no prior.
    """
    import torch

    pairs = [(row, images.region(row, label)) for row in rows.tolist()]
    with_region = [(images.image(row), region) for row, region in pairs if region is not None]
    if not with_region:
        return Chosen()
    model = setting.model
    with torch_threads():
        pixels = torch.stack([model.preprocess(picture) for picture, _ in with_region]).to(device_of(model))
        made = saliency_maps(model, pixels, setting.target, labels=[label], method=options.method, layer=options.layer)
    masks = [region.mask(picture.size[1], picture.size[0]) for picture, region in with_region]
    maps = [
        images.on_original(model, picture.size, values)
        for (picture, _), values in zip(with_region, made.values[:, 0], strict=True)
    ]
    prior = region_prior(masks, source)
    return Chosen(choose_threshold(maps, masks, source, prior=prior), prior)


def maps_of(
    images: StudyImages, setting: MapSetting, label: str, rows: Sequence[int], options: MapOptions
) -> NDArray[np.float32]:
    """Return a label's maps of some images, (n, h, w), and nothing else: for the error gallery."""
    import torch

    with torch_threads():
        pixels = torch.stack([setting.model.preprocess(images.image(row)) for row in rows])
        made = saliency_maps(
            setting.model,
            pixels.to(device_of(setting.model)),
            setting.target,
            labels=[label],
            method=options.method,
            layer=options.layer,
        )
    return made.values[:, 0]


def study(
    images: StudyImages,
    settings: Sequence[MapSetting],
    rows_of: Mapping[str, Rows],
    options: MapOptions,
    *,
    scores: Mapping[tuple[str, str], ComparableScores],
    chosen: Mapping[tuple[str, str], Chosen],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[LabelMaps]:
    """Return every label's maps in every setting that knows the label, labels in their order.

    Args:
        images, settings, options: see `study_label`.
        rows_of: label to its images.
        scores, chosen: by setting and label, see `study_label`.
        progress: takes how many maps of labels' images are done, of how many.
    """
    asked = [(label, setting) for label in rows_of for setting in settings if label in setting.target.labels]
    total, done = sum(len(rows_of[label]) for label, _ in asked), 0
    found = []
    models = {id(setting.model): setting.model for _, setting in asked}
    randomised = {key: with_random_weights(model, options.seed) for key, model in models.items()}
    for label, setting in asked:
        key = (setting.name, label)
        found.append(
            study_label(
                images,
                setting,
                label,
                rows_of[label],
                options,
                scores=scores.get(key),
                chosen=chosen.get(key),
                randomised=randomised[id(setting.model)],
            )
        )
        done += len(rows_of[label])
        progress(done, total)
    return found


def _mean(values: NDArray[np.float64], groups: IntArray) -> Estimate:
    """Return the mean of similarities; its interval ends where they do, at -1 and 1."""
    known = np.isfinite(values)
    found = paired_mean(values[known], groups[known])
    return replace(found, low=float(np.maximum(found.low, -1)), high=float(np.minimum(found.high, 1)))


def _verdict(own: Localization | None, controls: Mapping[str, Control], groups: IntArray) -> ControlVerdict:
    wrong = controls["wrong_label"].localization if "wrong_label" in controls else None
    if own is None or wrong is None:
        return control_verdict(None, None, groups)
    values, others = own.values[DECIDES], wrong.values[DECIDES]
    known = np.isfinite(values) & np.isfinite(others)
    return control_verdict(values[known], others[known], groups[known])


def _faithfulness(
    setting: MapSetting, label: str, pixels: Tensor, maps: NDArray[np.float32], options: MapOptions
) -> Faithfulness | None:
    if not options.faithfulness:
        return None
    target = setting.target.select([label])

    def score(taken: Tensor) -> Tensor:
        return target.logits(setting.model.encode_images(taken))[:, 0]

    by_pixel = METHODS[options.method].grid == "pixels"
    with torch_threads():
        return deletion_and_insertion(
            score,
            pixels[: options.faithfulness],
            maps[: options.faithfulness],
            rng=np.random.default_rng([options.seed, 2]),
            patches=PIXEL_PATCHES if by_pixel else None,
        )
