"""Metrics over a data set, and numbers chosen on it."""

from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray

from wsiseg import metrics
from wsiseg.errors import DataError
from wsiseg.evaluate import Table, choose, evaluate, grouped, labels_of
from wsiseg.geometry import Rect
from wsiseg.instances import instances
from wsiseg.maps import Maps
from wsiseg.samples import Sample


def sample(name: str, labels: NDArray[np.int32] | None) -> Sample:
    shape = (64, 64) if labels is None else labels.shape
    return Sample(name, np.zeros((*shape, 3), np.uint8), 0.25, np.zeros((0, 2)), None, labels)


def squares(*corners: tuple[int, int], side: int = 10) -> NDArray[np.int32]:
    """(64, 64) labels: a square with its upper left pixel at each corner."""
    labels = np.zeros((64, 64), np.int32)
    for label, (y, x) in enumerate(corners, 1):
        labels[y : y + side, x : x + side] = label
    return labels


def test_perfect_and_empty_predictions_average_to_a_half() -> None:
    truth = squares((5, 5), (40, 40))
    found = {"first": truth, "second": np.zeros_like(truth)}
    table = evaluate([sample("first", truth), sample("second", truth)], lambda s: found[s.name])
    assert table.rows["first"] == {**dict.fromkeys(table.rows["first"], 1.0), "nuclei": 2, "true nuclei": 2}
    assert all(table.rows["second"][name] == 0 for name in ("IoU", "F1", "Dice", "AJI", "PQ", "nuclei"))
    assert table.mean()["AJI"] == 0.5
    assert table.mean()["nuclei"] == 1


def test_metrics_are_averaged_over_images_and_never_pooled() -> None:
    few, many = squares((5, 5)), squares((5, 5), (5, 25), (25, 5), (25, 25))
    found = {"few": np.zeros_like(few), "many": many}
    table = evaluate([sample("few", few), sample("many", many)], lambda s: found[s.name])
    pooled = metrics.pixel_iou(np.stack([few, many]), np.stack([found["few"], found["many"]]))
    assert table.mean()["IoU"] == 0.5 != pooled


def test_markdown_has_a_row_an_image_and_the_mean_last() -> None:
    table = Table({"a": {"AJI": 0.25, "nuclei": 3.0}, "b": {"AJI": 0.75, "nuclei": 4.0}})
    assert table.markdown().splitlines() == [
        "| image | AJI | nuclei |",
        "|---|---|---|",
        "| a | 0.2500 | 3 |",
        "| b | 0.7500 | 4 |",
        "| mean | 0.5000 | 4 |",
    ]


def test_nothing_to_evaluate_on() -> None:
    with pytest.raises(DataError, match="no images"):
        evaluate([], lambda s: squares())


def test_points_cannot_be_evaluated_against() -> None:
    with pytest.raises(DataError, match="clicked: has no labels"):
        labels_of(sample("clicked", None))


class DrawnModel:
    """Two nuclei at 0.42 and two specks at 0.9; groups as `components` does, but for nuclei cut in two."""

    card = SimpleNamespace(mpp=0.25)
    prob = np.where(
        squares((5, 5), (40, 40)) > 0, 0.42, np.where(squares((5, 40), (40, 5), side=5) > 0, 0.9, 0)
    )

    def predict_whole(self, image: NDArray[np.uint8], **_: object) -> tuple[Maps, tuple[slice, slice]]:
        return Maps(self.prob[None].astype(np.float32), None), (slice(0, 64), slice(0, 64))

    def components(self, maps: Maps, *, threshold: float, min_area: int) -> NDArray[np.int32]:
        return instances((maps.prob[0] >= threshold).astype(np.int32), min_area=min_area)

    def group(
        self, maps: Maps, frame: Rect, *, threshold: float, min_area: int
    ) -> tuple[NDArray[np.int32], None]:
        labels = self.components(maps, threshold=threshold, min_area=min_area)
        labels[:, 10] = 0
        return labels, None


def test_each_method_gets_its_own_best_numbers() -> None:
    truth = squares((5, 5), (40, 40))
    grouping, components = choose([sample("drawn", truth)], DrawnModel())  # type: ignore[arg-type]  # a stand-in
    assert components.aji == 1
    assert components.threshold <= 0.42
    assert components.min_area > 25
    assert grouping.aji < 1


class DarkAt:
    """Takes dark pixels for nuclei, at its own pixel size."""

    def __init__(self, mpp: float) -> None:
        self.card = SimpleNamespace(mpp=mpp)
        self.shapes: list[tuple[int, ...]] = []

    def segment(self, image: NDArray[np.uint8], **_: object) -> NDArray[np.int32]:
        self.shapes.append(image.shape)
        return instances((image[..., 0] < 128).astype(np.int32), min_area=1)


def test_a_coarser_model_is_scored_on_the_images_own_pixels() -> None:
    truth = squares((4, 4), (40, 20), side=12)
    image = np.repeat(np.where(truth > 0, 0, 255).astype(np.uint8)[..., None], 3, 2)
    model = DarkAt(0.5)
    table = evaluate(
        [Sample("a", image, 0.25, np.zeros((0, 2)), None, truth)],
        grouped(model),  # type: ignore[arg-type]  # a stand-in
    )
    assert model.shapes == [(32, 32, 3)]
    assert table.rows["a"]["AJI"] == 1
    assert table.rows["a"]["nuclei"] == 2
