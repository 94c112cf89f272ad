"""Every format is read back by the library that it is meant for: as many nuclei, the same areas, classes, numbers."""

from __future__ import annotations

import ast
import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import anndata
import geopandas
import highdicom.ann
import numpy as np
import ome_zarr_models.v05.image_label
import pandas as pd
import pyarrow.parquet as pq
import pytest
import shapely
import zarr
from jsonschema import Draft6Validator
from typer.testing import CliRunner
from wsidicom import WsiDicom
from wsidicom.graphical_annotations import AnnotationInstance

from wsiseg.cli.app import app
from wsiseg.errors import OutputError
from wsiseg.export import About, ExportInfo, exporter_for, ome_zarr, suffixes
from wsiseg.export._about import require
from wsiseg.measure import shape_columns
from wsiseg.nuclei import NucleusTable, empty
from wsiseg.outputs import convert
from wsiseg.polygons import to_shapely
from wsiseg.regions import Region
from wsiseg.slides.opening import open_slide

MPP = 0.25
SHAPE = (700, 900)
NAMES = ('Tumour, "odd"', "Lymphocyte", "Stroma µ")
SQUARE = np.array([[0.0, 0.0], [0.0, 900.0], [700.0, 900.0], [700.0, 0.0]])
INFO = ExportInfo(
    "f" * 64,
    MPP,
    class_names=NAMES,
    class_colors=((200, 60, 60), (60, 200, 60), (0, 0, 255)),
    regions=(Region(SQUARE, (), "Tissue"),),
    provenance={"slide": "a.svs", "model": {"name": "tiny"}, "times": {"ended": "2026-03-04T05:06:07Z"}},
    shape=SHAPE,
)
SUFFIXES = (".csv", ".parquet", ".geoparquet", ".ome.zarr", ".spatialdata.zarr", ".dcm", ".dsa.json")


def nuclei() -> NucleusTable:
    """198 ellipses that do not touch, two of three classes, a measurement that some lack."""
    rng = np.random.default_rng(5)
    y, x = (grid.ravel() for grid in np.mgrid[30:690:60, 25:890:50])
    count = len(y)
    turn = np.linspace(0, 2 * np.pi, 21)[:-1]
    radii = rng.uniform(8, 20, (count, 2))
    rings = np.stack(
        [y[:, None] + radii[:, :1] * np.sin(turn), x[:, None] + radii[:, 1:] * np.cos(turn)], axis=-1
    )
    vertices, offsets = rings.reshape(-1, 2).astype(np.float32), np.arange(count + 1) * len(turn)
    lacking = rng.uniform(0, 2, count).astype(np.float32)
    lacking[::7] = np.nan
    return NucleusTable(
        mpp=MPP,
        centroid=np.stack([y, x], axis=1).astype(float),
        area=shapely.area(to_shapely(vertices, offsets)),
        score=rng.uniform(0, 1, count).astype(np.float32),
        label=rng.integers(0, 2, count).astype(np.int32),
        tile=np.zeros(count, np.int32),
        vertices=vertices,
        offsets=offsets,
        columns={**shape_columns(vertices, offsets, mpp=MPP), "Hematoxylin: Mean": lacking},
    )


TABLE = nuclei()
AREA = shapely.area(to_shapely(TABLE.vertices, TABLE.offsets))
CLASSES = [NAMES[i] for i in TABLE.label]


def pieces(size: int = 50) -> Iterator[NucleusTable]:
    return (TABLE.take(np.arange(i, min(i + size, len(TABLE)))) for i in range(0, len(TABLE), size))


def written(path: Path, *, size: int = 50, info: ExportInfo = INFO) -> Path:
    assert exporter_for(path).write(path, pieces(size), info) == len(TABLE)
    return path


def digest(path: Path) -> str:
    """Of a file, or of the names and contents of all files of a folder."""
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    parts = [(str(p.relative_to(path)).encode() if p != path else b"") + p.read_bytes() for p in files]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def check_table(table: pd.DataFrame) -> None:
    """Whether a table holds every nucleus, in order, with what is known of it."""
    assert table["nucleus"].tolist() == list(range(1, len(TABLE) + 1))
    assert table["class"].tolist() == CLASSES
    for name, expected in {
        "x": TABLE.centroid[:, 1],
        "y": TABLE.centroid[:, 0],
        "x_um": TABLE.centroid[:, 1] * MPP,
        "y_um": TABLE.centroid[:, 0] * MPP,
        "probability": TABLE.score,
        "area_um2": AREA * MPP**2,
        **TABLE.columns,
    }.items():
        np.testing.assert_allclose(table[name], expected, rtol=1e-5, atol=1e-4)


