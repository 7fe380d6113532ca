"""Killed with SIGKILL at any moment, `embed` goes on, and ends with the bytes of an undisturbed run."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_embedding_model import cohort_of, embed_all, embed_in_child, make_model, snapshot, write_images

CONTENTS = [*range(20), 3, 20, 3, *range(21, 38)]
N_BATCHES = 16


@dataclass
class Children:
    """Starts processes that embed one cohort; a server that has torch loaded already forks them quickly."""

    images: Path
    names: tuple[str, ...]
    context: Any = field(default_factory=lambda: multiprocessing.get_context("forkserver"))

    def start(self, cache: Path, die_at: int = 0, after: bool = False) -> tuple[Any, Any]:
        receiver, sender = self.context.Pipe(duplex=False)
        arguments = (str(self.images), self.names, str(cache), sender, die_at, after)
        child = self.context.Process(target=embed_in_child, args=arguments)
        child.start()
        sender.close()
        return child, receiver

    def finish(self, cache: Path) -> tuple[int, int]:
        """Run undisturbed; return the number of writing steps and of images computed."""
        child, receiver = self.start(cache)
        *_, end = messages(receiver)
        child.join()
        assert child.exitcode == 0
        assert end[0] == "end"
        return end[1], end[2]


def resume(children: Children, cache: Path) -> None:
    """Run once more, in this process."""
    embed_all(cohort_of(children.images, children.names), make_model(), cache)


def messages(receiver: Any) -> Iterator[tuple[Any, ...]]:
    while True:
        try:
            yield receiver.recv()
        except EOFError:
            return


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As in the children: the same bytes are promised at the same number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def children(tmp_path_factory: pytest.TempPathFactory) -> Children:
    folder = tmp_path_factory.mktemp("resume") / "images"
    children = Children(folder, write_images(folder, CONTENTS))
    children.context.set_forkserver_preload(["tiny_embedding_model"])
    with pytest.MonkeyPatch.context() as patch:
        # The server finds the module to load by this variable alone: it takes no sys.path from its parent.
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
        forkserver.ensure_running()
    return children


@pytest.fixture(scope="module")
def undisturbed(children: Children, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The files of a run that nothing disturbs."""
    cache = tmp_path_factory.mktemp("undisturbed") / "cache"
    _, n_computed = children.finish(cache)
    assert n_computed == len(set(CONTENTS))
    files = snapshot(cache)
    assert len([path for path in files if path.endswith(".arrow")]) == 6
    assert sum("/ledger/" in path for path in files) == 6
    return files


def test_killed_at_ten_random_moments(children: Children, undisturbed: dict[str, str], tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    for attempt in range(10):
        cache = tmp_path / f"cache-{attempt}"
        child, receiver = children.start(cache)
        for _ in zip(range(rng.integers(0, N_BATCHES)), messages(receiver), strict=False):
            pass
        time.sleep(rng.uniform(0, 0.02))
        child.kill()
        child.join()
        resume(children, cache)
        assert snapshot(cache) == undisturbed


def test_killed_again_and_again_in_one_cache(children: Children, undisturbed: dict[str, str], tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    for _ in range(5):
        child, receiver = children.start(tmp_path)
        for _ in zip(range(rng.integers(1, 6)), messages(receiver), strict=False):
            pass
        child.kill()
        child.join()
    resume(children, tmp_path)
    assert snapshot(tmp_path) == undisturbed


@pytest.mark.parametrize("after", [False, True])
def test_killed_at_every_step_of_writing(children: Children, tmp_path: Path, after: bool) -> None:
    few = Children(children.images, children.names[:9])
    n_steps, _ = few.finish(tmp_path / "undisturbed")
    files = snapshot(tmp_path / "undisturbed")
    assert n_steps >= 3 * len(files) - 3  # each file but the lock is synced, renamed, and its folder synced
    for die_at in range(1, n_steps + 1):
        cache = tmp_path / str(die_at)
        child, _ = few.start(cache, die_at, after)
        child.join()
        assert child.exitcode == -9
        resume(few, cache)
        assert snapshot(cache) == files


def test_two_processes_at_once_end_with_the_same_bytes(
    children: Children, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    both = [children.start(tmp_path) for _ in range(2)]
    for child, receiver in both:
        assert list(messages(receiver))[-1][0] == "end"
        child.join()
    assert snapshot(tmp_path) == undisturbed


def test_one_of_two_processes_is_killed(children: Children, undisturbed: dict[str, str], tmp_path: Path) -> None:
    (victim, first), (survivor, second) = (children.start(tmp_path) for _ in range(2))
    for _ in zip(range(4), messages(first), strict=False):
        pass
    victim.kill()
    assert list(messages(second))[-1][0] == "end"
    victim.join()
    survivor.join()
    resume(children, tmp_path)
    assert snapshot(tmp_path) == undisturbed


def test_any_set_of_finished_shards_is_taken_up(
    children: Children, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    """As when several processes had shared the work, or some shards were damaged."""
    rng = np.random.default_rng(9)
    result = embed_all(cohort_of(children.images, children.names), make_model(), tmp_path)
    shards = sorted((result.folder / "shards").iterdir())
    for _ in range(8):
        for path in rng.choice(shards, size=rng.integers(1, len(shards)), replace=False):
            if rng.random() < 0.5:
                path.unlink()
            else:
                (result.folder / "ledger" / f"{path.stem}.json").unlink()
        resume(children, tmp_path)
        assert snapshot(tmp_path) == undisturbed
