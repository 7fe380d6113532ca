"""What a Ray worker does, called without Ray: the model must be the driver's, and no error names a file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_embedding_model import cohort_of, embed_all, make_model, write_images

from medvlm_probe.embeddings.batches import Item
from medvlm_probe.embeddings.distributed import RayEngine
from medvlm_probe.embeddings.engines import Work
from medvlm_probe.embeddings.ray_workers import NO_MEMORY, Decoding, Encode, Encoding, Row, decoded_row, versions
from medvlm_probe.errors import DeviceError, ModelError
from medvlm_probe.models.zoo import load_model

RIGHT = Encoding("phantom-clip", load_model().fingerprint, "cpu", "float32", 1, versions())


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pixels(n: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((n, 3, 224, 224), dtype=np.float32)


def row_of(values: np.ndarray) -> Row:
    return {"place": 7, "reasons": [""] * len(values), "decode": 0.5, "pixels": values}


def test_vectors_are_the_models_own() -> None:
    done = Encode(RIGHT)(row_of(pixels(2)))
    expected = load_model().encode_images(torch.tensor(pixels(2))).numpy()
    np.testing.assert_array_equal(done["vectors"], expected)
    assert (done["place"], done["reasons"], done["decode"], done["problem"]) == (7, ["", ""], 0.5, "")
    assert "pixels" not in done


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"fingerprint": "0" * 64}, "fingerprint .* expected 000000000000"),
        ({"versions": versions() | {"torch": "1.0"}}, "expected medvlm-probe .* torch 1.0"),
        ({"name": "local:/no/such/folder"}, "does not exist"),
    ],
)
def test_a_worker_that_would_compute_something_else_says_so(changed: dict[str, Any], words: str) -> None:
    done = Encode(replace(RIGHT, **changed))(row_of(pixels(1)))
    assert done["vectors"].size == 0
    with pytest.raises(ModelError, match=f"A worker cannot compute as this machine does.*{words}"):
        raise ModelError(done["problem"])


def test_decoding_gives_reasons_and_no_names(tmp_path: Path) -> None:
    model = make_model()
    names = write_images(tmp_path, range(3))
    source = cohort_of(tmp_path, names).source
    keys = [source.content_key(row) for row in range(3)]
    (tmp_path / names[1]).unlink()
    how = Decoding(source, model.preprocess, model.image_size)
    done = decoded_row(how, {"place": 0, "keys": np.array(keys), "rows": np.arange(3)})
    assert done["reasons"] == ["", "missing_file", ""]
    assert names[1] not in str(done)
    assert not done["pixels"][1].any()
    np.testing.assert_array_equal(done["pixels"][2], model.preprocess(source.read(2)).numpy())


def rows_here(batches: Sequence[Sequence[Item]], work: Work, fits: int) -> Iterator[Row]:
    """Do what workers do, last batch first; of more than `fits` images a batch does not fit into memory."""
    how = Decoding(work.source, work.model.preprocess, work.model.image_size)
    for place, items in reversed(list(enumerate(batches))):
        row = decoded_row(how, {"place": place, "keys": [i.key for i in items], "rows": [i.row for i in items]})
        found = work.model.encode_images(torch.tensor(row["pixels"])).numpy()
        yield row | {"vectors": found, "forward": 0.25, "problem": NO_MEMORY if len(items) > fits else ""}


def test_batches_that_do_not_fit_are_halved_on_workers_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cohort = cohort_of(tmp_path / "images", write_images(tmp_path / "images", range(40)))
    engine = RayEngine("tiny", 2, 1, 1)
    monkeypatch.setattr(RayEngine, "_rows", lambda self, plan, work: rows_here(plan, work, 9))
    options = {"batch_size": "auto", "shard_size": 20, "precision": "float32"}
    there = embed_all(cohort, make_model(), tmp_path / "there", engine=engine, **options)
    here = embed_all(cohort, make_model(), tmp_path / "here", **options | {"batch_size": 8})
    assert there.batch_size == 8
    np.testing.assert_array_equal(there.vectors, here.vectors)
    assert there.seconds["forward"] == 0.25 * 6
    with pytest.raises(DeviceError, match="batch size of 10"):
        embed_all(cohort, make_model(), tmp_path / "fixed", engine=engine, **options | {"batch_size": 10})


def test_a_problem_of_a_worker_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cohort = cohort_of(tmp_path / "images", write_images(tmp_path / "images", range(4)))
    rows = [{"place": 0, "problem": "A worker cannot compute as this machine does: it has torch 1.0."}]
    monkeypatch.setattr(RayEngine, "_rows", lambda self, plan, work: iter(rows))
    with pytest.raises(ModelError, match=r"torch 1\.0"):
        embed_all(cohort, make_model(), tmp_path / "cache", engine=RayEngine("tiny", 2, 1, 1), batch_size=4)
