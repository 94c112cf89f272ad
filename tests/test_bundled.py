"""The bundled models on real tissue: what must be right before they ship."""

import json

import numpy as np
import pytest
import shapely
from ihc import centroids_of, read_image, read_truth, score_points

import wsiseg
from wsiseg.models import bundled
from wsiseg.polygons import to_shapely

IHC_MPP = 0.6
"""As scripts/sample_slide.py measured it."""

KERATIN = (1295, 1250, 1450, 1600)
"""x0, y0, x1, y1 in CMU-1-Small-Region, level-0 pixels: loose keratin, where there is no nucleus."""

VARIANTS = ["CMU-1-Small-Region.dicom", "CMU-1-Small-Region.zarr", "CMU-1-Small-Region.jp2.tiff"]


def roi(tmp_path, x0, y0, x1, y1):
    path = tmp_path / "roi.geojson"
    path.write_text(json.dumps(shapely.geometry.mapping(shapely.box(x0, y0, x1, y1))))
    return path


def polygons(nuclei):
    return shapely.make_valid(to_shapely(nuclei.vertices, nuclei.offsets))


def f1(first, second):
    a, b = polygons(first), polygons(second)
    i, j = shapely.STRtree(b).query(a, predicate="intersects")
    common = shapely.area(shapely.intersection(a[i], b[j]))
    iou = common / (shapely.area(a[i]) + shapely.area(b[j]) - common)
    return 2 * (iou > 0.5).sum() / (len(a) + len(b))


@pytest.mark.parametrize("model", bundled())
def test_pale_blue_nuclei_are_found(model):
    labels = wsiseg.segment_image(read_image(), mpp=IHC_MPP, model=model)
    score = score_points(centroids_of(labels), read_truth(), radius=3 / IHC_MPP, labels=labels)
    assert score.nuclei >= 150
    assert score.recall >= 0.7
    assert score.precision >= 0.7


@pytest.mark.parametrize(("model", "most"), [("he-points", 5), ("he-cc", 3)])
def test_loose_keratin_holds_hardly_any_nuclei_and_living_skin_does(slides, tmp_path, model, most):
    x0, y0, x1, y1 = KERATIN
    slide = slides / "CMU-1-Small-Region.svs"
    result = wsiseg.segment(slide, roi=roi(tmp_path, 900, y0, x1, y1), model=model)
    x = result.nuclei.centroid[:, 1]
    assert (x >= x0).sum() <= most
    assert ((x >= 900) & (x < 1200)).sum() >= 60


@pytest.fixture(scope="module")
def within_a_tile(tmp_path_factory):
    return roi(tmp_path_factory.mktemp("tile"), 780, 1550, 1110, 1900)


@pytest.fixture(scope="module")
def of_the_svs(slides, within_a_tile):
    return wsiseg.segment(slides / "CMU-1-Small-Region.svs", roi=within_a_tile).nuclei


@pytest.mark.parametrize("name", VARIANTS)
def test_the_same_tissue_in_other_formats_has_the_same_nuclei(slides, within_a_tile, of_the_svs, name):
    first = of_the_svs
    second = wsiseg.segment(slides / name, slide_mpp=0.499, roi=within_a_tile).nuclei
    assert len(first) > 50
    assert abs(len(first) - len(second)) <= 0.02 * len(first) + 1
    assert f1(first, second) > 0.9


def test_tiles_of_any_size_give_the_same_nuclei(slides, tmp_path):
    area = roi(tmp_path, 5000, 4000, 5600, 4500)
    slide = slides / "colon-11264x8448.tif"
    small, large = (wsiseg.segment(slide, roi=area, tile_size=size).nuclei for size in (256, 1024))
    assert len(small) > 150
    assert f1(small, large) >= 0.99
    shapes = polygons(small)
    i, j = shapely.STRtree(shapes).query(shapes, predicate="intersects")
    i, j = i[i < j], j[i < j]
    common = shapely.area(shapely.intersection(shapes[i], shapes[j]))
    assert (common <= 0.3 * np.minimum(shapely.area(shapes[i]), shapely.area(shapes[j]))).all()
