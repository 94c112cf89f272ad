"""The viewer in a real browser: what is drawn, what the pointer is told, what a filter hides."""

from __future__ import annotations

import io
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from view_made import COLORS, RADIUS, made, nuclei_at, write

from wsiseg.geometry import Rect
from wsiseg.nuclei import NucleusTable
from wsiseg.slides.opening import open_slide
from wsiseg.view.opening import open_view
from wsiseg.view.server import ViewServer

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

FLAGS = (
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
)
"""Without the sandbox, which root cannot have; with WebGL, whether or not there is a graphics processor."""

IDLE = """() => wsiseg.state.panes.every((pane) =>
    pane.viewer.world.getItemCount() && pane.viewer.world.getItemAt(0).getFullyLoaded() &&
    pane.layers.every((layer) => layer.drawn.length && !layer.tiles.coming.size && !layer.tiles.wanted.length) &&
    !pane.overlay.busy)"""

TWO_FRAMES = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """The distribution's Chromium; with CI=true it must be there."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        program = None
    if program is None:
        reason = "no Chromium or no playwright here; apt-get install chromium, pip install playwright"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, headless=True, args=[*FLAGS])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, NucleusTable]:
    return made(tmp_path_factory.mktemp("view"))


Open = Callable[..., "Page"]


@pytest.fixture
def show(browser: Browser) -> Iterator[Open]:
    """Opens the page on a slide and results; at the end its console must be empty."""
    said: list[str] = []
    pages, servers = [], []

    def open_page(*files: Path, how: str = "") -> Page:
        server = ViewServer(open_view([str(file) for file in files]))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        page = browser.new_page(viewport={"width": 1000, "height": 700})
        page.set_default_timeout(120_000)
        pages.append(page)
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(f"error: {error}"))
        page.on("requestfailed", lambda request: said.append(f"failed: {request.url}"))
        page.on("response", lambda answer: answer.ok or said.append(f"{answer.status}: {answer.url}"))
        page.goto(server.url + how)
        page.wait_for_function("() => window.wsiseg")
        settle(page)
        return page

    yield open_page
    for page in pages:
        page.close()
    for server in servers:
        server.shutdown()
        server.server_close()
    assert said == []


def settle(page: Page) -> None:
    """Wait until all that is in view has come and is drawn."""
    # A view just moved still says of the one before that it is drawn, until its next frame.
    page.evaluate(TWO_FRAMES)
    page.wait_for_function(IDLE)
    page.evaluate(TWO_FRAMES)


def look(page: Page, y: float, x: float, scale: float = 1.0) -> None:
    """Show the level-0 place (y, x) in the middle of every pane."""
    page.evaluate("([x, y, scale]) => wsiseg.state.panes[0].show(x, y, scale, true)", [x, y, scale])
    settle(page)


def picture(page: Page) -> NDArray[np.int64]:
    """(H, W, 3) what is seen."""
    return np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB")).astype(int)


def screen(page: Page, y: float, x: float, pane: int = 0) -> tuple[float, float]:
    """Where a level-0 place is on the screen, as (y, x)."""
    left, top, seen = page.evaluate(
        "(i) => { const p = wsiseg.state.panes[i], b = p.slide.getBoundingClientRect(); return [b.left, b.top, p.seen] }",
        pane,
    )
    return top + (y - seen["y"]) * seen["scale"], left + (x - seen["x"]) * seen["scale"]


def is_drawn(page: Page, y: float, x: float, color: tuple[int, int, int], pane: int = 0) -> bool:
    """Whether the ring about a nucleus at (y, x) is drawn: its colour is met on all four sides."""
    seen = picture(page)
    places = [
        screen(page, y + dy, x + dx, pane) for dy, dx in np.array([(0, 1), (1, 0), (0, -1), (-1, 0)]) * RADIUS
    ]
    near = [seen[round(v) - 2 : round(v) + 3, round(u) - 2 : round(u) + 3] for v, u in places]
    return all((np.abs(part - color).max(-1) < 60).any() for part in near)


@pytest.mark.parametrize("how", ["#canvas", "#webgl"])
def test_a_slide_and_its_nuclei(how: str, show: Open, drawn: tuple[Path, Path, NucleusTable]) -> None:
    slide, store, nuclei = drawn
    page = show(slide, store, how=how)
    kind = page.evaluate("() => wsiseg.state.panes[0].overlay.constructor.name")
    assert kind == {"#canvas": "CanvasOverlay", "#webgl": "WebGLOverlay"}[how]
    tumour, stroma = (150 + 600, 250 + 800), (150 + 600, 350 + 800)
    index = {int(y) * 10_000 + int(x): i for i, (y, x) in enumerate(nuclei.centroid.tolist())}
    labels = [int(nuclei.label[index[y * 10_000 + x]]) for y, x in (tumour, stroma)]
    assert sorted(labels) == [0, 1]

    # Zoom to full resolution: the pixels on the screen are those of the slide.
    page.get_by_role("button", name="Full resolution").click()
    page.wait_for_function("() => document.getElementById('zoom').textContent.startsWith('100 %')")
    look(page, *tumour)
    page.keyboard.press("h")
    settle(page)
    seen = picture(page)
    (top, left) = (round(v) for v in screen(page, 700, 1000))
    pixels = open_slide(slide).read(Rect(700, 1000, 850, 1200), 0)
    assert np.abs(seen[top : top + 150, left : left + 200] - pixels).mean() < 3
    assert not is_drawn(page, *tumour, COLORS[labels[0]])

    # Nuclei are drawn in the colours of their classes, as outlines or filled.
    page.keyboard.press("o")
    settle(page)
    assert is_drawn(page, *tumour, COLORS[labels[0]])
    assert is_drawn(page, *stroma, COLORS[labels[1]])
    v, u = (round(w) for w in screen(page, *tumour))
    before = picture(page)[v, u]
    assert np.abs(before - (80, 50, 130)).max() < 25
    page.keyboard.press("f")
    settle(page)
    after = picture(page)[v, u]
    assert np.abs(after - (0.55 * before + 0.45 * np.array(COLORS[labels[0]]))).max() < 12
    page.keyboard.press("o")

    # The pointer is told of the nucleus under it, and of its place.
    page.mouse.move(u, v)
    card = page.get_by_role("status", name="Nucleus under the pointer")
    card.wait_for()
    area = nuclei.columns["Area µm^2"][index[tumour[0] * 10_000 + tumour[1]]]
    assert f"Area µm^2{area:g}" in card.inner_text().replace("\t", "").replace("\n", "")
    assert "Detection probability" in card.inner_text()
    assert page.locator("#place").inner_text() in {
        f"x {x:,} y {y:,} px" for x in (1049, 1050) for y in (749, 750)
    }
    page.mouse.move(u + 50, v + 50)
    card.wait_for(state="hidden")

    # Filters: a class, and the least probability.
    name = ("Tumour", "Stroma")[labels[0]]
    page.get_by_role("checkbox", name=name, exact=True).uncheck()
    settle(page)
    assert not is_drawn(page, *tumour, COLORS[labels[0]])
    assert is_drawn(page, *stroma, COLORS[labels[1]])
    page.mouse.move(u, v)
    page.wait_for_timeout(300)
    assert card.is_hidden()
    shown = int((nuclei.label == labels[1]).sum())
    assert page.locator(".result > p").first.inner_text() == f"{shown} of {len(nuclei)} nuclei"
    page.get_by_role("checkbox", name=name, exact=True).check()
    page.get_by_role("slider", name="Detection probability").fill("0.75")
    settle(page)
    shown = int((nuclei.score >= 0.75).sum())
    assert page.locator(".result > p").first.inner_text() == f"{shown} of {len(nuclei)} nuclei"
    for place, label in zip((tumour, stroma), labels, strict=True):
        passes = nuclei.score[index[place[0] * 10_000 + place[1]]] >= 0.75
        assert is_drawn(page, *place, COLORS[label]) == passes


def test_from_afar_nuclei_tint_the_tissue(show: Open, tmp_path: Path) -> None:
    slide, _, nuclei = made(tmp_path, (1500, 2100))
    small = write(tmp_path / "small.geojson", nuclei_at(nuclei.centroid, radius=3))
    page = show(slide, small)
    kinds = page.evaluate("() => [wsiseg.layers[0].step, wsiseg.layers[0].drawn.map((tile) => tile.kind)]")
    assert kinds[0] > 0
    with_nuclei = picture(page)
    page.keyboard.press("h")
    settle(page)
    assert (np.abs(with_nuclei - picture(page)).max(-1) > 10).sum() > 500


def test_two_results_over_one_another_and_side_by_side(
    show: Open, drawn: tuple[Path, Path, NucleusTable], tmp_path: Path
) -> None:
    slide, store, nuclei = drawn
    moved = write(tmp_path / "moved.geojson", nuclei_at(nuclei.centroid[::2] + 45))
    page = show(slide, store, moved, how="#canvas")
    first, second = ((0, 194, 168), (255, 157, 0))
    own, other = (750, 1050), tuple(nuclei.centroid[::2][len(nuclei) // 4] + 45)
    look(page, *own)
    assert is_drawn(page, *own, first)
    look(page, *other)
    assert is_drawn(page, *other, second)

    page.get_by_role("radio", name="Side by side").check()
    page.wait_for_function("() => wsiseg.state.panes.length === 2")
    settle(page)
    look(page, *own)
    seen = page.evaluate("() => wsiseg.state.panes.map((pane) => pane.seen)")
    assert seen[0] == pytest.approx(seen[1], abs=0.01)
    assert is_drawn(page, *own, first, 0)
    assert not is_drawn(page, *own, first, 1)
    look(page, *other)
    assert is_drawn(page, *other, second, 1)
    assert not is_drawn(page, *other, second, 0)
    # Whoever moves the right one moves both.
    page.evaluate("() => wsiseg.state.panes[1].show(400, 500, 2, true)")
    settle(page)
    seen = page.evaluate("() => wsiseg.state.panes.map((pane) => pane.seen)")
    assert seen[0] == pytest.approx(seen[1], abs=0.01)


def test_everything_has_a_name_and_a_key(show: Open, drawn: tuple[Path, Path, NucleusTable]) -> None:
    page = show(*drawn[:2], how="#canvas")
    nameless = """() => [...document.querySelectorAll("button, input, select, [role]")].filter((each) =>
        !each.hidden && !(each.labels?.length || each.getAttribute("aria-label") || each.textContent.trim()
          || each.getAttribute("aria-labelledby"))).map((each) => each.outerHTML)"""
    assert page.evaluate(nameless) == []
    page.keyboard.press("?")
    assert page.get_by_role("dialog", name="Keys").is_visible()
    page.keyboard.press("Escape")
    look(page, 700, 1000)
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => wsiseg.state.panes[0].seen.x > 720")
    page.keyboard.press("0")
    page.wait_for_function("() => wsiseg.state.panes[0].seen.x < 1")
    page.keyboard.press("]")
    assert page.get_by_role("slider").input_value() == "0.05"
    page.keyboard.press("p")
    assert page.locator("#panel").is_hidden()
    page.keyboard.press("p")
    look(page, 750, 1050)
    page.keyboard.press("m")
    page.get_by_role("status", name="Nucleus under the pointer").wait_for()
