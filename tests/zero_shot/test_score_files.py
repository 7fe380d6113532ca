"""Score files: which column names the rows, and the outputs of a model with its own truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from medvlm_probe.errors import InputError
from medvlm_probe.zero_shot.score_files import LabelMap, matched, own_cohort, read_label_map, read_score_file

SCORES = """study,uid,filename,projection,label,prob_image_raw
CXR2,2,2_IM-0652-1001.dcm.png,Frontal,1,0.28
CXR8,8,8_IM-2333-1001.dcm.png,Frontal,0,0.05
CXR8,8,8_IM-2333-3001.dcm.png,Frontal,0,0.07
"""
MAP = 'kind = "probability"\n[scores]\nprob_image_raw = "abnormal"\n[truth.columns]\nlabel = "abnormal"\n'


def put(folder: Path, text: str, label_map: str = MAP) -> tuple[Path, LabelMap]:
    (folder / "scores.csv").write_text(text)
    (folder / "map.toml").write_text(label_map)
    return folder / "scores.csv", read_label_map(folder / "map.toml")


def test_rows_are_named_by_the_first_column_that_names_each_once(tmp_path: Path) -> None:
    file = read_score_file(*put(tmp_path, SCORES))
    assert (file.key, file.scores.ids[0], len(file.scores.ids)) == ("image", "2_IM-0652-1001.dcm.png", 3)
    file = read_score_file(*put(tmp_path, SCORES.replace("CXR8,8,8_IM-2333-3001", "CXR9,9,8_IM-2333-3001")))
    assert (file.key, file.scores.ids[0]) == ("study", "CXR2")
    file = read_score_file(*put(tmp_path, SCORES.replace("filename", "image")))
    assert (file.key, file.scores.ids[0]) == ("image", "2_IM-0652-1001.dcm.png")
    file = read_score_file(*put(tmp_path, SCORES, 'key = "filename"\n' + MAP))
    assert file.key == "image"


def test_a_column_that_names_rows_twice_is_told_with_one_that_does_not(tmp_path: Path) -> None:
    text = SCORES.replace("filename", "picture")
    with pytest.raises(InputError, match=r"'study' must name each row once; 1 come again.* 'picture' does: give key"):
        read_score_file(*put(tmp_path, text))
    with pytest.raises(InputError, match="'study' must name each row once"):
        read_score_file(*put(tmp_path, SCORES, 'key = "study"\n' + MAP))
    assert read_score_file(*put(tmp_path, text, 'key = "picture"\n' + MAP)).key == "image"
    with pytest.raises(InputError, match="'filename' must name each row once; 1 come again or are empty"):
        read_score_file(*put(tmp_path, SCORES.replace("8_IM-2333-1001.dcm.png", ""), 'key = "filename"\n' + MAP))
    with pytest.raises(InputError, match="has no column image or study or filename"):
        read_score_file(*put(tmp_path, "a,prob_image_raw,label\nx,0.2,1\n"))


def test_a_file_with_its_own_truth_is_a_cohort_by_study(tmp_path: Path) -> None:
    cohort, scores = own_cohort(read_score_file(*put(tmp_path, SCORES)))
    assert (cohort.group_kind, len(set(cohort.groups().tolist()))) == ("study", 2)
    np.testing.assert_array_equal(cohort.targets()[:, 0], [1, 0, 0])
    np.testing.assert_array_equal(scores.values[:, 0], [0.28, 0.05, 0.07])
    assert scores.kind == "probability"


def test_real_outputs_of_a_densenet(shared_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "map.toml").write_text(MAP)
    folder = shared_dir / "real_cxr" / "iu_xray" / "model_outputs"
    for part, n in (("calib", 189), ("test", 183)):
        path = folder / f"densenet_abnormal_{part}.csv"
        cohort, scores = own_cohort(read_score_file(path, read_label_map(tmp_path / "map.toml")))
        table = pd.read_csv(path)
        assert len(cohort) == n
        np.testing.assert_array_equal(cohort.targets()[:, 0], table["label"])
        np.testing.assert_array_equal(scores.values[:, 0], table["prob_image_raw"])
        assert len(set(cohort.groups().tolist())) == table["study"].nunique() < n


def test_images_are_found_by_file_name(tmp_path: Path) -> None:
    file = read_score_file(*put(tmp_path, SCORES))
    cohort, _ = own_cohort(file)
    moved = type(cohort)(
        cohort.name,
        cohort.table.assign(image=["deep/" + name for name in cohort.table["image"]])[::-1].reset_index(drop=True),
        cohort.labels,
        cohort.uncertainty,
        cohort.source,
        cohort.card,
    )
    part, scores = matched(file, moved)
    assert len(part) == 3
    np.testing.assert_array_equal(scores.values[:, 0], [0.07, 0.05, 0.28])
