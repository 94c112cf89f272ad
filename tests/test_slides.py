from dataclasses import replace

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from wsiseg.errors import SlideError
from wsiseg.geometry import Rect
from wsiseg.slides.opening import fingerprint, open_slide, resolve_mpp
from wsiseg.slides.readers._jpeg_tiles import NO_TILES
from wsiseg.slides.readers.openslide import on_white
from wsiseg.slides.readers.zarr import guess_axes
from wsiseg.slides.slide import SlideRef, level_shape

VARIANTS = {
    "CMU-1-Small-Region.dicom": ("WsiDicomReader", 0.0),
    "CMU-1-Small-Region.zarr": ("ZarrReader", 0.0),
    "CMU-1-Small-Region.jp2.tiff": ("TiffSlideReader", 2.0),
}


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", VARIANTS)
def test_the_same_tissue_in_other_formats_has_the_same_pixels(slides, name):
    reader, difference = VARIANTS[name]
    first = open_slide(slides / "CMU-1-Small-Region.svs")
    second = open_slide(SlideRef(str(slides / name), mpp=0.499))
    assert type(second).__name__ == reader
    assert second.shape == first.shape == (2967, 2220)
    for rect in (Rect(0, 0, 200, 200), Rect(1000, 1000, 1400, 1300), Rect(2800, 2100, 2967, 2220)):
        apart = np.abs(first.read(rect, 0).astype(int) - second.read(rect, 0)).mean()
        assert apart <= difference


@pytest.mark.parametrize("name", ["CMU-1-Small-Region.svs", *VARIANTS])
def test_outside_is_white_for_every_reader(slides, name):
    slide = open_slide(slides / name)
    pixels = slide.read(Rect(-20, 2200, 30, 2250), 0)
    assert (pixels[:20] == 255).all()
    assert (pixels[:, 20:] == 255).all()
    np.testing.assert_array_equal(pixels[20:, :20], slide.read(Rect(0, 2200, 30, 2220), 0))


@pytest.mark.parametrize(
    ("name", "levels"), [("CMU-1-Small-Region.svs", [0]), ("colon-11264x8448.tif", [0, 1, 2, 3, 4])]
)
def test_tiles_of_jpeg_are_the_pixels_that_openslide_gives(slides, name, levels):
    slide, rng = open_slide(slides / name), np.random.default_rng(0)
    assert list(slide.tiles.levels) == levels
    painted = replace(slide, tiles=NO_TILES)
    for level in levels:
        high, wide = level_shape(slide, level)
        for _ in range(10):
            size = rng.integers(1, 700, 2)
            y, x = rng.integers(0, np.maximum((high, wide) - size, 1))
            rect = Rect(y, x, y + size[0], x + size[1]).intersect(Rect(0, 0, high, wide))
            np.testing.assert_array_equal(slide.tiles.read(rect, level), painted.read(rect, level))


def test_what_openslide_reads_otherwise_is_left_to_it(tmp_path, image):
    smooth = np.tile(image[:30:3, :40:4], (30, 40, 1))
    for name, compression in (("jpeg", "jpeg"), ("deflate", "deflate")):
        tifffile.imwrite(
            tmp_path / f"{name}.tif", smooth, tile=(64, 64), compression=compression, photometric="rgb"
        )
    whole = open_slide(tmp_path / "jpeg.tif")
    assert list(whole.tiles.levels) == [0]
    assert not open_slide(tmp_path / "deflate.tif").tiles.levels
    # A tile that a scanner left out is bare glass.
    with tifffile.TiffFile(tmp_path / "jpeg.tif", mode="r+b") as tiff:
        counts = tiff.pages[0].tags["TileByteCounts"]
        counts.overwrite([0, *counts.value[1:]])
    assert not open_slide(tmp_path / "jpeg.tif").tiles.levels


