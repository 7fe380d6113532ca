"""Precision: what a device has, the check against float32, the fallback, and a model that stays as it was."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_embedding_model import cohort_of, direct, embed_all, make_model, snapshot, tower, write_images

from medvlm_probe.embeddings import precision as precisions
from medvlm_probe.embeddings.precision import (
    at_precision,
    encode,
    fast_precision,
    has_native_bfloat16,
    min_cosine,
    resolve_precision,
)
from medvlm_probe.errors import DeviceError, InputError

CPU = torch.device("cpu")


class Fragile(torch.nn.Module):
    """Turns the embedding of some images when it runs at a lower precision."""

    def __init__(self, below: float = 2.0) -> None:
        super().__init__()
        self.tower = tower(0)
        self.below = below

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        out = self.tower(pixels)
        if out.dtype != torch.float32:
            out = torch.where((pixels.mean(dim=(1, 2, 3)) < self.below)[:, None], out.roll(1, dims=1), out)
        return out


@pytest.fixture
def bfloat16_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precisions, "fast_precision", lambda device: "bfloat16")


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx2 avx512f avx512_bf16 sha_ni\n", True),
        ("processor\t: 0\nflags\t\t: fpu avx2 amx_bf16 amx_tile\n", True),
        ("processor\t: 0\nflags\t\t: fpu avx2 avx512f avx512bw\n", False),
        ("processor\t: 0\nFeatures\t: fp asimd bf16\n", False),
        ("", False),
    ],
)
def test_processors_with_bfloat16(facts: str, expected: bool) -> None:
    assert has_native_bfloat16(facts) is expected


def test_the_fast_precision_of_devices(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    facts = tmp_path / "cpuinfo"
    facts.write_text("flags : fpu avx512_bf16\n")
    monkeypatch.setattr(precisions, "_CPU_FACTS", facts)
    monkeypatch.setattr(precisions.platform, "machine", lambda: "x86_64")
    assert fast_precision(CPU) == "bfloat16"
    monkeypatch.setattr(precisions.platform, "machine", lambda: "arm64")
    assert fast_precision(CPU) == "float32"
    monkeypatch.setattr(precisions, "_CPU_FACTS", tmp_path / "absent")
    assert fast_precision(CPU) == "float32"
    assert fast_precision(torch.device("mps")) == "float32"
    for capability, expected in (((8, 0), "bfloat16"), ((9, 0), "bfloat16"), ((7, 5), "float16")):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, c=capability: c)
        assert fast_precision(torch.device("cuda")) == expected
    with pytest.raises(DeviceError, match="has no bfloat16"):
        resolve_precision("bfloat16", torch.device("cuda:1"))
    assert resolve_precision("float16", CPU) == "float16"
    with pytest.raises(InputError, match="'half'"):
        resolve_precision("half", CPU)


def test_a_converted_copy_leaves_the_model_alone() -> None:
    model = make_model()
    before = model.fingerprint
    tied = torch.nn.Linear(12, 12)
    tied.weight = torch.nn.Parameter(torch.eye(12), requires_grad=False)
    module = torch.nn.ModuleDict({"a": model.module, "b": tied, "c": tied})
    module.register_buffer("scale", torch.ones(3))
    module.register_buffer("steps", torch.arange(3))
    twin = at_precision(make_model_of(module), "bfloat16")
    assert model.fingerprint == before
    assert {p.dtype for p in module.parameters()} == {torch.float32}
    assert {p.dtype for p in twin.module.parameters()} == {torch.bfloat16}
    assert (twin.module.scale.dtype, twin.module.steps.dtype) == (torch.bfloat16, torch.int64)
    assert twin.module["b"].weight is twin.module["c"].weight
    assert at_precision(model, "float32") is model


def make_model_of(module: torch.nn.Module) -> Any:
    @dataclass(frozen=True)
    class Model:
        module: torch.nn.Module
        name: str = "frozen"

    return Model(module)


def test_encode_returns_float32_without_gradients() -> None:
    model = make_model()
    pixels = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)) - 0.5
    exact = encode(model, pixels, "float32")
    fast = encode(at_precision(model, "bfloat16"), pixels, "bfloat16")
    assert exact.dtype == fast.dtype == torch.float32
    assert not fast.requires_grad
    assert 0.999 < min_cosine(exact, fast) < 1.0


def test_min_cosine_against_numpy(rng: np.random.Generator) -> None:
    a, b = rng.normal(size=(2, 6, 5))
    expected = min((x @ y) / np.linalg.norm(x) / np.linalg.norm(y) for x, y in zip(a, b, strict=True))
    assert min_cosine(torch.from_numpy(a), torch.from_numpy(b)) == pytest.approx(expected, abs=1e-12)
    b[2, 1] = np.nan
    assert min_cosine(torch.from_numpy(a), torch.from_numpy(b)) == -1.0
    b[2, 1] = np.inf
    assert min_cosine(torch.from_numpy(a), torch.from_numpy(b)) == -1.0


@pytest.mark.usefixtures("bfloat16_machine")
def test_auto_takes_the_fast_precision_when_it_agrees(tmp_path: Path) -> None:
    model = make_model()
    result = embed_all(
        cohort_of(tmp_path / "images", write_images(tmp_path / "images", range(12))),
        model,
        tmp_path / "cache",
        precision="auto",
    )
    assert result.precision == "bfloat16"
    assert result.min_cosine is not None
    assert precisions.MIN_COSINE <= result.min_cosine < 1
    assert result.notes == ()
    expected = torch.from_numpy(direct(model, range(12)))
    assert min_cosine(expected, torch.from_numpy(result.vectors)) >= 0.9995
    assert not np.array_equal(result.vectors, expected.numpy())


@pytest.mark.usefixtures("bfloat16_machine")
def test_auto_falls_back_to_float32_and_says_so(tmp_path: Path) -> None:
    cohort = cohort_of(tmp_path / "images", write_images(tmp_path / "images", range(12)))
    model = make_model_like(Fragile())
    result = embed_all(cohort, model, tmp_path / "cache", precision="auto")
    assert result.precision == "float32"
    assert result.min_cosine is not None
    assert result.min_cosine < 0.9995
    assert len(result.notes) == 1
    assert "Computing in float32" in result.notes[0]
    np.testing.assert_allclose(result.vectors, direct(make_model(), range(12)), rtol=1e-5, atol=1e-5)

    before = snapshot(tmp_path / "cache")
    model.batches.clear()
    again = embed_all(cohort, model, tmp_path / "cache", precision="auto")
    assert model.batches == []
    assert (again.precision, again.notes, again.min_cosine) == (result.precision, result.notes, result.min_cosine)
    assert snapshot(tmp_path / "cache") == before


def test_an_explicit_precision_is_kept_and_noted(tmp_path: Path) -> None:
    cohort = cohort_of(tmp_path / "images", write_images(tmp_path / "images", range(12)))
    for _ in range(2):
        result = embed_all(cohort, make_model_like(Fragile()), tmp_path / "cache", precision="bfloat16")
        assert result.precision == "bfloat16"
        assert "Kept, as asked for" in result.notes[0]


@pytest.mark.usefixtures("bfloat16_machine")
def test_one_cohorts_fallback_does_not_change_anothers(tmp_path: Path) -> None:
    """Only images darker than the mean stray: a cohort of the others stays at bfloat16 whatever came before."""
    folder = tmp_path / "images"
    names = write_images(folder, range(40))
    model = make_model_like(Fragile(below=0.0))
    cohort = cohort_of(folder, names)
    dark = np.array([float(model.preprocess(cohort.source.read(row)).mean()) < 0 for row in range(40)])
    good, bad = cohort.select(~dark), cohort.select(dark)
    first = embed_all(good, model, tmp_path / "cache", precision="auto")
    assert embed_all(bad, model, tmp_path / "cache", precision="auto").precision == "float32"
    model.batches.clear()
    again = embed_all(good, model, tmp_path / "cache", precision="auto")
    assert (first.precision, again.precision, model.batches) == ("bfloat16", "bfloat16", [])
    subset = embed_all(good.select([5, 3]), model, tmp_path / "cache", precision="auto")
    assert (subset.precision, subset.min_cosine, model.batches) == ("bfloat16", None, [])
    np.testing.assert_array_equal(subset.vectors, first.vectors[[5, 3]])


@pytest.mark.usefixtures("bfloat16_machine")
def test_the_check_passes_over_images_that_cannot_be_read(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    names = write_images(folder, range(20))
    for name in names[:9]:
        data = bytearray((folder / name).read_bytes())
        data[data.index(b"IDAT") + 12] ^= 0xFF
        (folder / name).write_bytes(bytes(data))
    result = embed_all(cohort_of(folder, names), make_model(), tmp_path / "cache", precision="auto", batch_size=16)
    (record,) = (result.folder / "checks").iterdir()
    assert json.loads(record.read_text()) == {"images": 7, "min_cosine": result.min_cosine}
    none_readable = embed_all(cohort_of(folder, names[:9]), make_model(), tmp_path / "other", precision="auto")
    assert (none_readable.n_used, none_readable.min_cosine) == (0, None)


def make_model_like(module: torch.nn.Module) -> Any:
    return make_model().__class__(module)
