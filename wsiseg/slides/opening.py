"""Which reader opens a slide, and how many microns its pixels have."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import warnings
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from wsiseg import plugins
from wsiseg.errors import SlideError
from wsiseg.geometry import Rect
from wsiseg.slides import readers
from wsiseg.slides.slide import Slide, SlideRef

LEAST_MPP, MOST_MPP = 0.05, 5.0
ANISOTROPY = 0.02
MEBIBYTE = 1 << 20


def open_slide(slide: SlideRef | str | Path) -> Slide:
    """Open a slide with the first reader that can.

    Raises
    ------
    SlideError
        If there is no such file, or no reader opens it: each is named with its reason.
    """
    ref = slide if isinstance(slide, SlideRef) else SlideRef(str(slide))
    if "://" not in ref.path and not Path(ref.path).exists():
        raise SlideError(f"{ref.path}: no such file or folder")
    refusals = []
    for name in (ref.reader,) if ref.reader else by_order():
        try:
            with quiet():
                opened: Slide = plugins.load(readers, name).open(ref.path, ref.use_bounds)
                probe(opened)
        except Exception as error:  # every library has its own errors; all are told
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            refusals.append(f"{name}: {reason.removeprefix(f'{ref.path}: ')[:120]}")
        else:
            return opened
    raise SlideError(f"{ref.path}: no reader opens this ({'; '.join(refusals)})")


def probe(slide: Slide) -> None:
    """Read the first pixel of the last level and the last of level 0; close the slide if that fails.

    A truncated file may open and fail only here, where another reader can still be tried.
    """
    corner = Rect(0, 0, 1, 1)
    try:
        slide.read(corner, len(slide.downsamples) - 1)
        slide.read(corner.shift(slide.shape[0] - 1, slide.shape[1] - 1), 0)
    except Exception:
        slide.close()
        raise


def by_order() -> list[str]:
    """Names of the readers, those to be tried first first."""
    return sorted(plugins.names(readers), key=lambda name: plugins.load(readers, name).ORDER)


class _Quiet:
    """Readers that are only being tried neither warn nor log; the last thread to leave ends the silence."""

    def __init__(self) -> None:
        self.lock, self.inside = threading.Lock(), 0
        self.ending = ExitStack()

    def __enter__(self) -> None:
        with self.lock:
            self.inside += 1
            if self.inside == 1:
                self.ending.callback(logging.disable, logging.root.manager.disable)
                logging.disable(logging.CRITICAL)
                self.ending.enter_context(warnings.catch_warnings())
                warnings.simplefilter("ignore")

    def __exit__(self, *error: object) -> None:
        with self.lock:
            self.inside -= 1
            if self.inside == 0:
                self.ending.close()


_quiet = _Quiet()


def quiet() -> AbstractContextManager[None]:
    """What silences readers, logging and warnings alike, in all threads at once."""
    return _quiet


def resolve_mpp(slide: Slide, ref: SlideRef) -> float:
    """Microns per level-0 pixel: what was given, else what the file says.

    Raises
    ------
    SlideError
        If neither says so, if it is no size a microscope has, or if pixels are not square.
    """
    advice = "give --slide-mpp (0.25 is usual at 40x, 0.5 at 20x), or slide_mpp in a manifest"
    size = (ref.mpp, ref.mpp) if ref.mpp is not None else slide.mpp
    if size is None:
        raise SlideError(f"{ref.path}: no pixel size in the metadata; {advice}")
    y, x = size
    if not (min(y, x) >= LEAST_MPP and max(y, x) <= MOST_MPP):
        raise SlideError(
            f"{ref.path}: a pixel size of {x:g} um is not between {LEAST_MPP:g} and {MOST_MPP:g}; {advice}"
        )
    if abs(y - x) > ANISOTROPY * max(y, x):
        raise SlideError(f"{ref.path}: pixels of {x:g} x {y:g} um are not square; {advice} if that is wrong")
    return (y + x) / 2


def fingerprint(path: str) -> str:
    """SHA-256 of a slide's size and its first and last MiB; the path and the times of its files do not count.

    Of a folder: the names and sizes of all its files, and the ends of the largest.

    Raises
    ------
    SlideError
        If it cannot be read.
    """
    if "://" in path:
        return hashlib.sha256(path.encode()).hexdigest()
    top = Path(path)
    digest = hashlib.sha256()
    try:
        files = sorted(p for p in top.rglob("*") if p.is_file()) if top.is_dir() else [top]
        for file in files:
            name = file.relative_to(top).as_posix() if top.is_dir() else ""
            digest.update(f"{name}\0{file.stat().st_size}\0".encode())
        largest = max(files, key=lambda file: file.stat().st_size)
        with largest.open("rb") as data:
            digest.update(data.read(MEBIBYTE))
            data.seek(max(0, os.fstat(data.fileno()).st_size - MEBIBYTE))
            digest.update(data.read(MEBIBYTE))
    except (OSError, ValueError) as error:
        raise SlideError(f"{path}: cannot be read ({error})") from error
    return digest.hexdigest()
