"""From what a user names to a cohort: the embedded phantom, a manifest, a data card, a folder of images."""

from __future__ import annotations

from pathlib import Path

from medvlm_probe.cohort.cohort import Cohort
from medvlm_probe.cohort.data_cards import DataCard
from medvlm_probe.cohort.images import FileImages
from medvlm_probe.cohort.manifest import UncertaintyPolicy, read_manifest
from medvlm_probe.cohort.manifest_columns import snake_case
from medvlm_probe.errors import unknown_name


def load_cohort(
    spec: str = "phantom",
    *,
    uncertainty: UncertaintyPolicy | None = None,
    split: str | None = None,
    image_root: Path | None = None,
) -> Cohort:
    """Return a cohort."""
    path = Path(spec)
    if path.suffix.lower() in (".csv", ".parquet"):
        manifest = read_manifest(path)
        name = snake_case(path.resolve().parent.name) or "cohort"
        cohort = Cohort(
            name=name,
            table=manifest.table,
            labels=manifest.labels,
            uncertainty=uncertainty or "ignore",
            source=FileImages(image_root or path.parent, tuple(manifest.table["image"])),
            card=DataCard(name=name),
        )
    else:
        raise unknown_name("cohort", spec, ["phantom"])
    return cohort if split is None else cohort.select_split(split)
