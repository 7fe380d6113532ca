"""What `audit` hands to the repairs: scores of any vectors, prompts, transformed images, labels read again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvlm_probe.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from medvlm_probe.audit.inputs import AuditInputs
    from medvlm_probe.audit.repair import Repair
    from medvlm_probe.cli.output import Output
    from medvlm_probe.cli.steps import Compute, EmbeddedCohort
    from medvlm_probe.embeddings.acquisition_embeddings import AcquisitionEmbeddings
    from medvlm_probe.types import FloatArray, Scores
    from medvlm_probe.zero_shot.predict import Task


def scorer(side: EmbeddedCohort, task: Task | None) -> Callable[[FloatArray], Scores] | None:
    """Return how vectors are scored, whatever images they are of; None where nothing is."""
    if task is None:
        return None
    from medvlm_probe.zero_shot.scores import prompt_scores
    from medvlm_probe.zero_shot.text_embeddings import label_directions

    directions = label_directions(side.model, task.prompts)
    tuned = task.prompts.tuned
    scale = side.model.logit_scale if tuned is None else tuned.logit_scale

    def score(vectors: FloatArray) -> Scores:
        ids = [str(row) for row in range(len(vectors))]
        return prompt_scores(vectors, directions, kind=task.kind, logit_scale=scale, ids=ids)

    return score


def repairer(
    output: Output,
    inputs: AuditInputs,
    here: EmbeddedCohort,
    there: EmbeddedCohort,
    task: Task | None,
    compute: Compute,
    *,
    why: bool,
    fine_tune: bool,
    reread: Path | None,
    folder: Path,
) -> Callable[[AuditInputs], Repair]:
    """Return how the audit's repairs are measured.

    Args:
        output: says how far it is.
        inputs: of the audit.
        here, there: the new site and the reference.
        task: what is scored.
        compute: of passes through the model.
        why: images of the reference go through acquisition transforms in any case.
        fine_tune: tune prompts and train the last block too.
        reread: a CSV of labels read again.
        folder: of the run, where finished parts are kept until the end.

    Raises:
        InputError: labels read again that cannot be read.
    """
    again = None if reread is None else labels_read_again(reread, inputs)

    def measured(inputs: AuditInputs) -> Repair:
        from medvlm_probe.audit.repair import examine_repair
        from medvlm_probe.audit.repair_bench import Tools
        from medvlm_probe.audit.why import IMAGES, TRIED
        from medvlm_probe.embeddings.acquisition_embeddings import acquisition_embeddings

        def augmented() -> AcquisitionEmbeddings:
            return acquisition_embeddings(
                inputs.whole_reference.cohort,
                here.model,
                TRIED,
                max_images=IMAGES,
                precision=there.embedded.precision,
                workers=compute.workers,
            )

        score = scorer(here, task)
        if score is None or task is None:
            raise InputError("Repairs need labels and prompts that score them.")
        tools = Tools(
            score,
            model=here.model,
            prompts=task.prompts,
            augmented=augmented if why else None,
            train=fine_tune,
            reread=again,
            folder=folder,
            say=lambda text: output.say(f"  {text}"),
        )
        return examine_repair(inputs, tools)

    return measured


def labels_read_again(path: Path, inputs: AuditInputs) -> Any:
    """Return labels of the site's images from a CSV, NaN where an image or label is not in it, (n, L).

    Args:
        path: a column `image` as in the manifest, then one column a label: 1, 0 or empty.
        inputs: of the audit.

    Raises:
        InputError: no such file, no such columns, other values, an image twice, or none of the site's images.
    """
    import numpy as np
    import pandas as pd

    try:
        table = pd.read_csv(path, dtype={"image": str})
    except (OSError, ValueError) as error:
        raise InputError(f"--reread: '{path.name}' is no CSV that can be read.") from error
    labels = [label for label in inputs.labels if label in table]
    if "image" not in table or not labels:
        raise InputError(
            f"--reread: '{path.name}' needs a column 'image' and at least one of the audited labels "
            f"({', '.join(inputs.labels[:4])}, ...)."
        )
    values = table[labels].apply(pd.to_numeric, errors="coerce").to_numpy(dtype=np.float64)
    unreadable = np.isnan(values) & table[labels].notna().to_numpy()
    if unreadable.any() or not (np.isnan(values) | np.isin(values, (0.0, 1.0))).all():
        raise InputError(f"--reread: '{path.name}' holds labels other than 1, 0 and empty.")
    if table["image"].duplicated().any():
        raise InputError(f"--reread: '{path.name}' has an image twice. Keep one row an image.")
    place = {name: row for row, name in enumerate(inputs.site.cohort.table["image"].astype(str))}
    rows = np.array([place.get(name, -1) for name in table["image"]])
    if not (rows >= 0).any():
        raise InputError(f"--reread: '{path.name}' names no image of the new site. Write images as in its manifest.")
    found = np.full((len(inputs.site), len(inputs.labels)), np.nan)
    columns = np.array([inputs.labels.index(label) for label in labels])
    found[rows[rows >= 0][:, None], columns] = values[rows >= 0]
    return found
