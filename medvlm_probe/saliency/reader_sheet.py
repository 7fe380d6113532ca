"""Images for a radiologist to mark: which are drawn, the empty annotation file, and reading it back."""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medvlm_probe.cohort.cohort import Cohort
from medvlm_probe.errors import InputError, ManifestError, unknown_name

COLUMNS = ("image", "label", "present", "confidence", "x", "y", "w", "h")
BOX = ("x", "y", "w", "h")
ANSWERS = {"1": True, "yes": True, "y": True, "0": False, "no": False, "n": False}

INSTRUCTIONS = """\
How to mark the images
======================

You need sheet.pdf (one page an image, with rulers in pixels) or the folder images, and annotations.csv.

Each row of annotations.csv asks about one finding in one image. Fill in:

  present     1 (the finding is there) or 0 (it is not)
  confidence  how sure you are, 1 (a guess) to 5 (certain); may stay empty
  x, y, w, h  a box around it in pixels: left edge, top edge, width, height. The rulers begin at 0, 0 in the top left.

Several boxes of one finding: copy its row, one box a row. A finding that you cannot place: present 1, and no box.
Leave rows that you did not look at empty. Please do not change the columns image and label.
Findings that are asked about may or may not be there: they come from labels made without looking at the image.
"""


@dataclass(frozen=True)
class Drawn:
    """An image of a sheet: its row in the cohort, and the labels that are asked about it."""

    row: int
    labels: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Annotations:
    """What a reader marked.

    Attributes:
        boxes: columns `image`, `label`, `x`, `y`, `w`, `h`: one row a box.
        answers: one row a question, `image`, `label`, `present` (True, False, or None where not answered),
            `confidence` (NaN where not given), `n_boxes`.
    """

    boxes: pd.DataFrame
    answers: pd.DataFrame

    def count(self, label: str) -> dict[str, int]:
        """Return how many questions about a label were answered how."""
        rows = self.answers[self.answers["label"] == label]
        present = [answer is True for answer in rows["present"]]
        placed = rows["n_boxes"].to_numpy() > 0
        return {
            "n_asked": len(rows),
            "n_present": sum(present),
            "n_absent": sum(answer is False for answer in rows["present"]),
            "n_present_without_box": int((np.array(present, dtype=bool) & ~placed).sum()),
            "n_not_answered": sum(answer is None for answer in rows["present"]),
        }


def draw_images(cohort: Cohort, labels: Sequence[str], n: int, *, stratify: bool, seed: int) -> list[Drawn]:
    """Draw images for a reader, each of another patient where there are enough, in an order that says nothing.

    Args:
        cohort: the images to draw from.
        labels: what is asked about.
        n: how many images.
        stratify: draw evenly over the labels, among images whose label says present, and ask about that one label;
            else draw at random, and ask about every label.
        seed: of the draw.

    Raises:
        InputError: fewer than one image is asked for, or no image can be drawn.
    """
    if n < 1:
        raise InputError(f"{n} images asked for; a sheet holds at least one.")
    rng = np.random.default_rng(seed)
    groups = cohort.groups()
    if not stratify:
        order = _spread(rng.permutation(len(cohort)), groups)
        return [Drawn(int(row), tuple(labels)) for row in order[:n]]
    targets = cohort.targets(labels)
    queues = {
        label: _spread(np.random.default_rng([seed, crc32(label.encode())]).permutation(rows), groups)
        for label, rows in ((label, np.flatnonzero(targets[:, at] == 1)) for at, label in enumerate(labels))
    }
    # The rarest label chooses first: its few images may be those of a frequent one too.
    order_of_labels = sorted(labels, key=lambda label: len(queues[label]))
    taken: dict[int, str] = {}
    while len(taken) < n and any(queues.values()):
        for label in order_of_labels:
            free = [row for row in queues[label] if row not in taken]
            queues[label] = free[1:]
            if free and len(taken) < n:
                taken[free[0]] = label
    if not taken:
        raise InputError(f"No image of cohort '{cohort.name}' is labelled with {', '.join(labels)}. Name other labels.")
    rows = list(taken)
    return [Drawn(rows[at], (taken[rows[at]],)) for at in rng.permutation(len(rows))]


def empty_annotations(drawn: Sequence[Drawn], names: Mapping[int, str]) -> pd.DataFrame:
    """Return the table that a reader fills in, a row for each image and label; `names` are the pseudonyms by row."""
    blank = dict.fromkeys(COLUMNS, "")
    return pd.DataFrame([blank | {"image": names[item.row], "label": label} for item in drawn for label in item.labels])


