"""Embedding on Ray: the same bytes as here, whatever is killed on the way, and nothing private in Ray's logs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from operator import neg
from pathlib import Path

import numpy as np
import pytest
import torch
from object_store import SECRET, served
from ray_driver import SETTINGS
from tiny_embedding_model import snapshot

from medvlm_probe.audit.sketch_shards import SketchRows, shards_of, sketch_in_shards
from medvlm_probe.cohort.catalog import load_cohort
from medvlm_probe.embeddings.batches import content_keys, source_parts
from medvlm_probe.embeddings.engines import Engine, EngineOptions, LocalEngine, open_engine
from medvlm_probe.embeddings.extract import Embedded, embed
from medvlm_probe.errors import DeviceError
from medvlm_probe.models.zoo import load_model
from medvlm_probe.shift.random_features import RandomFeatures
from medvlm_probe.shift.sketch import sketch
from medvlm_probe.shift.sketch_plan import SketchPlan

pytest.importorskip("ray", reason="needs Ray: the extra 'distributed'")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds workers to kill in Linux's /proc"),
]

N_IMAGES = 56
COPIES = (3, 17)
BROKEN = 30
NAME = "doe-jane"


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of phantoms, two of them twice, and one that is cut short."""
    folder = tmp_path_factory.mktemp("ray") / "files"
    folder.mkdir()
    source = load_cohort(f"phantom:sites=portable,n={N_IMAGES},size=96").source
    rows = [*range(N_IMAGES), *COPIES]
    names = [f"{NAME}-{place:02d}.png" for place in range(len(rows))]
    for name, row in zip(names, rows, strict=True):
        source.read(row).save(folder / name)
    broken = folder / names[BROKEN]
    broken.write_bytes(broken.read_bytes()[:300])
    path = folder / "manifest.csv"
    path.write_text(
        "\n".join(["image,patient", *(f"{name},{NAME} {row}" for name, row in zip(names, rows, strict=True))]) + "\n"
    )
    return path


@pytest.fixture(scope="module")
def here(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Embedded, dict[str, str]]:
    """What this process alone makes of the files, and the bytes of its cache."""
    cache = tmp_path_factory.mktemp("here")
    done = embed(load_cohort(str(manifest)), load_model(), cache_dir=cache, **SETTINGS)
    return done, snapshot(cache)


@pytest.fixture(scope="module")
def killed(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """The cache and Ray's folder of a run whose workers were killed, which went on, and which then was killed."""
    cache = tmp_path_factory.mktemp("killed") / "cache"
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="mvp-") as temporary:
        paths = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
        driver = subprocess.Popen(
            [sys.executable, "-m", "ray_driver", str(manifest), str(cache)],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"TMPDIR": temporary, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        )
        assert driver.stdout is not None
        try:
            counts = map(int, driver.stdout)
            assert next(n for n in counts if n >= 8) < N_IMAGES
            family = descendants(driver.pid)
            for kind in ("Map(Decode)", "Map(Encode)"):
                os.kill(next(pid for pid, words in family.items() if kind in words), signal.SIGKILL)
            assert next(n for n in counts if n >= 28) < N_IMAGES
            family = descendants(driver.pid)
        finally:
            driver.kill()
            driver.wait()
            driver.stdout.close()
        # The whole machine went down: Ray's own agents would look for the driver for another minute.
        for pid in family:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        while any(Path(f"/proc/{pid}").exists() for pid in family):
            time.sleep(0.1)
        yield cache, Path(temporary)


@pytest.fixture(scope="module")
def store(manifest: Path) -> Iterator[str]:
    """The same files in an object store."""
    with served(manifest.parent) as address:
        yield f"{address}/{manifest.name}"


