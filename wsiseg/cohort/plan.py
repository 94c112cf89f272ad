"""The plan of a cohort: every slide looked at once, its cost estimated, what is wrong with it said."""

from __future__ import annotations

import heapq
import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from wsiseg.cohort.manifest import Entry
from wsiseg.cohort.outcome import outcome_path
from wsiseg.errors import DataError, InputError, WsisegError, brief
from wsiseg.estimate import estimate
from wsiseg.execute import threads
from wsiseg.export import exporter_for
from wsiseg.models import DEFAULT, describe, find_model
from wsiseg.slides.slide import SlideRef
from wsiseg.store import writing
from wsiseg.survey import survey
from wsiseg.version import __version__

FORMAT = "wsiseg-cohort-1"

CLASH = "another slide's result has the name {!r} too; name them in a column 'output' of the manifest"

READERS = 4
"""Slides looked at at once: on a shared disk much of the time goes by in waiting; more get in each other's way."""


@dataclass(frozen=True, slots=True)
class Options:
    """What all slides of a cohort share; the options of `wsiseg segment` of the same names."""

    model: str = DEFAULT
    suffix: str = ".geojson"
    tile_size: int = 1536
    threshold: float | None = None
    min_area_um2: float | None = None
    measure: tuple[str, ...] = ("shape",)
    use_bounds: bool = True
    stains: str = "estimate"
    cells_um: float | None = None
    flips: int = 1


@dataclass(frozen=True, slots=True)
class Planned:
    """A slide of the plan.

    number : int           names its files below `.cohort`
    slide : str            absolute path, or URL
    slide_mpp : float or None    as it was given
    roi, model : str       "" where there is none, or it is the cohort's
    output : str           file below the folder of results
    mpp, mm2 : float       microns per level-0 pixel; square millimetres of tissue
    tiles : int
    seconds : float        estimated, of one processor core
    memory : float         estimated bytes with one worker
    problem : str          why it cannot be segmented; "" where it can
    where : str            where it was asked for
    """

    number: int
    slide: str
    slide_mpp: float | None = None
    roi: str = ""
    model: str = ""
    output: str = ""
    mpp: float = 0.0
    mm2: float = 0.0
    tiles: int = 0
    seconds: float = 0.0
    memory: float = 0.0
    problem: str = ""
    where: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """A cohort.

    folder : Path          of results
    options : Options
    slides : of Planned    by number
    """

    folder: Path
    options: Options
    slides: tuple[Planned, ...] = field(default=())

    @property
    def good(self) -> tuple[Planned, ...]:
        """The slides that can be segmented."""
        return tuple(slide for slide in self.slides if not slide.problem)

    def check_any(self) -> None:
        """Refuse a cohort of which no slide can be segmented.

        Raises
        ------
        DataError
            With what is wrong with the first of them.
        """
        if not self.good:
            first = f", such as {self.slides[0].where}: {self.slides[0].problem}" if self.slides else ""
            raise DataError(
                f"{self.folder}: none of its {len(self.slides)} slides can be segmented{first}; "
                "correct the manifest and plan again with --update"
            )

    @property
    def state(self) -> Path:
        """Folder of leases and outcomes."""
        return self.folder / ".cohort"


def make_plan(
    entries: Sequence[Entry],
    folder: Path,
    options: Options,
    *,
    watch: Callable[[int, int], None] | None = None,
) -> Plan:
    """Look at every slide; what is wrong with one is noted in its row and stops no other.

    Parameters
    ----------
    entries
        From `read_manifest`.
    folder
        Where results are to go.
    watch
        Called with the number of slides looked at, and of all.

    Raises
    ------
    InputError
        If what all slides share cannot be used: the model, say, or the suffix.
    """
    exporter_for(Path(f"x{options.suffix}"))
    describe(find_model(options.model))
    rows = [_named(number, entry, options.suffix) for number, entry in enumerate(entries)]
    rows = _without_clashes(rows, [bool(entry.output) for entry in entries], options.suffix)
    looked: dict[int, Planned] = {}
    with threads.start(workers=READERS) as pool:
        for position, row in pool.map(lambda row: _looked_at(row, options), rows):
            looked[position] = row
            if watch:
                watch(len(looked), len(rows))
    return Plan(folder, options, tuple(looked[position] for position in range(len(rows))))


def _named(number: int, entry: Entry, suffix: str) -> Planned:
    """The row as it is asked for, with a name for its result."""
    slide = entry.slide if "://" in entry.slide else os.path.abspath(entry.slide)
    row = Planned(
        number,
        slide,
        roi=os.path.abspath(entry.roi) if entry.roi else "",
        model=os.path.abspath(entry.model) if Path(entry.model or "?").is_dir() else entry.model,
        output=os.path.normpath(entry.output) if entry.output else f"{Path(slide.rstrip('/')).stem}{suffix}",
        where=entry.where,
    )
    if not entry.slide:
        return replace(row, problem="names no slide")
    try:
        return replace(row, slide_mpp=float(entry.slide_mpp) if entry.slide_mpp else None)
    except ValueError:
        return replace(row, problem=f"slide_mpp {entry.slide_mpp!r} is no number")


def _without_clashes(rows: Sequence[Planned], named: Sequence[bool], suffix: str) -> list[Planned]:
    """No two results of one name: a slide's whole name tells a.svs from a.ndpi; where it does not, the rows say so."""
    seen = Counter(row.output for row in rows)
    rows = [
        row if by_hand or seen[row.output] == 1 else replace(row, output=f"{Path(row.slide).name}{suffix}")
        for row, by_hand in zip(rows, named, strict=True)
    ]
    seen = Counter(row.output for row in rows)
    return [
        replace(row, problem=row.problem or CLASH.format(row.output)) if seen[row.output] > 1 else row
        for row in rows
    ]


