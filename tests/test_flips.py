"""What networks say of an image that was flipped and turned comes back to where it belongs."""

import numpy as np
import pytest
from skimage.data import immunohistochemistry
from test_cli import refused, run

from wsiseg.errors import ConfigError, ModelError
from wsiseg.flips import averaged, check_flips, views
from wsiseg.maps import Maps
from wsiseg.models import ModelRef, find_model
from wsiseg.predict import load


def towards_the_brightest(images):
    """Brightness as probability and boundary; offsets to the brightest pixel, and brightness in a third channel."""
    found = []
    for image in images[..., 0].astype(np.float32):
        at = np.unravel_index(image.argmax(), image.shape)
        y, x = np.indices(image.shape)
        found.append(
            Maps(image[None], np.stack([at[0] - y, at[1] - x, image]).astype(np.float16), boundary=image)
        )
    return found


@pytest.mark.parametrize("count", [1, 4, 8])
def test_maps_that_turn_with_the_image_are_not_changed(count):
    images = np.random.default_rng(0).integers(0, 255, (2, 5, 9, 3)).astype(np.uint8)
    for one, mean in zip(
        towards_the_brightest(images), averaged(towards_the_brightest, images, count), strict=True
    ):
        np.testing.assert_array_equal(mean.prob, one.prob)
        np.testing.assert_array_equal(mean.embedding, one.embedding)
        np.testing.assert_array_equal(mean.boundary, one.boundary)
        assert mean.embedding.dtype == one.embedding.dtype


def test_every_view_is_another():
    image = np.arange(15, dtype=np.uint8).reshape(1, 3, 5, 1)
    assert len({view.of(image).tobytes() + bytes(view.of(image).shape) for view in views(8)}) == 8
    assert views(4) == views(8)[:4]
    np.testing.assert_array_equal(views(1)[0].of(image), image)


def test_with_all_views_the_model_does_not_care_how_an_image_lies():
    model = load(ModelRef("spn_ien", str(find_model("he-points"))))
    image = np.ascontiguousarray(immunohistochemistry()[None, :128, :128])
    turned = np.ascontiguousarray(image.swapaxes(1, 2)[:, ::-1])
    for flips, least, most in ((1, 0.01, 1), (8, 0, 1e-3)):
        (one,), (other,) = (model.predict(i, flips=flips) for i in (image, turned))
        apart = np.abs(one.prob - other.prob[:, ::-1].swapaxes(1, 2)).max()
        assert least <= apart <= most


def test_what_cannot_be_flipped_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="flips 3 is not possible; choose 1, 4, 8"):
        check_flips(3, "output")
    with pytest.raises(ModelError, match="'patch' do not turn"):
        check_flips(4, "patch")
    check_flips(8, None)
    (tmp_path / "a.png").write_bytes(b"")
    said = refused(run("segment", tmp_path / "a.png", "-o", tmp_path / "a.geojson", "--flips", "2"))
    assert "flips 2 is not possible" in said