def test_a_damaged_tile_is_told_of_and_the_others_are_read(tmp_path, slides):
    path = tmp_path / "a.svs"
    path.write_bytes((slides / "CMU-1-Small-Region.svs").read_bytes())
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        page = tiff.pages[0]
        tiff.filehandle.seek(page.dataoffsets[13])
        tiff.filehandle.write(bytes(page.databytecounts[13]))
    slide, across = open_slide(path), -(-2220 // 240)
    y, x = 13 // across * 240, 13 % across * 240
    with pytest.raises(SlideError, match=f"damaged at Rect.y0={y}, x0={x}"):
        slide.read(Rect(y, x, y + 240, x + 240), 0)
    assert slide.read(Rect(y + 240, x, y + 480, x + 240), 0).std() > 1


def test_levels_of_a_pyramid_show_the_same_place(slides):
    slide = open_slide(slides / "colon-11264x8448.tif")
    assert slide.downsamples == (1, 2, 4, 8, 16)
    fine = slide.read(Rect(4000, 4000, 4256, 4256), 0).reshape(64, 4, 64, 4, 3).mean((1, 3))
    coarse = slide.read(Rect(1000, 1000, 1064, 1064), 2)
    assert np.abs(fine - coarse).mean() < 6


def test_pixel_size_comes_from_the_metadata_or_is_asked_for(slides):
    svs = SlideRef(str(slides / "CMU-1-Small-Region.svs"))
    assert resolve_mpp(open_slide(svs), svs) == pytest.approx(0.499)
    given = SlideRef(svs.path, mpp=0.25)
    assert resolve_mpp(open_slide(given), given) == 0.25
    for name, message in (
        ("CMU-1-Small-Region.zarr", r"no pixel size.*--slide-mpp"),
        ("CMU-1-Small-Region.jp2.tiff", "0.00499 um is not between 0.05 and 5.*--slide-mpp"),
    ):
        ref = SlideRef(str(slides / name))
        with pytest.raises(SlideError, match=message):
            resolve_mpp(open_slide(ref), ref)


def test_pixels_that_are_not_square_are_refused(tmp_path, image):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, image, tile=(64, 64), resolution=(20_000, 21_000), resolutionunit="CENTIMETER")
    ref = SlideRef(str(path))
    with pytest.raises(SlideError, match="not square"):
        resolve_mpp(open_slide(ref), ref)


def test_what_is_no_slide_is_refused_with_every_reason(tmp_path, slides):
    with pytest.raises(SlideError, match="no such file"):
        open_slide(tmp_path / "absent.svs")
    (tmp_path / "text.svs").write_text("hello")
    (tmp_path / "cut.svs").write_bytes((slides / "CMU-1-Small-Region.svs").read_bytes()[:500_000])
    (tmp_path / "empty").mkdir()
    for name in ("text.svs", "cut.svs", "empty"):
        with pytest.raises(
            SlideError, match=r"openslide: .*tiffslide: .*wsidicom: .*zarr: .*flat: "
        ) as caught:
            open_slide(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_a_slide_cut_off_in_its_pixels_fails_where_it_is_read(tmp_path, slides):
    """The directory of this TIFF is at its front: it opens, and only its last tiles are gone."""
    source = slides / "colon-11264x8448.tif"
    with source.open("rb") as file:
        (tmp_path / "a.tif").write_bytes(file.read(30_000_000))
    with pytest.raises(SlideError):
        open_slide(tmp_path / "a.tif").read(Rect(8000, 8000, 8400, 8400), 0)


def test_plain_images_and_zarr_of_every_layout(tmp_path, image):
    Image.fromarray(image).save(tmp_path / "a.png")
    zarr.create_array(tmp_path / "b.zarr", data=image)
    group = zarr.create_group(tmp_path / "c.zarr")
    group.create_array("0", data=image.transpose(2, 0, 1))
    group.create_array("1", data=image[::2, ::2].transpose(2, 0, 1).copy())
    axes = [
        {"name": "c", "type": "channel"},
        *({"name": n, "type": "space", "unit": "micrometer"} for n in "yx"),
    ]
    scales = [[1, 0.5, 0.5], [1, 1.0, 1.0]]
    sets = [
        {"path": str(i), "coordinateTransformations": [{"type": "scale", "scale": s}]}
        for i, s in enumerate(scales)
    ]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": sets}]}
    for name in ("a.png", "b.zarr", "c.zarr"):
        slide = open_slide(tmp_path / name)
        np.testing.assert_array_equal(slide.read(Rect(10, 20, 110, 220), 0), image[10:110, 20:220])
    assert slide.mpp == (0.5, 0.5)
    assert slide.downsamples == (1, 2)
    np.testing.assert_array_equal(slide.read(Rect(0, 0, 150, 200), 1), image[::2, ::2])
    assert guess_axes((5, 3, 10, 10)) == "czyx"


def test_the_fingerprint_is_the_contents(tmp_path, slides):
    svs = slides / "CMU-1-Small-Region.svs"
    copy = tmp_path / "other-name.svs"
    copy.write_bytes(svs.read_bytes())
    assert fingerprint(str(copy)) == fingerprint(str(svs))
    copy.write_bytes(svs.read_bytes()[:-1] + b"x")
    assert fingerprint(str(copy)) != fingerprint(str(svs))
    assert fingerprint(str(slides / "CMU-1-Small-Region.dicom")) == fingerprint(
        str(slides / "CMU-1-Small-Region.dicom")
    )


def test_what_a_scanner_did_not_see_is_white():
    rgba = np.array([[[0, 0, 0, 0], [100, 0, 0, 255]]], np.uint8)
    assert on_white(rgba).tolist() == [[[255, 255, 255], [100, 0, 0]]]
