"""Exporters, one file each: `SUFFIXES`, `ABOUT`, and `write(path, tables, info)`, which returns how many it wrote.

Tables come in level-0 pixels. A file appears under its name when it is complete; writing it holds one table
at a time, and what a format cannot take in one go waits in files beside the output.
"""

from wsiseg.export._about import About
from wsiseg.export._choose import check_outputs, exporter_for, formats, suffixes
from wsiseg.export._complete import complete, remove_leftovers
from wsiseg.export._info import ExportInfo

__all__ = [
    "About",
    "ExportInfo",
    "check_outputs",
    "complete",
    "exporter_for",
    "formats",
    "remove_leftovers",
    "suffixes",
]
