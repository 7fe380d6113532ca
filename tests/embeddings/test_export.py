"""Exports: the same vectors and ids in every format, written whole, and never a report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny_embedding_model import cohort_of, embed_all, make_model, snapshot, write_images

from medvlm_probe.cohort.cohort import Cohort
from medvlm_probe.embeddings.export import export_embeddings
from medvlm_probe.embeddings.extract import Embedded
from medvlm_probe.errors import InputError, StoreError

SECRET = "the heart is enlarged"


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    names = write_images(tmp_path / "images", range(6))
    (tmp_path / "images" / names[2]).unlink()
    return cohort_of(
        tmp_path / "images",
        names,
        patient=["p,1", "p1", "p2", None, "p4", 'p"5'],
        site=["x", "y"] * 3,
        report=[SECRET] * 6,
        age=[50.0] * 6,
        edema=[1, 0, -1, np.nan, 1, 0],
        cardiomegaly=[0, 0, 1, 1, -1, np.nan],
    )


@pytest.fixture
def embedded(cohort: Cohort, tmp_path: Path) -> Embedded:
    return embed_all(cohort, make_model(), tmp_path / "cache")


def expected_rows(cohort: Cohort) -> pd.DataFrame:
    columns = ["image", "patient", "site", "edema", "cardiomegaly"]
    return cohort.table.loc[[0, 1, 3, 4, 5], columns].reset_index(drop=True)


def test_parquet(cohort: Cohort, embedded: Embedded, tmp_path: Path) -> None:
    path = tmp_path / "out" / "embeddings.parquet"
    assert export_embeddings(embedded, cohort, path) == [path]
    table = pq.read_table(path)
    assert table.schema.field("embedding").type == pa.list_(pa.float32(), 12)
    np.testing.assert_array_equal(np.stack(table["embedding"].to_numpy()), embedded.vectors)
    rows = table.drop(["embedding"]).to_pandas()
    pd.testing.assert_frame_equal(rows, expected_rows(cohort), check_dtype=False)


def test_csv_keeps_every_bit_of_the_vectors(cohort: Cohort, embedded: Embedded, tmp_path: Path) -> None:
    path = tmp_path / "embeddings.csv"
    assert export_embeddings(embedded, cohort, path, "csv") == [path]
    table = pd.read_csv(path)
    vectors = table[[f"e{i}" for i in range(12)]].to_numpy(dtype=np.float32)
    np.testing.assert_array_equal(vectors, embedded.vectors)
    pd.testing.assert_frame_equal(table.iloc[:, :5], expected_rows(cohort), check_dtype=False)


def test_npy_with_a_table_of_its_rows(cohort: Cohort, embedded: Embedded, tmp_path: Path) -> None:
    path = tmp_path / "embeddings.npy"
    assert export_embeddings(embedded, cohort, path, "npy") == [path, tmp_path / "embeddings.csv"]
    matrix = np.load(path, allow_pickle=False)
    assert matrix.dtype == np.float32
    np.testing.assert_array_equal(matrix, embedded.vectors)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "embeddings.csv"), expected_rows(cohort), check_dtype=False)


@pytest.mark.parametrize("format", ["parquet", "csv", "npy"])
def test_no_report_text_and_the_same_bytes_again(
    cohort: Cohort, embedded: Embedded, tmp_path: Path, format: str
) -> None:
    folder = tmp_path / "out"
    export_embeddings(embedded, cohort, folder / f"a.{format}", format)
    before = snapshot(folder)
    export_embeddings(embedded, cohort, folder / f"a.{format}", format)
    assert snapshot(folder) == before
    assert all(SECRET.encode() not in path.read_bytes() for path in folder.iterdir())
    assert "age" not in (pq.read_table(folder / "a.parquet") if format == "parquet" else pd.read_csv(folder / "a.csv"))


def test_refusals(cohort: Cohort, embedded: Embedded, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Unknown format 'xlsx'"):
        export_embeddings(embedded, cohort, tmp_path / "a.xlsx", "xlsx")
    with pytest.raises(InputError, match=r"does not end in \.npy"):
        export_embeddings(embedded, cohort, tmp_path / "a.csv", "npy")
    with pytest.raises(InputError, match="6 images do not fit a cohort of 2"):
        export_embeddings(embedded, cohort.select([0, 1]), tmp_path / "a.csv", "csv")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError):
        export_embeddings(embedded, cohort, tmp_path / "file" / "a.csv", "csv")


def test_without_any_vectors(cohort: Cohort, embedded: Embedded, tmp_path: Path) -> None:
    nothing = replace(embedded, vectors=np.empty((0, 12), np.float32), rows=np.empty(0, np.int64))
    for format in ("parquet", "csv", "npy"):
        export_embeddings(nothing, cohort, tmp_path / f"a.{format}", format)
    assert pq.read_table(tmp_path / "a.parquet").num_rows == 0
