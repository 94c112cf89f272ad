"""Options that several commands have, spelled once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Errors only.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Say what happens.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
DEFAULT_MODEL = "he-points"
"""`wsiseg.models.DEFAULT`, without what that module loads."""

Model = Annotated[str, typer.Option(help="Name of a bundled model, or a model folder.")]

# Of slides and what is found on them.
SlideMpp = Annotated[
    float | None,
    typer.Option(
        "--slide-mpp",
        help="Microns per pixel of the slide, instead of what its file says, if it does (0.25 is usual at 40x, 0.5 at 20x).",
        show_default="the file's",
    ),
]
NoBounds = Annotated[
    bool,
    typer.Option("--no-bounds", help="Count pixels from the file's corner instead of its bounds (MRXS)."),
]
Workers = Annotated[int | None, typer.Option(help="Threads, processes or jobs; else what suits.", min=1)]
TileSize = Annotated[
    int, typer.Option(help="Side of a tile in pixels at the model's scale; a multiple of 64.")
]
Threshold = Annotated[
    float | None, typer.Option(help="Foreground probability, 0 to 1, instead of the model's own.")
]
MinArea = Annotated[
    float | None, typer.Option(help="Smallest nucleus in square microns, instead of the model's own.")
]
Flips = Annotated[
    int,
    typer.Option(
        help="Test-time augmentation: 1, 4 or 8 views of every tile, averaged. As many times as long, somewhat better."
    ),
]
Measure = Annotated[
    list[str] | None,
    typer.Option(help="shape, stain, context, with commas between them.", show_default="shape"),
]
Stains = Annotated[
    str,
    typer.Option(
        help="Stains to measure: estimate or estimate-h-dab (vectors of this slide), h-e or h-dab (QuPath's defaults), "
        "six numbers, or a .json or .toml file of QuPath's values."
    ),
]
Cells = Annotated[
    float | None,
    typer.Option(help="Grow cells around nuclei, by so many microns at most.", show_default="none"),
]

# Of labelled images.
Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        help="Folder that holds a folder of images/, points/ or labels/ for each data set; else the variable WSISEG_DATA.",
    ),
]
DataSets = Annotated[
    list[str] | None,
    typer.Option(help="Data sets: folders below that one.", show_default="multiorgan and tnbc"),
]
ImageMpp = Annotated[
    float | None,
    typer.Option(
        "--image-mpp", help="Microns per pixel of the images.", show_default="the model's", min=0.05, max=5
    ),
]
