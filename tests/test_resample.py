from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.transform import resize

from wsiseg import compiled
from wsiseg.geometry import Rect
from wsiseg.resampling import mirrored, resized
from wsiseg.slides.readers.flat import FlatImage
from wsiseg.slides.resample import PlanView, thumbnail
from wsiseg.slides.slide import read_on_white


@dataclass
class Pyramid:
    """A slide in memory, with exact levels."""

    levels: list
    fill: str = "white"
    mpp = None

    @property
    def shape(self):
        return self.levels[0].shape[:2]

    @property
    def downsamples(self):
        return tuple(self.shape[1] / level.shape[1] for level in self.levels)

    def read(self, rect, level):
        pixels = self.levels[level]
        return read_on_white(rect, Rect(0, 0, *pixels.shape[:2]), lambda part: pixels[part.slices()])


def smooth(height, width):
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(y / a) * np.cos(x / b) for a, b in ((17, 23), (31, 13), (11, 29))]
    return (np.stack(waves, axis=-1) * 100 + 128).astype(np.uint8)


SLIDE = Pyramid([smooth(211, 307)])


@given(
    st.sampled_from([0.21, 0.25, 0.5, 0.499, 0.7, 1.3]),
    st.integers(-40, 300),
    st.integers(-40, 300),
    st.integers(1, 70),
    st.integers(1, 70),
)
def test_a_tile_is_exactly_the_crop_of_the_whole(mpp, y, x, height, width):
    for slide in (SLIDE, FlatImage(SLIDE.levels[0])):
        view = PlanView(slide, 0.5, mpp)
        whole = view.read(Rect(-50, -50, 400, 400))
        part = Rect(y, x, y + height, x + width)
        np.testing.assert_array_equal(
            view.read(part),
            whole[part.shift(50, 50).intersect(Rect(0, 0, 450, 450)).slices()][: part.height, : part.width],
        ) if part.y1 <= 350 and part.x1 <= 350 else None


def test_tiles_make_up_the_whole_on_sizes_that_do_not_divide():
    view = PlanView(SLIDE, 0.5, 0.3)
    whole = view.read(Rect(0, 0, *view.shape))
    rows = [
        np.concatenate(
            [
                view.read(Rect(y, x, min(y + 64, view.shape[0]), min(x + 64, view.shape[1])))
                for x in range(0, view.shape[1], 64)
            ],
            1,
        )
        for y in range(0, view.shape[0], 64)
    ]
    np.testing.assert_array_equal(np.concatenate(rows), whole)


@pytest.mark.parametrize("mpp", [0.25, 1.0, 1.7])
def test_it_is_the_picture_that_another_resampler_gives(mpp):
    view = PlanView(SLIDE, 0.5, mpp)
    ours = view.read(Rect(0, 0, *view.shape)).astype(float)
    theirs = resize(SLIDE.levels[0], view.shape, order=1, anti_aliasing=mpp > 0.5, preserve_range=True)
    inner = (slice(8, -8), slice(8, -8))
    assert np.abs(ours[inner] - theirs[inner]).mean() < 3


def test_the_coarsest_level_that_is_fine_enough_is_read():
    slide = Pyramid([smooth(256, 256), smooth(128, 128), smooth(64, 64)])
    assert [PlanView(slide, 0.25, mpp).level for mpp in (0.1, 0.25, 0.49, 0.5, 0.997, 1.0, 4.0)] == [
        0,
        0,
        0,
        1,
        2,
        2,
        2,
    ]
    assert PlanView(slide, 0.25, 0.5).scale == 2


def test_the_same_scale_is_not_filtered():
    view = PlanView(SLIDE, 0.2501, 0.25)
    np.testing.assert_array_equal(view.read(Rect(3, 4, 60, 70)), SLIDE.levels[0][3:60, 4:70])


@pytest.mark.parametrize("shape", [(106, 154), (300, 400), (211, 307)])
def test_an_image_is_resized_as_a_slide_is_read(shape):
    pixels = SLIDE.levels[0]
    found = resized(pixels, shape)
    assert found.shape == (*shape, 3)
    if shape == pixels.shape[:2]:
        np.testing.assert_array_equal(found, pixels)
    expected = resize(pixels, shape, order=3, mode="symmetric", anti_aliasing=True, preserve_range=True)
    assert np.abs(found - expected).mean() < 1.5
    even = np.ascontiguousarray(pixels[:210, :306])
    view = PlanView(FlatImage(even), 0.25, 0.5).read(Rect(0, 0, 105, 153))
    np.testing.assert_array_equal(resized(even, (105, 153)), view)


def test_outside_is_white_for_slides_and_mirrored_for_images():
    assert (PlanView(SLIDE, 0.5, 0.25).read(Rect(-60, 0, -20, 40)) == 255).all()
    view = PlanView(FlatImage(SLIDE.levels[0]), 0.5, 0.5)
    np.testing.assert_array_equal(view.read(Rect(-5, 0, 0, 9)), view.read(Rect(0, 0, 5, 9))[::-1])


@given(st.integers(-50, 50), st.integers(1, 7))
def test_mirroring_folds(start, size):
    index = mirrored(start, start + 2 * size, size)
    assert sorted(index.tolist()) == sorted([*range(size)] * 2)


def test_a_thumbnail_is_the_whole_slide_and_never_enlarged():
    picture, mpp = thumbnail(SLIDE, 0.5, mpp=2.0)
    assert mpp == pytest.approx(211 * 0.5 / 64)
    assert picture.shape == (64, 93, 3)
    small = Pyramid([smooth(30, 40)])
    assert thumbnail(small, 0.5)[0].shape == (30, 40, 3)


@pytest.mark.skipif(not compiled.AVAILABLE, reason="needs both ways to compare")
@given(st.integers(1, 90), st.integers(1, 90))
def test_without_compiled_loops_the_same_pixels(height, width):
    image = SLIDE.levels[0][:60, 20:70]
    fast = resized(image, (height, width))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled, "AVAILABLE", False)
        np.testing.assert_array_equal(resized(image, (height, width)), fast)
