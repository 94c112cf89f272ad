"""A page on this machine that shows a slide and its nuclei: what it serves, and to whom.

`pictures` cuts the slide into JPEG tiles, `results` reads what was found, `vectors` cuts that into tiles,
`content` knows what there is to ask for, `server` who may ask. The page itself lies in `static`; its
`openseadragon` is https://openseadragon.github.io, unchanged, under the licence beside it.
"""
