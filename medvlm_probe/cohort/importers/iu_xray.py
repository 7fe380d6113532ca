"""IU-Xray (Indiana University, Open-i): reports with images, as Open-i or Kaggle lays them out, or in archives."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pandas as pd

from medvlm_probe.cohort.importers.archives import is_partial, unpack
from medvlm_probe.cohort.importers.dicom_headers import view_of
from medvlm_probe.cohort.importers.iu_xray_labels import LABEL_MAP, labels_from_codes, labels_from_file
from medvlm_probe.cohort.importers.iu_xray_reports import (
    FILE_SUFFIXES,
    PROJECTION_COLUMNS,
    REPORT_COLUMNS,
    Report,
    image_key,
    kaggle_reports,
    read_report,
)
from medvlm_probe.cohort.importers.published import SKIPPED_COLUMNS, ImportOptions, Published
from medvlm_probe.cohort.manifest_columns import snake_case
from medvlm_probe.cohort.manifest_files import read_text_columns
from medvlm_probe.errors import ImageError, InputError

__all__ = ["LABEL_MAP", "read"]

REPORT_FOLDERS = ("ecgen-radiology", "NLMCXR_reports/ecgen-radiology", "NLMCXR_reports")
IMAGE_FOLDERS = {"NLMCXR_png": (".png",), "NLMCXR_dcm": (".dcm",)}
ARCHIVE_SUFFIXES = (".tgz", ".tar.gz", ".tar")
KAGGLE_REPORTS, KAGGLE_PROJECTIONS = "indiana_reports.csv", "indiana_projections.csv"
KAGGLE_IMAGES = "images/images_normalized"


SITE = "indiana"
"""The publisher's; the reports come from several hospitals and do not say from which."""

Skipped = list[tuple[str, str]]


@dataclass(frozen=True)
class _Files:
    """The image files below `root`: image key (see `image_key`) to the path relative to it."""

    root: Path
    paths: dict[str, str]


def read(folder: Path, options: ImportOptions) -> Published:
    """Read IU-Xray into a manifest's columns: one row an image, frontal and lateral, all of a study's labels alike.

    Open-i: `ecgen-radiology/*.xml` with `NLMCXR_png/` or `NLMCXR_dcm/` (files anywhere below), or the archives
    `NLMCXR_reports.tgz` with `NLMCXR_png.tgz` or `NLMCXR_dcm.tgz`, unpacked into `options.unpack_to`. Kaggle:
    `indiana_reports.csv`, `indiana_projections.csv`, `images/images_normalized/`. Labels come from the codes that
    people gave (see `iu_xray_labels.LABEL_MAP`), or from `options.labels_file`.

    Raises:
        InputError: neither layout, archives that are not to be unpacked, or no report with an image.
        ManifestError: a CSV that cannot be read.
    """
    skipped: Skipped = []
    reports_folder = _folder_or_archive(folder, REPORT_FOLDERS, "NLMCXR_reports", (".xml",), options)
    if reports_folder is not None:
        reports = _openi_reports(reports_folder, skipped)
        files, source = _openi_files(folder, options), "Open-i"
    elif (folder / KAGGLE_REPORTS).is_file():
        reports = _kaggle(folder)
        base = folder / KAGGLE_IMAGES
        files, source = _files(folder, base if base.is_dir() else folder, FILE_SUFFIXES), "Kaggle"
    else:
        raise InputError(
            f"'{folder}' is no IU-Xray: expected ecgen-radiology/*.xml with NLMCXR_png or NLMCXR_dcm (or their .tgz "
            f"archives), or {KAGGLE_REPORTS} with {KAGGLE_PROJECTIONS}."
        )
    rows = _rows(reports, files, skipped)
    if not rows:
        raise InputError(f"No report in '{folder}' names an image that lies there. Check that images and reports fit.")
    views, view_notes = _views(folder, rows, files)
    studies = [report for report, _ in rows]
    if options.labels_file is None:
        labels, values, label_notes = labels_from_codes(studies)
    else:
        labels, values, label_notes = labels_from_file(studies, [path for _, path in rows], options.labels_file)
    table = pd.DataFrame(
        {
            "image": [path for _, path in rows],
            "patient": [f"iu-{report.uid}" for report in studies],
            "study": [f"CXR{report.uid}" for report in studies],
            "site": SITE,
            "view": views,
            "report": [report.text or None for report in studies],
            **{label: values[:, i] for i, label in enumerate(labels)},
            "mesh": [";".join(report.major) or None for report in studies],
            "mesh_automatic": [";".join(report.automatic) or None for report in studies],
        }
    )
    unused = [name for name in ("view", "mesh_automatic") if table[name].isna().all()]
    notes = [
        f"{source} layout. The collection gives no patient ids: each study counts as one patient, one to one.",
        *view_notes,
        *label_notes,
    ]
    return Published(
        table=table.drop(columns=unused),
        labels=labels,
        image_root=files.root,
        skipped=pd.DataFrame(skipped, columns=list(SKIPPED_COLUMNS)),
        notes=tuple(notes),
    )


