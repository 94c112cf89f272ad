"""Do tiles show? The same piece of a slide, cut into cores of several sizes, compared polygon by polygon.

    python benchmarks/seams.py SLIDE --region 3000,2000,3000,3000 --tile-size 256 512 1024 [--json]

Prints the F1 at IoU 0.5 between any two sizes, and how many pairs of polygons in one result overlap by more
than 30 % of the smaller.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray

import wsiseg
from wsiseg.nuclei import NucleusTable


def main() -> None:
    """Run and print."""
    options = arguments()
    found = {size: polygons_of(options, size) for size in options.tile_size}
    f1 = {f"{a}/{b}": f1_at(found[a][0], found[b][0]) for a, b in itertools.combinations(found, 2)}
    doubled = {str(size): overlapping(polygons) for size, (polygons, _) in found.items()}
    if options.json:
        counts = {str(size): len(polygons) for size, (polygons, _) in found.items()}
        print(json.dumps({"f1": f1, "doubled": doubled, "nuclei": counts}))
        return
    print("| core, px | nuclei | pairs overlapping > 30 % | seconds |\n|---|---|---|---|")
    for size, (polygons, seconds) in found.items():
        print(f"| {size} | {len(polygons)} | {doubled[str(size)]} | {seconds:.0f} |")
    print("\n| cores | F1 at IoU 0.5 |\n|---|---|")
    for pair, value in f1.items():
        print(f"| {pair} | {value:.4f} |")


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("slide", type=Path)
    parser.add_argument("--region", default="3000,2000,3000,3000", help="X,Y,WIDTH,HEIGHT, level-0 pixels")
    parser.add_argument("--tile-size", type=int, nargs="+", default=[256, 512, 1024])
    parser.add_argument("--model", default="he-points")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    return parser.parse_args()


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
