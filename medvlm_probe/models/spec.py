"""What the zoo says of a model, and how a model is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from medvlm_probe.models.lock import FamilyName
from medvlm_probe.models.training_data import TrainingData

if TYPE_CHECKING:
    from medvlm_probe.models.contract import VisionLanguageModel


@dataclass(frozen=True)
class LoadOptions:
    """How a model is loaded.

    Attributes:
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        cache_dir: a Hugging Face hub cache; None for the usual one.
        offline: never use the network. Off, it is used only for files that are not on this machine yet.
    """

    device: str = "cpu"
    cache_dir: Path | None = None
    offline: bool = False


@dataclass(frozen=True)
class Caveat:
    """What a user of a model should know, and who says so."""

    text: str
    source: str


@dataclass(frozen=True)
class ModelSpec:
    """A named model.

    Attributes:
        name: what `--model` takes.
        summary: what it is, in one line.
        licence: of the weights.
        trained_on: data sets that the model has seen; results on them say "seen in training". Empty: not declared.
        load: makes the model, for third parties: they register the spec as an entry point of the group
            `medvlm_probe.models`. None for the built-in families, whose files are found by `source`.
        source: where the files are: `shipped:FOLDER`, `hf:OWNER/NAME`, `open_clip:NAME/PRETRAINED` or
            `medclip:ADDRESS`.
        family: which adapter reads the files.
        needs: repository to groups of file names; the model is on this machine when the cache holds one of each group.
        home: the model's own page.
        parameters: how many, in millions; None where not known.
        download_mb: about how many megabytes are fetched; None where not known, 0 where nothing is.
        caveats: what a user should know.
        citation: the paper.
    """

    name: str
    summary: str
    licence: str
    trained_on: tuple[TrainingData, ...]
    load: Callable[[LoadOptions], VisionLanguageModel] | None = None
    source: str = ""
    family: FamilyName | None = None
    needs: Mapping[str, tuple[tuple[str, ...], ...]] = field(default_factory=dict)
    home: str = ""
    parameters: int | None = None
    download_mb: int | None = None
    caveats: tuple[Caveat, ...] = ()
    citation: str = ""
