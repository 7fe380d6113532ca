"""The `ray` engine: images decoded by CPU workers feed copies of the model, on this machine or a cluster.

The unit of bytes stays the batch: its images, size, device, precision and threads are those of a run on one machine,
and each worker holds the same weights. Which worker computes a batch changes nothing. This process alone writes the
store, shard by shard, so that a run that is killed anywhere is taken up by either engine.

Ray sends functions between its processes as pickles: a cluster must be one's own. Nothing of ours is kept that way.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import shutil
import socket
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from medvlm_probe.embeddings import precision as precisions
from medvlm_probe.embeddings.batches import Item
from medvlm_probe.embeddings.engines import EngineOptions, Work
from medvlm_probe.embeddings.forward import Encoded, Encoder
from medvlm_probe.embeddings.ray_workers import NO_MEMORY, Decode, Decoding, Encode, Encoding, Row, applied, versions
from medvlm_probe.embeddings.threads import available_cores
from medvlm_probe.errors import DeviceError, InputError, ModelError

Given = TypeVar("Given")
Result = TypeVar("Result")

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
_MIN_STORE_BYTES = 1 << 29


@dataclass(frozen=True)
class RayEngine:
    """A Ray cluster that this process is connected to.

    Attributes:
        model: the name that workers load the model by.
        model_workers: copies of the model, each with `threads` cores, or one GPU.
        decoders: processes that read images.
        threads: cores of a copy of the model on CPUs.
    """

    model: str
    model_workers: int
    decoders: int
    threads: int
    name: str = "ray"

    def map_shards(
        self, function: Callable[[Given], Result], items: Iterable[Given], pool: Executor | None = None
    ) -> Iterator[Result]:
        """Yield `function` of each item, in order, from tasks of one core; a task whose worker dies is run again."""
        ray = _imported()
        task = ray.remote(num_cpus=1, max_retries=-1)(applied)
        sent = ray.put(function)
        running: deque[Any] = deque()
        at_once = 2 * (self.decoders + self.model_workers * self.threads)
        with _translated():
            for item in items:
                running.append(task.remote(sent, item))
                if len(running) >= at_once:
                    yield ray.get(running.popleft())
            while running:
                yield ray.get(running.popleft())

    def encoder(self, work: Work) -> Encoder:
        """Return what sends batches through the cluster; they come back in order."""

        def encoded(batches: Iterable[Sequence[Item]]) -> Iterator[Encoded]:
            import torch

            plan = list(batches)
            for items, row in zip(plan, _in_order(self._rows(plan, work)), strict=True):
                if row["problem"] == NO_MEMORY:
                    raise MemoryError
                if row["problem"]:
                    raise ModelError(row["problem"])
                for step in ("decode", "forward"):
                    work.here.watch.seconds[step] = work.here.watch.seconds.get(step, 0.0) + float(row[step])
                reasons = {item.key: str(why) for item, why in zip(items, row["reasons"], strict=True) if why}
                yield Encoded(items, torch.from_numpy(row["vectors"].copy()), reasons)

        return encoded

    def _rows(self, plan: Sequence[Sequence[Item]], work: Work) -> Iterator[Row]:
        """Yield the batches' rows as they are done."""
        ray = _imported()
        pool_of = ray.data.ActorPoolStrategy
        device = precisions.device_of(work.model).type
        # An adapter's preprocess is its transform alone, which decoders get without the weights.
        preprocess = getattr(work.model, "transform", None) or work.model.preprocess
        decoding = ray.put(Decoding(work.source, preprocess, work.model.image_size))
        encoding = Encoding(self.model, work.model.fingerprint, device, work.precision, work.threads, versions())
        rows = [
            {"place": place, "keys": [item.key for item in items], "rows": [item.row for item in items]}
            for place, items in enumerate(plan)
        ]
        room = {"num_cpus": 1, "num_gpus": 1} if device == "cuda" else {"num_cpus": self.threads}
        with _translated(), _quiet(ray.data.DataContext.get_current()):
            # One batch a block: what is decoded goes on at once, and a worker that dies loses one batch.
            given = ray.data.from_items(rows, override_num_blocks=len(rows))
            decoded = given.map(
                Decode,
                fn_constructor_args=(decoding,),
                compute=pool_of(size=min(self.decoders, len(rows))),
                num_cpus=1,
            )
            done = decoded.map(
                Encode,
                fn_constructor_args=(encoding,),
                compute=pool_of(size=min(self.model_workers, len(rows))),
                **room,
            )
            yield from done.iter_rows()


@contextmanager
def ray_engine(options: EngineOptions) -> Iterator[RayEngine]:
    """Give the engine on a running cluster, or on one that lives as long as the context.

    A cluster that is started here has no dashboard and no telemetry, needs no network, asks for a token that only its
    own processes know, and keeps its files in a temporary folder that is removed with it.

    Raises:
        InputError: Ray is not installed.
        DeviceError: the cluster cannot be reached, or has too few cores or GPUs.
    """
    # Ray prints what happens to its workers on stdout, which is for results.
    with _environment(_ENVIRONMENT), redirect_stdout(sys.stderr):
        ray = _imported()
        shape = _Shape.of(options)
        if options.address is None and not ray.is_initialized():
            with _own_cluster(ray, shape.n_cores):
                yield shape.engine(ray, options, own=True)
        else:
            with _connected(ray, options.address):
                yield shape.engine(ray, options, own=False)


