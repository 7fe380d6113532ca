"""The model card of phantom-clip, filled in with what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from medvlm_probe.cohort.labels import CHEXPERT_LABELS, display_name
from medvlm_probe.cohort.phantom import SEVERITIES, SITES

_TEXT = """\
# phantom-clip

A small dual encoder of BiomedCLIP's structure, trained on synthetic radiographs only. It exists so that every
command of medvlm-probe runs at once, offline, on images whose truth is known.

**Never medicine.** It has not seen one real radiograph. Do not use it on or for patients. Its numbers say nothing
about BiomedCLIP or any other model, and its AUROCs say how well it ranks drawings, not diseases.

| part | what |
| --- | --- |
| image | timm vision transformer, patches of 16 at 224 pixels, width 192, 5 blocks, CLS pooling, linear head |
| text | BERT, width 128, 3 layers, CLS pooling, two-layer head, context 128, own word pieces (any text tokenises) |
| shared space | 128 dimensions, logit scale {logit_scale} |
| size | {parameters:,} parameters, stored as float16 |
| input | grey or RGB at 224 pixels, (value - 0.5) / 0.25 |

## Trained on

- {images:,} phantoms of the site `reference` alone (seed {train_seed}, one image a patient, balanced prevalences),
  seen {passes:.1f} times on average ({steps:,} steps of {batch}); drawn by the generator with digest `{digest}`.
  Cohorts use other seeds. The other sites were never seen.
- Reports in the reference site's phrases, and prompts in many wordings (`analyses/phantom_clip_prompts.py`).
- Masks of the findings and the cardiothoracic ratio taught the image tower through linear heads that were thrown
  away.
- {minutes} minutes on two cores: `analyses/train_phantom_clip.py`. Its curve:
  `figures/phantom_clip/training_curve.csv`. {note}

A cohort of phantoms of the site `reference` is in the training distribution, not in the training set: results on it
are results on unseen images of a seen site. Say so where you show them.

## Zero-shot AUROC on unseen phantoms

Score: cosine to "there is X." minus cosine to "there is no X." ("normal chest x-ray." and "abnormal chest x-ray."
for no finding). {n:,} images a site, each of another patient, balanced prevalences, seed {evaluation_seed},
generator digest `{evaluated_digest}`. Severities: the images of that severity against those without the label.
*Pixels*: a logistic regression per label on 32 x 32 pixels of 6,000 other phantoms of the reference site; what it
can rank is merely loud. Half-widths of the 95 % intervals: about {half_all:.3f} for a label, {half_severe:.3f} for
one severity (`figures/phantom_clip/auroc.csv` has each).

### Reference site

{reference}

### All sites

{sites}

## Caveats

- It learned one generator's drawings. It was not tested on real radiographs, and nothing suggests that it would work.
- Reports of the site `community` use words that it was never taught.
- Prevalences were balanced in training, so probabilities of rare labels on a long-tailed cohort are too high.
- Masks were part of its training, so its heat maps say little about those of models that saw labels or reports alone.
- Labels imply each other as in CheXpert (pneumonia implies lung opacity), so single labels are never independent.
"""


def card(table: pd.DataFrame, facts: Mapping[str, Any]) -> str:
    """Return the card.

    Args:
        table: rows of `auroc.csv`.
        facts: what the training wrote, with `evaluated_generator` and `evaluation_seed`.
    """
    pair = table[table["method"] == "pair"]
    half = (pair["high"] - pair["low"]) / 2
    return _TEXT.format(
        **facts,
        passes=facts["images_seen"] / facts["images"],
        digest=facts["generator"][:12],
        evaluated_digest=facts["evaluated_generator"][:12],
        n=int(pair["n"].max()),
        half_all=half[pair["severity"] == "all"].mean(),
        half_severe=half[pair["severity"] != "all"].mean(),
        reference=_reference(table),
        sites=_sites(table),
    )


def _reference(table: pd.DataFrame) -> str:
    """Return the reference site's labels by severity, beside the averaged wordings and the pixels."""
    cells = table[table["site"] == "reference"].set_index(["method", "label", "severity"])["auroc"]
    columns = [
        ("pair", "all"),
        *(("pair", grade) for grade in SEVERITIES),
        ("ensemble", "all"),
        ("pixels_32x32", "all"),
    ]
    return _markdown(
        ["label", "all", *SEVERITIES, "several wordings", "pixels"],
        {display_name(label): [cells.get((m, label, s)) for m, s in columns] for label in CHEXPERT_LABELS},
    )


def _sites(table: pd.DataFrame) -> str:
    """Return the labels by site."""
    chosen = table[(table["method"] == "pair") & (table["severity"] == "all")].set_index(["site", "label"])["auroc"]
    return _markdown(
        ["label", *SITES],
        {display_name(label): [chosen.get((site, label)) for site in SITES] for label in CHEXPERT_LABELS},
    )


def _markdown(header: list[str], rows: Mapping[str, list[float | None]]) -> str:
    """Return a table with the columns' means as its last row."""
    means = [pd.Series(column, dtype=float).mean() for column in zip(*rows.values(), strict=True)]
    lines = [f"| {' | '.join(header)} |", f"|{' --- |' * len(header)}"]
    for name, values in {**rows, "**Mean**": means}.items():
        lines.append(f"| {name} | {' | '.join('' if v is None else f'{v:.3f}' for v in values)} |")
    return "\n".join(lines)