def _folder_or_archive(
    folder: Path, names: Sequence[str], archive_stem: str, suffixes: tuple[str, ...], options: ImportOptions
) -> Path | None:
    """Return the first of the folders that exists whole, else that of the unpacked archive, else None."""
    found = [folder / name for name in names if (folder / name).is_dir()]
    partial = [place for place in found if is_partial(place)]
    if found and not partial:
        return found[0]
    archives = [folder / f"{archive_stem}{suffix}" for suffix in ARCHIVE_SUFFIXES]
    archive = next((path for path in archives if path.is_file()), None)
    if archive is None and not partial:
        return None
    if archive is None or options.unpack_to is None:
        what = f"'{partial[0]}' was unpacked in part only" if partial else f"{archive_stem} is an archive"
        raise InputError(
            f"{what}. Unpack it and import: medvlm-probe cohort import iu_xray:{folder} --out FOLDER/manifest.csv"
        )
    return unpack(archive, options.unpack_to / archive_stem, suffixes, options.say)


def _openi_reports(folder: Path, skipped: Skipped) -> list[Report]:
    reports: dict[str, Report] = {}
    for path in sorted(folder.rglob("*.xml")):
        if path.name.startswith("."):
            continue
        try:
            report = read_report(path)
        except InputError as error:
            skipped.append((path.name, str(error)))
            continue
        if report.uid in reports:
            skipped.append((path.name, f"the report CXR{report.uid} stands in another file too"))
            continue
        reports[report.uid] = report
    return sorted(reports.values(), key=lambda report: int(report.uid))


def _openi_files(folder: Path, options: ImportOptions) -> _Files:
    for name, suffixes in IMAGE_FOLDERS.items():
        found = _folder_or_archive(folder, (name,), name, suffixes, options)
        if found is not None:
            root = folder if found.is_relative_to(folder) else found.parent
            return _files(root, found, suffixes)
    return _files(folder, folder, FILE_SUFFIXES)


def _kaggle(folder: Path) -> list[Report]:
    tables = []
    for name, needed in ((KAGGLE_REPORTS, REPORT_COLUMNS), (KAGGLE_PROJECTIONS, PROJECTION_COLUMNS)):
        table = _text_table(folder / name)
        missing = [column for column in needed if column not in table]
        if missing:
            raise InputError(f"{name} lacks the column {', '.join(missing)}. Take the file as Kaggle publishes it.")
        tables.append(table)
    return kaggle_reports(tables[0], tables[1])


def _text_table(path: Path) -> pd.DataFrame:
    return pd.DataFrame({snake_case(name): column.to_pandas().fillna("") for name, column in read_text_columns(path)})


def _files(root: Path, folder: Path, suffixes: tuple[str, ...]) -> _Files:
    paths: dict[str, str] = {}
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if name.lower().endswith(suffixes) and not name.startswith("."):
                paths.setdefault(image_key(name), (Path(parent) / name).relative_to(root).as_posix())
    return _Files(root, paths)


def _rows(reports: Sequence[Report], files: _Files, skipped: Skipped) -> list[tuple[Report, str]]:
    """Return (report, image path) for every image that a report names and that exists."""
    rows: list[tuple[Report, str]] = []
    used: set[str] = set()
    for report in reports:
        if not report.images:
            skipped.append((f"CXR{report.uid}", "the report names no image"))
        for image in report.images:
            key = image_key(image)
            if key not in files.paths:
                skipped.append((image, "the report names it, but there is no such image file"))
            elif key in used:
                skipped.append((image, "another report names the same image"))
            else:
                used.add(key)
                rows.append((report, files.paths[key]))
    skipped += [(path, "no report names this image") for key, path in files.paths.items() if key not in used]
    return rows


def _views(folder: Path, rows: Sequence[tuple[Report, str]], files: _Files) -> tuple[list[str | None], list[str]]:
    """Return each row's view, from the DICOM header, else the Kaggle projections, else the report; and notes."""
    stated = {
        image_key(image): view
        for report, _ in rows
        for image, view in zip(report.images, report.views, strict=True)
        if view
    }
    if (folder / KAGGLE_PROJECTIONS).is_file():
        table = _text_table(folder / KAGGLE_PROJECTIONS)
        named = zip(table["filename"], table["projection"], strict=True)
        stated |= {image_key(name): view.strip().upper() for name, view in named}
    headers = files
    if (folder / "NLMCXR_dcm").is_dir():
        headers = _files(folder, folder / "NLMCXR_dcm", (".dcm",))
    for _, path in rows:
        key = image_key(PurePosixPath(path).name)
        header = headers.paths.get(key, "")
        if header.lower().endswith(".dcm"):
            stated[key] = _header_view(headers.root / header) or stated.get(key, "")
    views = [stated.get(image_key(PurePosixPath(path).name)) or None for _, path in rows]
    return views, _view_notes(views)


def _header_view(path: Path) -> str:
    from medvlm_probe.cohort.dicom_recipe import read_attributes

    try:
        return view_of(read_attributes(path, ["ViewPosition"]).get("ViewPosition"))
    except ImageError:
        return ""  # the reading of images says what is wrong with the file


def _view_notes(views: Sequence[str | None]) -> list[str]:
    unknown = sum(view is None for view in views)
    counts = Counter(view for view in views if view)
    listed = ", ".join(f"{view} {count:,}" for view, count in sorted(counts.items()))
    notes = [f"Views: {listed}."] if counts else []
    if unknown:
        notes.append(
            f"{unknown:,} of {len(views):,} images have no view: the reports list a study's images without saying "
            f"which is frontal. {KAGGLE_PROJECTIONS} beside them, or the DICOM files, would say it."
        )
    return notes
