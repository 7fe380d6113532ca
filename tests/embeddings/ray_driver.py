"""A process that embeds on a Ray cluster of its own, for the tests that kill it and its workers."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medvlm_probe.cohort.catalog import load_cohort
from medvlm_probe.cohort.images import FileImages
from medvlm_probe.embeddings.engines import EngineOptions, open_engine
from medvlm_probe.embeddings.extract import embed
from medvlm_probe.models.zoo import load_model

SETTINGS: dict[str, Any] = {"batch_size": 4, "shard_size": 8, "precision": "float32", "max_failures": 1.0}


@dataclass(frozen=True)
class SlowImages:
    """Files that take a while to decode, so that there is a middle of the work."""

    files: FileImages
    seconds: float = 0.1
    settings: str = ""

    @property
    def recipe(self) -> str:
        return self.files.recipe

    def __len__(self) -> int:
        return len(self.files)

    def content_key(self, row: int) -> str:
        return self.files.content_key(row)

    def read(self, row: int) -> Any:
        return self.files.read(row)

    def read_with_key(self, row: int) -> Any:
        time.sleep(self.seconds)
        return self.files.read_with_key(row)

    def rows(self, index: Sequence[int]) -> SlowImages:
        return replace(self, files=self.files.rows(index))


def main() -> None:
    """Embed with two copies of the model; a line on stdout for each batch that came back."""
    parser = argparse.ArgumentParser()
    parser.add_argument("manifest")
    parser.add_argument("cache", type=Path)
    given = parser.parse_args()
    cohort = load_cohort(given.manifest)
    out = sys.stdout
    with open_engine("ray", EngineOptions("phantom-clip", model_workers=2, workers=1)) as engine:
        embed(
            replace(cohort, source=SlowImages(cohort.source)),
            load_model(),
            cache_dir=given.cache,
            engine=engine,
            progress=lambda done, total, seconds: print(done, file=out, flush=True),
            **SETTINGS,
        )


if __name__ == "__main__":
    # Under its own name, so that Ray's workers import what they are sent from there.
    import ray_driver

    ray_driver.main()
