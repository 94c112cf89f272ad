"""wsidicom: folders of DICOM whole-slide images, those that OpenSlide refuses (YBR_FULL) among them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wsiseg.errors import SlideError
from wsiseg.geometry import Rect
from wsiseg.slides.slide import Fill, read_on_white

if TYPE_CHECKING:
    from wsidicom import WsiDicom

ORDER = 20


@dataclass(frozen=True, slots=True)
class WsiDicomReader:
    """A `Slide` read by wsidicom, one thread at a time."""

    handle: WsiDicom
    path: str
    fill: Fill = "white"
    lock: Lock = field(default_factory=Lock)

    @property
    def shape(self) -> tuple[int, int]:
        """See `Slide`."""
        size = self.handle.size
        return size.height, size.width

    @property
    def mpp(self) -> tuple[float, float] | None:
        """See `Slide`."""
        mpp = self.handle.mpp
        return float(mpp.height), float(mpp.width)

    @property
    def downsamples(self) -> tuple[float, ...]:
        """See `Slide`."""
        return tuple(self.shape[1] / level.size.width for level in self.handle.levels)

    @property
    def bounds(self) -> Rect:
        """See `Slide`."""
        return Rect(0, 0, *self.shape)

    @property
    def properties(self) -> Mapping[str, str]:
        """See `Slide`."""
        from pydicom.uid import VLWholeSlideMicroscopyImageStorage  # see `open`

        uids = self.handle.levels.base_level.datasets[0].uids
        # Named as OpenSlide names them.
        found = {
            "vendor": "dicom",
            "dicom.SOPClassUID": VLWholeSlideMicroscopyImageStorage,
            "dicom.SOPInstanceUID": uids.instance,
            "dicom.StudyInstanceUID": uids.slide.study_instance,
            "dicom.SeriesInstanceUID": uids.slide.series_instance,
            "dicom.FrameOfReferenceUID": uids.slide.frame_of_reference,
        }
        return {name: str(value) for name, value in found.items() if value is not None}

    def read(self, rect: Rect, level: int) -> NDArray[np.uint8]:
        """See `Slide`."""
        source = list(self.handle.levels)[level]

        def inside(part: Rect) -> NDArray[np.uint8]:
            try:
                with self.lock:
                    image = self.handle.read_region(
                        (part.x0, part.y0), source.level, (part.width, part.height)
                    )
            except Exception as error:  # pydicom and its codecs raise all kinds
                raise SlideError(f"{self.path}: damaged at {part} of level {level} ({error})") from error
            return np.asarray(image.convert("RGB"))

        return read_on_white(rect, Rect(0, 0, source.size.height, source.size.width), inside)

    def close(self) -> None:
        """See `Slide`."""
        self.handle.close()


def open(path: str, use_bounds: bool) -> WsiDicomReader:  # the plug-in's one verb
    """Open a slide; see `slides.readers`."""
    if not Path(path).exists():
        raise FileNotFoundError(path)
    from wsidicom import WsiDicom  # takes most of a second, and few slides are its own

    return WsiDicomReader(WsiDicom.open(path), path)
