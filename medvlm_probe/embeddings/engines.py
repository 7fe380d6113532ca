"""Where the work is done: in this process, or on a Ray cluster. Every engine gives the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from medvlm_probe.errors import InputError, unknown_name

if TYPE_CHECKING:
    from medvlm_probe.cohort.images import ImageSource
    from medvlm_probe.embeddings.forward import Encoder, Pipeline
    from medvlm_probe.embeddings.precision import Precision
    from medvlm_probe.models.contract import VisionLanguageModel

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Work:
    """What turns lists of images into vectors.

    Attributes:
        source: how the images are read.
        model: the model of this process; another machine loads its own, and must find the same fingerprint.
        precision: what the model runs in.
        threads: threads that torch computes with; bytes depend on them.
        here: how this process does it.
    """

    source: ImageSource
    model: VisionLanguageModel
    precision: Precision
    threads: int
    here: Pipeline


class Engine(Protocol):
    """Does the work of `embed` and of what can be mapped over shards and reduced."""

    @property
    def name(self) -> str:
        """A key of `ENGINES`."""
        ...

    @property
    def model_workers(self) -> int:
        """How many copies of the model run at once."""
        ...

    @property
    def decoders(self) -> int | None:
        """How many processes decode; None: the caller's own threads do."""
        ...

    def map_shards(
        self, function: Callable[[Item], Result], items: Iterable[Item], pool: Executor | None = None
    ) -> Iterator[Result]:
        """Yield `function` of each item, in order.

        Args:
            function: can be pickled; what it raises is raised here.
            items: can be pickled; taken when there is room.
            pool: this machine's threads, for an engine that stays on it; None: one after the other.
        """
        ...

    def encoder(self, work: Work) -> Encoder:
        """Return what turns batches of images into vectors."""
        ...


@dataclass(frozen=True)
class LocalEngine:
    """This process alone."""

    name: str = "local"
    model_workers: int = 1
    decoders: int | None = None

    def map_shards(
        self, function: Callable[[Item], Result], items: Iterable[Item], pool: Executor | None = None
    ) -> Iterator[Result]:
        """Yield `function` of each item, in order, by the pool's threads where one is given."""
        return map(function, items) if pool is None else pool.map(function, items)

    def encoder(self, work: Work) -> Encoder:
        """Return this process's own pipeline."""
        return work.here.encoded


@dataclass(frozen=True)
class EngineOptions:
    """What an engine is asked for.

    Attributes:
        model: the model's name, from which other machines load it.
        device: as `--device`; where the copies of the model run.
        address: of a running cluster (`host:port`, or `auto` for the one that this machine is part of); None starts one
            on this machine.
        model_workers: copies of the model; None: one a GPU, or as many as the cores feed.
        workers: processes that decode; None: the cores that are left.
    """

    model: str
    device: str = "cpu"
    address: str | None = None
    model_workers: int | None = None
    workers: int | None = None


def _local(options: EngineOptions) -> AbstractContextManager[Engine]:
    if options.address is not None or options.model_workers is not None:
        raise InputError("--address and --model-workers belong to --engine ray; the local engine has one model.")
    return nullcontext(LocalEngine())


def _ray(options: EngineOptions) -> AbstractContextManager[Engine]:
    from medvlm_probe.embeddings.distributed import ray_engine

    return ray_engine(options)


ENGINES: dict[str, Callable[[EngineOptions], AbstractContextManager[Engine]]] = {"local": _local, "ray": _ray}


def open_engine(name: str, options: EngineOptions) -> AbstractContextManager[Engine]:
    """Return a context that gives an engine, and ends what it started.

    Raises:
        UnknownNameError: there is no such engine.
        InputError: options that do not belong to it, or its package is not installed.
        DeviceError: the cluster cannot be reached, or is too small.
    """
    if name not in ENGINES:
        raise unknown_name("engine", name, ENGINES)
    return ENGINES[name](options)


def tree_merged(parts: Sequence[Result], merge: Callable[[Sequence[Result]], Result], fan_in: int = 8) -> Result:
    """Return `merge` of all parts (at least one), by groups of at most `fan_in`, and so on up; the order is kept."""
    level = list(parts)
    while len(level) > 1:
        level = [merge(level[start : start + fan_in]) for start in range(0, len(level), fan_in)]
    return level[0]
