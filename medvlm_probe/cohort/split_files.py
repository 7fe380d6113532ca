"""Split files: which image is in which part, by content, as JSON with hashes. No patient ids, no paths.

    {"format": "medvlm-probe splits/v1",
     "algorithm": {"name": "iterative stratification of groups", "version": 1},
     "seed": 0, "shares": {"train": 0.7, "val": 0.15, "test": 0.15},
     "cohort": {"name", "fingerprint", "n_images", "group_kind"},
     "counts": [{"trait", "part", "n_images", "n_groups", "share", "wanted"}, ...], "notes": [...],
     "assignments_sha256": the sha256 over the canonical JSON of the next field,
     "assignments": {"train": [sorted sha256 of images], ...}}

A file made elsewhere needs `format`, `assignments_sha256` and `assignments` alone.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from medvlm_probe.cohort.splits import Splits
from medvlm_probe.cohort.stratify import ALGORITHM, VERSION
from medvlm_probe.errors import InputError
from medvlm_probe.runs import parse_json, sha256_json, write_json

FORMAT = "medvlm-probe splits/v1"


def splits_json(splits: Splits) -> dict[str, Any]:
    """Return the content of a split file."""
    assignments: dict[str, list[str]] = {part: [] for part in splits.shares}
    for key, part in splits.assigned.items():
        assignments.setdefault(part, []).append(key)
    assignments = {part: sorted(keys) for part, keys in assignments.items()}
    counts = splits.counts.astype(object).where(splits.counts.notna(), None)
    return {
        "format": FORMAT,
        "algorithm": {"name": ALGORITHM, "version": VERSION},
        "seed": splits.seed,
        "shares": dict(splits.shares),
        "cohort": dict(splits.cohort),
        "counts": counts.to_dict(orient="records"),
        "notes": list(splits.notes),
        "assignments_sha256": sha256_json(assignments),
        "assignments": assignments,
    }


def write_splits(path: Path, splits: Splits) -> str:
    """Write a split file whole or not at all; returns its `assignments_sha256`. Raises StoreError."""
    content = splits_json(splits)
    write_json(path, content)
    return str(content["assignments_sha256"])


def read_splits(path: Path) -> dict[str, str]:
    """Return content key to part.

    Raises:
        InputError: the file is missing, is no split file, was changed, or puts an image into two parts.
    """
    if not path.is_file():
        raise InputError(f"There is no split file '{path}'. Make one: medvlm-probe cohort split COHORT --out {path}.")
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON: {error}.") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f"{path} is no split file: expected JSON whose field 'format' is '{FORMAT}'.")
    assignments = content.get("assignments")
    if not isinstance(assignments, dict) or not all(isinstance(keys, list) for keys in assignments.values()):
        raise InputError(f"{path}: 'assignments' must hold a list of image hashes for each part.")
    if sha256_json(assignments) != content.get("assignments_sha256"):
        raise InputError(
            f"{path} was changed since it was written: its assignments do not have the hash that it states."
        )
    assigned: dict[str, str] = {}
    for part, keys in assignments.items():
        for key in keys:
            if not isinstance(key, str) or not re.fullmatch(r"[0-9a-f]{64}", key):
                raise InputError(f"{path}: part '{part}' holds {key!r}, which is no sha256 of an image.")
            if assigned.setdefault(key, part) != part:
                raise InputError(f"{path}: the image {key[:12]}... is in two parts, '{assigned[key]}' and '{part}'.")
    return assigned
