"""Finished parts of the repairs on disk, so that a killed run goes on; gone once results are written."""

from __future__ import annotations

import hashlib
import io
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np

from medvlm_probe.audit.repair_bench import Answer, Bench
from medvlm_probe.runs import sha256_json, write_bytes_atomically

FOLDER = "repair.parts"


@dataclass(frozen=True)
class Journal:
    """Answers by name under the hash of all that decides them; without a folder nothing is kept.

    Attributes:
        folder: of the run.
        key: of the inputs; parts of other inputs are never taken.
    """

    folder: Path | None
    key: str

    def answers(self, name: str, make: Callable[[], list[Answer]]) -> list[Answer]:
        """Return the answers of that name, made now unless they are there."""
        if self.folder is None:
            return make()
        path = self.folder / FOLDER / f"{sha256_json([self.key, name])[:24]}.npy"
        if path.is_file():
            # A damaged part is made again.
            with suppress(Exception):
                kept = np.load(path, allow_pickle=False)
                return [Answer(p, called > 0.5) for p, called in kept]
        found = make()
        buffer = io.BytesIO()
        np.save(buffer, np.array([[answer.p, answer.called] for answer in found]), allow_pickle=False)
        write_bytes_atomically(path, buffer.getvalue())
        return found


def forget_parts(folder: Path) -> None:
    """Remove the parts of a run whose results are written."""
    if (folder / FOLDER).is_dir():
        shutil.rmtree(folder / FOLDER)


def journal_of(bench: Bench, settings: object) -> Journal:
    """Return the journal of these inputs.

    Args:
        bench: what is measured on.
        settings: what else decides the answers, for JSON.
    """
    folder = bench.tools.folder
    if folder is None:
        return Journal(None, "")
    seen = hashlib.sha256()
    inputs, tools = bench.inputs, bench.tools
    for side in (inputs.whole_reference, inputs.site):
        scores = () if side.scores is None else (side.scores.values,)
        for array in (side.vectors, side.groups, side.targets, *scores):
            seen.update(np.ascontiguousarray(array).tobytes())
    if tools.reread is not None:
        seen.update(np.ascontiguousarray(tools.reread).tobytes())
    texts = {} if tools.prompts is None else {k: [v.positive, v.negative] for k, v in tools.prompts.labels.items()}
    about = {
        "arrays": seen.hexdigest(),
        "seed": inputs.seed,
        "labels": list(inputs.labels),
        "model": None if tools.model is None else tools.model.fingerprint,
        "prompts": texts,
        "settings": settings,
        "version": metadata.version("medvlm-probe"),
    }
    return Journal(folder, sha256_json(about))
