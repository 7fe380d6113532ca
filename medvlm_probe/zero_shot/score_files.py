"""Scores of any model from a wide CSV, with other names for labels and, where the file brings it, its own truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd

from medvlm_probe.cohort.cohort import Cohort
from medvlm_probe.cohort.data_cards import DataCard
from medvlm_probe.cohort.images import FileImages
from medvlm_probe.cohort.manifest_columns import snake_case
from medvlm_probe.errors import InputError, unknown_name
from medvlm_probe.runs import parse_toml
from medvlm_probe.types import ScoreKind, Scores

KEYS = ("image", "study", "filename")
_KINDS: dict[str, ScoreKind] = {"cosine": "cosine", "logit": "logit", "probability": "probability"}
_MAP_FIELDS = {"kind", "key", "scores", "truth"}
_TRUTH_FIELDS = {"column", "separator", "labels", "columns"}


@dataclass(frozen=True)
class LabelMap:
    """What a label map (TOML) says.

    Attributes:
        kind: of the scores; `logit`, which assumes nothing, where the map does not say.
        key: the column that names rows, by study where it is `study`, else by image: "" is the first of `KEYS` that
            names each row once.
        scores: the file's column to the label; empty takes every numeric column by its name.
        truth_column, separator, truth_labels: a column that lists a row's findings, and finding to label; a label that
            is not listed is absent.
        truth_columns: a column of 1, 0 or nothing to the label.
    """

    kind: ScoreKind = "logit"
    key: str = ""
    scores: Mapping[str, str] = field(default_factory=dict)
    truth_column: str = ""
    separator: str = ";"
    truth_labels: Mapping[str, str] = field(default_factory=dict)
    truth_columns: Mapping[str, str] = field(default_factory=dict)

    @property
    def has_truth(self) -> bool:
        """Whether the file's own truth is used."""
        return bool(self.truth_column or self.truth_columns)


@dataclass(frozen=True, eq=False)
class ScoreFile:
    """A file of scores; rows of `scores` and `truth` are the same, named by `scores.ids`.

    Attributes:
        key: `image` or `study`: what the ids are.
        scores: as given.
        truth: one column a label, 1, 0 or NaN; None where the file brings none.
        table: columns patient, study, site, split of the file, where it has them.
    """

    name: str
    key: str
    scores: Scores
    truth: pd.DataFrame | None
    table: pd.DataFrame


def read_label_map(path: Path) -> LabelMap:
    """Read a label map.

        kind = "probability"                # or logit, cosine
        [scores]                            # the file's column = the label
        "fused:Pleural Effusion" = "pleural_effusion"
        [truth]                             # optional: the file's own truth
        column = "gt_labels"
        separator = ";"
        [truth.labels]                      # its finding = the label
        "Pleural Effusion" = "pleural_effusion"
        [truth.columns]                     # or: its column of 1 and 0 = the label
        "label" = "abnormal"

    Raises:
        InputError, UnknownNameError: the file cannot be read, or a field is unknown or of another kind.
    """
    try:
        content = parse_toml(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise InputError(f"There is no label map '{path}'. Check the path.") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path.name} is no valid TOML: {error}.") from error
    truth = content.get("truth", {})
    if not isinstance(truth, dict):
        raise InputError(f"{path.name}: truth must be a table, [truth].")
    for given, known in ((content, _MAP_FIELDS), (truth, _TRUTH_FIELDS)):
        for name in given:
            if name not in known:
                raise InputError(f"{path.name}: {unknown_name('field', name, known)}")
    kind = str(content.get("kind", "logit"))
    if kind not in _KINDS:
        raise unknown_name("kind of score", kind, _KINDS)
    return LabelMap(
        kind=_KINDS[kind],
        key=str(content.get("key", "")),
        scores=_names(path.name, content.get("scores", {})),
        truth_column=str(truth.get("column", "")),
        separator=str(truth.get("separator", ";")),
        truth_labels=_names(path.name, truth.get("labels", {})),
        truth_columns=_names(path.name, truth.get("columns", {})),
    )


