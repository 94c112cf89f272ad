"""Do tiles show? The same piece of a slide, cut into cores of several sizes, compared polygon by polygon.

    python benchmarks/seams.py SLIDE [--region 3000,2000,3000,3000] [--tile-size 256 512 1024 2048] [--shift 320]
                               [--mosaic FOLDER] [--json]

Prints the F1 at IoU 0.5 between any two sizes, how many pairs of polygons in one result overlap by more than 30 % of
the smaller, and the F1 against the same piece whose grid of tiles is shifted by `--shift` pixels of the model's scale.
With --mosaic, the 16 training and validation images of FOLDER/multiorgan lie side by side as one slide: errors (nuclei
missed or invented at IoU 0.5) per true nucleus within 16 px of a core's border, at the same places where cores are so large
that no border is there, and elsewhere.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from slide_files import write_tiff

import wsiseg
from wsiseg.geometry import Rect
from wsiseg.memory import keep_memory
from wsiseg.models import DEFAULT
from wsiseg.nuclei import NucleusTable
from wsiseg.polygons import trace
from wsiseg.predict import relabelled
from wsiseg.samples import read_samples, read_split
from wsiseg.slides.opening import open_slide, resolve_mpp
from wsiseg.slides.slide import SlideRef

ACROSS = 4
"""Images in a row of the mosaic."""
NEAR = 16
"""Pixels from a core's border within which errors are counted apart."""
MARGIN = 300
"""Pixels along the region's border that are left out where a grid is shifted: one of the two slides ends there."""


def main() -> None:
    """Run and print."""
    options = arguments()
    keep_memory()
    found = {size: polygons_of(options, size) for size in options.tile_size}
    result: dict[str, Any] = {
        "f1": {
            f"{a}/{b}": round(f1_at(found[a][0], found[b][0]), 4) for a, b in itertools.combinations(found, 2)
        },
        "doubled": {str(size): overlapping(polygons) for size, (polygons, _) in found.items()},
        "nuclei": {str(size): len(polygons) for size, (polygons, _) in found.items()},
    }
    if options.shift:
        size = options.tile_size[-1] if len(options.tile_size) < 3 else options.tile_size[1]
        result["shifted"] = {str(size): round(shifted(options, size), 4)}
    if options.mosaic:
        result["errors"] = mosaic_errors(options)
    if options.json:
        print(json.dumps(result))
        return
    print("| core, px | nuclei | pairs overlapping > 30 % | seconds |\n|---|---|---|---|")
    for size, (polygons, seconds) in found.items():
        print(f"| {size} | {len(polygons)} | {result['doubled'][str(size)]} | {seconds:.0f} |")
    print("\n| cores | F1 at IoU 0.5 |\n|---|---|")
    for pair, value in result["f1"].items():
        print(f"| {pair} | {value:.4f} |")
    for size, value in result.get("shifted", {}).items():
        print(f"| {size}, grid shifted by {options.shift} px | {value:.4f} |")
    for size, row in result.get("errors", {}).items():
        print(
            f"\ncores of {size}: errors per true nucleus {row['near']:.3f} within {NEAR} px of a border "
            f"({row['nuclei_near']} nuclei), {row['there_without']:.3f} there without a border, "
            f"{row['inside']:.3f} elsewhere"
        )


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("slide", type=Path)
    parser.add_argument("--region", default="3000,2000,3000,3000", help="X,Y,WIDTH,HEIGHT, level-0 pixels")
    parser.add_argument("--tile-size", type=int, nargs="+", default=[256, 512, 1024, 2048])
    parser.add_argument("--shift", type=int, default=320, help="a multiple of 64; 0 leaves it out")
    parser.add_argument("--mosaic", type=Path, help="folder that holds multiorgan")
    parser.add_argument("--model", default=DEFAULT)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    options = parser.parse_args()
    _, _, width, height = map(int, options.region.split(","))
    if options.shift and min(width, height) < 4 * MARGIN:
        parser.error(
            f"--region {options.region} is too small for --shift, which leaves out {MARGIN} px along its border: "
            f"{4 * MARGIN} px a side at least, or --shift 0"
        )
    return options


def polygons_of(options: argparse.Namespace, size: int) -> tuple[NDArray[np.object_], float]:
    """The nuclei with cores of `size`, as polygons, and the seconds it took."""
    x, y, width, height = map(int, options.region.split(","))
    box = shapely.geometry.mapping(shapely.box(x, y, x + width, y + height))
    with tempfile.TemporaryDirectory() as folder:
        roi = Path(folder) / "roi.geojson"
        roi.write_text(json.dumps({"type": "Feature", "geometry": box, "properties": {}}))
        began = time.perf_counter()
        result = wsiseg.segment(options.slide, model=options.model, roi=roi, tile_size=size)
    return as_polygons(result.nuclei), time.perf_counter() - began


