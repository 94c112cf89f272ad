import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from slides_made import MPP, discs, tiny_model, write_slide
from typer.testing import CliRunner

import wsiseg.cli.train as command
from wsiseg.cli.app import app
from wsiseg.corrections import Corrected, read_corrections, read_nuclei
from wsiseg.errors import PointsError, RegionError
from wsiseg.evaluate import corrections_made, on_corrected, within
from wsiseg.models import ModelRef
from wsiseg.pipeline import segment_slide
from wsiseg.predict import load
from wsiseg.recipes._point_targets import semantic_targets
from wsiseg.samples import Sample
from wsiseg.slides.slide import SlideRef

SHAPE = (400, 480)


def square(x, y, side):
    corners = [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]
    return {"type": "Polygon", "coordinates": [corners]}


def feature(geometry, kind="annotation", name="", **properties):
    about = {"objectType": kind, **properties}
    if name:
        about["classification"] = {"name": name, "color": [1, 2, 3]}
    return {"type": "Feature", "geometry": geometry, "properties": about}


def written(path, features):
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A slide, a model that outlines its discs, what that found, and where the discs are."""
    folder = tmp_path_factory.mktemp("made")
    picture, centres = discs(SHAPE)
    slide, model = write_slide(folder / "drawn.tif", picture), tiny_model(folder / "tiny")
    segment_slide(slide, model=model, tile_size=128, outputs=[folder / "found.geojson"])
    return slide, model, json.loads((folder / "found.geojson").read_text())["features"], centres


def test_an_area_a_drawn_nucleus_and_a_point_are_told_apart(tmp_path):
    nuclei = [feature(square(20 + 40 * i, 20, 16), "detection") for i in range(4)]
    redrawn = feature(square(18, 18, 22))  # over the first
    missed = feature({"type": "Point", "coordinates": [30, 60]})
    again = feature({"type": "Point", "coordinates": [66, 26]})  # on the second, which has an outline
    area, tissue = feature(square(0, 0, 150)), feature(square(0, 0, 400), isLocked=True)
    path = written(tmp_path / "a.geojson", [*nuclei, redrawn, missed, again, area, tissue])
    areas, found = read_nuclei(path, mpp=0.25)
    assert [np.ptp(a.exterior).item() for a in areas] == [150]
    assert sorted(found.clicks.points.tolist()) == [[28, 68], [28, 108], [28, 148], [29, 29], [60, 30]]
    outlined = [shape is not None and round(shape.area) for shape in found.outlines]
    assert sorted(outlined) == [False, 256, 256, 256, 22 * 22]


def test_samples_hold_the_outlines_and_the_rest_of_their_area(made, tmp_path):
    slide, _, found, centres = made
    nuclei = [f for f in found if f["properties"]["objectType"] == "detection"]
    rings = [np.array(f["geometry"]["coordinates"][0]) for f in nuclei]
    kept = [
        f for f, ring in zip(nuclei, rings, strict=True) if abs(ring.mean(0) - centres[0, ::-1]).max() > 12
    ]
    assert len(kept) == len(centres) - 1
    missed = feature({"type": "MultiPoint", "coordinates": [centres[0, ::-1].tolist()]})
    path = written(tmp_path / "a.geojson", [*kept, missed, feature(square(0, 0, 480))])
    (taught,), (held,) = read_corrections([Corrected(SlideRef(str(slide)), path)], mpp=MPP)
    assert len(taught.points) == len(centres)
    assert not (taught.roi & held.roi).any()
    assert (taught.roi | held.roi).sum() == 400 * 480
    drawn = taught.image[..., 0] < 150
    pointed = np.floor(taught.points[len(kept)]).astype(int)
    alone = np.hypot(*(np.indices(drawn.shape) - pointed[:, None, None])) < 12
    outlined = taught.outlines > 0
    inside = taught.roi | held.roi
    assert (outlined & alone).sum() == 0
    both = (outlined == drawn) | alone
    assert both[inside].mean() > 0.985  # outlines are smooth, discs are not
    labels = semantic_targets(taught, {}, {})
    assert (labels[:, outlined & taught.roi] == 2).all()
    assert (labels[:, ~taught.roi] == 0).all()
    # Between outlined nuclei all is background; around the clicked one clusters decide.
    near = np.hypot(*(np.indices(drawn.shape) - np.floor(taught.points[5])[:, None, None])) < 14
    assert (labels[0][near & ~outlined & taught.roi] == 1).all()


def test_within_and_scores_by_hand(made):
    _, model, _, _ = made
    labels = np.array([[1, 1, 0, 2, 2, 2, 3]], np.int32)
    roi = np.array([[True, True, True, True, False, False, True]])
    assert within(labels, roi).tolist() == [[1, 1, 0, 0, 0, 0, 3]]
    picture, centres = discs((256, 256))
    outlines = np.zeros((256, 256), np.int32)
    for number, centre in enumerate(np.floor(centres).astype(int), 1):
        near = np.hypot(*(np.indices((256, 256)) - centre[:, None, None])) < 12
        outlines[near & (picture[..., 0] < 150)] = number
    sample = Sample("a", picture, MPP, centres, np.ones((256, 256), bool), outlines=outlines)
    scored = on_corrected([sample], load(ModelRef("spn_ien", str(model))))
    assert scored.nuclei == len(centres)
    assert scored.f1 == 1
    assert scored.aji > 0.85


def test_what_was_left_as_it_was_is_no_correction():
    found = np.zeros((60, 200), np.int32)
    for number in range(4):
        found[20:40, 10 + 45 * number : 30 + 45 * number] = number + 1

    class Found:
        def segment(self, image):
            return found

    outlines = np.where(found == 4, 0, found)  # the last one was deleted
    outlines[outlines == 2] = 0
    outlines[15:45, 50:80] = 2  # drawn anew
    centres = np.array([[30, 20], [30, 65], [30, 110], [5.0, 5.0]])  # and one was added as a point
    sample = Sample(
        "a", np.zeros((60, 200, 3), np.uint8), MPP, centres, np.ones((60, 200), bool), outlines=outlines
    )
    assert corrections_made([sample], Found()) == 3
    untouched = Sample(
        "b", sample.image, MPP, centres[:3], sample.roi, outlines=np.where(found == 4, 0, found)
    )
    assert corrections_made([untouched], Found()) == 1


@pytest.mark.parametrize(
    ("features", "error", "message"),
    [
        (
            [feature(square(0, 0, 10), "detection")],
            RegionError,
            "no corrected area; draw an annotation of more than",
        ),
        ([feature(square(0, 0, 300))], PointsError, "no nucleus lies in a corrected area"),
        (
            [feature(square(0, 0, 300)), feature(square(390, 390, 10), "detection")],
            PointsError,
            "no nucleus lies in a corrected area",
        ),
        ([{"type": "Feature"}], RegionError, "cannot be read as GeoJSON of nuclei"),
    ],
)
def test_what_cannot_be_learned_from_is_told(features, error, message, tmp_path):
    path = written(tmp_path / "a.geojson", features)
    with pytest.raises(error, match=f"a.geojson: .*{message}"):
        read_nuclei(path, mpp=0.25)


def test_a_nucleus_outside_the_slide_is_told(made, tmp_path):
    slide, *_ = made
    objects = [feature(square(0, 0, 900)), feature(square(790, 790, 10), "detection")]
    path = written(tmp_path / "a.geojson", objects)
    with pytest.raises(
        PointsError, match=r"feature 2: \(795, 795\) lies outside the slide, 480 x 400 pixels"
    ):
        read_corrections([Corrected(SlideRef(str(slide)), path)], mpp=MPP)


def copy_of(model, folder, **changes):
    shutil.copytree(model, folder)
    card = json.loads((folder / "model.json").read_text()) | changes
    (folder / "model.json").write_text(json.dumps(card))
    return folder


@pytest.mark.parametrize("taught_by", ["spn_ien", "supervised"])
def test_the_command_trains_further_and_says_whether_it_helped(made, taught_by, tmp_path, monkeypatch):
    slide, model, found, _ = made
    model = copy_of(model, tmp_path / "start", recipe=taught_by)
    monkeypatch.setattr(command, "CORRECTION_CROPS", 32)
    # every other one was deleted
    path = written(tmp_path / "fixed.geojson", [*found[::2], feature(square(0, 0, 400))])
    out = tmp_path / "run"
    options = ["--corrections", str(path), "--slide", str(slide), "--from", str(model), "-o", str(out)]
    done = CliRunner().invoke(app, ["train", *options, "--device", "cpu"])
    assert done.exit_code == 0, done.output
    assert "held-out nuclei: F1 of points" in done.output
    card, began = (json.loads((folder / "model.json").read_text()) for folder in (out / "model", model))
    assert card["name"].endswith("-corrected")
    assert card["about"]["from"].items() >= began["about"].items()  # its licence goes on
    assert card["recipe"] == "spn_ien"  # masks of all nuclei are not what a person draws
    before, after = (
        {name: load_file(folder / f"{name}.safetensors") for name in ("spn", "ien")}
        for folder in (model, out / "model")
    )
    assert any((before["spn"][n] != w).any() for n, w in after["spn"].items())  # it learned
    for n, w in after["spn"].items():  # not what is usual in a few images
        if "running" in n:
            assert torch.equal(w, before["spn"][n])
    assert all(torch.equal(w, before["ien"][n]) for n, w in after["ien"].items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "no configuration; it may be left out only with --corrections and --from"),
        (["--corrections", "a.geojson", "--from", "he-points"], "1 files of --corrections and 0 of --slide"),
        (["--corrections", "a.geojson", "--slide", "no.svs", "--from", "he-points"], "no.svs"),
    ],
)
def test_options_that_do_not_fit_are_told(options, message):
    done = CliRunner().invoke(app, ["train", *options])
    assert done.exit_code == 2
    assert message in done.output
