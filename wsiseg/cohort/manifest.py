"""Which slides a cohort is made of: a table, a folder or a pattern."""

from __future__ import annotations

import csv
import glob
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from wsiseg.errors import DataError

COLUMNS = ("slide", "slide_mpp", "roi", "model", "output")

SUFFIXES = (
    *(".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".svslide", ".vms", ".vmu", ".tif", ".tiff"),
    *(".dcm", ".zarr"),
)
"""What counts as a slide in a folder; a table or a pattern may name anything."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A slide as it was asked for.

    where : str               for messages: the file and line, or the path
    slide : str               path or URL
    slide_mpp : str           as written, "" where it was left out; likewise what follows
    roi, model, output : str
    """

    where: str
    slide: str
    slide_mpp: str = ""
    roi: str = ""
    model: str = ""
    output: str = ""


def read_manifest(manifest: str | Path) -> list[Entry]:
    """The slides that a CSV file, a folder or a pattern names, in its order or by name.

    A CSV file has a header with `slide` and any of `slide_mpp`, `roi`, `model`, `output`; its paths are
    relative to it. What is wrong with a single row is found when it is planned.

    Raises
    ------
    DataError
        If there is no such file, it is no CSV of this kind, or no slide is found.
    """
    path = Path(manifest)
    if path.is_dir():
        entries = [Entry(str(slide), str(slide)) for slide in sorted(_slides_in(path))]
        wanted = f"slides ({', '.join(SUFFIXES)})"
    elif path.suffix.lower() == ".csv":
        entries, wanted = list(_rows(path)), "rows below the header slide,..."
    else:
        entries = [Entry(slide, slide) for slide in sorted(glob.glob(str(manifest), recursive=True))]
        wanted = "a CSV file, a folder, or a pattern in quotes such as 'slides/*.svs'"
    if not entries:
        raise DataError(f"{manifest}: no slide found; expected {wanted}")
    return entries


def _slides_in(folder: Path) -> Iterator[Path]:
    """Slides directly in a folder; a folder that holds DICOM files is one slide."""
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.suffix.lower() in SUFFIXES or (path.is_dir() and any(path.glob("*.dcm"))):
            yield path


def _rows(path: Path) -> Iterator[Entry]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows = [(reader.line_num, row) for row in reader]
            names = reader.fieldnames or []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as CSV ({error})") from error
    unknown = [name for name in names if name not in COLUMNS]
    if "slide" not in names or unknown:
        said = f"unknown column {unknown[0]!r}" if unknown else "no column 'slide'"
        raise DataError(f"{path}: {said}; the header may name {', '.join(COLUMNS)}")
    for line, row in rows:
        yield _entry(path, line, row)


def _entry(path: Path, line: int, row: Mapping[str, str | None]) -> Entry:
    def value(name: str) -> str:
        return (row.get(name) or "").strip()

    def beside(name: str) -> str:
        text = value(name)
        return text if not text or "://" in text else str(path.parent / text)

    # A model may be a name; where a folder of that name lies beside the table, that is meant.
    model = beside("model") if (path.parent / value("model")).is_dir() else value("model")
    return Entry(
        f"{path.name}, line {line}",
        beside("slide"),
        value("slide_mpp"),
        beside("roi"),
        model,
        value("output"),
    )
