"""The viewer without a browser: tiles of the slide and of nuclei, who is answered, and bad input."""

from __future__ import annotations

import http.client
import io
import json
import logging
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner
from view_made import CLASSES, COLORS, made, nuclei_at, write

from wsiseg.cli.app import app
from wsiseg.errors import ConfigError, SlideError
from wsiseg.geometry import Rect
from wsiseg.nuclei import NucleusTable, empty
from wsiseg.polygons import to_shapely
from wsiseg.slides.readers.flat import FlatImage
from wsiseg.view import vectors
from wsiseg.view.ears import triangles
from wsiseg.view.opening import open_view
from wsiseg.view.pictures import SIDE, SlidePictures
from wsiseg.view.results import read_result
from wsiseg.view.server import ViewServer
from wsiseg.view.vectors import CORNER, DENSITY, DISCS, OUTLINES, UNITS, VectorTiles


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, NucleusTable]:
    return made(tmp_path_factory.mktemp("view"))


@pytest.fixture(scope="module")
def server(drawn: tuple[Path, Path, NucleusTable]) -> Iterator[ViewServer]:
    with ViewServer(open_view([str(drawn[0]), str(drawn[1])])) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


# The slide's tiles.


@pytest.fixture(scope="module")
def smooth() -> NDArray[np.uint8]:
    """A picture without a pyramid, large enough that coarse steps are made of finer ones."""
    y, x = np.mgrid[:3001, :4203]
    return np.stack([y // 12, x // 17, (y + x) // 29], -1).astype(np.uint8)


def together(pictures: SlidePictures, step: int) -> NDArray[np.uint8]:
    """All tiles of a step, joined."""
    height, width = pictures.size(step)
    whole = np.zeros((height, width, 3), np.uint8)
    for row in range(-(-height // SIDE)):
        for column in range(-(-width // SIDE)):
            tile = np.asarray(Image.open(io.BytesIO(pictures.jpeg(step, row, column))))
            whole[row * SIDE :, column * SIDE :][: tile.shape[0], : tile.shape[1]] = tile
    return whole


@pytest.mark.parametrize("step", [0, 1, 2, 3, 4])
def test_tiles_joined_are_the_slide_made_smaller(step: int, smooth: NDArray[np.uint8]) -> None:
    pictures = SlidePictures(FlatImage(smooth))
    assert pictures.steps == 5
    expected = np.asarray(Image.fromarray(smooth).reduce(2**step))
    found = together(pictures, step)
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= 6  # JPEG


def test_large_pieces_are_never_read_at_once(smooth: NDArray[np.uint8]) -> None:
    read: list[int] = []

    class Watched(FlatImage):
        def read(self, rect: Rect, level: int) -> NDArray[np.uint8]:
            read.append(rect.area)
            return super().read(rect, level)

    pictures = SlidePictures(Watched(smooth))
    pictures.jpeg(4, 0, 0)
    assert sum(read) == 3001 * 4203
    assert max(read) <= (4 * SIDE) ** 2


def test_a_tile_that_is_not_there_and_a_slide_that_was_closed() -> None:
    pictures = SlidePictures(FlatImage(np.zeros((600, 500, 3), np.uint8)))
    assert [pictures.has(0, 1, 0), pictures.has(0, 2, 0), pictures.has(2, 0, 0)] == [True, False, False]
    with pytest.raises(SlideError, match="no tile 2, 0 at step 0"):
        pictures.jpeg(0, 2, 0)
    pictures.close()
    with pytest.raises(SlideError, match="closed"):
        pictures.jpeg(0, 0, 0)


# Tiles of nuclei.


def opened(data: bytes) -> tuple[int, int, NDArray[np.void], NDArray[np.uint32]]:
    """Kind, nuclei, rows and triangles of a tile, as the page takes it apart."""
    kind, count, rows, fill = np.frombuffer(data, "<u4", 4)
    body = np.frombuffer(data, "<u4" if kind == DENSITY else CORNER, rows, 16)
    return int(kind), int(count), body, np.frombuffer(data, "<u4", 3 * fill, 16 + body.nbytes).reshape(-1, 3)


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(0, 4))
def test_every_nucleus_is_in_the_tile_of_its_centroid_and_in_no_other(seed: int, n: int, step: int) -> None:
    shape = (7000, 9000)
    centres = np.random.default_rng(seed).uniform(0, shape, (n, 2))
    tiles = VectorTiles(nuclei_at(centres), shape)
    assert tiles.steps == 6
    side, seen = vectors.SIDE << step, 0
    for row in range(-(-shape[0] // side)):
        for column in range(-(-shape[1] // side)):
            own = tiles.nuclei.centroid[tiles.run(step, row, column)]
            assert (own // side == (row, column)).all()
            seen += len(own)
    assert seen == n


def test_outlines_arrive_as_they_were() -> None:
    centres = np.array([[600.25, 530.5], [700.0, 1000.75]])
    tiles = VectorTiles(nuclei_at(centres), (2000, 2000))
    kind, count, rows, fill = opened(tiles.tile(0, 1, 1))
    assert (kind, count, len(rows)) == (OUTLINES, 2, 34)
    assert np.flatnonzero(rows["mark"]).tolist() == [16, 33]
    places = np.stack([rows["y"], rows["x"]], -1) / UNITS + vectors.SIDE
    for i in (0, 1):
        assert np.abs(places[17 * i : 17 * i + 16] - tiles.nuclei.ring(i)).max() <= 0.5 / UNITS
        assert (places[17 * i + 16] == places[17 * i]).all()
    assert (rows["score"] == np.repeat(np.rint(tiles.nuclei.score * 65535), 17)).all()
    assert (rows["label"] == np.repeat(tiles.nuclei.label, 17)).all()
    cut = shapely.area(shapely.polygons(places[fill]))
    assert cut[:14].sum() == pytest.approx(tiles.nuclei.area[0], rel=2e-3)
    assert len(cut) == 28


def test_outlines_from_afar_stray_by_less_than_can_be_seen() -> None:
    rng = np.random.default_rng(0)
    nuclei = nuclei_at(rng.uniform(50, 4000, (200, 2)))
    wobbly = nuclei.vertices + rng.normal(0, 0.6, nuclei.vertices.shape).astype(np.float32)
    tiles = VectorTiles(replace(nuclei, vertices=wobbly), (4096, 4096))
    step = 2
    assert tiles.kind(step) == OUTLINES
    _, count, rows, _ = opened(tiles.tile(step, 0, 0))
    places = np.stack([rows["y"], rows["x"]], -1) * 2**step / UNITS
    ends = np.flatnonzero(rows["mark"])
    assert len(ends) == count > 10
    assert len(rows) < 17 * count
    part = tiles.nuclei.take(np.arange(*tiles.run(step, 0, 0).indices(200)))
    for i, (first, last) in enumerate(zip([0, *(ends[:-1] + 1)], ends, strict=True)):
        true = shapely.linearrings(part.ring(i))
        away = shapely.hausdorff_distance(shapely.linearrings(places[first : last + 1]), true, densify=0.1)
        assert away <= vectors.STRAY * 2**step + 2**step / UNITS


def test_further_off_there_are_discs_of_the_same_area() -> None:
    tiles = VectorTiles(nuclei_at(np.array([[100.0, 200.0]])), (40000, 40000))
    assert [tiles.kind(step) for step in range(6)] == [OUTLINES, OUTLINES, OUTLINES, DISCS, DENSITY, DENSITY]
    kind, _, rows, _ = opened(tiles.tile(3, 0, 0))
    assert kind == DISCS
    assert (rows["y"] / UNITS * 8, rows["x"] / UNITS * 8) == ([100.0], [200.0])
    radius = rows["mark"][0] / vectors.RADIUS_UNITS * 8
    assert np.pi * radius**2 == pytest.approx(tiles.nuclei.area[0], rel=0.1)


def test_from_afar_every_nucleus_is_a_number_of_its_cell() -> None:
    nuclei = nuclei_at(np.random.default_rng(1).uniform(0, 8000, (500, 2)), radius=3)
    tiles = VectorTiles(nuclei, (8000, 8000))
    step = tiles.steps - 1
    kind, count, rows, _ = opened(tiles.tile(step, 0, 0))
    assert (kind, count) == (DENSITY, 500)
    cell = (vectors.SIDE << step) / vectors.CELLS
    expected = (tiles.nuclei.centroid // cell).astype(int) @ (vectors.CELLS, 1)
    assert (rows >> 16 == expected).all()
    assert (rows >> 8 & 255 == tiles.nuclei.label).all()
    assert np.abs((rows & 255) / 255 - tiles.nuclei.score).max() <= 1 / 255


@given(st.integers(0, 2**32 - 1))
def test_the_nucleus_at_a_place_is_that_of_a_search_through_all(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tiles = VectorTiles(nuclei_at(rng.uniform(0, 1500, (150, 2))), (1500, 1500))
    polygons = to_shapely(tiles.nuclei.vertices, tiles.nuclei.offsets)
    for y, x in rng.uniform(0, 1500, (20, 2)):
        holding = np.flatnonzero(shapely.contains_xy(polygons, x, y))
        found = tiles.at(y, x)
        assert (found is None) == (len(holding) == 0)
        assert found is None or found in holding


def test_no_nuclei_are_no_trouble() -> None:
    tiles = VectorTiles(empty(0.25), (3000, 3000))
    assert opened(tiles.tile(0, 0, 0))[1] == 0
    assert opened(tiles.tile(tiles.steps - 1, 0, 0))[1] == 0
    assert tiles.at(5, 5) is None


@given(st.integers(0, 2**32 - 1), st.integers(3, 24), st.booleans())
def test_triangles_cover_an_outline_once(seed: int, corners: int, turned: bool) -> None:
    rng = np.random.default_rng(seed)
    # Between neighbouring corners less than half a turn, so that rings do not cross themselves.
    turn = (np.arange(corners) + rng.uniform(0, 0.9, corners)) / corners * 2 * np.pi
    ring = rng.uniform(1, 20, (corners, 1)) * np.stack([np.sin(turn), np.cos(turn)], 1)
    vertices = np.concatenate([ring, (ring[::-1] if turned else ring) + 50])
    polygon = shapely.polygons(ring)
    if not polygon.is_valid:  # three corners may lie on one side of the centre
        return
    cut = shapely.polygons(vertices[triangles(vertices, np.array([0, corners, 2 * corners]))])
    assert len(cut) == 2 * (corners - 2)
    for half in (cut[: corners - 2], cut[corners - 2 :]):
        assert shapely.area(half).sum() == pytest.approx(polygon.area, rel=1e-9)
        assert shapely.union_all(half, grid_size=1e-9).area == pytest.approx(polygon.area, rel=1e-6)


# Results, read back.


@pytest.mark.parametrize("suffix", [".geojson", ".geojson.gz", ".zip", ".zarr"])
def test_results_come_back_from_every_format(suffix: str, tmp_path: Path) -> None:
    nuclei = nuclei_at(np.random.default_rng(0).uniform(50, 900, (40, 2)))
    found = read_result(write(tmp_path / f"a{suffix}", nuclei))
    assert sorted(zip(found.class_names, found.class_colors, strict=True)) == sorted(
        zip(CLASSES, COLORS, strict=True)
    )
    names = np.array(found.class_names)[found.nuclei.label]
    assert (names == np.array(CLASSES)[nuclei.label]).all()
    assert np.abs(found.nuclei.centroid - nuclei.centroid).max() < 0.2
    assert np.abs(found.nuclei.score - nuclei.score).max() < 1e-3
    assert found.nuclei.columns["Area µm^2"].tolist() == nuclei.columns["Area µm^2"].tolist()


def test_cells_are_shown_by_their_nuclei_and_what_has_no_probability_passes(tmp_path: Path) -> None:
    def square(side: int) -> dict[str, object]:
        ring = [[0, 0], [side, 0], [side, side], [0, side], [0, 0]]
        return {"type": "Polygon", "coordinates": [ring]}

    cell = {"type": "Feature", "geometry": square(30), "nucleusGeometry": square(10)}
    both = [
        {**cell, "properties": {"objectType": "cell"}},
        {**cell, "properties": {"objectType": "annotation"}},
        {"type": "Feature", "geometry": {"type": "Point", "coordinates": [1, 2]}, "properties": {}},
    ]
    (tmp_path / "a.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": both}))
    found = read_result(tmp_path / "a.geojson")
    assert found.nuclei.area.tolist() == [100.0]
    assert np.isnan(found.nuclei.score).all()
    assert found.class_names == ("No class",)
    _, _, rows, _ = opened(VectorTiles(found.nuclei, (600, 600)).tile(0, 0, 0))
    assert (rows["score"] == 65535).all()


# Who is answered, and with what.


def ask(
    server: ViewServer, path: str, *, method: str = "GET", headers: dict[str, str] | None = None
) -> tuple[http.client.HTTPResponse, bytes]:
    """What the server says to a path, as it stands."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in (headers or {"Host": f"127.0.0.1:{server.server_port}"}).items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer, answer.read()
    finally:
        connection.close()


def test_the_page_and_what_it_asks_for(server: ViewServer, drawn: tuple[Path, Path, NucleusTable]) -> None:
    top = f"/{server.token}"
    kinds = {
        "/": "text/html; charset=utf-8",
        "/view.js": "text/javascript; charset=utf-8",
        "/view.css": "text/css; charset=utf-8",
        "/openseadragon/openseadragon.min.js": "text/javascript; charset=utf-8",
        "/openseadragon/LICENSE.txt": "text/plain; charset=utf-8",
        "/about.json": "application/json",
        "/slide/0/2/4.jpg": "image/jpeg",
        "/nuclei/0/0/1/1": "application/octet-stream",
    }
    for path, kind in kinds.items():
        answer, body = ask(server, top + path)
        assert (answer.status, answer.headers["Content-Type"]) == (200, kind), path
        assert int(answer.headers["Content-Length"]) == len(body) > 0
    about = json.loads(ask(server, f"{top}/about.json")[1])
    assert (about["slide"]["width"], about["slide"]["height"]) == (2100, 1500)
    assert about["slide"]["mpp"] == pytest.approx(0.25)
    (result,) = about["results"]
    nuclei = drawn[2]
    assert [each["nuclei"] for each in result["classes"]] == np.bincount(nuclei.label).tolist()
    told = json.loads(ask(server, f"{top}/at/0/150.5/250.25")[1])
    assert told["measurements"]["Area µm^2"] == 1 + 21 + 2
    assert len(told["ring"]) == 32
    assert ask(server, f"{top}/at/0/101/101")[1] == b"null"
    assert ask(server, f"{top}/at/0/150.5/250.25", method="HEAD")[1] == b""


def test_every_answer_forbids_what_the_page_does_not_need(server: ViewServer) -> None:
    for path in (f"/{server.token}/", f"/{server.token}/nothing", "/"):
        headers = ask(server, path)[0].headers
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cache-Control"] == "no-store"
        assert not [name for name in headers if name.lower().startswith("access-control")]


@pytest.mark.parametrize(
    "path", ["/", "/about.json", "/{wrong}/", "/{short}/", "/{token}x/", "/?{token}", "/x/{token}/"]
)
def test_without_the_token_nothing_is_told(path: str, server: ViewServer) -> None:
    given = {"token": server.token, "wrong": "A" * len(server.token), "short": server.token[:-1]}
    answer, body = ask(server, path.format(**given))
    assert answer.status == 403
    assert server.token.encode() not in body


@pytest.mark.parametrize(
    "host", ["evil.example:{port}", "127.0.0.1", "localhost:1", "127.0.0.1:{port}.evil", ""]
)
def test_other_names_of_this_machine_are_refused(host: str, server: ViewServer) -> None:
    given = {"Host": host.format(port=server.server_port)}
    assert ask(server, f"/{server.token}/", headers=given)[0].status == 403
    assert ask(server, f"/{server.token}/", headers={"X": "no host"})[0].status == 403


def test_its_own_names_are_answered(server: ViewServer) -> None:
    for name in ("localhost", "LOCALHOST", "127.0.0.1"):
        given = {"Host": f"{name}:{server.server_port}"}
        assert ask(server, f"/{server.token}/", headers=given)[0].status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"])
def test_nothing_can_be_changed(method: str, server: ViewServer) -> None:
    answer, _ = ask(server, f"/{server.token}/", method=method)
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")
    assert ask(server, "/", method="BREW")[0].status == 501


@pytest.mark.parametrize(
    "path",
    [
        "../server.py",
        "static/view.js",
        "../../../../../../etc/passwd",
        "%2e%2e/%2e%2e/etc/passwd",
        "..%2f..%2fetc%2fpasswd",
        "openseadragon/../../server.py",
        "openseadragon/",
        "openseadragon",
        "//etc/passwd",
        "/etc/passwd",
        "..\\server.py",
        "view.js%00",
        "view.js?x",
        "index.html",
        "slide/0/0/99.jpg",
        "slide/9/0/0.jpg",
        "slide/0/-1/0.jpg",
        "slide/0/0/0.png",
        "slide/0/0/9999999.jpg",
        "nuclei/1/0/0/0",
        "nuclei/0/77/0/0",
        "at/0/1e9/5",
        "at/7/1/5",
        "at/0/-5/5",
    ],
)
def test_paths_reach_nothing_but_what_there_is(path: str, server: ViewServer) -> None:
    assert ask(server, f"/{server.token}/{path}")[0].status == 404


def test_the_address_without_its_slash_leads_to_the_page(server: ViewServer) -> None:
    answer, _ = ask(server, f"/{server.token}")
    assert (answer.status, answer.headers["Location"]) == (301, server.url)


def raw(server: ViewServer, text: str) -> bytes:
    """What the server says to bytes of any kind, until it hangs up."""
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=30) as connection:
        connection.sendall(text.encode("latin-1"))
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_bodies_other_forms_and_nonsense_are_refused(server: ViewServer) -> None:
    host, page = f"Host: 127.0.0.1:{server.server_port}", f"/{server.token}/"
    hidden = f"GET {page}about.json HTTP/1.1\r\n{host}\r\n\r\n"
    said = raw(server, f"GET {page} HTTP/1.1\r\n{host}\r\nContent-Length: {len(hidden)}\r\n\r\n{hidden}")
    assert said.startswith(b"HTTP/1.1 400")
    assert said.count(b"HTTP/1.1") == 1
    assert raw(server, f"GET {page} HTTP/1.1\r\n{host}\r\n{host}\r\nConnection: close\r\n\r\n").startswith(
        b"HTTP/1.1 403"
    )
    whole = f"GET http://127.0.0.1:{server.server_port}{page} HTTP/1.1\r\n{host}\r\nConnection: close\r\n\r\n"
    assert raw(server, whole).startswith(b"HTTP/1.1 403")
    for nonsense in ("\x00\x01\x02\r\n\r\n", "GET\r\n\r\n", f"GET {'a' * 70_000} HTTP/1.1\r\n\r\n"):
        assert b"Traceback" not in raw(server, nonsense)
    assert ask(server, page)[0].status == 200


def test_it_listens_on_this_machine_alone(server: ViewServer) -> None:
    assert server.socket.getsockname()[0] == "127.0.0.1"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", server.server_port), timeout=5)


def test_a_port_that_is_taken(server: ViewServer) -> None:
    with pytest.raises(ConfigError, match=f"port {server.server_port} cannot be had .*choose another"):
        ViewServer(server.content, server.server_port)


def test_a_damaged_place_of_the_slide_is_one_refusal(
    drawn: tuple[Path, Path, NucleusTable], caplog: pytest.LogCaptureFixture
) -> None:
    class Damaged(FlatImage):
        def read(self, rect: Rect, level: int) -> NDArray[np.uint8]:
            raise OSError("the disk is away")

    content = open_view([str(drawn[0]), str(drawn[1])])
    content.pictures.close()
    content.pictures = SlidePictures(Damaged(np.zeros((1500, 2100, 3), np.uint8)))
    with ViewServer(content) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        # A command that was told to be quiet, in another test, left the logger so.
        with caplog.at_level(logging.WARNING, logger="wsiseg"):
            answer, body = ask(server, f"/{server.token}/slide/0/0/0.jpg")
        server.shutdown()
    assert (answer.status, body) == (500, b"this cannot be read\n")
    assert "the disk is away" in caplog.text
    assert server.token not in caplog.text


# The command.


def refused(*arguments: object) -> str:
    """The last line on stderr of a command that refused its input."""
    result = CliRunner().invoke(app, ["view", "--no-browser", *map(str, arguments)])
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    line = result.stderr.splitlines()[-1]
    assert line.startswith("error: ")
    return line


def test_bad_input_is_one_clear_line(drawn: tuple[Path, Path, NucleusTable], tmp_path: Path) -> None:
    slide, store, nuclei = drawn
    assert "drawn.tif: no result is given" in refused(slide)
    assert "3 results are given; one or two" in refused(slide, store, store, store)
    assert "gone.tif: no such file" in refused(tmp_path / "gone.tif", store)
    assert "gone.zarr: no such store" in refused(slide, tmp_path / "gone.zarr")
    assert "outlines are read from" in refused(slide, tmp_path / "a.csv")
    (tmp_path / "cut.geojson").write_text('{"features": [{"type": ')
    assert "cut.geojson: not a whole GeoJSON file" in refused(slide, tmp_path / "cut.geojson")
    text = tmp_path / "text.svs"
    text.write_text("no slide")
    assert "no reader opens this" in refused(text, store)
    far = write(tmp_path / "far.geojson", nuclei_at(nuclei.centroid * 2))
    assert re.search(r"far.geojson: \d+ of 315 nuclei lie outside .*2100 x 1500 pixels", refused(slide, far))


def test_a_store_without_its_slide(drawn: tuple[Path, Path, NucleusTable], tmp_path: Path) -> None:
    slide, store, nuclei = drawn
    lone = tmp_path / "lone.zarr"
    shutil.copytree(store, lone)
    assert "its slide drawn.tif is not in" in refused(lone)
    assert f"wsiseg view SLIDE {lone}" in refused(lone)
    with closing(open_view([str(store)])) as content:
        assert content.name == "drawn.tif"
    # A name from a store is a name, and no way to another folder.
    (tmp_path / "in").mkdir()
    sly = write(tmp_path / "in" / "sly.zarr", nuclei, slide="../x.tif")
    shutil.copy(slide, tmp_path / "x.tif")
    assert "its slide ../x.tif is not in" in refused(sly)
    assert "does not say of which slide" in refused(write(tmp_path / "a.geojson", nuclei))


def test_a_store_of_another_slide(drawn: tuple[Path, Path, NucleusTable], tmp_path: Path) -> None:
    slide, _, nuclei = drawn
    other = write(tmp_path / "other.zarr", nuclei, mark="of another", slide="else.svs")
    said = refused(slide, other)
    assert "other.zarr: was made of another slide (else.svs, not the same content as" in said
    assert "--any-slide" in said
    open_view([str(slide), str(other)], any_slide=True).close()
    moved = tmp_path / "moved and renamed.tif"
    shutil.copy(slide, moved)
    open_view([str(moved), str(drawn[1])]).close()


@pytest.mark.parametrize("how", ["cut", "missing", "no json"])
def test_a_corrupt_store(how: str, drawn: tuple[Path, Path, NucleusTable], tmp_path: Path) -> None:
    broken = tmp_path / "broken.zarr"
    shutil.copytree(drawn[1], broken)
    if how == "no json":
        (broken / "zarr.json").write_text("{")
    else:
        victim = next(
            file for file in (broken / "vertices").rglob("*") if file.is_file() and file.name != "zarr.json"
        )
        content = victim.read_bytes()
        victim.unlink()
        if how == "cut":
            victim.write_bytes(content[:-9])
    assert "broken.zarr: " in (said := refused(drawn[0], broken))
    assert "damaged" in said


def test_it_serves_until_ctrl_c(drawn: tuple[Path, Path, NucleusTable]) -> None:
    command = [sys.executable, "-m", "wsiseg", "view", str(drawn[0]), str(drawn[1]), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)(/[\w-]{32}/)", url)
        assert found is not None
        connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=30)
        connection.request("GET", f"{found[2]}slide/0/0/0.jpg")
        answer = connection.getresponse()
        assert (answer.status, answer.read()[:2]) == (200, b"\xff\xd8")
        # The connection stays open: that must not keep it.
        process.send_signal(signal.SIGINT)
        out, said = process.communicate(timeout=30)
        connection.close()
    assert (process.returncode, out) == (0, "")
    assert "drawn.zarr: 315 nuclei" in said
    assert said.splitlines()[-1] == "ended"
