import numpy as np
from PIL import Image

from wsiseg.label_pictures import GAP, draw_pseudo_labels, write_pseudo_labels
from wsiseg.samples import Sample
from wsiseg.stages import TrainingImage


def targets(sample, options, networks):
    labels = np.zeros((2, 20, 30), np.int8)
    labels[0, :, :10] = 2
    labels[1, :10] = 1
    return labels


def image():
    pixels = np.full((20, 30, 3), 200, np.uint8)
    return TrainingImage(Sample("a slide.svs, region 1", pixels, 0.25, np.array([[10.0, 15.0]])), {})


def test_points_then_every_map_side_by_side():
    picture = draw_pseudo_labels(image(), targets, {})
    assert picture.shape == (20, 3 * 30 + 2 * GAP, 3)
    assert picture[10, 15].tolist() == [255, 220, 0]
    nucleus, plain = picture[5, 30 + GAP + 5].astype(int), picture[5, 30 + GAP + 20]
    assert nucleus[0] > nucleus[1] + 50
    assert plain.tolist() == [200, 200, 200]
    background = picture[5, 60 + 2 * GAP + 15].astype(int)
    assert background[1] > background[0] + 20


def test_finer_levels_than_nucleus_are_nucleus():
    def levels(sample, options, networks):
        return 5000 * targets(sample, options, networks)[:1].astype(np.int16)

    expected = draw_pseudo_labels(image(), lambda *given: targets(*given)[:1], {})
    assert (draw_pseudo_labels(image(), levels, {}) == expected).all()


def test_a_sample_of_any_name_becomes_a_file(tmp_path):
    path = write_pseudo_labels(image(), targets, {}, tmp_path / "new")
    assert path.name == "a_slide.svs__region_1.png"
    assert Image.open(path).size == (3 * 30 + 2 * GAP, 20)
