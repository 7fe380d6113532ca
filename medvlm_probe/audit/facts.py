"""Facts of acquisition and of patients, from the manifest and from a sample of the images, and whether they differ."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import ImageFilter

from medvlm_probe.audit.inputs import FEWEST_PEOPLE, AuditInputs, Side, age_bands, sexes_of, views_of
from medvlm_probe.audit.scanners import maker_of, scanners_of
from medvlm_probe.cohort.cohort import Cohort
from medvlm_probe.cohort.dicom_header import read_attributes
from medvlm_probe.cohort.images import FileImages
from medvlm_probe.errors import ImageError
from medvlm_probe.shift.fact_tests import FactTest, fact_tests
from medvlm_probe.types import IntArray

SAMPLED = 200
"""Images of each side that are opened for their facts."""

FILE_FACTS = ("file_format", "bit_depth", "channels", "photometric", "modality", "maker")
CATEGORIES = ("view", "sex", "age_band", "scanner", *FILE_FACTS)
NUMBERS = (
    "age",
    "width",
    "height",
    "aspect",
    "mean_grey",
    "contrast",
    "dark_share",
    "bright_share",
    "fine_detail",
)
WORDS: Mapping[str, str] = {
    "age_band": "age band",
    "file_format": "file format",
    "bit_depth": "bits a channel",
    "aspect": "width over height",
    "mean_grey": "mean grey",
    "contrast": "spread of greys",
    "dark_share": "share of black pixels",
    "bright_share": "share of white pixels",
    "fine_detail": "fine detail",
}
PHOTOMETRIC = ("MONOCHROME1", "MONOCHROME2", "RGB", "PALETTE COLOR", "YBR_FULL", "YBR_FULL_422")
MODALITIES = ("CR", "DX", "RG", "RF", "OT", "SC")
_DARK, _BRIGHT = 5, 250
_NOTABLE = 0.2


@dataclass(frozen=True)
class FactsFound:
    """How facts differ between the site and the reference.

    Attributes:
        tests: the largest difference first.
        n_sampled: images of the reference and of the site that were opened; all others have the manifest's facts.
        medians: numeric fact to its median at the reference and at the site.
        absent: facts that neither or only one side has.
    """

    tests: tuple[FactTest, ...]
    n_sampled: tuple[int, int]
    medians: Mapping[str, tuple[float, float]]
    absent: tuple[str, ...]

    @property
    def different(self) -> tuple[FactTest, ...]:
        """The facts that differ notably: significant after Holm, and by an effect whose lower bound is above .2."""
        return tuple(t for t in self.tests if t.p_adjusted < 0.05 and t.effect.low > _NOTABLE)

    @property
    def sentence(self) -> str:
        """What the facts say, in one sentence."""
        if not self.different:
            return "No fact of acquisition or of patients differs clearly from the reference" + (
                f"; not given: {', '.join(self.absent)}." if self.absent else "."
            )
        named = [self._words(test) for test in self.different[:4]]
        more = len(self.different) - len(named)
        rest = f", and {more} more" if more else ""
        absent = f" Not known on one side or both: {', '.join(self.absent)}." if self.absent else ""
        return f"Facts that differ from the reference: {'; '.join(named)}{rest}.{absent}"

    def _words(self, test: FactTest) -> str:
        name = WORDS.get(test.fact, test.fact)
        if test.fact in self.medians:
            before, now = self.medians[test.fact]
            return f"{name} (median {before:.3g} at the reference, {now:.3g} here)"
        first = max(test.shares, key=lambda key: abs(test.shares[key][1] - test.shares[key][0]), default="")
        if first:
            before, now = test.shares[first]
            return f"{name} ({first}: {100 * before:.0f} % at the reference, {100 * now:.0f} % here)"
        return name

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values; categories of fewer than ten people are joined."""
        return {
            "sentence": self.sentence,
            "n_sampled": list(self.n_sampled),
            "tests": [test.to_json() for test in self.tests],
            "medians": {name: list(values) for name, values in self.medians.items()},
            "absent": list(self.absent),
        }


def examine_facts(inputs: AuditInputs, *, n_permutations: int = 9_999, n_sampled: int = SAMPLED) -> FactsFound:
    """Return which facts differ, patients being permuted as a whole.

    Facts of pixels come from a sample of each side; those of the manifest from all images.
    """
    sides = (inputs.whole_reference, inputs.site)
    rng = inputs.rng("facts")
    opened = [pixel_facts(side, n_sampled, rng) for side in sides]
    tables = [
        pd.concat([manifest_facts(side.cohort), facts], axis=1) for side, facts in zip(sides, opened, strict=True)
    ]
    absent = [
        WORDS.get(name, name)
        for name in (*CATEGORIES, *NUMBERS)
        if name != "age_band" and any(not _known(table[name]) for table in tables)
    ]
    columns: dict[str, dict[str, tuple[Any, Any]]] = {"categorical": {}, "numeric": {}}
    for kind, names in (("categorical", CATEGORIES), ("numeric", NUMBERS)):
        for name in names:
            first, second = (table[name] for table in tables)
            if _known(first) and _known(second):
                columns[kind][name] = (first.to_numpy(), second.to_numpy())
    for name, (first, second) in columns["categorical"].items():
        columns["categorical"][name] = _suppressed(name, (first, second), (sides[0].groups, sides[1].groups))
    tests = fact_tests(
        columns["categorical"],
        columns["numeric"],
        sides[0].groups,
        sides[1].groups,
        n_permutations=n_permutations,
        rng=rng,
    )
    tests = tuple(sorted(tests, key=lambda test: -np.nan_to_num(test.effect.value, nan=-1.0)))
    medians = {
        name: (float(np.nanmedian(first)), float(np.nanmedian(second)))
        for name, (first, second) in columns["numeric"].items()
    }
    counts = tuple(int(facts["width"].notna().sum()) for facts in opened)
    return FactsFound(tests, (counts[0], counts[1]), medians, tuple(absent))