def shifted(options: argparse.Namespace, size: int) -> float:
    """F1 between the region as a slide of its own, and with more of the slide before it, so that cores lie elsewhere."""
    ref = SlideRef(str(options.slide))
    slide = open_slide(ref)
    # A whole number of the model's pixels to one of the slide's, so that the shift moves tiles and nothing else.
    mpp = 0.25 * max(1, round(resolve_mpp(slide, ref) / 0.25))
    x, y, width, height = map(int, options.region.split(","))
    step = round(options.shift * 0.25 / mpp)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for before in (0, step):
            rect = Rect(y - before, x - before, y + height, x + width)
            path = Path(folder) / f"{before}.tif"
            write_tiff(path, slide.read(rect, 0), mpp)
            polygons = as_polygons(wsiseg.segment(path, model=options.model, tile_size=size).nuclei)
            found.append(shapely.transform(polygons, lambda at, by=before: at - by))  # type: ignore[misc]
    slide.close()
    # What lies near the region's own border has tissue beyond it in one slide and none in the other.
    inner = shapely.box(MARGIN, MARGIN, width - MARGIN, height - MARGIN)
    return f1_at(*(polygons[shapely.contains(inner, shapely.centroid(polygons))] for polygons in found))


def mosaic_errors(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Errors per true nucleus near borders of cores and elsewhere, by size of core."""
    root = options.mosaic / "multiorgan"
    names = [*read_split(root, "train"), *read_split(root, "val")]
    samples = read_samples(root, names, from_masks=True)
    pictures = [sample.image for sample in samples]
    numbered, most = [], 0
    for sample in samples:
        assert sample.labels is not None
        own = relabelled(sample.labels)
        numbered.append(np.where(own > 0, own + most, 0))
        most += int(own.max())
    truth = outlines(np.block([numbered[i : i + ACROSS] for i in range(0, len(numbered), ACROSS)]))
    side = pictures[0].shape[0]
    rows = [np.concatenate(pictures[i : i + ACROSS], axis=1) for i in range(0, len(pictures), ACROSS)]
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        write_tiff(Path(folder) / "mosaic.tif", np.concatenate(rows), 0.25)
        for size in (*options.tile_size[:2], 8 * side):
            result = wsiseg.segment(Path(folder) / "mosaic.tif", model=options.model, tile_size=size)
            found[size] = as_polygons(result.nuclei)
    without = found.pop(8 * side)
    return {
        str(size): {
            **densities(polygons, truth, size, side),
            "there_without": densities(without, truth, size, side)["near"],
        }
        for size, polygons in found.items()
    }


def outlines(labels: NDArray[np.integer]) -> NDArray[np.object_]:
    """Polygons of a label image."""
    vertices, offsets = trace(relabelled(labels))
    rings = [np.roll(vertices[a:b], 1, axis=1) for a, b in itertools.pairwise(offsets)]
    polygons: NDArray[np.object_] = shapely.make_valid(np.array([shapely.Polygon(r) for r in rings], object))
    return polygons


def densities(
    found: NDArray[np.object_], truth: NDArray[np.object_], size: int, side: int
) -> dict[str, float]:
    """Errors of both kinds, and true nuclei, near a core's border and elsewhere; edges of the images are left out."""
    a, b = shapely.STRtree(truth).query(found, predicate="intersects")
    common = shapely.area(shapely.intersection(found[a], truth[b]))
    match = common / (shapely.area(found[a]) + shapely.area(truth[b]) - common) > 0.5
    wrong = np.concatenate([np.delete(found, a[match]), np.delete(truth, b[match])])
    counts = {}
    for name, polygons in (("errors", wrong), ("nuclei", truth)):
        at = shapely.get_coordinates(shapely.centroid(polygons))
        at = at[(np.abs((at + side / 2) % side - side / 2) > 40).all(1)]
        near = (np.abs((at + size / 2) % size - size / 2) <= NEAR).any(1)
        counts[name] = (int(near.sum()), int((~near).sum()))
    (wrong_near, wrong_inside), (near_count, inside_count) = counts["errors"], counts["nuclei"]
    return {
        "near": round(wrong_near / max(1, near_count), 4),
        "inside": round(wrong_inside / max(1, inside_count), 4),
        "nuclei_near": near_count,
    }


def as_polygons(nuclei: NucleusTable) -> NDArray[np.object_]:
    """Valid shapely polygons of a table, in its order."""
    rings = [np.roll(nuclei.ring(i), 1, axis=1) for i in range(len(nuclei))]
    polygons: NDArray[np.object_] = shapely.make_valid(np.array([shapely.Polygon(r) for r in rings], object))
    return polygons


def f1_at(first: NDArray[np.object_], second: NDArray[np.object_], iou: float = 0.5) -> float:
    """F1 of two sets of polygons: at IoU above a half a match can only be to one."""
    a, b = shapely.STRtree(second).query(first, predicate="intersects")
    common = shapely.area(shapely.intersection(first[a], second[b]))
    union = shapely.area(first[a]) + shapely.area(second[b]) - common
    return float(2 * (common / union > iou).sum() / max(1, len(first) + len(second)))


def overlapping(polygons: NDArray[np.object_], share: float = 0.3) -> int:
    """Pairs that share more than `share` of the smaller one."""
    a, b = shapely.STRtree(polygons).query(polygons, predicate="intersects")
    a, b = a[a < b], b[a < b]
    common = shapely.area(shapely.intersection(polygons[a], polygons[b]))
    smaller = np.minimum(shapely.area(polygons[a]), shapely.area(polygons[b]))
    return int((common > share * smaller).sum())


if __name__ == "__main__":
    main()
