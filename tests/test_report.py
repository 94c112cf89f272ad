import json
import re
import shutil

import numpy as np
import pytest
from scipy import ndimage
from skimage.data import immunohistochemistry
from slides_made import MPP, discs, tiny_model, write_slide
from typer.testing import CliRunner

from wsiseg.cli.app import app
from wsiseg.errors import StoreError
from wsiseg.export.zarr import read_store
from wsiseg.pipeline import segment_slide
from wsiseg.report import checks
from wsiseg.report.cohort import deviations
from wsiseg.report.slide import report_slide
from wsiseg.report.summary import summarise
from wsiseg.slides.slide import SlideRef

EXTERNAL = re.compile(r"""(?:src|href|action)\s*=\s*["'](?!data:|#)""")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A slide whose name is no harm in a page, and its store."""
    folder = tmp_path_factory.mktemp("made")
    slide = write_slide(folder / "a & <b>.tif", discs((640, 560))[0])
    model = tiny_model(folder / "tiny")
    segment_slide(slide, model=model, tile_size=256, outputs=[folder / "found.zarr"])
    return slide, folder / "found.zarr", model


def test_a_page_is_complete_in_itself_and_says_what_was_found(made):
    slide, store, _ = made
    text, summary, found = report_slide(SlideRef(str(slide)), store)
    count = sum(len(table) for table in read_store(store)[1])
    assert summary.count == count > 100
    assert f"<b>{count:,}</b>nuclei" in text
    assert not EXTERNAL.search(text)
    assert "url(http" not in text
    assert "@import" not in text
    assert "a &amp; &lt;b&gt;.tif" in text
    assert "<b>.tif" not in text
    assert {check.name for check in found} == {
        "Focus",
        "Ink",
        "Empty tissue",
        "Density",
        "Pixel size",
        "Ambiguous nuclei",
    }
    assert text.count("<svg") == 3  # area, probability, circularity
    assert "<script" not in text
    assert report_slide(SlideRef(str(slide)), store)[0] == text


def test_the_summary_counts_every_nucleus_where_it_lies(made):
    _, store, _ = made
    info, tables = read_store(store)
    summary = summarise(tables, info, (640, 560), expected=200)
    assert summary.density.shape == (2, 2)
    field = 100 / MPP
    expected = np.zeros((2, 2))
    for table in read_store(store)[1]:
        for y, x in table.centroid:
            expected[int(y // field), int(x // field)] += 1
    assert summary.density * 0.01 == pytest.approx(expected)
    assert summary.classes == {"Nucleus": summary.count}
    few = summarise(read_store(store)[1], info, (640, 560), expected=10 * 20_000)
    assert few.count == summary.count
    assert len(few.score) == -(-few.count // 10)


def test_another_slide_is_refused(made, tmp_path):
    _, store, _ = made
    other = write_slide(tmp_path / "other.tif", discs((300, 300), seed=3)[0])
    with pytest.raises(StoreError, match=r"found.zarr: made of a & <b>.tif, not of .*other.tif"):
        report_slide(SlideRef(str(other)), store)


def test_an_empty_result_has_a_page_too(made, tmp_path):
    _, _, model = made
    blank = write_slide(tmp_path / "blank.tif", np.full((400, 400, 3), 250, np.uint8))
    segment_slide(blank, model=model, outputs=[tmp_path / "blank.zarr"])
    text, summary, found = report_slide(SlideRef(str(blank)), tmp_path / "blank.zarr")
    assert summary.count == 0
    assert all(check.state == "look" for check in found if check.name != "Ink")
    assert "there is no tissue" in text


def test_focus_is_told_from_blur():
    sharp = immunohistochemistry()[100:356, 100:356]
    blurred = ndimage.gaussian_filter(sharp.astype(float), (2, 2, 0)).astype(np.uint8)
    values = [checks.sharpness(picture) for picture in (sharp, blurred)]
    assert values[0] > checks.SHARP > values[1]
    assert checks.focus([0.6] * 10 + [0.1] * 2).state == "good"
    assert checks.focus([0.6] * 6 + [0.1] * 6).state == "look"
    assert checks.focus([float("nan")]).state == "look"
    assert np.isnan(checks.sharpness(np.full((64, 64, 3), 200, np.uint8)))


def test_ink_is_seen_and_stains_are_not():
    picture = np.full((200, 200, 3), 240, np.uint8)
    picture[20:60, 20:60] = (120, 70, 150)  # haematoxylin
    picture[20:60, 80:120] = (230, 140, 190)  # eosin
    picture[20:60, 140:180] = (120, 80, 40)  # DAB
    assert checks.ink(picture, 8.0).state == "good"
    for colour in ((30, 120, 60), (40, 140, 130), (30, 50, 190), (20, 20, 25)):
        marked = picture.copy()
        marked[100:140, 40:160] = colour
        assert checks.ink(marked, 8.0).state == "look", colour


@pytest.mark.parametrize(
    ("check", "state"),
    [
        (checks.density(3_000, 1.0), "good"),
        (checks.density(20, 1.0), "look"),
        (checks.density(30_000, 1.0), "look"),
        (checks.density(0, 0.0), "look"),
        (checks.pixel_size(40.0, 0.25), "good"),
        (checks.pixel_size(9.0, 0.25), "look"),
        (checks.pixel_size(200.0, 0.5), "look"),
    ],
)
def test_what_a_person_should_look_at(check, state):
    assert check.state == state


def test_the_commands_of_a_slide_and_a_cohort(made, tmp_path):
    slide, store, model = made
    page = tmp_path / "page.html"
    done = CliRunner().invoke(app, ["report", str(slide), str(store), "-o", str(page)])
    assert done.exit_code == 0, done.output
    assert "Pixel size: the median nucleus has" in done.output
    again = CliRunner().invoke(app, ["report", str(slide), str(store), "-o", str(page)])
    assert again.exit_code == 2
    assert "page.html: exists; give --overwrite" in again.output
    slides, results = tmp_path / "slides", tmp_path / "results"
    slides.mkdir()
    shutil.copy(slide, slides / "first.tif")
    (slides / "broken.tif").write_text("no slide")
    options = ["cohort", "plan", str(slides), "-o", str(results), "--model", str(model), "--tile-size", "256"]
    assert CliRunner().invoke(app, options).exit_code in (0, 1)
    assert CliRunner().invoke(app, ["cohort", "run", str(results), "-q"]).exit_code in (0, 1)
    told = CliRunner().invoke(app, ["report", str(results)])
    assert told.exit_code == 0, told.output
    text = (results / "report.html").read_text()
    assert not EXTERNAL.search(text)
    assert "first.tif" in text
    assert text.count("data:image/jpeg") == 1
    assert 'class="look"' in text  # the broken one
    table = re.findall(r"<td>(done|failed)</td>", text)
    assert sorted(table) == ["done", "failed"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["nowhere.svs"], "nowhere.svs: no cohort; a slide takes its store too"),
        (["nowhere.svs", "nowhere.zarr"], "nowhere.zarr: no such store"),
    ],
)
def test_what_there_is_no_page_of_is_told(options, message, tmp_path):
    done = CliRunner().invoke(app, ["report", *options, "-o", str(tmp_path / "a.html")])
    assert done.exit_code == 2
    assert message in done.output
    assert not (tmp_path / "a.html").exists()


def test_a_damaged_store_is_told(made, tmp_path):
    slide, store, _ = made
    broken = tmp_path / "broken.zarr"
    shutil.copytree(store, broken)
    about = json.loads((broken / "zarr.json").read_text())
    about["attributes"].pop("files")
    (broken / "zarr.json").write_text(json.dumps(about))
    with pytest.raises(StoreError, match=r"broken.zarr: not a store of nuclei, or damaged"):
        report_slide(SlideRef(str(slide)), broken)


def test_few_slides_have_no_outliers():
    assert deviations(np.array([1.0, 9.0])).tolist() == [0, 0]
    assert deviations(np.array([np.nan, 1.0, 1.2, 0.9, 1.1, 1.0, 50.0]))[-1] > 3.5