def test_csv_is_read_by_pandas(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv")
    check_table(pd.read_csv(path))
    assert ",," in path.read_text() or path.read_text().splitlines()[1].endswith(",")


def test_parquet_is_read_by_pandas(tmp_path: Path) -> None:
    path = written(tmp_path / "a.parquet")
    table = pd.read_parquet(path)
    check_table(table)
    assert table["class"].dtype == "category"
    assert pq.ParquetFile(path).num_row_groups == 4
    assert json.loads(pq.read_schema(path).metadata[b"wsiseg"])["mpp"] == MPP


@pytest.mark.parametrize("suffix", [".geoparquet", ".geo.parquet"])
def test_geoparquet_is_read_by_geopandas(tmp_path: Path, suffix: str) -> None:
    path = written(tmp_path / f"a{suffix}")
    table = geopandas.read_parquet(path)
    check_table(table)
    assert table.crs is None
    assert table.geometry.is_valid.all()
    np.testing.assert_allclose(table.area, AREA, rtol=1e-6)
    box = shapely.box(100, 100, 300, 200)
    near = geopandas.read_parquet(path, bbox=box.bounds)
    assert near["nucleus"].tolist() == table["nucleus"][table.intersects(box)].tolist()
    geo = json.loads(pq.read_metadata(path).metadata[b"geo"])["columns"]["geometry"]
    np.testing.assert_allclose(geo["bbox"], table.total_bounds)


def test_label_images_are_valid_and_every_pixel_has_its_nucleus(tmp_path: Path) -> None:
    group = zarr.open_group(written(tmp_path / "a.ome.zarr"), mode="r")
    found = ome_zarr_models.v05.image_label.ImageLabel.from_zarr(group)
    assert found.attributes.ome.multiscales[0].datasets[0].coordinateTransformations[0].scale == [MPP, MPP]
    labels = np.asarray(group["0"])
    assert (labels.shape, labels.dtype) == (SHAPE, np.uint32)
    numbers, sizes = np.unique(labels[labels > 0], return_counts=True)
    assert numbers.tolist() == list(range(1, len(TABLE) + 1))
    # A pixel belongs whole to a nucleus: a hundredth of one nucleus in a few, of all of them next to nothing.
    np.testing.assert_allclose(sizes, AREA, rtol=0.06)
    assert sizes.sum() == pytest.approx(AREA.sum(), rel=1e-3)
    y, x = (TABLE.centroid.astype(int)).T
    assert labels[y, x].tolist() == numbers.tolist()


def test_the_squares_that_a_label_image_is_drawn_in_leave_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = np.asarray(zarr.open_group(written(tmp_path / "a.ome.zarr"), mode="r")["0"])
    monkeypatch.setattr(ome_zarr, "SIDE", 128)
    monkeypatch.setattr(ome_zarr, "CHUNK", 32)
    monkeypatch.setattr(ome_zarr, "LEAST", 100)
    group = zarr.open_group(written(tmp_path / "b.ome.zarr", size=33), mode="r")
    levels = [np.asarray(group[str(i)]) for i in range(5)]
    assert sorted(group.array_keys()) == ["0", "1", "2", "3", "4"]
    np.testing.assert_array_equal(levels[0], whole)
    for fine, coarse in pairwise(levels):
        np.testing.assert_array_equal(coarse, fine[::2, ::2])


def test_a_result_that_does_not_say_how_large_its_slide_is_has_its_extent(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.zarr"
    written(path, info=replace(INFO, shape=None))
    assert zarr.open_group(path, mode="r")["0"].shape == SHAPE  # its region's
    written(tmp_path / "b.ome.zarr", info=replace(INFO, shape=None, regions=()))
    reach = np.ceil(TABLE.vertices.max(0)).astype(int).tolist()
    assert [*zarr.open_group(tmp_path / "b.ome.zarr", mode="r")["0"].shape] == reach


READ = """
import json, sys
import numpy as np
import spatialdata
from ome_zarr.io import parse_url
from ome_zarr.reader import Label, Reader
from spatialdata.transformations import get_transformation

data = spatialdata.read_zarr(sys.argv[1])
shapes, table = spatialdata.join_spatialelement_table(
    sdata=data, spatial_element_names="nuclei", table_name="measurements"
)
near = spatialdata.bounding_box_query(
    data, axes=("x", "y"), min_coordinate=[0, 0], max_coordinate=[50, 50], target_coordinate_system="um"
)
(node,) = Reader(parse_url(sys.argv[2]))()
print(json.dumps({
    "areas": shapes["nuclei"].area.tolist(),
    "numbers": shapes["nuclei"].index.tolist(),
    "classes": table.obs["class"].tolist(),
    "measured": np.asarray(table.X, float).tolist(),
    "names": table.var_names.tolist(),
    "systems": sorted(data.coordinate_systems),
    "to_um": get_transformation(shapes["nuclei"], "um").to_affine_matrix(("x", "y"), ("x", "y")).tolist(),
    "near": len(near["nuclei"]),
    "is_label": any(isinstance(spec, Label) for spec in node.specs),
    "levels": [list(level.shape) for level in node.data],
    "sizes": np.bincount(np.asarray(node.data[0]).ravel())[1:].tolist(),
}))
"""


@pytest.fixture(scope="module")
def read(readers: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What spatialdata and ome-zarr themselves say of what was written."""
    folder = tmp_path_factory.mktemp("read")
    data = written(folder / "a.spatialdata.zarr")
    labels = written(folder / "a.ome.zarr")
    out = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", READ, data, labels],
        env={**os.environ, "PYTHONPATH": str(readers)},
        capture_output=True,
        text=True,
    )
    assert out.returncode == 0, out.stderr
    found: dict[str, Any] = json.loads(out.stdout.splitlines()[-1])
    return found


def test_spatialdata_reads_shapes_and_their_table(read: dict[str, Any]) -> None:
    np.testing.assert_allclose(read["areas"], AREA, rtol=1e-6)
    assert read["numbers"] == list(range(1, len(TABLE) + 1))
    assert read["classes"] == CLASSES
    assert read["names"] == list(TABLE.columns)
    np.testing.assert_array_equal(read["measured"], np.stack([*TABLE.columns.values()], axis=1))
    assert read["systems"] == ["global", "um"]
    np.testing.assert_allclose(np.diag(read["to_um"]), [MPP, MPP, 1])
    outlines = to_shapely(TABLE.vertices, TABLE.offsets)
    assert read["near"] == shapely.intersects(outlines, shapely.box(0, 0, 200, 200)).sum()


def test_ome_zarr_reads_labels(read: dict[str, Any]) -> None:
    assert read["is_label"]
    assert read["levels"] == [[*SHAPE]]
    assert len(read["sizes"]) == len(TABLE)
    np.testing.assert_allclose(read["sizes"], AREA, rtol=0.06)


def test_the_table_is_an_anndata_and_the_shapes_are_geoparquet(tmp_path: Path) -> None:
    path = written(tmp_path / "a.spatialdata.zarr", size=200)
    table = anndata.read_zarr(path / "tables" / "measurements")
    assert table.shape == (len(TABLE), len(TABLE.columns))
    assert table.obs["class"].cat.categories.tolist() == list(NAMES)
    assert table.uns["class_colors"].tolist() == ["#c83c3c", "#3cc83c", "#0000ff"]
    np.testing.assert_allclose(table.obsm["spatial"], TABLE.centroid[:, ::-1])
    np.testing.assert_array_equal(table.obs["probability"], TABLE.score)
    shapes = geopandas.read_parquet(path / "shapes" / "nuclei" / "shapes.parquet")
    assert shapes.index.tolist() == table.obs["nucleus"].tolist()


def annotated(path: Path) -> Iterator[tuple[str, np.ndarray, np.ndarray, list[str], list[str]]]:
    """(class, areas, measurements, their names, their units) of every group of a DICOM file."""
    for group in highdicom.ann.annread(path).get_annotation_groups():
        names, values, units = group.get_measurements()
        outlines = [shapely.Polygon(ring) for ring in group.get_graphic_data("2D")]
        yield (
            group.label,
            shapely.area(outlines),
            values,
            [name.meaning for name in names],
            [unit.value for unit in units],
        )


def test_dicom_annotations_are_read_by_highdicom_and_wsidicom(tmp_path: Path) -> None:
    path = written(tmp_path / "a.dcm")
    groups = list(annotated(path))
    assert [name for name, *_ in groups] == [*NAMES[:2]]  # no group is empty
    for label, (_, areas, values, names, units) in enumerate(groups):
        of = TABLE.take(TABLE.label == label)
        np.testing.assert_allclose(areas, AREA[TABLE.label == label], rtol=1e-6)
        assert names == ["Area", *[*TABLE.columns][1:], "Detection probability"]
        assert units == ["um2", "um", "1", "1", "um", "um", "1", "1"]
        np.testing.assert_array_equal(values, np.stack([*of.columns.values(), of.score], axis=1))
    (instance,) = AnnotationInstance.open([path])
    assert [len(group) for group in instance.groups] == np.bincount(TABLE.label).tolist()
    first = instance.groups[0].annotations[0]
    assert shapely.Polygon(first.geometry.to_coords()).area == pytest.approx(groups[0][1][0])


def test_dicom_leaves_out_what_no_nucleus_of_a_class_has(tmp_path: Path) -> None:
    lacking = np.where(TABLE.label == 0, np.nan, 1).astype(np.float32)
    table = replace(TABLE, columns={"Solidity": lacking})
    exporter_for(Path("a.dcm")).write(tmp_path / "a.dcm", iter([table]), INFO)
    (*_, first, _), (*_, second, _) = annotated(tmp_path / "a.dcm")
    assert (first, second) == (["Detection probability"], ["Solidity", "Detection probability"])


def test_dicom_annotations_of_a_dicom_slide_belong_to_it(slides: Path, tmp_path: Path) -> None:
    source = slides / "CMU-1-Small-Region.dicom"
    slide = open_slide(source)
    dicom = {name: value for name, value in slide.properties.items() if name.startswith("dicom.")}
    slide.close()
    folder = tmp_path / "slide"
    shutil.copytree(source, folder)
    path = written(folder / "nuclei.dcm", info=replace(INFO, dicom=dicom))
    with WsiDicom.open(folder) as opened:
        (found,) = opened.annotations
        assert sum(map(len, found.groups)) == len(TABLE)
        base = opened.levels.base_level.datasets[0].uids
    data = highdicom.ann.annread(path)
    assert data.StudyInstanceUID == base.slide.study_instance
    assert data.ReferencedImageSequence[0].ReferencedSOPInstanceUID == base.instance
    assert data.ReferencedSeriesSequence[0].SeriesInstanceUID == base.slide.series_instance
    assert data.SeriesInstanceUID != base.slide.series_instance


def test_dicom_annotations_of_other_slides_have_identities_that_stay(tmp_path: Path) -> None:
    first, other, later = (
        highdicom.ann.annread(written(tmp_path / f"{i}.dcm", info=info))
        for i, info in enumerate((INFO, replace(INFO, fingerprint="0"), replace(INFO, provenance={})))
    )
    assert first.StudyInstanceUID == later.StudyInstanceUID != other.StudyInstanceUID
    assert len({data.SOPInstanceUID for data in (first, other, later)}) == 3
    assert (first.ContentDate, first.InstanceCreationTime) == ("20260304", "050607")
    assert (first.PatientID, first.PatientName) == ("", "")


def test_dicom_has_no_empty_annotations(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"a\.dcm: there are no nuclei"):
        exporter_for(Path("a.dcm")).write(tmp_path / "a.dcm", iter([empty(MPP)]), INFO)
    assert list(tmp_path.iterdir()) == []


def schema_of_the_archive(readers: Path) -> dict[str, Any]:
    """The annotation schema from the archive's own source, which cannot be imported without its database."""
    source = (readers / "girder_large_image_annotation" / "models" / "annotation.py").read_text()
    wanted = [
        node
        for node in ast.parse(source).body
        if getattr(node, "name", "") in ("extendSchema", "AnnotationSchema")
    ]
    space: dict[str, Any] = {"copy": __import__("copy")}
    exec(compile(ast.Module(wanted, []), "annotation.py", "exec"), space)
    found: dict[str, Any] = space["AnnotationSchema"].annotationSchema
    return found


def test_annotations_of_the_digital_slide_archive_follow_its_schema(readers: Path, tmp_path: Path) -> None:
    document = json.loads(written(tmp_path / "a.dsa.json").read_text())
    check = Draft6Validator(schema_of_the_archive(readers))
    check.validate(document)
    assert not check.is_valid({**document, "elements": [{**document["elements"][0], "points": 3}]})


def test_annotations_of_the_digital_slide_archive_hold_every_nucleus(tmp_path: Path) -> None:
    elements = json.loads(written(tmp_path / "a.dsa.json").read_text())["elements"]
    outlines = [shapely.Polygon(element["points"]) for element in elements]
    np.testing.assert_allclose(shapely.area(outlines), AREA, rtol=2e-3)
    assert [element["group"] for element in elements] == CLASSES
    assert [element["user"]["nucleus"] for element in elements] == list(range(1, len(TABLE) + 1))
    found = [element["user"].get("Hematoxylin: Mean", np.nan) for element in elements]
    np.testing.assert_allclose(found, TABLE.columns["Hematoxylin: Mean"], rtol=1e-5)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_same_nuclei_give_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    assert digest(written(tmp_path / f"a{suffix}")) == digest(written(tmp_path / f"b{suffix}"))
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("suffix", [".csv", ".ome.zarr", ".spatialdata.zarr", ".dcm", ".dsa.json"])
def test_how_nuclei_come_in_pieces_is_not_seen(tmp_path: Path, suffix: str) -> None:
    a, b = written(tmp_path / f"a{suffix}", size=7), written(tmp_path / f"b{suffix}", size=500)
    for shapes in tmp_path.rglob("shapes.parquet"):
        shapes.unlink()  # these alone keep a row group for each piece
    assert digest(a) == digest(b)


@pytest.mark.parametrize("suffix", [s for s in SUFFIXES if s != ".dcm"])
@pytest.mark.parametrize("tables", [[], [empty(MPP)]])
def test_no_nuclei_are_an_empty_result(tmp_path: Path, suffix: str, tables: list[NucleusTable]) -> None:
    path = tmp_path / f"a{suffix}"
    assert exporter_for(path).write(path, iter(tables), INFO) == 0
    if suffix == ".csv":
        assert len(pd.read_csv(path)) == 0
    elif suffix == ".dsa.json":
        assert json.loads(path.read_text())["elements"] == []
    elif suffix == ".ome.zarr":
        assert not np.asarray(zarr.open_group(path, mode="r")["0"]).any()
    elif suffix == ".spatialdata.zarr":
        assert anndata.read_zarr(path / "tables" / "measurements").shape == (0, 0)
        assert len(geopandas.read_parquet(path / "shapes" / "nuclei" / "shapes.parquet")) == 0
    else:
        reader = geopandas if suffix == ".geoparquet" else pd
        assert len(reader.read_parquet(path)) == 0


def test_outlines_that_enclose_nothing_are_left_out_everywhere(tmp_path: Path) -> None:
    flat = TABLE.take(np.arange(3))
    vertices = flat.vertices.copy()
    vertices[flat.offsets[1] : flat.offsets[2], 0] = 7
    flat = replace(flat, vertices=vertices)
    for suffix in SUFFIXES:
        path = tmp_path / f"a{suffix}"
        assert exporter_for(path).write(path, iter([flat]), INFO) == 2
    assert pd.read_csv(tmp_path / "a.csv")["nucleus"].tolist() == [1, 2]


def test_a_store_becomes_every_format_and_keeps_what_they_need(tmp_path: Path) -> None:
    info = replace(INFO, dicom={"dicom.StudyInstanceUID": "1.2.3"})
    store = written(tmp_path / "a.zarr", info=info)
    for suffix in SUFFIXES:
        path = tmp_path / f"a{suffix}"
        assert convert(store, path) == len(TABLE)
    assert zarr.open_group(tmp_path / "a.ome.zarr", mode="r")["0"].shape == SHAPE
    assert highdicom.ann.annread(tmp_path / "a.dcm").StudyInstanceUID == "1.2.3"


@pytest.mark.parametrize("suffix", [".dcm", ".ome.zarr"])
def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path, suffix: str) -> None:
    """Also where what fails is a file beside the output; what fails here is the reading, which looks the same."""

    def tables() -> Iterator[NucleusTable]:
        yield TABLE
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OutputError, match=r"cannot be written \(No space left"):
        exporter_for(Path(f"a{suffix}")).write(tmp_path / f"a{suffix}", tables(), INFO)
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_installed_is_named_with_its_extra() -> None:
    about = About("a format", "nobody", extra="rare", module="not_installed_anywhere")
    assert not about.installed
    with pytest.raises(
        OutputError, match=r"a\.x: a format needs not_installed.*pip install 'wsiseg\[rare\]'"
    ):
        require(Path("a.x"), about)


def test_formats_are_listed() -> None:
    shown = CliRunner().invoke(app, ["formats"], env={"COLUMNS": "200"}).stdout
    for suffix in suffixes():
        assert suffix in shown.split(), suffix
    assert "wsiseg[dicom]: installed" in shown
