import gzip
import json
import re
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.measure import label

from wsiseg.errors import OutputError, StoreError
from wsiseg.export import ExportInfo, _outlines, check_outputs, exporter_for, suffixes
from wsiseg.export import zip as zip_exporter
from wsiseg.export.zarr import read_store
from wsiseg.measure import centroids, shape_columns
from wsiseg.nuclei import NucleusTable, Rings, concatenate, empty
from wsiseg.polygons import exterior_rings, to_shapely, trace
from wsiseg.qupath import check_file
from wsiseg.regions import Region

RING = np.array([[0, 0], [0, 90], [90, 90], [90, 0]], float)
INFO = ExportInfo(
    "f" * 64, 0.25, regions=(Region(RING, (RING / 4 + 20,), "Tissue"),), provenance={"model": "tiny"}
)


def table(labels, *, simple=True):
    """A measured table of a label image; `simple=False` keeps the staircase, corner touching corner."""
    pieces = label(labels, background=0, connectivity=1)
    count = int(pieces.max(initial=0))
    if not count:
        return empty(0.25)
    vertices, offsets = trace(pieces) if simple else exterior_rings(pieces, count)
    centre, area = centroids(pieces, count)
    return NucleusTable(
        mpp=0.25,
        centroid=centre,
        area=area,
        score=np.linspace(0, 1, count, dtype=np.float32),
        label=np.zeros(count, np.int32),
        tile=np.zeros(count, np.int32),
        vertices=vertices.astype(np.float32),
        offsets=offsets,
        columns=shape_columns(vertices, offsets, mpp=0.25),
    )


def blobs(n=6):
    labels = np.zeros((100, 100), int)
    y, x = np.mgrid[:100, :100]
    for i in range(n):
        labels[np.hypot(y - 10 - 15 * i, x - 12 - 13 * i) < 6.4] = i + 1
    return labels


def written(path, tables, info=INFO):
    count = exporter_for(path).write(path, iter(tables), info)
    return count, path.read_bytes() if path.is_file() else None


SNAKE = np.zeros((9, 9), int)
SNAKE[::2, 1:-1], SNAKE[1::4, 7], SNAKE[3::4, 1] = 1, 1, 1
NASTY = {
    "one pixel": np.eye(1, dtype=int),
    "diagonal": np.eye(7, dtype=int),
    "comb": np.tile([[1, 0]], (6, 4)) | (np.arange(6) == 0)[:, None],
    "ring in ring": np.pad(np.pad(np.ones((1, 1), int), 1) * 3, 1, constant_values=1),
    "snake": SNAKE,
    "checkers": np.indices((6, 6)).sum(0) % 2,
    "touching": np.repeat([[1, 2, 3]], 4, axis=0),
}


@pytest.mark.parametrize("suffix", [".geojson", ".geojson.gz", ".zip"])
@pytest.mark.parametrize("name", NASTY)
@pytest.mark.parametrize("simple", [True, False])
def test_nasty_shapes_are_read_by_every_qupath(tmp_path, suffix, name, simple):
    path = tmp_path / f"a{suffix}"
    written(path, [table(NASTY[name], simple=simple)])
    assert check_file(path) == ()


@settings(max_examples=60)
@given(
    hnp.arrays(np.int8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 2)),
    st.booleans(),
)
def test_whatever_the_labels_the_file_is_readable(tmp_path_factory, labels, simple):
    path = tmp_path_factory.mktemp("x") / "a.geojson"
    count, _ = written(path, [table(labels, simple=simple)])
    assert check_file(path) == ()
    assert count <= label(labels, background=0, connectivity=1).max(initial=0)


@given(
    st.lists(
        st.lists(st.tuples(st.integers(-50_000_000, 16_000_000), st.integers(-9, 9)), min_size=1), max_size=5
    )
)
def test_coordinates_are_closed_rings_of_the_same_numbers(rings):
    quarters = [np.array(ring) for ring in rings]
    offsets = np.cumsum([0, *map(len, quarters)])
    corners = np.concatenate([np.zeros((0, 2)), *quarters]) / 4
    texts = _outlines.coordinates(Rings(corners, offsets))
    for ring, text in zip(quarters, texts, strict=True):
        assert json.loads(text) == [[*(ring[:, ::-1] / 4).tolist(), (ring[0, ::-1] / 4).tolist()]]
        assert not re.search(r"\.0|\.\d0|-0[^.]", text)


def test_features_follow_the_contract(tmp_path):
    source = table(blobs())
    count, data = written(tmp_path / "a.geojson", [source])
    region, *nuclei = json.loads(data)["features"]
    assert count == len(nuclei) == 6
    assert region["properties"] == {"objectType": "annotation", "isLocked": True, "name": "Tissue"}
    assert len(region["geometry"]["coordinates"]) == 2
    first = nuclei[0]["properties"]
    assert first["objectType"] == "detection"
    assert first["classification"] == {"name": "Nucleus", "color": [200, 60, 60]}
    assert set(first["measurements"]) == {*source.columns, "Detection probability"}
    assert first["measurements"]["Area µm^2"] == pytest.approx(source.columns["Area µm^2"][0], rel=1e-3)
    for feature, polygon in zip(nuclei, to_shapely(source.vertices, source.offsets), strict=True):
        corners = np.array(feature["geometry"]["coordinates"][0])
        assert (corners * 4 == np.round(corners * 4)).all()
        drawn = shapely.Polygon(corners)
        assert drawn.intersection(polygon).area / drawn.union(polygon).area > 0.93


