import numpy as np
import pytest

from wsiseg.slides.opening import open_slide
from wsiseg.slides.resample import thumbnail
from wsiseg.tissue import tissue_mask


def glass(shade, size=200):
    noise = np.random.default_rng(0).normal(0, 2, (size, size, 3))
    return (np.full((size, size, 3), shade) + noise).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("shade", [255, 240, 215])
def test_bare_glass_holds_no_tissue(shade):
    assert not tissue_mask(glass(shade), mpp=8).any()


@pytest.mark.parametrize("colour", [(200, 120, 170), (228, 205, 222), (120, 80, 60)])
def test_tissue_is_found_however_pale_and_grown_a_little(colour):
    rgb = glass(243)
    rgb[60:140, 50:150] = colour
    mask = tissue_mask(rgb, mpp=8)
    assert mask[60:140, 50:150].all()
    assert mask.mean() < 0.36
    assert not mask[:40].any()


def test_specks_are_no_tissue():
    rgb = glass(243)
    rgb[100:103, 100:103] = (60, 60, 60)
    assert not tissue_mask(rgb, mpp=8).any()


def test_real_slides(slides):
    for name, least, most in (("CMU-1-Small-Region.svs", 0.45, 0.65), ("colon-11264x8448.tif", 0.95, 1.0)):
        picture, mpp = thumbnail(open_slide(slides / name), 0.5)
        assert least < tissue_mask(picture, mpp=mpp).mean() < most
