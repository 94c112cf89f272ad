"""What an exporter is told besides the nuclei."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from wsiseg.regions import Region

DICOM_IDENTITIES = (
    "dicom.StudyInstanceUID",
    "dicom.SeriesInstanceUID",
    "dicom.FrameOfReferenceUID",
    "dicom.SOPInstanceUID",
    "dicom.SOPClassUID",
)
"""What DICOM slides are known by, as their readers name it among a slide's properties; nothing of a patient."""


@dataclass(frozen=True, slots=True, eq=False)
class ExportInfo:
    """What belongs to a result as a whole.

    fingerprint : str                  of the slide; identities of nuclei are made from it
    mpp : float                        microns per level-0 pixel
    class_names, class_colors          a nucleus's `label` is an index into both; colours are (r, g, b)
    regions : of Region                what was processed, level-0 pixels
    provenance                         versions, model, settings and times, as plain values
    shape : (H, W) or None             of the slide's level 0, pixels; stores of earlier versions do not say
    dicom                              those of `DICOM_IDENTITIES` that the slide has
    """

    fingerprint: str
    mpp: float
    class_names: tuple[str, ...] = ("Nucleus",)
    class_colors: tuple[tuple[int, int, int], ...] = ((200, 60, 60),)
    regions: tuple[Region, ...] = ()
    provenance: Mapping[str, object] = field(default_factory=dict)
    shape: tuple[int, int] | None = None
    dicom: Mapping[str, str] = field(default_factory=dict)
