"""DICOM Microscopy Bulk Simple Annotations (Supplement 222): a group of polygons a class, with measurements.

Of a DICOM slide it refers to the image itself, by the identities that the slide was read with, and belongs to its
study. Of any other slide it refers to an image that is nowhere: its identities are made from the slide's
fingerprint, always the same ones, so that all annotations of a slide are of one study. The patient's name and
number stay empty, for a result does not carry them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from wsiseg.errors import OutputError
from wsiseg.export._about import About, require
from wsiseg.export._complete import complete
from wsiseg.export._features import DETECTION_PROBABILITY
from wsiseg.export._info import ExportInfo
from wsiseg.export._rows import Rows, rows
from wsiseg.export._scratch import scratch
from wsiseg.nuclei import NucleusTable
from wsiseg.polygons import from_shapely
from wsiseg.version import __version__

if TYPE_CHECKING:
    from highdicom.ann import AnnotationGroup
    from pydicom import Dataset
    from pydicom.sr.coding import Code

SUFFIXES = (".dcm",)

ABOUT = About(
    "DICOM bulk simple annotations, for archives and their viewers",
    "highdicom, wsidicom, Slim, PACS",
    extra="dicom",
    module="highdicom",
)

EPOCH = "1980-01-01T00:00:00Z"
"""The time of a result that does not say when it was made: the same nuclei give the same bytes."""

WHOLE_SLIDE_IMAGE = "1.2.840.10008.5.1.4.1.1.77.1.6"

MOST_VALUES = 2**30 - 1
"""Float32 numbers that one element can hold, its length in bytes being an even number of 32 bits."""

SCHEME = "99WSISEG"
"""Measurements without a code of DICOM's own are coded by this private scheme."""


def write(path: Path, tables: Iterable[NucleusTable], info: ExportInfo) -> int:
    """Write annotations; returns the number of nuclei.

    Coordinates and measurements wait in files beside the output, since a group has them class by class and
    column by column; no more than one table of nuclei is held.

    Raises
    ------
    OutputError
        If highdicom is not installed, if there are no nuclei (the format has no empty group), if there are
        more than an element can hold, or if it cannot be written.
    """
    require(path, ABOUT)
    with scratch(path) as folder:
        groups = [Bulk(folder, i) for i in range(len(info.class_names))]
        for found in rows(tables):
            for label, group in enumerate(groups):
                group.append(found, label)
        count = sum(group.count for group in groups)
        if not count:
            raise OutputError(
                f"{path}: there are no nuclei, and DICOM annotations cannot be empty; choose another format"
            )
        if max(group.values for group in groups) > MOST_VALUES:
            raise OutputError(f"{path}: more corners than DICOM can hold; choose another format, or a --roi")
        with complete(path) as temporary:
            lay_out(temporary, folder / "outer.dcm", groups, info)
    return count


class Bulk:
    """The numbers of one class's group, as they come: a file for each element of the format.

    count, values : int    nuclei, and numbers in the coordinates
    known : name -> int    nuclei that have a measurement
    """

    def __init__(self, folder: Path, label: int) -> None:
        self.folder, self.label = folder, label
        self.known: dict[str, int] = {}
        self.count = self.values = 0
        self.digests: dict[str, Any] = {}

    def append(self, found: Rows, label: int) -> None:
        """Add those of the nuclei that are of the class `label`."""
        index = np.flatnonzero(found.table.label == label)
        if not len(index):
            return
        table = found.table.take(index)
        vertices, offsets = from_shapely(found.polygons[index])
        # Numbers of the coordinates are counted from 1, two a corner.
        self.put("points", 2 * offsets[:-1] + self.values + 1, np.uint32)
        self.put("corners", vertices[:, ::-1], np.float32)
        measured = {**table.columns, DETECTION_PROBABILITY: table.score}
        for number, (name, values) in enumerate(measured.items()):
            known = np.isfinite(values)
            self.known[name] = self.known.get(name, 0) + int(known.sum())
            self.put(f"values{number}", values[known], np.float32)
            self.put(f"which{number}", np.flatnonzero(known) + self.count + 1, np.uint32)
        self.count += len(index)
        self.values += 2 * int(offsets[-1])

    def put(self, name: str, values: NDArray[Any], dtype: type[np.generic]) -> None:
        """Add numbers to an element, little-endian."""
        data = np.ascontiguousarray(values, np.dtype(dtype).newbyteorder("<")).tobytes()
        self.digests.setdefault(name, sha256()).update(data)
        # Not kept open: many classes with many measurements are more files than a process may have.
        with self.path(name).open("ab") as file:
            file.write(data)

    @property
    def digest(self) -> str:
        """Of all numbers, however they came in pieces."""
        return sha256(b"".join(each.digest() for each in self.digests.values())).hexdigest()

    def path(self, name: str) -> Path:
        """The file of an element."""
        return self.folder / f"{self.label}-{name}"


