"""Regions from every form of file, on images of known sizes, against masks drawn by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from medvlm_probe.cohort.catalog import load_cohort
from medvlm_probe.cohort.cohort import Cohort
from medvlm_probe.cohort.phantom import draw, sample_cases
from medvlm_probe.cohort.phantom_export import export_phantoms
from medvlm_probe.cohort.region_files import parse_space
from medvlm_probe.cohort.regions import Region, read_regions, regions_named, regions_of
from medvlm_probe.errors import InputError, UnknownNameError

WIDTH, HEIGHT = 64, 48


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    """Three images of 64 x 48 pixels and a square one of 64, with five labels."""
    (tmp_path / "images/a").mkdir(parents=True)
    names = ["images/a/one.png", "images/a/two.png", "images/three.jpg", "images/square.png"]
    for name in names:
        size = (WIDTH, WIDTH) if "square" in name else (WIDTH, HEIGHT)
        Image.fromarray(np.random.default_rng(0).integers(0, 255, size[::-1], dtype=np.uint8)).save(tmp_path / name)
    labels = ["pneumothorax", "lung_opacity", "lung_lesion", "pleural_effusion", "cardiomegaly"]
    table = pd.DataFrame({"image": names, **dict.fromkeys(labels, "1")})
    table.loc[1, "lung_opacity"] = "0"
    table.to_csv(tmp_path / "manifest.csv", index=False)
    return load_cohort(str(tmp_path / "manifest.csv"))


def rectangle(x: int, y: int, w: int, h: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    mask = np.zeros((height, width), dtype=bool)
    mask[y : y + h, x : x + w] = True
    return mask


def mask_of(regions: object, image: str, label: str) -> np.ndarray:
    region = regions.get(image, label)  # type: ignore[attr-defined]
    assert region is not None
    return region.mask(region.size[1], region.size[0])


def test_our_boxes_by_path_by_stem_and_by_name(cohort: Cohort, tmp_path: Path) -> None:
    (tmp_path / "boxes.csv").write_text(
        "image,label,x,y,w,h,source\n"
        "images/a/one.png,Lung Opacity,2,3,10,5,me\n"
        "images/a/one.dcm,lung_opacity,30,3,4,4,me\n"
        "two,Effusion,1.4,1.6,3,3,me\n"
        "elsewhere.png,cardiomegaly,1,1,3,3,me\n"
        "images/a/two.png,lung_opacity,1,1,63,47,me\n"
    )
    regions = regions_of(cohort)
    assert regions is not None
    np.testing.assert_array_equal(
        mask_of(regions, "images/a/one.png", "lung_opacity"), rectangle(2, 3, 10, 5) | rectangle(30, 3, 4, 4)
    )
    np.testing.assert_array_equal(mask_of(regions, "images/a/two.png", "pleural_effusion"), rectangle(1, 2, 3, 3))
    assert regions.labels == ("lung_opacity", "pleural_effusion")
    assert regions.images("lung_opacity") == ("images/a/one.png", "images/a/two.png")
    assert ("images/a/one.png", "cardiomegaly") not in regions
    assert regions.get("images/three.jpg", "lung_opacity") is None
    assert len(regions) == 3
    imported = regions_of(cohort, boxes=pd.read_csv(tmp_path / "boxes.csv"))
    assert imported is not None
    assert imported.labels_of == regions.labels_of
    assert regions_of(cohort.select([2, 3])) is None
    notes = " ".join(regions.notes)
    assert "images that are not here, left out: 1." in notes
    assert "'Effusion' as pleural_effusion" in notes
    assert "1 image has a region of lung_opacity that the cohort calls absent" in notes


def test_bad_rows_are_skipped_with_their_reason(cohort: Cohort, tmp_path: Path) -> None:
    rows = "".join(f"images/a/one.png,lung_opacity,{i},3,4,4\n" for i in range(30))
    (tmp_path / "b.csv").write_text(
        f"image,label,x,y,w,h\n{rows}"
        "images/a/one.png,lung_opacity,a,3,4,4\n"
        "images/a/one.png,lung_opacity,3,3,0,4\n"
        "images/a/one.png,,3,3,1,4\n"
        "images/a/one.png,lung_opacity,60,3,20,4\n"
    )
    regions = read_regions(tmp_path / "b.csv", cohort)
    assert regions.skipped["what"].str.extract(r"row (\d+)")[0].tolist() == ["31", "32", "33", "34"]
    assert [reason.split(":")[0] for reason in regions.skipped["reason"]] == [
        "its x, y, width and height are not four numbers",
        "it has no width or height",
        "it names no finding",
        "it reaches outside its image of 64 x 48 pixels",
    ]
    assert "Regions that cannot be used, left out: 4." in regions.notes


def test_boxes_in_other_pixels_are_refused_until_the_pixels_are_stated(cohort: Cohort, tmp_path: Path) -> None:
    path = tmp_path / "b.csv"
    path.write_text("image,label,x,y,w,h\nimages/a/one.png,lung_opacity,320,240,64,64\n")
    with pytest.raises(InputError, match="1 of 1 boxes lie outside their images, such as row 1"):
        read_regions(path, cohort)
    regions = regions_named(f"640x480:{path}", cohort)
    np.testing.assert_array_equal(mask_of(regions, "images/a/one.png", "lung_opacity"), rectangle(32, 24, 6, 6))
    with pytest.raises(InputError, match="no reduced image of 1024 x 1024"):
        read_regions(path, cohort, space=(1024, 1024))
    for text in ("1024", "0x12", "ax3"):
        with pytest.raises(InputError, match="no pixel space"):
            parse_space(text)


def test_boxes_that_fill_only_a_corner_are_pointed_out(cohort: Cohort, tmp_path: Path) -> None:
    rows = "".join(f"images/a/one.png,lung_opacity,{i},3,4,4\n" for i in range(10))
    (tmp_path / "b.csv").write_text(f"image,label,x,y,w,h\n{rows}")
    assert any("within the first 20% of" in note for note in read_regions(tmp_path / "b.csv", cohort).notes)


def test_nih_boxes_with_their_odd_header_are_scaled_from_1024(cohort: Cohort, tmp_path: Path) -> None:
    path = tmp_path / "BBox_List_2017.csv"
    path.write_text(
        "Image Index,Finding Label,Bbox [x,y,w,h],,,\n"
        "square.png,Infiltrate,160,320,64,32,,,\nsquare.png,Mass,512.5,512,16,16,,,\none.png,Mass,1,1,16,16,,,\n"
    )
    regions = read_regions(path, cohort)
    square = "images/square.png"
    mass = rectangle(32, 32, 1, 1, WIDTH, WIDTH)
    np.testing.assert_array_equal(mask_of(regions, square, "lung_lesion"), mass)
    np.testing.assert_array_equal(
        mask_of(regions, square, "lung_opacity"), mass | rectangle(10, 20, 4, 2, WIDTH, WIDTH)
    )
    assert "no reduced image of 1024 x 1024" in regions.skipped["reason"][0]


def test_rsna_labels_without_a_box_are_passed_over(cohort: Cohort, tmp_path: Path) -> None:
    path = tmp_path / "stage_2_train_labels.csv"
    path.write_text("patientId,x,y,width,height,Target\nsquare,160.0,320.0,64,32,1\ntwo,,,,,0\n")
    regions = read_regions(path, cohort)
    np.testing.assert_array_equal(
        mask_of(regions, "images/square.png", "lung_opacity"), rectangle(10, 20, 4, 2, WIDTH, WIDTH)
    )
    assert (len(regions), len(regions.skipped)) == (1, 0)


def coco(tmp_path: Path, annotations: list[dict[str, object]]) -> Path:
    path = tmp_path / "coco.json"
    content = {
        "images": [
            {"id": 1, "file_name": "one.png", "width": 128, "height": 96},
            {"id": 2, "file_name": "images/a/two.png"},
        ],
        "categories": [{"id": 7, "name": "Cardiomegaly"}, {"id": 8, "name": "Rib"}],
        "annotations": annotations,
    }
    path.write_text(json.dumps(content))
    return path


def test_coco_boxes_polygons_and_run_lengths(cohort: Cohort, tmp_path: Path) -> None:
    # Written by pycocotools.mask.encode for rectangle(4, 6, 10, 8) in 64 x 48 pixels.
    compressed = "V68X100000000000000000jZ2"
    counts = [4 * 48 + 6, *[8, 40] * 9, 8, 48 * 50 + 34]
    polygon = [20, 20, 40, 20, 40, 30, 20, 30]
    path = coco(
        tmp_path,
        [
            {"id": 1, "image_id": 1, "category_id": 7, "bbox": [40, 60, 20, 12]},
            {"id": 2, "image_id": 1, "category_id": 7, "segmentation": [polygon], "bbox": [0, 0, 1, 1]},
            {"id": 3, "image_id": 2, "category_id": 7, "segmentation": {"counts": counts, "size": [48, 64]}},
            {"id": 4, "image_id": 2, "category_id": 8, "segmentation": {"counts": compressed, "size": [48, 64]}},
        ],
    )
    regions = read_regions(path, cohort)
    one = rectangle(20, 30, 10, 6) | rectangle(10, 10, 10, 5)
    np.testing.assert_array_equal(mask_of(regions, "images/a/one.png", "cardiomegaly"), one)
    for label in ("cardiomegaly", "rib"):
        np.testing.assert_array_equal(mask_of(regions, "images/a/two.png", label), rectangle(4, 6, 10, 8))
    assert any("No labels of the cohort: rib." in note for note in regions.notes)


def test_bad_coco_annotations_have_reasons(cohort: Cohort, tmp_path: Path) -> None:
    good = {"id": 9, "image_id": 1, "category_id": 7, "bbox": [40, 60, 20, 12]}
    bad: list[dict[str, object]] = [
        {"id": 1, "image_id": 5, "category_id": 7, "bbox": [1, 1, 2, 2]},
        {"id": 2, "image_id": 1, "category_id": 5, "bbox": [1, 1, 2, 2]},
        {"id": 3, "image_id": 1, "category_id": 7},
        {"id": 4, "image_id": 1, "category_id": 7, "bbox": [1, 1, 0, 2]},
        {"id": 5, "image_id": 1, "category_id": 7, "segmentation": [[1, 2, 3, 4]]},
        {"id": 6, "image_id": 1, "category_id": 7, "segmentation": {"counts": "f68", "size": [96]}},
        {"id": 7, "image_id": 2, "category_id": 7, "segmentation": {"counts": [5, 7], "size": [48, 64]}},
        {"id": 8, "image_id": 2, "category_id": 7, "segmentation": {"counts": "f68X", "size": [48, 64]}},
        *(
            {"id": 10, "image_id": 2, "category_id": 7, "segmentation": {"counts": counts, "size": [48, 64]}}
            for counts in ([1e300, 5], [1.5, 2.5], [[1], [2]], [1, None], 40 * "o" + "0")
        ),
    ]
    skipped = read_regions(coco(tmp_path, [*bad, good]), cohort).skipped
    assert len(skipped) == len(bad)
    for words in ("none of the images", "categories", "neither", "no width", "three corners", "no size", "12 pixels"):
        assert skipped["reason"].str.contains(words).sum() == 1, words
    assert skipped["reason"].eq("its counts are no run lengths").sum() == 5
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(InputError, match="not of COCO's form"):
        read_regions(tmp_path / "x.json", cohort)


def test_run_lengths_must_be_named_and_both_forms_are_read(cohort: Cohort, tmp_path: Path) -> None:
    mask = rectangle(4, 6, 3, 8)
    starts = [x * HEIGHT + 6 for x in (4, 5, 6)]
    absolute = " ".join(f"{start + 1} 8" for start in starts)
    relative = f"{starts[0]} 8 {HEIGHT - 8} 8 {HEIGHT - 8} 8"
    path = tmp_path / "rle.csv"
    path.write_text(f"ImageId,EncodedPixels\none,{absolute}\ntwo,-1\nthree,1 x\n")
    with pytest.raises(InputError, match="Name the one it has: siim-rle"):
        read_regions(path, cohort)
    with pytest.raises(InputError, match="does not say what its masks show"):
        read_regions(path, cohort, form="kaggle-rle")
    regions = regions_named(f"kaggle-rle,label=pneumothorax:{path}", cohort)
    np.testing.assert_array_equal(mask_of(regions, "images/a/one.png", "pneumothorax"), mask)
    assert regions.skipped["reason"].tolist() == ["its runs are no whole numbers"]
    assert "Rows that say that nothing was found: 1." in regions.notes
    path.write_text(f"ImageId, EncodedPixels\none, {relative}\n")
    regions = read_regions(path, cohort, form="siim-rle", space=(WIDTH, HEIGHT))
    np.testing.assert_array_equal(mask_of(regions, "images/a/one.png", "pneumothorax"), mask)
    with pytest.raises(InputError, match="other form of run lengths"):
        read_regions(path, cohort, form="kaggle-rle", label="pneumothorax")


def test_masks_in_folders_and_by_the_end_of_their_names(cohort: Cohort, tmp_path: Path) -> None:
    folder = tmp_path / "drawn"
    (folder / "Lung Lesion/images/a").mkdir(parents=True)
    mask = rectangle(4, 6, 10, 8)
    large = np.kron(mask, np.ones((2, 2), dtype=bool))
    Image.fromarray(mask.astype(np.uint8)).save(folder / "Lung Lesion/images/a/one.png")
    Image.fromarray(large.astype(np.uint8) * 255).save(folder / "Lung Lesion/two.png")
    Image.fromarray(mask).save(folder / "three_pleural_effusion.png")
    Image.fromarray(mask.astype(np.uint8)).save(folder / "one_unheard_of.png")
    Image.fromarray(np.arange(48 * 64, dtype=np.uint8).reshape(48, 64)).save(folder / "two_cardiomegaly.png")
    Image.fromarray(np.zeros((48, 64), dtype=np.uint8)).save(folder / "one_cardiomegaly.png")
    (folder / "broken_cardiomegaly.png").write_bytes(b"no PNG")
    regions = read_regions(folder, cohort)
    for image, label in (
        ("images/a/one.png", "lung_lesion"),
        ("images/a/two.png", "lung_lesion"),
        ("images/three.jpg", "pleural_effusion"),
    ):
        np.testing.assert_array_equal(mask_of(regions, image, label), mask)
    assert len(regions) == 3
    assert sorted(regions.skipped["reason"].str.slice(0, 24)) == ["it has 256 grey levels; ", "it is no readable PNG"]
    notes = " ".join(regions.notes)
    assert "images that are not here, left out: 1." in notes
    assert "Masks that say that nothing was found: 1." in notes


def test_a_label_map_renames_widens_and_leaves_out(cohort: Cohort, tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text(
        "image,label,x,y,w,h\none,Verschattung,1,1,4,4\none,Rib,9,9,4,4\none,cardiomegaly,20,20,4,4\n"
    )
    names = tmp_path / "names.toml"
    names.write_text('[regions]\nVerschattung = ["lung_opacity", "lung_lesion"]\nRib = []\n')
    regions = read_regions(tmp_path / "b.csv", cohort, names)
    assert regions.labels == ("cardiomegaly", "lung_lesion", "lung_opacity")
    assert "Left out by the label map: Rib." in regions.notes
    for text, said in (
        ("[region]\n", "field"),
        ("", "no table"),
        ("[regions]\na = 1\n", "must be a label"),
        ("=", "TOML"),
    ):
        names.write_text(text)
        with pytest.raises((InputError, UnknownNameError), match=said):
            read_regions(tmp_path / "b.csv", cohort, names)


def test_what_cannot_be_read_says_what_to_do(cohort: Cohort, tmp_path: Path) -> None:
    path = tmp_path / "b.csv"
    with pytest.raises(InputError, match="no file or folder"):
        read_regions(path, cohort)
    path.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="no known form of regions"):
        read_regions(path, cohort)
    for wrong in (lambda: read_regions(path, cohort, form="siimrle"), lambda: regions_named(f"siimrle:{path}", cohort)):
        with pytest.raises(UnknownNameError, match="siim-rle"):
            wrong()
    path.write_text("image,label,x,y,w,h\nfar.png,a,1,1,2,2\n")
    with pytest.raises(InputError, match=r"for images such as 'far.png', the cohort's are such as 'images/a/one.png'"):
        read_regions(path, cohort)
    assert regions_of(cohort) is None


def test_a_region_knows_its_image_size_and_thin_boxes_keep_a_pixel() -> None:
    region = Region("x", (8, 6), np.array([[2.6, 1.0, 0.3, 2.0]]))
    assert np.argwhere(region.mask(6, 8)).tolist() == [[1, 2], [2, 2]]
    with pytest.raises(InputError, match="8 x 6 pixels"):
        region.mask(8, 6)


def test_phantoms_have_their_exact_masks_drawn_or_exported(tmp_path: Path) -> None:
    cohort = load_cohort("phantom:prevalence=balanced,sites=reference,n=6,size=64")
    regions = regions_of(cohort)
    assert regions is not None
    cases = sample_cases("reference", 6, 0, "balanced")
    export_phantoms(cases, tmp_path / "out", size=64)
    exported = regions_of(load_cohort(str(tmp_path / "out")))
    assert exported is not None
    n = 0
    for image, case in zip(cohort.table["image"], cases, strict=True):
        phantom = draw(case, 64)
        assert set(regions.labels_of[image]) == set(phantom.masks)
        for label, mask in phantom.masks.items():
            np.testing.assert_array_equal(mask_of(regions, image, label), mask)
            np.testing.assert_array_equal(mask_of(exported, image, label), mask)
            n += 1
    assert n == len(regions) == len(exported)


def test_boxes_of_real_radiographs(shared_dir: Path) -> None:
    cohort = load_cohort(str(shared_dir / "real_cxr/multisite/manifest.csv"))
    regions = regions_of(cohort)
    assert regions is not None
    assert len(regions.images("lung_opacity")) == 131
    assert len(regions.images("pneumonia")) == 43
    assert regions.skipped.empty
