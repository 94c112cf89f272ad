"""Exporters, one file each: `SUFFIXES`, and `write(path, tables, info)`, which returns how many it wrote.

Tables come in level-0 pixels. A file appears under its name when it is complete; writing it holds one table
at a time.
"""

from wsiseg.export._choose import check_outputs, exporter_for, suffixes
from wsiseg.export._complete import complete, remove_leftovers
from wsiseg.export._info import ExportInfo

__all__ = ["ExportInfo", "check_outputs", "complete", "exporter_for", "remove_leftovers", "suffixes"]
