"""The engines' shared parts, without Ray: the registry, merging in a tree, what the local engine does."""

from __future__ import annotations

import builtins
import pickle
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_embedding_model import cohort_of, write_images

from medvlm_probe.cohort.catalog import load_cohort
from medvlm_probe.embeddings.batches import source_parts
from medvlm_probe.embeddings.distributed import answers
from medvlm_probe.embeddings.engines import ENGINES, EngineOptions, LocalEngine, open_engine, tree_merged
from medvlm_probe.errors import ImageError, InputError, UnknownNameError


def test_engines_are_found_by_name() -> None:
    with open_engine("local", EngineOptions("phantom-clip", workers=3)) as engine:
        assert (engine.name, engine.model_workers, engine.decoders) == ("local", 1, None)
    with pytest.raises(UnknownNameError, match="Did you mean ray"):
        open_engine("rays", EngineOptions("phantom-clip"))
    assert sorted(ENGINES) == ["local", "ray"]


@pytest.mark.parametrize("options", [{"address": "auto"}, {"model_workers": 2}])
def test_the_local_engine_refuses_options_of_another(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="belong to --engine ray"):
        open_engine("local", EngineOptions("phantom-clip", **options))


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    really_import = builtins.__import__

    def without_ray(name: str, *arguments: Any) -> Any:
        if name.partition(".")[0] == "ray":
            raise ImportError(name)
        return really_import(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without_ray)
    with (
        pytest.raises(InputError, match=r"medvlm-probe\[distributed\]"),
        open_engine("ray", EngineOptions("phantom-clip")),
    ):
        pass


def test_the_local_engine_maps_in_order() -> None:
    assert list(LocalEngine().map_shards(str, iter(range(5)))) == list("01234")
    with ThreadPoolExecutor(3) as pool:
        assert list(LocalEngine().map_shards(str, range(50), pool)) == [str(i) for i in range(50)]


@given(parts=st.lists(st.lists(st.integers(), max_size=3), min_size=1, max_size=80), fan_in=st.integers(2, 9))
def test_a_tree_merges_everything_once_in_order(parts: list[list[int]], fan_in: int) -> None:
    sizes = []

    def concatenated(some: Sequence[list[int]]) -> list[int]:
        sizes.append(len(some))
        return [value for part in some for value in part]

    assert tree_merged(parts, concatenated, fan_in) == [value for part in parts for value in part]
    assert max(sizes, default=0) <= fan_in


@pytest.mark.parametrize("n", [0, 1, 16, 17, 300])
def test_parts_of_a_source_are_all_of_it(n: int) -> None:
    source = load_cohort("phantom:sites=reference,n=300").source.rows(range(n))
    parts = source_parts(source)
    keys = [part.content_key(row) for part in parts for row in range(len(part))]
    assert keys == [source.content_key(row) for row in range(n)]


def test_sources_and_their_errors_can_be_sent(tmp_path: Path) -> None:
    source = cohort_of(tmp_path, (*write_images(tmp_path, [1]), "none.png")).source
    sent = pickle.loads(pickle.dumps(source))
    assert sent.content_key(0) == source.content_key(0)
    with pytest.raises(ImageError) as caught:
        sent.content_key(1)
    error = pickle.loads(pickle.dumps(caught.value))
    assert (type(error), error.reason, str(error)) == (ImageError, "missing_file", str(caught.value))


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "localhost:{}", "ray://127.0.0.1:{}"])
def test_a_cluster_that_is_not_there_is_noticed_at_once(form: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert answers(form.format(port))
    assert not answers(form.format(port))
    assert not answers(form.format(99_999))
    assert answers("auto")
