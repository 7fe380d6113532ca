"""Which settings `grad-cam` compares: read from the options, and made from folders of other commands' results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medvlm_probe.errors import InputError, unknown_name

if TYPE_CHECKING:
    from medvlm_probe.cli.output import Output
    from medvlm_probe.cli.steps import Compute, EmbeddedCohort
    from medvlm_probe.embeddings.seen import SeenInTraining
    from medvlm_probe.saliency.heat_map_study import MapSetting
    from medvlm_probe.tuning.heads import LinearHead
    from medvlm_probe.types import BoolArray, FloatArray

ZERO_SHOT, LINEAR_PROBE, FINE_TUNED, TUNED = "zero-shot", "linear-probe", "fine-tuned", "tuned"
WORDS = {ZERO_SHOT: "Zero-shot", LINEAR_PROBE: "Linear probe", FINE_TUNED: "Fine-tuned"}
KINDS = (ZERO_SHOT, LINEAR_PROBE, FINE_TUNED, TUNED)


@dataclass(frozen=True)
class AskedSetting:
    """A setting by its kind, with the folder that it lies in where it has one."""

    kind: str
    folder: Path | None = None

    @property
    def name(self) -> str:
        """What tables call it; never a path."""
        return f"{self.kind}:{self.folder.name}" if self.kind == TUNED and self.folder is not None else self.kind

    @property
    def words(self) -> str:
        """What figures call it."""
        return WORDS[self.kind] if self.kind != TUNED else f"Tuned prompts, {self.name.partition(':')[2]}"


@dataclass(frozen=True, eq=False)
class ScoredSetting:
    """A setting, its logits of every image (n, L), by its target's labels, and what it has seen."""

    setting: MapSetting
    logits: FloatArray
    seen: SeenInTraining

    def of(self, label: str) -> FloatArray:
        """Return the logits of one label, (n, 1)."""
        return self.logits[:, [self.setting.target.labels.index(label)]]


def parse_settings(
    compare: str | None, probe: str | None, fine_tuned: str | None, train_from: str | None
) -> tuple[AskedSetting, ...]:
    """Return what `--compare` names; without it zero-shot, and whatever else a folder or split is given for.

    Raises:
        UnknownNameError: no such setting.
        InputError: a setting whose folder is missing, or a folder that no setting uses.
    """
    if compare is None:
        names = [ZERO_SHOT]
        names += [LINEAR_PROBE] if probe is not None or train_from is not None else []
        names += [FINE_TUNED] if fine_tuned is not None else []
    else:
        names = [name.strip() for name in compare.split(",") if name.strip()]
    asked: dict[AskedSetting, None] = {}
    for name in names:
        kind, _, text = name.partition(":")
        if kind not in KINDS:
            raise unknown_name("setting", kind, KINDS)
        given = text or {LINEAR_PROBE: probe, FINE_TUNED: fine_tuned}.get(kind)
        folder = Path(given) if given else None
        if kind == ZERO_SHOT and text:
            raise InputError(f"--compare {name}: zero-shot takes no folder; its prompts are named by --prompts.")
        if kind == TUNED and folder is None:
            raise InputError("--compare tuned: name the folder of 'tune', as tuned:DIR/seed-00.")
        if kind == FINE_TUNED and folder is None:
            raise InputError("--compare fine-tuned: name the folder of 'fine-tune' with --fine-tuned DIR.")
        if kind == LINEAR_PROBE and folder is None and train_from is None:
            raise InputError(
                "--compare linear-probe: name the folder of 'linear-probe' with --probe DIR, or a split to fit one on "
                "with --train-from."
            )
        asked[AskedSetting(kind, folder)] = None
    kinds = {setting.kind for setting in asked}
    for named, option, kind in ((probe, "--probe", LINEAR_PROBE), (fine_tuned, "--fine-tuned", FINE_TUNED)):
        if named is not None and kind not in kinds:
            raise InputError(f"{option} is given, but --compare does not name {kind}.")
    if not asked:
        raise InputError(f"--compare names no setting. Known: {', '.join(KINDS)}.")
    return tuple(asked)


def make_settings(
    output: Output,
    asked: Sequence[AskedSetting],
    done: EmbeddedCohort,
    prompts: str,
    compute: Compute,
    train: BoolArray,
    seed: int,
) -> list[ScoredSetting]:
    """Return the settings with their logits of every image of `done`.

    Args:
        output: for words.
        asked: from `parse_settings`.
        done: the cohort through the base model.
        prompts: zero-shot's prompt set.
        compute: for a fine-tuned model, through which the images go as well.
        train: images to fit a linear probe on where no folder is given; none of them is shown.
        seed: of that fit's folds.

    Raises:
        ModelError: a folder that holds no head, or one for another model.
        InputError, UnknownNameError: of the prompts.
    """
    import torch

    from medvlm_probe.cli.steps import embed_cohort
    from medvlm_probe.saliency.heat_map_study import MapSetting
    from medvlm_probe.saliency.targets import head_target, prompt_target
    from medvlm_probe.tuning.heads import read_head
    from medvlm_probe.zero_shot.predict import resolve_task

    made = []
    for one in asked:
        through = done
        if one.kind in (ZERO_SHOT, TUNED):
            task = resolve_task(done.cohort, prompts if one.kind == ZERO_SHOT else f"tuned:{one.folder}", None, None)
            target = prompt_target(done.model, task.prompts)
        elif one.kind == LINEAR_PROBE:
            head = read_head(one.folder) if one.folder is not None else _fitted(output, done, train, seed)
            target = head_target(head, done.model)
        else:
            folder = _model_folder(one)
            through = embed_cohort(output, done.cohort, f"local:{folder}", compute)
            if len(through.cohort) != len(done.cohort):
                raise InputError("Some images can no longer be read. Run the command again.")
            target = head_target(read_head(folder))
        with torch.inference_mode():
            logits = target.logits(torch.from_numpy(through.embedded.vectors).float()).double().numpy()
        made.append(ScoredSetting(MapSetting(one.name, one.words, through.model, target), logits, through.seen))
    return made


def _fitted(output: Output, done: EmbeddedCohort, train: BoolArray, seed: int) -> LinearHead:
    import numpy as np

    from medvlm_probe.tuning.linear_probe import fit_linear_probe

    targets = done.cohort.targets()[train]
    known = np.flatnonzero((targets == targets).any(axis=0))
    labels = tuple(done.cohort.labels[at] for at in known.tolist())
    output.say(f"Fitting a linear probe for {len(labels)} labels on {int(train.sum()):,} images ...")
    fitted = fit_linear_probe(
        done.embedded.vectors[train],
        targets[:, known],
        done.cohort.groups()[train],
        labels,
        seed=seed,
        model_fingerprint=done.model.fingerprint,
    )
    return fitted.head


def _model_folder(asked: AskedSetting) -> Path:
    from medvlm_probe.tuning.heads import FACTS_FILE
    from medvlm_probe.tuning.make_tuned import MODEL_FOLDER

    given = asked.folder or Path()
    for folder in (given / MODEL_FOLDER, given):
        if (folder / FACTS_FILE).is_file():
            return folder
    raise InputError(f"'{given}' holds no fine-tuned model. Name the folder that 'fine-tune' wrote to (its --out).")
