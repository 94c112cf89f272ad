"""Points and regions on a slide become training samples at the model's pixel size."""

import json
from pathlib import Path

import numpy as np
import pytest
from slides_made import discs, write_slide

from wsiseg.clicked_slides import MARGIN, read_manifest, read_slide_samples
from wsiseg.errors import DataError, PointsError, RegionError


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    """A slide at 0.5 um per pixel, and the centres of its nuclei."""
    picture, centres = discs((600, 800))
    return write_slide(tmp_path_factory.mktemp("slide") / "a.tif", picture, mpp=0.5), centres


def square(x0, y0, x1, y1):
    return {"type": "Polygon", "coordinates": [[[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]]}


def annotations(path: Path, centres, *areas):
    clicked = [{"type": "MultiPoint", "coordinates": centres[:, ::-1].tolist()}] if len(centres) else []
    features = [{"type": "Feature", "geometry": g, "properties": {}} for g in [*clicked, *areas]]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def manifest(folder: Path, slide: Path, points: Path, **more):
    path = folder / "slides.csv"
    row = {"slide": slide, "points": points.name, **more}
    path.write_text(",".join(row) + "\n" + ",".join(map(str, row.values())) + "\n")
    return path


def within(centres, x0, y0, x1, y1):
    y, x = centres.T
    return centres[(y >= y0) & (y < y1) & (x >= x0) & (x < x1)]


def test_a_region_becomes_a_sample_at_the_models_scale(slide, tmp_path):
    path, centres = slide
    box = (100, 100, 300, 250)
    points = annotations(
        tmp_path / "a.geojson", within(centres, *box), square(*box), square(500, 400, 600, 500)
    )
    (sample,) = read_slide_samples(manifest(tmp_path, path, points), mpp=0.25)
    assert sample.image.shape == (300 + 2 * MARGIN, 400 + 2 * MARGIN, 3)
    assert sample.roi.sum() == 300 * 400
    assert sample.roi[MARGIN, MARGIN]
    assert not sample.roi[MARGIN - 1, MARGIN]
    # Every clicked nucleus is dark where its point lies: pixels and points agree.
    at = np.floor(sample.points).astype(int)
    assert len(at) == len(within(centres, *box))
    assert (sample.image[tuple(at.T)][:, 0] < 150).all()


def test_a_large_region_is_cut_and_no_point_is_lost(slide, tmp_path, monkeypatch):
    path, centres = slide
    points = annotations(tmp_path / "a.geojson", centres, square(0, 0, 800, 600))
    monkeypatch.setattr("wsiseg.clicked_slides.PIECE", 500)
    samples = read_slide_samples(manifest(tmp_path, path, points), mpp=0.25)
    assert len(samples) == 4 * 3
    taught = sum(int(s.roi[tuple(np.floor(s.points[inner(s)]).astype(int).T)].sum()) for s in samples)
    assert taught == len(centres)
    assert sum(int(s.roi.sum()) for s in samples) == 1200 * 1600


def inner(sample):
    return ((sample.points >= 0) & (sample.points < sample.image.shape[:2])).all(1)


def test_points_from_csv_with_regions_beside_them(slide, tmp_path):
    path, centres = slide
    chosen = within(centres, 100, 100, 300, 250)
    (tmp_path / "p.csv").write_text("x,y\n" + "\n".join(f"{x},{y}" for y, x in chosen))
    annotations(tmp_path / "r.geojson", np.zeros((0, 2)), square(100, 100, 300, 250))
    rows = manifest(tmp_path, path, tmp_path / "p.csv", regions="r.geojson", slide_mpp="0.25")
    (sample,) = read_slide_samples(rows, mpp=0.25)
    assert sample.roi.sum() == 150 * 200
    assert len(sample.points) == len(chosen)


def test_wrong_points_are_named(slide, tmp_path):
    path, centres = slide
    inside = within(centres, 100, 100, 300, 250)
    area = square(100, 100, 300, 250)

    def refused(points, *areas):
        return manifest(tmp_path, path, annotations(tmp_path / "a.geojson", points, *areas))

    with pytest.raises(PointsError, match=r"point \d+: \(810, 120\) lies outside the slide, 800 x 600"):
        read_slide_samples(refused(np.vstack([inside, [[120, 810]]]), square(0, 0, 900, 600)), mpp=0.25)
    with pytest.raises(PointsError, match=r"\(400, 400\) lies outside every region of a\.geojson"):
        read_slide_samples(refused(np.vstack([inside, [[400, 400]]]), area), mpp=0.25)
    with pytest.raises(PointsError, match="no clicked nucleus"):
        read_slide_samples(refused(np.zeros((0, 2)), area), mpp=0.25)
    with pytest.raises(PointsError, match="1 clicked nuclei in all"):
        read_slide_samples(refused(inside[:1], area), mpp=0.25)
    with pytest.raises(RegionError, match=r"no polygon.*where every nucleus is clicked"):
        read_slide_samples(refused(inside), mpp=0.25)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no slide"),
        ("slide,points\n", "no slide"),
        ("slide,point\na.svs,a.csv\n", "line 2: no slide or no points"),
        ("slide,points\na.svs,a.csv\n", r"line 2: a\.csv holds points alone; name the .* regions"),
        ("slide,points\na.svs,absent.geojson\n", r"line 2: .*absent\.geojson: no such file"),
        (
            "slide,points,regions\na.svs,slides.csv,absent.geojson\n",
            r"line 2: .*absent\.geojson: no such file",
        ),
        ("slide,points,slide_mpp\na.svs,a.geojson,fine\n", "line 2: slide_mpp 'fine' is no number"),
    ],
)
def test_a_wrong_row_of_the_manifest_is_named(tmp_path, text, message):
    (tmp_path / "slides.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_manifest(tmp_path / "slides.csv")