def lay_out(path: Path, outer: Path, groups: Sequence[Bulk], info: ExportInfo) -> None:
    """Write the object, by way of `outer`, in which marks stand where the numbers belong.

    A library holds all of an object to write it. So it writes one of a nucleus a group, whose sequences are
    of undefined length, and the numbers are put in the places of the marks.
    """
    marks: dict[bytes, Path] = {}

    def mark(file: Path) -> bytes:
        found = sha256(f"{info.fingerprint}{file.name}".encode()).digest()[:16]
        marks[found] = file
        return found

    filled = [group for group in groups if group.count]
    laid = around([group_of(i, bulk, info, mark) for i, bulk in enumerate(filled, 1)], filled, info)
    undefined_lengths(laid, "AnnotationGroupSequence")
    for item in laid.AnnotationGroupSequence:
        undefined_lengths(item, "MeasurementsSequence")
        for measured in item.MeasurementsSequence:
            undefined_lengths(measured, "MeasurementValuesSequence")
    laid.save_as(outer)
    text = outer.read_bytes()
    places = sorted((text.index(found), found) for found in marks)
    with path.open("wb") as file:
        at = 0
        for place, found in places:
            # The four bytes before a value are its length.
            file.write(text[at : place - 4])
            file.write(marks[found].stat().st_size.to_bytes(4, "little"))
            with marks[found].open("rb") as numbers:
                shutil.copyfileobj(numbers, file)
            at = place + len(found)
        file.write(text[at:])


def undefined_lengths(data: Dataset, name: str) -> None:
    """Have a sequence and its items end where they say so, and not after a number of bytes."""
    data[name].is_undefined_length = True
    for item in data[name].value:
        item.is_undefined_length_sequence_item = True


def around(items: Sequence[AnnotationGroup], groups: Sequence[Bulk], info: ExportInfo) -> Dataset:
    """The object around groups; its identity is that of its content."""
    from highdicom.ann import MicroscopyBulkSimpleAnnotations
    from pydicom.valuerep import DT

    times = info.provenance.get("times")
    ended = datetime.fromisoformat(times["ended"] if isinstance(times, Mapping) else EPOCH)
    content = "".join(group.digest for group in groups)
    laid = MicroscopyBulkSimpleAnnotations(
        source_images=[image(info)],
        annotation_coordinate_type="2D",
        annotation_groups=items,
        series_instance_uid=identity(info, "annotations"),
        series_number=1,
        sop_instance_uid=identity(info, f"annotations:{content}:{ended}"),
        instance_number=1,
        manufacturer="wsiseg",
        manufacturer_model_name="wsiseg",
        software_versions=__version__,
        device_serial_number="0",
        content_description="Nuclei found by wsiseg",
        content_label="NUCLEI",
        content_date=ended.date(),
        content_time=ended.time(),
        series_description="Nuclei",
    )
    laid.InstanceCreationDate, laid.InstanceCreationTime = laid.ContentDate, laid.ContentTime
    for equipment in laid.ContributingEquipmentSequence:
        equipment.ContributionDateTime = DT(ended.replace(tzinfo=None))
    return laid


