"""The report of a cohort: a row a slide, and what stands out."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsiseg.cohort.plan import read_plan
from wsiseg.cohort.status import Row, Status, status
from wsiseg.errors import WsisegError
from wsiseg.execute import threads
from wsiseg.report import pictures
from wsiseg.report.page import page
from wsiseg.slides.opening import open_slide, resolve_mpp
from wsiseg.slides.resample import thumbnail
from wsiseg.slides.slide import SlideRef

FAR = 3.5
"""Deviations, by the median, from which a slide stands out (Iglewicz and Hoaglin 1993)."""

THUMBNAIL = 96
"""Longest side of a slide's picture, pixels."""

THUMBNAIL_MPP = 32.0
READERS = 4


@dataclass(frozen=True, slots=True)
class Line:
    """A slide in the table.

    flags : of str     what stands out, in words
    picture : str      data URL, or "" where the slide cannot be read any more
    """

    row: Row
    per_mm2: float
    flags: tuple[str, ...]
    picture: str


def report_cohort(folder: Path) -> str:
    """The page of a cohort as it stands.

    Raises
    ------
    DataError, StoreError
        If the folder holds no cohort, or it is damaged.
    """
    now = status(read_plan(folder))
    per_mm2 = np.array([density(row) for row in now.rows])
    flags = stand_out(now.rows, per_mm2)
    with threads.start(workers=READERS) as readers:
        seen = dict(readers.map(lambda row: picture(row) if row.state == "done" else "", now.rows))
    pictured = [seen[position] for position in range(len(now.rows))]
    lines = [Line(*each) for each in zip(now.rows, per_mm2.tolist(), flags, pictured, strict=True)]
    done = np.isfinite(per_mm2)
    drawn = ""
    if done.sum() > 2:
        mm2 = [row.slide.mm2 for row, d in zip(now.rows, done, strict=True) if d]
        flagged = [bool(line.flags) for line, d in zip(lines, done, strict=True) if d]
        drawn = pictures.scatter(mm2, per_mm2[done].tolist(), flagged, ("tissue, mm²", "nuclei per mm²"))
    return page(
        "cohort.html",
        name=f"Cohort {folder.resolve().name}",
        facts=facts(now),
        lines=lines,
        names=[Path(line.row.slide.slide).name for line in lines],
        scatter=drawn,
    )


def density(row: Row) -> float:
    """Nuclei per square millimetre of a finished slide; else NaN."""
    return row.nuclei / row.slide.mm2 if row.state == "done" and row.slide.mm2 else float("nan")


def facts(now: Status) -> list[tuple[str, str]]:
    """What the head of the page says."""
    counts = now.counts
    mm2 = sum(row.slide.mm2 for row in now.rows if row.state == "done")
    return [
        ("slides", f"{len(now.rows):,}"),
        *((state, f"{count:,}") for state, count in counts.items() if count),
        ("nuclei", f"{now.nuclei:,}"),
        ("tissue done", f"{mm2:,.1f} mm²"),
    ]


def stand_out(rows: Sequence[Row], per_mm2: NDArray[np.float64]) -> list[tuple[str, ...]]:
    """What a person should look at, slide by slide."""
    mpp = np.array([row.slide.mpp or np.nan for row in rows])
    usual = np.nanmedian(mpp) if np.isfinite(mpp).any() else np.nan
    far = deviations(np.log(np.maximum(per_mm2, 1)))
    found = []
    for i, row in enumerate(rows):
        flags = []
        if row.state == "failed":
            flags.append(row.reason)
        if row.state == "done" and not row.nuclei:
            flags.append("no nucleus")
        elif far[i] > FAR:
            flags.append("many nuclei for its tissue")
        elif far[i] < -FAR:
            flags.append("few nuclei for its tissue")
        if abs(mpp[i] / usual - 1) > 0.2:
            flags.append(f"{mpp[i]:.3g} µm per pixel; most have {usual:.3g}")
        found.append(tuple(flags))
    return found


def deviations(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each value's distance from the median in robust standard deviations; 0 where there are too few to tell.

    >>> deviations(np.array([1.0, 1.1, 0.9, 1.0, 9.0])).round().tolist()
    [0.0, 1.0, -1.0, 0.0, 54.0]
    """
    known = values[np.isfinite(values)]
    if len(known) < 5:
        return np.zeros(len(values))
    middle = np.median(known)
    spread = 1.4826 * np.median(np.abs(known - middle))
    return np.nan_to_num((values - middle) / max(spread, 1e-9))


def picture(row: Row) -> str:
    """A small picture of the slide."""
    ref = SlideRef(row.slide.slide, mpp=row.slide.slide_mpp)
    try:
        with closing(open_slide(ref)) as slide:
            rgb, _ = thumbnail(slide, resolve_mpp(slide, ref), mpp=THUMBNAIL_MPP)
    except WsisegError:  # it was moved away since: the row is told without it
        return ""
    return pictures.as_jpeg(pictures.shrunk(rgb, THUMBNAIL), quality=75)