def read_annotations(path: Path, asked: Mapping[str, Sequence[str]]) -> Annotations:
    """Read a filled annotation file.

    Args:
        path: the CSV; a semicolon or tab may stand for the comma, as spreadsheets write them.
        asked: pseudonym to the labels that were asked about.

    Raises:
        InputError: no such file.
        ManifestError: missing columns, an answer or box that cannot be read, or a box on an absent finding.
        UnknownNameError: an image or label that the sheet does not have.
    """
    table = _table(path)
    problems: list[str] = []
    boxes: list[dict[str, object]] = []
    answers: dict[tuple[str, str], tuple[bool | None, float, int]] = {
        (image, label): (None, math.nan, 0) for image, labels in asked.items() for label in labels
    }
    for number, record in enumerate(table.to_dict("records"), start=1):
        cells = {str(column): str(cell).strip() for column, cell in record.items()}
        image, label = cells["image"], cells["label"]
        if image not in asked:
            raise unknown_name("image", image, asked)
        if label not in asked[image]:
            raise unknown_name(f"label of image {image}", label, asked[image])
        try:
            present, confidence = _answer(cells["present"]), _number(cells["confidence"])
            box = _box([cells[column] for column in BOX])
        except ValueError as error:
            problems.append(f"row {number}: {error}")
            continue
        if box is not None and present is False:
            problems.append(f"row {number}: a box on a finding marked as absent")
            continue
        before = answers[image, label]
        marked = True if box is not None else present
        if before[0] is not None and marked is not None and before[0] != marked:
            problems.append(f"row {number}: {label} of {image} is marked both present and absent")
            continue
        known = before[0] if marked is None else marked
        answers[image, label] = (
            known,
            before[1] if math.isnan(confidence) else confidence,
            before[2] + (box is not None),
        )
        if box is not None:
            boxes.append({"image": image, "label": label, **dict(zip(BOX, box, strict=True))})
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ManifestError(f"{path.name}: {'; '.join(problems[:3])}{more}. See instructions.txt of the sheet.")
    return Annotations(
        pd.DataFrame(boxes, columns=["image", "label", *BOX]),
        pd.DataFrame(
            [
                {"image": image, "label": label, "present": present, "confidence": confidence, "n_boxes": n_boxes}
                for (image, label), (present, confidence, n_boxes) in answers.items()
            ],
        ).astype({"present": object}),
    )


def pseudonyms(keys: Sequence[str]) -> list[str]:
    """Return a short name for each image: `img-` and the first hex digits of the sha256 of its content.

    As many digits as keep the images apart, 8 at least. The names say nothing of the person, stay the same from run to
    run, and only who has the image can tell which it is. No spreadsheet takes them for numbers.
    """
    digits = 8
    while len({key[:digits] for key in keys}) < len(set(keys)):
        digits += 4
    return [f"img-{key[:digits]}" for key in keys]


def _spread(rows: NDArray[np.integer], groups: NDArray[np.integer]) -> list[int]:
    """Return rows in an order that comes back to a group only after every other one has had its turn."""
    turns: Counter[int] = Counter()
    placed = []
    for row in rows.tolist():
        group = int(groups[row])
        placed.append((turns[group], row))
        turns[group] += 1
    return [row for _, row in sorted(placed, key=lambda pair: pair[0])]


def _table(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise InputError(f"There is no annotation file '{path}'. Check the path.")
    try:
        text = path.read_text(encoding="utf-8-sig")
        # The header decides: pandas' own guess can take minutes on a damaged file.
        header = text.lstrip().partition("\n")[0]
        separator = max(",;\t", key=header.count)
        table = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False, sep=separator)
    except (OSError, ValueError) as error:
        raise ManifestError(
            f"{path.name} is no CSV file ({error}). Save the sheet's annotations.csv as CSV."
        ) from error
    table.columns = [str(column).strip().lower() for column in table.columns]
    missing = [column for column in COLUMNS if column not in table.columns]
    if missing:
        raise ManifestError(f"{path.name} lacks the column {', '.join(missing)}; expected {', '.join(COLUMNS)}.")
    return table


def _answer(text: str) -> bool | None:
    if not text:
        return None
    answer = text.lower().removesuffix(".0")
    if answer not in ANSWERS:
        raise ValueError(f"present is '{text}', expected 1 or 0")
    return ANSWERS[answer]


def _number(text: str) -> float:
    """Return a number, NaN for an empty cell. A spreadsheet of another language writes 12,5."""
    if not text:
        return math.nan
    value = float(text.replace(",", "."))
    if not math.isfinite(value):
        raise ValueError(f"'{text}' is no number")
    return value


def _box(cells: Sequence[str]) -> tuple[float, ...] | None:
    values = tuple(_number(cell) for cell in cells)
    given = [math.isfinite(value) for value in values]
    if not any(given):
        return None
    if not all(given):
        raise ValueError("a box needs all of x, y, w, h")
    if values[2] <= 0 or values[3] <= 0:
        raise ValueError(f"a box of {values[2]:g} x {values[3]:g} pixels")
    return values
