"""Weights files: formats, damage, and tensors that do not fit."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from medvlm_probe.errors import ModelError
from medvlm_probe.models.checkpoint import hash_tensors, load_strictly, read_state_dict

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.tensor([1.0, 2.0])}


class Touches:
    """Unpickling this would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["w.safetensors", "w.bin", "w.pt", "w.pth"])
def test_reads_tensors(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    save_file(TENSORS, path) if name.endswith("safetensors") else torch.save(TENSORS, path)
    read = read_state_dict(path)
    assert read.keys() == TENSORS.keys()
    assert all(torch.equal(read[key], TENSORS[key]) for key in TENSORS)


def test_unwraps_training_checkpoints(tmp_path: Path) -> None:
    wrapped = {"epoch": 3, "state_dict": {f"module.{key}": value for key, value in TENSORS.items()}}
    torch.save(wrapped, tmp_path / "epoch_3.pt")
    assert read_state_dict(tmp_path / "epoch_3.pt").keys() == TENSORS.keys()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("name", ["w.bin", "w.pt", "raw.bin"])
def test_never_runs_what_a_file_holds(tmp_path: Path, name: str) -> None:
    touched, path = tmp_path / "touched", tmp_path / name
    content = {"a": Touches(touched)}
    if name == "raw.bin":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path)
    with pytest.raises(ModelError, match="Python objects besides tensors"):
        read_state_dict(path)
    assert not touched.exists()


@pytest.mark.parametrize("name", ["w.safetensors", "w.bin"])
@pytest.mark.parametrize("keep", [0, 7, 0.5, 0.99])
def test_damaged_files_are_refused(tmp_path: Path, name: str, keep: float) -> None:
    path = tmp_path / name
    save_file(TENSORS, path) if name.endswith("safetensors") else torch.save(TENSORS, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep if keep >= 1 else keep * len(whole))])
    with pytest.raises(ModelError, match="Weights file"):
        read_state_dict(path)


@pytest.mark.parametrize(
    "content", [{}, [1, 2], {"epoch": 3}, torch.ones(2)], ids=["empty", "list", "no tensors", "one"]
)
def test_files_without_a_table_of_tensors_are_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(ModelError, match="no table of tensors"):
        read_state_dict(tmp_path / "w.pt")


@pytest.mark.filterwarnings("ignore:.*torch.jit", "ignore:.*TorchScript")
def test_compiled_programs_are_refused(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "w.pt")
    with pytest.raises(ModelError, match="Weights file"):
        read_state_dict(tmp_path / "w.pt")


def test_other_formats_are_refused(tmp_path: Path) -> None:
    (tmp_path / "w.npz").touch()
    with pytest.raises(ModelError, match=r"expected \.safetensors"):
        read_state_dict(tmp_path / "w.npz")


def module() -> nn.Module:
    return nn.ModuleDict({"a": nn.Linear(3, 2)})


def test_loads_what_fits() -> None:
    target = module()
    load_strictly(target, {key: value.half() for key, value in TENSORS.items()}, "tiny")
    assert torch.equal(target.state_dict()["a.weight"], TENSORS["a.weight"])
    assert target.state_dict()["a.weight"].dtype == torch.float32


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"a.weight": TENSORS["a.weight"]}, r"tiny do not fit.* 1 missing: a\.bias"),
        ({**TENSORS, "b": torch.ones(1)}, "1 not expected: b"),
        ({**TENSORS, "a.bias": torch.ones(3)}, r"1 of another shape: a\.bias \(3,\) for \(2,\)"),
        ({f"x{i}": torch.ones(1) for i in range(9)}, r"2 missing: .*; 9 not expected: x0, x1, x2, x3, \.\.\."),
    ],
)
def test_tensors_that_do_not_fit_are_named(tensors: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load_strictly(module(), tensors, "tiny")


def test_only_position_ids_may_differ() -> None:
    target = module()
    target.register_buffer("embeddings", None)
    text = nn.Module()
    text.register_buffer("position_ids", torch.arange(4))
    holder = nn.ModuleDict({"a": nn.Linear(3, 2), "embeddings": text})
    load_strictly(holder, TENSORS, "without")
    assert torch.equal(holder.state_dict()["embeddings.position_ids"], torch.arange(4))
    load_strictly(module(), {**TENSORS, "t.embeddings.position_ids": torch.arange(4)}, "left over")


def test_hash_of_tensors_covers_names_types_shapes_and_values() -> None:
    base = hash_tensors(TENSORS)
    assert hash_tensors(dict(reversed(TENSORS.items()))) == base
    assert hash_tensors({key: value.clone() for key, value in TENSORS.items()}) == base
    assert hash_tensors({"a.weight": TENSORS["a.weight"].T.contiguous().T, "a.bias": TENSORS["a.bias"]}) == base
    changed = [
        {"b.weight": TENSORS["a.weight"], "a.bias": TENSORS["a.bias"]},
        {**TENSORS, "a.bias": TENSORS["a.bias"].half()},
        {**TENSORS, "a.weight": TENSORS["a.weight"].reshape(3, 2)},
        {**TENSORS, "a.bias": torch.tensor([1.0, 2.5])},
        {**TENSORS, "c": torch.ones(0)},
    ]
    assert len({base, *map(hash_tensors, changed)}) == 6
