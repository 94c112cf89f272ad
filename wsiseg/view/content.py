"""What there is to ask for: the page, the slide's tiles, tiles of nuclei, and the nucleus at a place."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from importlib.resources.abc import Traversable

import numpy as np

from wsiseg.nuclei import NucleusTable
from wsiseg.view import vectors
from wsiseg.view.pictures import SIDE, SlidePictures
from wsiseg.view.results import DETECTION_PROBABILITY, Found
from wsiseg.view.vectors import CELLS, RADIUS_UNITS, UNITS, VectorTiles

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
"""Types of the files that the page is made of."""

ROUTES = (
    (re.compile(r"about\.json", re.ASCII), "about"),
    (re.compile(r"slide/(\d{1,2})/(\d{1,6})/(\d{1,6})\.jpg", re.ASCII), "picture"),
    (re.compile(r"nuclei/(\d)/(\d{1,2})/(\d{1,6})/(\d{1,6})", re.ASCII), "nuclei"),
    (re.compile(r"at/(\d)/(\d{1,8}(?:\.\d{1,6})?)/(\d{1,8}(?:\.\d{1,6})?)", re.ASCII), "at"),
)
"""All that may be asked for beside the files of the page; digits alone come through."""

BINS = 100
"""Of the histogram of probabilities."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What is sent back: `kind` is its media type."""

    body: bytes
    kind: str


class Content:
    """A slide and its results, as a page asks for them.

    Parameters
    ----------
    name
        Of the slide, for people.
    pictures
        Of the slide; they are closed with this.
    results
        One or two.
    mpp
        Microns per level-0 pixel; None where nobody knows.
    """

    def __init__(
        self, name: str, pictures: SlidePictures, results: Sequence[Found], mpp: float | None = None
    ) -> None:
        self.name, self.pictures, self.results, self.mpp = name, pictures, tuple(results), mpp
        self.layers = tuple(VectorTiles(found.nuclei, pictures.shape) for found in results)
        self._files = page_files()

    def answer(self, path: str) -> Answer | None:
        """What lies at `path`, which is no path of any file; None where there is nothing.

        Raises
        ------
        WsisegError
            If the slide cannot be read there.
        """
        if path in self._files:
            return self._files[path]
        for route, name in ROUTES:
            if match := route.fullmatch(path):
                given: Answer | None = getattr(self, f"_{name}")(*match.groups())
                return given
        return None

    def _about(self) -> Answer:
        return told(self.about)

    @cached_property
    def about(self) -> dict[str, object]:
        """All that the page is told at first."""
        height, width = self.pictures.shape
        return {
            "slide": {
                "name": self.name,
                "width": width,
                "height": height,
                "mpp": self.mpp,
                "side": SIDE,
                "steps": self.pictures.steps,
            },
            "vectors": {"side": vectors.SIDE, "units": UNITS, "radius": RADIUS_UNITS, "cells": CELLS},
            "results": [
                summary(found, tiles) for found, tiles in zip(self.results, self.layers, strict=True)
            ],
        }

    def _picture(self, step: str, row: str, column: str) -> Answer | None:
        place = int(step), int(row), int(column)
        return Answer(self.pictures.jpeg(*place), "image/jpeg") if self.pictures.has(*place) else None

    def _nuclei(self, result: str, step: str, row: str, column: str) -> Answer | None:
        if int(result) >= len(self.layers) or int(step) >= self.layers[int(result)].steps:
            return None
        tile = self.layers[int(result)].tile(int(step), int(row), int(column))
        return Answer(tile, "application/octet-stream")

    def _at(self, result: str, y: str, x: str) -> Answer | None:
        if int(result) >= len(self.layers):
            return None
        tiles = self.layers[int(result)]
        index = tiles.at(float(y), float(x))
        return told(None if index is None else nucleus(tiles.nuclei, index))

    def close(self) -> None:
        """Let go of the slide."""
        self.pictures.close()


def summary(found: Found, tiles: VectorTiles) -> dict[str, object]:
    """A result without its nuclei: its classes with their probabilities, and how each step is drawn."""
    nuclei, known = tiles.nuclei, np.isfinite(tiles.nuclei.score)
    score = np.nan_to_num(nuclei.score, nan=1.0)
    return {
        "name": found.path.name,
        "nuclei": len(nuclei),
        "kinds": [tiles.kind(step) for step in range(tiles.steps)],
        "diameter": tiles.diameter,
        "probability": bool(known.any()),
        "classes": [
            {
                "name": name,
                "color": list(color),
                "nuclei": int((nuclei.label == label).sum()),
                "histogram": np.histogram(score[nuclei.label == label], BINS, (0, 1))[0].tolist(),
            }
            for label, (name, color) in enumerate(zip(found.class_names, found.class_colors, strict=True))
        ],
    }


def nucleus(nuclei: NucleusTable, index: int) -> dict[str, object]:
    """One nucleus: class, place, measurements and outline as [x, y, x, y, ...]."""
    measured = {name: float(values[index]) for name, values in nuclei.columns.items()}
    measured[DETECTION_PROBABILITY] = float(nuclei.score[index])
    y, x = nuclei.centroid[index].tolist()
    return {
        "index": index,
        "label": int(nuclei.label[index]),
        "score": None if math.isnan(nuclei.score[index]) else float(nuclei.score[index]),
        "x": x,
        "y": y,
        "measurements": {name: float(f"{v:.4g}") for name, v in measured.items() if math.isfinite(v)},
        "ring": nuclei.ring(index)[:, ::-1].ravel().tolist(),
    }


def told(value: object) -> Answer:
    """A value as JSON."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Answer(text.encode(), "application/json")


def page_files() -> Mapping[str, Answer]:
    """The files that the page is made of, by the path they are asked for with; the page itself is ""."""
    found: dict[str, Answer] = {}

    def walk(folder: Traversable, path: str) -> None:
        for entry in folder.iterdir():
            if entry.is_dir():
                walk(entry, f"{path}{entry.name}/")
            elif kind := TYPES.get("." + entry.name.rpartition(".")[2]):
                found[path + entry.name] = Answer(entry.read_bytes(), kind)

    walk(files("wsiseg.view") / "static", "")
    found[""] = found.pop("index.html")
    return found