def test_identities_come_from_the_slide_and_the_place(tmp_path):
    def identities(info, nuclei):
        data = written(tmp_path / "a.geojson", [nuclei], info)[1]
        (tmp_path / "a.geojson").unlink()
        return re.findall(rb'"id":"([^"]+)"', data)[1:]

    nuclei = table(blobs())
    assert identities(INFO, nuclei) == identities(replace(INFO, regions=INFO.regions), nuclei)
    assert not set(identities(INFO, nuclei)) & set(identities(replace(INFO, fingerprint="0"), nuclei))
    twice = concatenate([nuclei, nuclei])
    assert len(set(identities(INFO, twice))) == 12


def test_what_is_not_finite_is_left_out(tmp_path):
    nuclei = table(blobs(1))
    nuclei = replace(nuclei, columns={"Solidity": np.array([np.nan], np.float32)})
    data = written(tmp_path / "a.geojson", [nuclei])[1]
    assert b"Solidity" not in data
    assert check_file(tmp_path / "a.geojson") == ()


@pytest.mark.parametrize("suffix", [".geojson", ".geojson.gz", ".zip"])
def test_the_same_nuclei_give_the_same_bytes_and_nothing_is_an_empty_collection(tmp_path, suffix):
    paths = [tmp_path / str(i) / f"a{suffix}" for i in range(2)]
    for path in paths:
        path.parent.mkdir()
    first, second = (written(path, [table(blobs())])[1] for path in paths)
    assert first == second
    nothing = tmp_path / f"b{suffix}"
    assert written(nothing, [], replace(INFO, regions=()))[0] == 0
    assert check_file(nothing) == ()


def test_gz_holds_what_the_plain_file_holds(tmp_path):
    plain = written(tmp_path / "a.geojson", [table(blobs())])[1]
    packed = written(tmp_path / "a.geojson.gz", [table(blobs())])[1]
    assert gzip.decompress(packed) == plain


def test_zip_is_cut_into_entries_with_the_regions_in_the_first(tmp_path, monkeypatch):
    monkeypatch.setattr(zip_exporter, "PER_ENTRY", 4)
    count, _ = written(tmp_path / "a.zip", [table(blobs(3)), table(blobs(6)), table(blobs(1))])
    assert count == 10
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.namelist() == ["a-0001.geojson", "a-0002.geojson", "a-0003.geojson"]
        entries = [json.loads(archive.read(name))["features"] for name in archive.namelist()]
    assert [len(e) for e in entries] == [5, 4, 2]


def test_the_store_is_read_back_whole(tmp_path):
    tables = [table(blobs(3)), table(blobs(6)).shift(200, 0)]
    path = tmp_path / "a.zarr"
    assert written(path, tables)[0] == 9
    info, again = read_store(path)
    got, expected = concatenate(list(again)), concatenate(tables)
    for name in ("centroid", "area", "score", "label", "tile", "vertices", "offsets"):
        np.testing.assert_array_equal(getattr(got, name), getattr(expected, name))
    assert list(got.columns) == list(expected.columns)
    assert info.fingerprint == INFO.fingerprint
    assert info.provenance["model"] == "tiny"
    np.testing.assert_array_equal(info.regions[0].exterior, INFO.regions[0].exterior)
    assert sum(p.is_file() for p in path.rglob("*")) <= 50
    first = written(tmp_path / "b.geojson", tables)[1]
    assert written(tmp_path / "c.geojson", read_store(path)[1], info)[1] == first


def test_an_empty_store_and_no_store(tmp_path):
    written(tmp_path / "a.zarr", [])
    assert sum(map(len, read_store(tmp_path / "a.zarr")[1])) == 0
    with pytest.raises(StoreError):
        read_store(tmp_path / "absent.zarr")
    (tmp_path / "b.zarr").mkdir()
    with pytest.raises(StoreError):
        read_store(tmp_path / "b.zarr")


@pytest.mark.parametrize("suffix", suffixes())
def test_what_fails_leaves_nothing(tmp_path, suffix):
    def tables():
        yield table(blobs(2))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        written(tmp_path / f"a{suffix}", tables())
    assert list(tmp_path.iterdir()) == []


def test_outputs_are_checked_beforehand(tmp_path):
    with pytest.raises(OutputError, match=", ".join(suffixes())):
        check_outputs([tmp_path / "a.xlsx"])
    with pytest.raises(OutputError, match="does not exist"):
        check_outputs([tmp_path / "absent" / "a.geojson"])
    (tmp_path / "a.geojson").write_text("x")
    with pytest.raises(OutputError, match="--overwrite"):
        check_outputs([tmp_path / "a.geojson"])
    check_outputs([tmp_path / "a.geojson"], overwrite=True)
    with pytest.raises(OutputError, match="twice"):
        check_outputs([tmp_path / "b.zip", tmp_path / "b.zip"])
