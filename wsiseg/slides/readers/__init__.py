"""Readers, one file a library. Each has `ORDER` (lower is tried first) and `open(path, use_bounds)`.

`open` raises whatever its library raises where it cannot read the file; `slides.opening` collects that.
"""
