import json

import numpy as np
import pytest
from PIL import Image

from wsiseg.errors import DataError, PointsError
from wsiseg.points import ClickFormat
from wsiseg.samples import at_mpp, read_samples, read_split


@pytest.fixture
def folder(tmp_path):
    for part in ("images", "labels", "points"):
        (tmp_path / part).mkdir()
    Image.fromarray(np.full((20, 30, 3), 200, np.uint8)).save(tmp_path / "images" / "a.png")
    labels = np.zeros((20, 30), np.uint16)
    labels[4:8, 10:16] = 7
    Image.fromarray(labels).save(tmp_path / "labels" / "a.png")
    return tmp_path


def test_points_come_from_files_or_from_masks_as_asked(folder):
    (folder / "points" / "a.csv").write_text("x,y\n1,2\n")
    (clicked,) = read_samples(folder)
    (centred,) = read_samples(folder, from_masks=True)
    assert clicked.points.tolist() == [[2, 1]]
    assert centred.points.tolist() == [[6, 13]]
    assert clicked.labels is not None
    assert clicked.image.shape == (20, 30, 3)


def test_masks_are_no_points_unless_asked_for(folder):
    with pytest.raises(DataError, match=r"points/a\.csv: no such file; .*--points-from-masks"):
        read_samples(folder)


def test_what_is_missing_is_named(folder):
    (folder / "labels" / "a.png").unlink()
    with pytest.raises(DataError, match=r"labels/a\.png: no such file"):
        read_samples(folder, from_masks=True)
    with pytest.raises(DataError, match=r"points/a\.csv: no such file$"):
        read_samples(folder)


def test_a_point_outside_its_image_is_named(folder):
    (folder / "points" / "a.csv").write_text("x,y\n29.5,19\n30,5\n")
    with pytest.raises(PointsError, match=r"a\.csv, line 3: \(30, 5\) lies outside the image, 30 x 20"):
        read_samples(folder)


def test_a_mask_of_another_size_is_named(folder):
    Image.fromarray(np.zeros((20, 31), np.uint8)).save(folder / "labels" / "a.png")
    with pytest.raises(
        DataError, match=r"labels/a\.png: \(20, 31\) rows and columns, its image has \(20, 30\)"
    ):
        read_samples(folder, from_masks=True)


def test_splits_are_read_and_named(folder):
    (folder / "split.json").write_text(json.dumps({"train": ["a"], "test": []}))
    assert read_split(folder, "train") == ("a",)
    with pytest.raises(DataError, match="choose one of train, test"):
        read_split(folder, "val")


def test_all_is_every_image_and_needs_no_split(tmp_path):
    (tmp_path / "images").mkdir()
    for name in ("b", "a"):
        (tmp_path / "images" / f"{name}.png").touch()
    assert read_split(tmp_path, "all") == ("a", "b")


def test_without_a_split_one_image_in_four_is_held_out(tmp_path):
    (tmp_path / "images").mkdir()
    for name in "edcba":
        (tmp_path / "images" / f"{name}.png").touch()
    assert read_split(tmp_path, "train") == ("a", "b", "c", "e")
    assert read_split(tmp_path, "val") == ("d",)
    with pytest.raises(DataError, match="cannot be read"):
        read_split(tmp_path, "test")


def test_three_images_without_a_split_are_too_few(folder):
    with pytest.raises(DataError, match=r"split\.json: missing, and 1 images are too few"):
        read_split(folder, "train")


def test_classes_go_with_the_points_under_the_names_that_are_given(folder):
    (folder / "points" / "a.csv").write_text("type,x,y\n2,1,2\n1,3,4\n")
    layout = ClickFormat(column="type", names={"1": "Positive", "2": "Negative"})
    (sample,) = read_samples(folder, classes=("Positive", "Negative"), clicks=layout)
    assert sample.classes == ("Negative", "Positive")
    assert sample.points.tolist() == [[2, 1], [4, 3]]
    with pytest.raises(PointsError, match="class '2' is none of 'Positive'"):
        read_samples(folder, classes=("Positive",), clicks=ClickFormat(column="type"))


def test_a_lenient_reader_leaves_out_what_another_refuses(folder):
    (folder / "points" / "a.csv").write_text("x,y,class\n1,2,a\n30,5,b\n1,2,c\n3,4,d\n")
    with pytest.raises(PointsError, match="the same point as line 2"):
        read_samples(folder)
    (sample,) = read_samples(folder, clicks=ClickFormat(lenient=True))
    assert sample.points.tolist() == [[2, 1], [4, 3]]
    assert sample.classes == ("a", "d")


def test_an_image_may_be_webp(folder):
    (folder / "images" / "a.png").unlink()
    Image.fromarray(np.full((20, 30, 3), 120, np.uint8)).save(folder / "images" / "a.webp", lossless=True)
    assert read_split(folder, "all") == ("a",)
    (sample,) = read_samples(folder, from_masks=True)
    assert sample.image[0, 0].tolist() == [120, 120, 120]


def test_other_pixel_sizes_move_points_and_maps_along(folder):
    (sample,) = read_samples(folder, mpp=0.25, from_masks=True)
    half = at_mpp(sample, 0.5)
    assert (half.image.shape, half.mpp) == ((10, 15, 3), 0.5)
    np.testing.assert_array_equal(half.points, sample.points / 2)
    expected = np.zeros((10, 15), np.int32)
    expected[2:4, 5:8] = 7
    np.testing.assert_array_equal(half.labels, expected)
    assert at_mpp(sample, 0.25) is sample
    again = at_mpp(half, 0.25)
    np.testing.assert_array_equal(again.labels, sample.labels)
    np.testing.assert_array_equal(again.points, sample.points)
