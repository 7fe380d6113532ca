"""Files of sketches: the same sketch comes back, equal ones are equal bytes, and what is no sketch is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medvlm_probe.audit.sketch_files import read_sketch, sketch_bytes, write_sketch
from medvlm_probe.errors import InputError, StoreError
from medvlm_probe.shift.random_features import RandomFeatures
from medvlm_probe.shift.sketch import Sketch, sketch
from medvlm_probe.shift.sketch_export import export_sketch
from medvlm_probe.shift.sketch_plan import SketchPlan


def made(
    n: int = 300, d: int = 8, n_features: int = 32, *, labels: tuple[str, ...] = ("edema", '</script>"')
) -> Sketch:
    rng = np.random.default_rng(0)
    plan = SketchPlan(
        RandomFeatures(d, 1.0, n_features), "m", "f" * 64, "radiology", labels, (0.5,) * len(labels), ("energy",)
    )
    return sketch(
        plan,
        rng.standard_normal((n, d)),
        [f"SECRET^NAME {k}" for k in range(n)],
        probabilities=rng.random((n, len(labels))),
        labels=rng.integers(0, 2, (n, len(labels))).astype(float),
        outlier_scores={"energy": rng.standard_normal(n)},
    )


def exports() -> list[Sketch]:
    working = made()
    noisy = export_sketch(working, epsilon=5.0, delta=1e-6, rng=np.random.default_rng(1))
    return [working, export_sketch(working), noisy, made(labels=())]


@pytest.mark.parametrize("which", range(4))
def test_a_sketch_comes_back(which: int, tmp_path: Path) -> None:
    given = exports()[which]
    write_sketch(tmp_path / "a.sketch", given)
    found = read_sketch(tmp_path / "a.sketch")
    assert (found.plan, found.kind, found.own_plan) == (given.plan, given.kind, given.own_plan)
    assert (dict(found.noise), dict(found.privacy)) == (dict(given.noise), dict(given.privacy))
    for name, array in given.arrays().items():
        np.testing.assert_array_equal(found.arrays()[name], array, err_msg=name)
    assert sketch_bytes(found) == sketch_bytes(given)


def test_an_export_is_small_and_names_nobody() -> None:
    labels = tuple(f"label_{k}" for k in range(14))
    data = sketch_bytes(export_sketch(made(1_000, 512, 4_096, labels=labels)))
    assert len(data) < 2_000_000
    assert b"SECRET" not in data


def test_what_is_no_sketch_is_refused(tmp_path: Path) -> None:
    data = sketch_bytes(made())
    path = tmp_path / "a.sketch"
    broken: dict[str, Any] = {
        "cut off": data[: len(data) // 2],
        "empty": b"",
        "a pickle": b"\x80\x04K\x01.",
        "another format": data.replace(b'\\"format\\": 2', b'\\"format\\": 1'),
        "another kind": data.replace(b'\\"kind\\": \\"working\\"', b'\\"kind\\": \\"walking\\"'),
        "other folds": data.replace(b'\\"n_folds\\": 20', b'\\"n_folds\\": 19'),
    }
    for what, content in broken.items():
        assert content != data, what
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"a\.sketch"):
            read_sketch(path)
    with pytest.raises(StoreError, match="Cannot read"):
        read_sketch(tmp_path / "nowhere.sketch")
