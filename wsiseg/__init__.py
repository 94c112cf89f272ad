"""Nuclei instance segmentation of whole-slide images, learned from points.

    import wsiseg

    result = wsiseg.segment("slide.svs")            # every nucleus of a slide, as polygons
    result.write("slide.geojson")                   # for QuPath
    labels = wsiseg.segment_image(rgb, mpp=0.25)    # (H, W) int32, for an image in memory

Importing the package loads neither torch nor a slide library; the first call does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wsiseg.version import __version__

if TYPE_CHECKING:
    from wsiseg.image import segment_image
    from wsiseg.pipeline import segment_slide as segment


__all__ = ["__version__", "segment", "segment_image"]


def __getattr__(name: str) -> Any:
    if name == "segment":
        from wsiseg.pipeline import segment_slide

        return segment_slide
    if name == "segment_image":
        from wsiseg.image import segment_image

        return segment_image
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