def manifest_facts(cohort: Cohort) -> pd.DataFrame:
    """Return view, sex, age, age band and scanner of each image, as the manifest (or a DICOM header) gives them."""
    age = cohort.table["age"].to_numpy(dtype=np.float64) if "age" in cohort.table else np.full(len(cohort), np.nan)
    return pd.DataFrame(
        {
            "view": views_of(cohort),
            "sex": sexes_of(cohort),
            "age_band": age_bands(cohort),
            "age": age,
            "scanner": scanners_of(cohort),
        },
        index=range(len(cohort)),
    )


def pixel_facts(side: Side, n_sampled: int, rng: np.random.Generator) -> pd.DataFrame:
    """Return size, depth and exposure of a sample of the images; the others' rows are empty.

    Columns of `FILE_FACTS` (text, "" unknown; the last three of DICOM files alone), and `width`, `height`, `aspect`,
    `mean_grey`, `contrast` (standard deviation of greys), `dark_share`, `bright_share` and `fine_detail` (mean
    difference between neighbouring pixels over the spread of greys): as stored and as the recipe shows them.
    """
    n = len(side)
    table = pd.DataFrame({name: [""] * n for name in FILE_FACTS})
    for name in NUMBERS[1:]:
        table[name] = np.nan
    rows = sample_rows(side.groups, n_sampled, rng)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda row: _facts_of(side.cohort, row), rows.tolist()))
    for row, facts in zip(rows.tolist(), found, strict=True):
        for name, value in facts.items():
            table.loc[row, name] = value
    return table


def sample_rows(groups: IntArray, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return rows of whole patients drawn at random, at most n or the first patient's, ascending; none for n = 0."""
    if n == 0:
        return np.empty(0, dtype=np.int64)
    names, codes, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = rng.permutation(len(names))
    kept = order[np.cumsum(sizes[order]) <= n]
    kept = kept if len(kept) else order[:1]
    return np.flatnonzero(np.isin(codes, kept))


def _facts_of(cohort: Cohort, row: int) -> dict[str, Any]:
    try:
        image = cohort.source.read(row)
    except ImageError:
        return {}
    grey = image.convert("L")
    pixels = np.asarray(grey, dtype=np.float64)
    spread = float(pixels.std())
    small = np.asarray(grey.filter(ImageFilter.BoxBlur(1)), dtype=np.float64)
    facts: dict[str, Any] = {
        "width": float(image.width),
        "height": float(image.height),
        "aspect": image.width / image.height,
        "mean_grey": float(pixels.mean()),
        "contrast": spread,
        "dark_share": float((pixels <= _DARK).mean()),
        "bright_share": float((pixels >= _BRIGHT).mean()),
        "fine_detail": float(np.abs(pixels - small).mean()) / spread if spread > 0 else np.nan,
        "channels": str(len(image.getbands())),
    }
    return facts | _stored(cohort, row)


def _stored(cohort: Cohort, row: int) -> dict[str, Any]:
    """Return the file's own statement, where there is a file."""
    if not isinstance(cohort.source, FileImages):
        return {}
    header = cohort.source.header(row)
    facts = {"file_format": header.format, "bit_depth": str(header.bits), "channels": str(header.channels)}
    return facts | (_tags(cohort.source.root / cohort.source.paths[row]) if header.format == "DICOM" else {})


def _tags(path: Path) -> dict[str, str]:
    """Return what a DICOM header says of the machine: allowed values alone, for a tag can hold anything."""
    tags = read_attributes(path, ("PhotometricInterpretation", "Modality", "Manufacturer"))
    given = {name: str(tags.get(name, "")).strip().upper() for name in ("PhotometricInterpretation", "Modality")}
    return {
        "photometric": _allowed(given["PhotometricInterpretation"], PHOTOMETRIC),
        "modality": _allowed(given["Modality"], MODALITIES),
        "maker": maker_of(str(tags.get("Manufacturer", ""))),
    }


def _allowed(value: str, known: tuple[str, ...]) -> str:
    return value if value in known or not value else "other"


def _known(column: pd.Series) -> bool:
    return bool(column.notna().any() if column.dtype.kind == "f" else (column.astype(str) != "").any())


def _suppressed(
    name: str, sides: tuple[NDArray[Any], NDArray[Any]], groups: tuple[IntArray, IntArray]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return categories with those of fewer than ten people, of both sides together, as "other"."""
    values, owners = np.concatenate(sides), np.concatenate(groups)
    table = pd.DataFrame({"value": values, "group": owners}).drop_duplicates()
    counts = table.groupby("value")["group"].size()
    rare = set(counts.index[counts < FEWEST_PEOPLE]) - {""}
    kept = np.array(["other" if value in rare else value for value in values], dtype=object)
    return kept[: len(sides[0])], kept[len(sides[0]) :]