@dataclass(frozen=True)
class _Shape:
    """How many of what are wanted; None: what there is room for."""

    model_workers: int | None
    decoders: int | None
    threads: int
    device: str

    @classmethod
    def of(cls, options: EngineOptions) -> _Shape:
        import torch

        from medvlm_probe.models.devices import resolve_device

        threads = min(torch.get_num_threads(), available_cores())
        device = resolve_device(options.device).type
        return cls(options.model_workers, options.workers, 1 if device == "cuda" else threads, device)

    @property
    def n_cores(self) -> int:
        """Slots of a cluster of one's own: copies of the model, and decoders that work while those wait."""
        models, decoders = self._split(available_cores(), own=True)
        return models * self.threads + decoders

    def engine(self, ray: Any, options: EngineOptions, *, own: bool) -> RayEngine:
        there = ray.cluster_resources()
        n_cores, n_gpus = int(there.get("CPU", 0)), int(there.get("GPU", 0))
        models, decoders = self._split(available_cores() if own else n_cores, own=own)
        if self.device == "cuda":
            models = self.model_workers or max(1, n_gpus)
            if models > n_gpus:
                raise DeviceError(f"{models} model workers need as many GPUs; the Ray cluster has {n_gpus}.")
        if models * self.threads + decoders > n_cores:
            raise DeviceError(
                f"{models} model workers of {self.threads} threads and {decoders} that decode need "
                f"{models * self.threads + decoders} cores; the Ray cluster has {n_cores}. "
                "Give fewer --model-workers or --workers."
            )
        return RayEngine(_portable(options.model), models, decoders, self.threads)

    def _split(self, n_cores: int, *, own: bool) -> tuple[int, int]:
        decoders = self.decoders or max(1, n_cores // 4)
        free = n_cores if own else n_cores - decoders
        return self.model_workers or max(1, free // self.threads), decoders


def _imported() -> Any:
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise InputError(
            "--engine ray needs Ray, which is not installed. Run: pip install 'medvlm-probe[distributed]'."
        ) from error
    # Ray's own lines name operators and paths of logs, once for every data set.
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return ray


@contextmanager
def _own_cluster(ray: Any, n_cores: int) -> Iterator[None]:
    # Sockets lie in this folder, and their whole path may have 107 characters at most.
    base = tempfile.gettempdir()
    folder = Path(tempfile.mkdtemp(prefix="mvp-ray-", dir=base if len(base) < 30 or os.name == "nt" else "/tmp"))
    try:
        with _environment({"RAY_AUTH_TOKEN": secrets.token_hex(32)}):
            try:
                ray.init(
                    address="local",
                    num_cpus=n_cores,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    _temp_dir=str(folder),
                )
                yield
            finally:
                ray.shutdown()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _connected(ray: Any, address: str | None) -> Iterator[None]:
    if ray.is_initialized():
        yield
        return
    nobody = f"No Ray cluster answers at '{address}'. Start one (ray start --head), or leave --address out."
    if not answers(address or ""):
        raise DeviceError(nobody)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise DeviceError(nobody) from error
    try:
        yield
    finally:
        ray.shutdown()


def answers(address: str, seconds: float = 5.0) -> bool:
    """Return whether something listens at HOST:PORT, or the address is of another form; Ray itself asks for minutes."""
    parts = re.fullmatch(r"(?:ray://)?([^/:]+|\[[^]]+\]):(\d{1,5})", address)
    if parts is None:
        return True
    try:
        with socket.create_connection((parts[1].strip("[]"), int(parts[2])), timeout=seconds):
            return True
    except (OSError, OverflowError):
        return False


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables of the environment, which Ray's processes inherit, and put the old ones back."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _quiet(context: Any) -> Iterator[None]:
    before = context.enable_progress_bars, context.print_on_execution_start
    context.enable_progress_bars = context.print_on_execution_start = False
    try:
        yield
    finally:
        context.enable_progress_bars, context.print_on_execution_start = before


@contextmanager
def _translated() -> Iterator[None]:
    """Raise what a worker's function raised as itself, and Ray's own failures as what they mean to people."""
    failures = _imported().exceptions
    try:
        yield
    except failures.RayTaskError as error:
        cause = error.cause
        raise (cause if isinstance(cause, Exception) else error) from None
    except failures.RayError as error:
        raise DeviceError(
            f"The Ray cluster failed ({type(error).__name__}). What was finished is kept: run the same command again."
        ) from error


def _in_order(rows: Iterable[Row]) -> Iterator[Row]:
    """Yield rows by their `place`, counted from 0; those that come early wait."""
    early: dict[int, Row] = {}
    place = 0
    for row in rows:
        early[int(row["place"])] = row
        while place in early:
            yield early.pop(place)
            place += 1


def _portable(model: str) -> str:
    """Return a model's name as a worker with another working folder understands it."""
    scheme, colon, rest = model.partition(":")
    is_folder = scheme in ("local", "hf") and Path(rest).expanduser().is_dir()
    return f"{scheme}{colon}{Path(rest).expanduser().resolve()}" if is_folder else model