def _looked_at(row: Planned, options: Options) -> Planned:
    """The row with what its slide is, or why it cannot be segmented."""
    if row.problem:
        return row
    try:
        if Path(row.output).is_absolute() or ".." in Path(row.output).parts:
            raise DataError(f"output {row.output!r} is not below the folder of results; give a name")
        exporter_for(Path(row.output))
        found = survey(
            SlideRef(row.slide, mpp=row.slide_mpp, use_bounds=options.use_bounds),
            describe(find_model(row.model or options.model)),
            tile_size=options.tile_size,
            roi=Path(row.roi) if row.roi else None,
        )
    except WsisegError as error:
        return replace(row, problem=str(error))
    except Exception as error:  # a reader may raise anything on a damaged file
        return replace(row, problem=brief(error))
    memory, seconds = estimate(found.plan, cores=1, flips=options.flips)
    row = replace(
        row,
        mpp=found.mpp,
        mm2=round(found.tissue_mm2, 3),
        tiles=found.plan.n_tiles,
        seconds=round(seconds, 1),
        memory=memory,
    )
    return row if found.plan.n_tiles else replace(row, problem="no tissue was found")


def write_plan(plan: Plan, *, update: bool = False) -> Plan:
    """Write the plan into its folder, which is made if need be; returns it as written.

    Where a plan is updated, slides that were in it keep their numbers, and so their outcomes.

    Raises
    ------
    DataError
        If a plan is there and is not to be updated, or has other options, or the folder cannot be written.
    """
    path = plan.folder / "cohort.json"
    if path.exists():
        if not update:
            raise DataError(
                f"{path}: exists; go on with wsiseg cohort run {plan.folder}, or give --update to add slides to it"
            )
        plan = _updated(plan, read_plan(plan.folder))
    content = {
        "format": FORMAT,
        "version": __version__,
        "options": asdict(plan.options),
        "slides": [asdict(slide) for slide in plan.slides],
    }
    try:
        plan.state.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{plan.folder}: cannot be written ({error.strerror}); choose another") from error
    with writing(path) as file:
        file.write(json.dumps(content, indent=1).encode())
    return plan


def _updated(plan: Plan, before: Plan) -> Plan:
    """The plan before with what the new one adds or says otherwise; every slide keeps its number and its result's name.

    Raises
    ------
    DataError
        If the options differ, or a slide that has ended is now asked for in another way.
    """
    if plan.options != before.options:
        raise DataError(
            f"{plan.folder}: was planned with other options; plan with the same, or into another folder"
        )
    rows = {slide.slide: slide for slide in before.slides}
    taken = {slide.output for slide in before.slides}
    free = 1 + max((slide.number for slide in before.slides), default=-1)
    for slide in plan.slides:
        old = rows.get(slide.slide)
        if old is None:
            if slide.output in taken:
                slide = replace(slide, output=f"{Path(slide.slide).name}{plan.options.suffix}")
            if slide.output in taken and not slide.problem:
                slide = replace(slide, problem=CLASH.format(slide.output))
            rows[slide.slide] = replace(slide, number=free)
            free += 1
        elif _asked(slide) == _asked(old):
            rows[slide.slide] = replace(slide, number=old.number, output=old.output)
        elif outcome_path(before.state, old.number).exists():
            raise DataError(
                f"{slide.where}: {slide.slide} has ended with another slide_mpp, roi or model; plan into another folder"
            )
        else:
            rows[slide.slide] = replace(slide, number=old.number)
        taken.add(rows[slide.slide].output)
    return replace(plan, slides=tuple(sorted(rows.values(), key=lambda row: row.number)))


def _asked(slide: Planned) -> tuple[object, ...]:
    """What a slide's nuclei depend on, as it was asked for."""
    return slide.slide_mpp, slide.roi, slide.model


def read_plan(folder: Path) -> Plan:
    """The plan in a folder of results.

    Raises
    ------
    DataError
        If there is none, or it is damaged or of another version's format.
    """
    path = folder / "cohort.json"
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise DataError(f"{path}: has the format {content['format']!r}, not {FORMAT}; plan it anew")
        shared = content["options"]
        options = Options(**{**shared, "measure": tuple(shared["measure"])})
        return Plan(folder, options, tuple(Planned(**slide) for slide in content["slides"]))
    except FileNotFoundError as error:
        raise DataError(
            f"{folder}: no cohort.json; make it with wsiseg cohort plan MANIFEST -o {folder}"
        ) from error
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: damaged ({brief(error)}); plan it anew into another folder") from error


def in_order(slides: Sequence[Planned], index: int, count: int) -> list[Planned]:
    """All slides in the order in which process `index` of `count` tries them: its own share, then the others'.

    Shares are equal in cost, as far as slides allow: the costliest first, each to whoever has least. Within
    a share, costly ones come first; the other shares follow in turn, their last slides first, for those are
    what their owners come to last.
    """
    shares: list[list[Planned]] = [[] for _ in range(count)]
    loads = [(0.0, number) for number in range(count)]
    for slide in sorted(slides, key=lambda s: (-s.seconds, s.number)):
        load, number = heapq.heappop(loads)
        shares[number].append(slide)
        heapq.heappush(loads, (load + slide.seconds, number))
    others = [shares[(index + step) % count][::-1] for step in range(1, count)]
    return [*shares[index], *(slide for share in others for slide in share)]