def image(info: ExportInfo) -> Dataset:
    """What is said of the slide: its identities, its own or made up, and of the patient nothing."""
    from pydicom import Dataset

    data = Dataset()
    for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "SOPInstanceUID"):
        setattr(data, name, info.dicom.get(f"dicom.{name}") or identity(info, name))
    data.SOPClassUID = info.dicom.get("dicom.SOPClassUID", WHOLE_SLIDE_IMAGE)
    data.SpecificCharacterSet, data.Modality = "ISO_IR 192", "SM"
    for name in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex"):
        setattr(data, name, "")
    for name in ("AccessionNumber", "StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName"):
        setattr(data, name, "")
    return data


def identity(info: ExportInfo, of: str) -> str:
    """A unique identifier that is always the same for the same slide: 2.25 and a UUID (PS3.5, B.2)."""
    digest = sha256(f"wsiseg:{info.fingerprint}:{of}".encode()).digest()[:16]
    return f"2.25.{UUID(bytes=digest, version=5).int}"


def group_of(number: int, bulk: Bulk, info: ExportInfo, mark: Callable[[Path], bytes]) -> AnnotationGroup:
    """A group with marks in place of its numbers."""
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.ann import AnnotationGroup, Measurements
    from highdicom.color import CIELabColor
    from pydicom.sr.codedict import codes

    # The format has no measurement without a value.
    measured = {name: i for i, name in enumerate(bulk.known) if bulk.known[name]}
    model = info.provenance.get("model")
    name = str(model["name"]) if isinstance(model, Mapping) else "wsiseg"
    group = AnnotationGroup(
        number=number,
        uid=identity(info, f"group:{info.class_names[bulk.label]}:{bulk.digest}"),
        label=info.class_names[bulk.label][:64],
        annotated_property_category=codes.SCT.AnatomicalStructure,
        annotated_property_type=codes.SCT.Nucleus,
        graphic_type="POLYGON",
        graphic_data=[np.array([[0, 0], [1, 0], [0, 1]], np.float32)],
        algorithm_type="AUTOMATIC",
        algorithm_identification=AlgorithmIdentificationSequence(
            name=f"wsiseg {name}"[:64], family=codes.DCM.ArtificialIntelligence, version=__version__
        ),
        measurements=[Measurements(code_of(n), np.zeros(1, np.float32), unit_of(n)) for n in measured],
        display_color=CIELabColor.from_rgb(*info.class_colors[bulk.label]),
    )
    group.NumberOfAnnotations = bulk.count
    group.PointCoordinatesData = mark(bulk.path("corners"))
    group.LongPrimitivePointIndexList = mark(bulk.path("points"))
    for item, (name, i) in zip(group.MeasurementsSequence, measured.items(), strict=True):
        values = item.MeasurementValuesSequence[0]
        values.FloatingPointValues = mark(bulk.path(f"values{i}"))
        if bulk.known[name] < bulk.count:
            values.AnnotationIndexList = mark(bulk.path(f"which{i}"))
    return group


def code_of(name: str) -> Code:
    """What a measurement is called: by SNOMED CT where it is known there, else by its name in QuPath."""
    from pydicom.sr.codedict import codes
    from pydicom.sr.coding import Code

    if name == "Area µm^2":
        return codes.SCT.Area
    return Code(sha256(name.encode()).hexdigest()[:16], SCHEME, name[:64])


def unit_of(name: str) -> Code:
    """The unit that a measurement's name ends in."""
    from pydicom.sr.coding import Code

    if name.endswith("µm^2"):
        return Code("um2", "UCUM", "square micrometer")
    if name.endswith("µm"):
        return Code("um", "UCUM", "micrometer")
    return Code("1", "UCUM", "no units")
