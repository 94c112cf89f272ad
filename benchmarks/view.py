"""Frames a second of the page of `wsiseg view` while it pans, in a real browser, at several zooms.

    python benchmarks/view.py SLIDE RESULT [--nuclei 500000] [--seconds 6] [--gpu] [--json]

The slide and its nuclei are mirrored to the right and downwards until there are enough, and the page is served as ever.
Frames are counted by requestAnimationFrame while the view moves at 800 pixels a second over tissue it has not seen;
a frame is whole when no nucleus of it was still on its way. Processor time is that of server and browser together: what a
frame costs, whatever else the machine does. Without --gpu, Chromium draws on the processor alone.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray
from playwright.sync_api import Page, sync_playwright

from wsiseg.geometry import Rect
from wsiseg.nuclei import NucleusTable, concatenate
from wsiseg.resampling import mirrored
from wsiseg.slides.opening import open_slide
from wsiseg.slides.slide import Fill, Slide, level_shape
from wsiseg.view.content import Content
from wsiseg.view.pictures import SlidePictures
from wsiseg.view.results import read_result
from wsiseg.view.server import ViewServer

WINDOW = {"width": 1400, "height": 900}

SOFTWARE = ("--disable-gpu",)

FLAGS = ("--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking")

DOWNSAMPLES = (0.5, 1, 2, 2.8, 4, 8, 16)
"""Level-0 pixels per pixel of the screen."""

PAN = """([x, y, down, seconds]) => new Promise((done) => {
  const pane = wsiseg.state.panes[0], { width, height } = pane.about.slide;
  pane.show(x, y, 1 / down, true);
  const settled = () => pane.viewer.world.getItemAt(0).getFullyLoaded() && !wsiseg.layers[0].missing && !pane.overlay.busy;
  const times = []; let whole = 0, way = [0.8, 0.6], place = [x, y];
  const step = (now) => {
    const before = times.at(-1);
    times.push(now);
    if (before === undefined) return requestAnimationFrame(step);
    whole += !wsiseg.layers[0].missing && !pane.overlay.busy;
    if (now - times[0] > seconds * 1000) {
      const each = times.slice(1).map((t, i) => t - times[i]).sort((a, b) => a - b);
      return done({ fps: 1000 * each.length / (now - times[0]), slowest: each[Math.floor(each.length * 0.95)],
        whole: whole / each.length, nuclei: wsiseg.layers[0].drawn.reduce((sum, tile) => sum + tile.nuclei, 0) });
    }
    const moved = 0.8 * Math.min(100, now - before) * down;
    [width, height].forEach((size, i) => {
      if (place[i] + way[i] * moved > size || place[i] + way[i] * moved < 0) way[i] = -way[i];
      place[i] += way[i] * moved;
    });
    pane.viewer.viewport.panTo(new OpenSeadragon.Point(place[0] / width, place[1] / width), true);
    requestAnimationFrame(step);
  };
  const wait = () => settled() ? requestAnimationFrame(step) : setTimeout(wait, 100);
  setTimeout(wait, 300);
})"""


def main() -> None:
    """Serve, pan, print."""
    options = arguments()
    found = read_result(options.result)
    source = open_slide(options.slide)
    times = math.ceil(math.sqrt(options.nuclei / len(found.nuclei)))
    slide = Mirrored(source, times)
    nuclei = mirrored_nuclei(found.nuclei, source.shape, times)
    chosen = np.random.default_rng(0).permutation(len(nuclei))[: options.nuclei]
    content = Content(options.slide.name, SlidePictures(slide), [replace(found, nuclei=nuclei.take(chosen))])
    with ViewServer(content) as server, sync_playwright() as playwright:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium") or shutil.which("google-chrome"),
            headless=True,
            args=[*FLAGS, *(() if options.gpu else SOFTWARE)],
        )
        page = browser.new_page(viewport=WINDOW)  # type: ignore[arg-type]
        page.set_default_timeout(600_000)
        page.goto(server.url)
        page.wait_for_function("() => window.wsiseg")
        rows = [measured(page, slide.shape, down, options.seconds) for down in DOWNSAMPLES]
        drawer = page.evaluate("() => wsiseg.state.panes[0].overlay.constructor.name")
        browser.close()
        server.shutdown()
    told = {
        "nuclei": len(chosen),
        "drawn by": drawer,
        "least fps": min(row["fps"] for row in rows),
        "zooms": rows,
    }
    if options.json:
        print(json.dumps(told))
        return
    print(f"{len(chosen):,} nuclei, {drawer}, {WINDOW['width']} x {WINDOW['height']} px")
    print(
        "| zoom | nuclei in view | frames a second | 95th percentile of a frame, ms | processor, ms a frame | whole frames |\n"
        + "|---" * 6
        + "|"
    )
    for row in rows:
        print(
            f"| {100 / row['down']:.3g} % | {row['nuclei']:,} | {row['fps']} | {row['slowest']} | {row['cpu_ms']} | {row['whole']:.0%} |"
        )


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("slide", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("--nuclei", type=int, default=500_000)
    parser.add_argument("--seconds", type=float, default=6.0, help="of panning, at each zoom")
    parser.add_argument("--gpu", action="store_true", help="let Chromium use a graphics processor")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    return parser.parse_args()


def measured(page: Page, shape: tuple[int, int], down: float, seconds: float) -> dict[str, Any]:
    """What the browser counts at one zoom."""
    y, x = shape[0] * 0.3, shape[1] * 0.3
    page.evaluate(PAN, [x, y, down, 0.1])  # to come there is not to pan
    before = busy()
    row = page.evaluate(PAN, [x, y, down, seconds])
    return {
        "down": down,
        "nuclei": row["nuclei"],
        "fps": round(row["fps"], 1),
        "slowest": round(row["slowest"], 1),
        "cpu_ms": round(1000 * (busy() - before) / row["fps"] / seconds, 1),
        "whole": round(row["whole"], 3),
    }


def busy() -> float:
    """Processor seconds of this process and all that it started."""
    own = psutil.Process()
    total = 0.0
    for process in (own, *own.children(recursive=True)):
        with suppress(psutil.Error):
            total += sum(process.cpu_times()[:2])
    return total


class Mirrored:
    """A slide, mirrored over and over to the right and downwards: `times` of it each way."""

    fill: Fill = "white"

    def __init__(self, source: Slide, times: int) -> None:
        self.source = source
        self.shape = source.shape[0] * times, source.shape[1] * times
        self.mpp, self.downsamples = source.mpp, source.downsamples
        self.bounds = Rect(0, 0, *self.shape)
        self.properties: Mapping[str, str] = source.properties

    def read(self, rect: Rect, level: int) -> NDArray[np.uint8]:
        """See `Slide`; nothing outside is ever asked for."""
        height, width = level_shape(self.source, level)
        rows, columns = mirrored(rect.y0, rect.y1, height), mirrored(rect.x0, rect.x1, width)
        part = Rect(int(rows.min()), int(columns.min()), int(rows.max()) + 1, int(columns.max()) + 1)
        pixels = self.source.read(part, level)
        return np.ascontiguousarray(pixels[np.ix_(rows - part.y0, columns - part.x0)])

    def close(self) -> None:
        """See `Slide`."""
        self.source.close()


def mirrored_nuclei(nuclei: NucleusTable, shape: tuple[int, int], times: int) -> NucleusTable:
    """The nuclei of all the mirrored pieces."""
    copies = []
    for i in range(times):
        for j in range(times):
            sign = np.array([1 - 2 * (i % 2), 1 - 2 * (j % 2)])
            start = np.array([(i + i % 2) * shape[0], (j + j % 2) * shape[1]], float)
            copies.append(
                replace(
                    nuclei,
                    centroid=start + sign * nuclei.centroid,
                    vertices=(start + sign * nuclei.vertices).astype(np.float32),
                )
            )
    return concatenate(copies)


if __name__ == "__main__":
    main()