def read_score_file(path: Path, label_map: LabelMap | None = None) -> ScoreFile:
    """Read scores: a CSV with a row an image (path or file name as in the manifest) or `study`, a column a label.

    Several columns that map to one label give it the greatest of their scores.

    Raises:
        InputError: no such file, no key, an id twice, a column that is missing or not numeric, a score that is no
            finite number or lies outside the range of its kind.
    """
    mapping = label_map or LabelMap()
    table = _read_csv(path)
    key = _key(path.name, table, mapping.key)
    columns = dict(mapping.scores) or _numeric_columns(table, key)
    if not columns:
        raise InputError(f"{path.name} has no column of scores. Name them with --label-map.")
    for column in (*columns, *mapping.truth_columns, *([mapping.truth_column] if mapping.truth_column else [])):
        if column not in table:
            raise InputError(f"{path.name}: {unknown_name('column', column, [str(name) for name in table.columns])}")
    values = _greatest(path.name, table, columns, mapping.kind)
    return ScoreFile(
        name=path.stem,
        key="study" if key == "study" else "image",
        scores=Scores(values.to_numpy(dtype=np.float64), mapping.kind, tuple(values.columns), tuple(table[key])),
        truth=_truth(path.name, table, mapping) if mapping.has_truth else None,
        table=table[[name for name in ("patient", "study", "site", "split") if name in table]],
    )


def matched(file: ScoreFile, cohort: Cohort) -> tuple[Cohort, Scores]:
    """Return the cohort's images that have scores, and their scores in its order; labels are those that both have.

    An image is found by its path, else by its file name where that is unique. Of a study with several images the first
    stands for it, so that no score counts twice.

    Raises:
        InputError: no row or no label in common, or a cohort without the key.
    """
    shared = [label for label in file.scores.labels if label in cohort.labels]
    if not shared:
        raise InputError(
            f"Scores for {', '.join(file.scores.labels[:5])}; the cohort's labels are {', '.join(cohort.labels[:5])}. "
            "No name is in both: give a --label-map."
        )
    if file.key not in cohort.table:
        raise InputError(f"The scores are by study, but cohort '{cohort.name}' has no column study.")
    ids = pd.Series(file.scores.ids)
    names = cohort.table[file.key].fillna("").astype(str)
    row_of = pd.Series(np.arange(len(ids)), index=ids)
    found = names.map(row_of)
    if file.key == "image" and found.isna().all():
        short = ids.map(lambda name: PurePosixPath(name).name)
        unique = row_of[~short.duplicated(keep=False).to_numpy()]
        unique.index = short[~short.duplicated(keep=False)]
        mine = names.map(lambda name: PurePosixPath(name).name)
        found = mine.where(~mine.duplicated(keep=False)).map(unique)
    if file.key == "study":
        found = found.mask(names.duplicated() & found.notna())
    rows = np.flatnonzero(found.notna())
    if not len(rows):
        raise InputError(f"No {file.key} of {file.name} is in cohort '{cohort.name}'. Compare how both write it.")
    columns = [file.scores.labels.index(label) for label in shared]
    values = file.scores.values[found.iloc[rows].to_numpy(dtype=np.int64)][:, columns]
    part = cohort.select(rows)
    return part, Scores(values, file.scores.kind, tuple(shared), tuple(part.table["image"].astype(str)))


def own_cohort(file: ScoreFile) -> tuple[Cohort, Scores]:
    """Return a cohort of the file's rows with its own truth; it has no images, so nothing can be embedded.

    Raises:
        InputError: the file brings no truth, or none for any label that it scores.
    """
    if file.truth is None:
        raise InputError("These scores bring no truth of their own: give --cohort, or [truth] in the --label-map.")
    shared = [label for label in file.scores.labels if label in file.truth.columns]
    if not shared:
        raise InputError("No scored label has a truth of its own; compare [scores] and [truth] of the label map.")
    table = pd.concat([file.table.reset_index(drop=True), file.truth[shared].reset_index(drop=True)], axis=1)
    ids = [str(name) for name in file.scores.ids]
    if "study" not in table and file.key == "study":
        table.insert(0, "study", ids)
    table.insert(0, "image", ids)
    cohort = Cohort(
        name=snake_case(file.name) or "scores",
        table=table,
        labels=tuple(shared),
        uncertainty="ignore",
        source=FileImages(Path(), tuple(ids)),
        card=DataCard(name=snake_case(file.name) or "scores", title=f"Rows of {file.name}"),
    )
    columns = [file.scores.labels.index(label) for label in shared]
    return cohort, Scores(file.scores.values[:, columns], file.scores.kind, tuple(shared), tuple(ids))


