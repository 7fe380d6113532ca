"""Files are written whole or not at all; run folders name themselves by their configuration."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import BinaryIO

import pandas as pd
import pytest

from medvlm_probe import runs
from medvlm_probe.errors import StoreError


def test_write_replaces_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.bin"
    runs.write_bytes_atomically(path, b"old")
    runs.write_bytes_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert [item.name for item in path.parent.iterdir()] == ["a.bin"]


def test_failed_write_keeps_the_old_file_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    runs.write_bytes_atomically(path, b"old")

    def write(file: BinaryIO) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(StoreError, match="No space left"):
        runs.write_atomically(path, write)
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_json_refuses_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        runs.write_json(tmp_path / "a.json", {"value": math.nan})
    assert not list(tmp_path.iterdir())


def test_csv_is_the_same_on_every_platform(tmp_path: Path) -> None:
    runs.write_csv(tmp_path / "a.csv", pd.DataFrame({"a": [0.1, 1 / 3], "b": ["x", "y"]}))
    assert (tmp_path / "a.csv").read_bytes() == b"a,b\n0.1,x\n0.3333333333,y\n"


def test_hashes_do_not_depend_on_key_order(tmp_path: Path) -> None:
    assert runs.sha256_json({"a": 1, "b": [2]}) == runs.sha256_json({"b": [2], "a": 1})
    (tmp_path / "f").write_bytes(b"")
    assert runs.sha256_file(tmp_path / "f").startswith("e3b0c442")


def test_cache_dir_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDVLM_PROBE_CACHE", str(tmp_path))
    assert runs.cache_dir() == tmp_path
    monkeypatch.delenv("MEDVLM_PROBE_CACHE")
    assert runs.cache_dir().name == "medvlm-probe"


def test_run_folder_is_named_by_its_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first = runs.open_run("embed-dist", {"label": ["edema"]})
    assert first.path == runs.open_run("embed-dist", {"label": ["edema"]}).path
    assert first.path != runs.open_run("embed-dist", {"label": ["fracture"]}).path
    assert first.path.parts[:2] == ("runs", "embed-dist")
    first.write_provenance({"seeds": {"permutation": 0}})
    record = json.loads((first.path / "run.json").read_text())
    assert record["config"] == {"label": ["edema"]}
    assert record["versions"]["numpy"]
    assert record["seeds"] == {"permutation": 0}


def test_what_an_earlier_run_wrote_is_not_taken_for_this_ones(tmp_path: Path) -> None:
    for name in ("a.csv", "b.svg", "mine.csv"):
        (tmp_path / name).write_text(name)
    run = runs.open_run("audit", {}, tmp_path)
    run.write_provenance({}, files=[tmp_path / "a.csv", tmp_path / "b.svg"])
    assert json.loads((tmp_path / "run.json").read_text())["files"] == ["a.csv", "b.svg"]
    run.write_provenance({}, files=[tmp_path / "a.csv"])
    assert {path.name for path in tmp_path.iterdir()} == {"a.csv", "mine.csv", "run.json"}
    runs.open_run("embed-dist", {}, tmp_path).write_provenance({}, files=[tmp_path / "c.csv"])
    assert (tmp_path / "a.csv").exists()


@pytest.mark.parametrize("listed", [["../kept.csv"], ["."], "kept.csv", [3], {"kept.csv": 1}])
def test_an_earlier_record_removes_nothing_elsewhere(tmp_path: Path, listed: object) -> None:
    (tmp_path / "kept.csv").write_text("")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"command": "audit", "files": listed}))
    runs.open_run("audit", {}, folder).write_provenance({}, files=[folder / "a.csv"])
    assert (tmp_path / "kept.csv").exists()


def test_out_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    with pytest.raises(StoreError, match="--out"):
        runs.open_run("embed-dist", {}, tmp_path / "f")