@pytest.fixture(scope="module")
def engine(store: str) -> Iterator[Engine]:
    """A cluster of this process; when it ends, its folder is gone, and its logs have named nobody."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="mvp-") as temporary, pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", temporary)
        with open_engine("ray", EngineOptions("phantom-clip", model_workers=2, workers=1)) as engine:
            yield engine
            refuse_private_logs(Path(temporary))
        assert list(Path(temporary).iterdir()) == []


def refuse_private_logs(folder: Path) -> None:
    logs = [path for path in folder.rglob("*") if path.is_file()]
    assert len(logs) > 5
    for path in logs:
        data = path.read_bytes()
        assert NAME.encode() not in data, path.name
        assert SECRET.encode() not in data, path.name


def descendants(pid: int) -> dict[int, str]:
    """Return the command lines of all processes below one."""
    found: dict[int, str] = {}
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            with suppress(FileNotFoundError, ProcessLookupError):  # it ended meanwhile
                found[child] = Path(f"/proc/{child}/cmdline").read_text().replace("\0", " ")
                found |= descendants(child)
    return found


def test_workers_and_then_the_driver_are_killed_and_either_engine_goes_on(
    manifest: Path,
    here: tuple[Embedded, dict[str, str]],
    killed: tuple[Path, Path],
    store: str,
    engine: Engine,
    tmp_path: Path,
) -> None:
    undisturbed, files = here
    cache, temporary = killed
    n_shards = len(list(cache.glob("embeddings/*/ledger/*.json")))
    assert 2 <= n_shards < sum("/ledger/" in name for name in files)

    shutil.copytree(cache, tmp_path / "local")
    done = embed(load_cohort(str(manifest)), load_model(), cache_dir=tmp_path / "local", **SETTINGS)
    assert 0 < done.n_computed < N_IMAGES
    assert snapshot(tmp_path / "local") == files

    done = embed(load_cohort(store), load_model(), cache_dir=cache, engine=engine, **SETTINGS)
    assert 0 < done.n_computed < N_IMAGES
    assert snapshot(cache) == files
    assert (done.engine, done.model_workers, done.workers, done.threads) == ("ray", 2, 1, 1)
    assert done.quarantine.equals(undisturbed.quarantine)
    assert done.quarantine[["row", "reason"]].values.tolist() == [[BROKEN, "truncated"]]
    assert done.n_unique == N_IMAGES - 1
    assert done.keys == undisturbed.keys
    np.testing.assert_array_equal(done.vectors, undisturbed.vectors)

    refuse_private_logs(temporary)


def test_maps_keep_their_order_and_their_errors(store: str, engine: Engine) -> None:
    assert list(engine.map_shards(neg, range(40))) == [-i for i in range(40)]
    with pytest.raises(ValueError, match=r"^invalid literal for int\(\) with base 10: 'x'$"):
        list(engine.map_shards(int, ["1", "x"]))
    source = load_cohort(store).source
    found = [key for part in engine.map_shards(content_keys, source_parts(source)) for key in part]
    expected = content_keys(source)
    assert [str(key) for key in found] == [str(key) for key in expected]


def test_a_sketch_of_shards_is_that_of_all_at_once(engine: Engine, rng: np.random.Generator) -> None:
    n, labels = 1_500, ("edema", "cardiomegaly")
    plan = SketchPlan(RandomFeatures(8, 0.9, 64), "model", "f" * 64, "radiology", labels, (0.4, 0.5), ("energy",))
    rows = SketchRows(
        vectors=rng.standard_normal((n, 8)).astype(np.float32),
        names=np.array([f"patient {i}" for i in rng.integers(0, 1_000, n)]),
        probabilities=rng.uniform(size=(n, 2)),
        labels=rng.choice([0.0, 1.0, np.nan], (n, 2)),
        outlier_scores={"energy": rng.standard_normal(n)},
    )
    assert len(list(shards_of(rows.names, 250))) == 3
    merged = sketch_in_shards(plan, rows, engine, own_plan=True, patients_in_shard=250)
    alone = sketch_in_shards(plan, rows, LocalEngine(), own_plan=True, patients_in_shard=250)
    whole = sketch(
        plan,
        rows.vectors,
        rows.names.tolist(),
        probabilities=rows.probabilities,
        labels=rows.labels,
        outlier_scores=rows.outlier_scores,
        own_plan=True,
    )
    assert merged.own_plan
    for name, array in merged.arrays().items():
        np.testing.assert_array_equal(array, alone.arrays()[name])
        np.testing.assert_allclose(array, whole.arrays()[name], rtol=1e-9, atol=1e-9)


def test_what_a_cluster_cannot_do_is_said(engine: Engine) -> None:
    with (
        pytest.raises(DeviceError, match=r"9 model workers of 1 threads .* need 10 cores; the Ray cluster has 3"),
        open_engine("ray", EngineOptions("phantom-clip", model_workers=9, workers=1)),
    ):
        pass