def _read_csv(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise InputError(f"There is no file of scores '{path}'. Check the path.")
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise InputError(f"{path.name} cannot be read as a CSV in UTF-8: {error}.") from error


def _key(name: str, table: pd.DataFrame, given: str) -> str:
    """Return the column that names each row once: `given`, else the first of `KEYS` that does."""
    there = [key for key in ([given] if given else KEYS) if key in table]
    if not there:
        raise InputError(f"{name} has no column {given or ' or '.join(KEYS)}, which names its rows.")
    found = next((key for key in there if _names_rows(table[key])), None)
    if found is None:
        n_again = int((table[there[0]].duplicated() | table[there[0]].eq("")).sum())
        others = [
            str(key) for key in table if _names_rows(table[key]) and pd.to_numeric(table[key], "coerce").isna().all()
        ]
        hint = f" '{others[0]}' does: give key = \"{others[0]}\" in the label map." if others else ""
        raise InputError(
            f"{name}: column '{there[0]}' must name each row once; {n_again:,} come again or are empty.{hint}"
        )
    return found


def _names_rows(column: pd.Series) -> bool:
    return bool(column.is_unique and column.ne("").all())


def _numeric_columns(table: pd.DataFrame, key: str) -> dict[str, str]:
    ids = {key, *KEYS, "patient", "site", "split"}
    columns = [str(name) for name in table.columns if name not in ids]
    return {name: snake_case(name) for name in columns if pd.to_numeric(table[name], errors="coerce").notna().all()}


def _greatest(name: str, table: pd.DataFrame, columns: Mapping[str, str], kind: ScoreKind) -> pd.DataFrame:
    least, most = {"cosine": (-1.0, 1.0), "probability": (0.0, 1.0), "logit": (-np.inf, np.inf)}[kind]
    found: dict[str, pd.Series] = {}
    for column, label in columns.items():
        values = pd.to_numeric(table[column], errors="coerce").astype(np.float64)
        bad = ~np.isfinite(values) | (values < least - 1e-6) | (values > most + 1e-6)
        if bad.any():
            raise InputError(
                f"{name}, column '{column}': {int(bad.sum()):,} cells are no {kind} (row {int(np.argmax(bad)) + 1}: "
                f"'{table[column].iloc[int(np.argmax(bad))]}'). Correct them, or declare another kind in the label map."
            )
        found[label] = values.where(found[label] < values, found[label]) if label in found else values
    return pd.DataFrame(found)


def _truth(name: str, table: pd.DataFrame, mapping: LabelMap) -> pd.DataFrame:
    found: dict[str, Any] = {}
    for column, label in mapping.truth_columns.items():
        values = pd.to_numeric(table[column].replace("", None), errors="coerce")
        if not values.dropna().isin((0, 1)).all() or (values.isna() & table[column].ne("")).any():
            raise InputError(f"{name}, column '{column}': expected 1, 0 or nothing.")
        found[label] = values.to_numpy(dtype=np.float32)
    if mapping.truth_column:
        listed = [{part.strip() for part in cell.split(mapping.separator)} for cell in table[mapping.truth_column]]
        for label in dict.fromkeys(mapping.truth_labels.values()):
            terms = {term for term, target in mapping.truth_labels.items() if target == label}
            found[label] = np.array([bool(terms & row) for row in listed], dtype=np.float32)
    return pd.DataFrame(found)


def _names(where: str, value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(label, str) for label in value.values()):
        raise InputError(f'{where}: expected a table of names, ["name in the file" = "label"].')
    return {str(name): snake_case(label) for name, label in value.items()}
