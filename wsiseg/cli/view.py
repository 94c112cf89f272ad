"""`wsiseg view`: a slide and its nuclei in the browser."""

from __future__ import annotations

from typing import Annotated

import typer

from wsiseg.cli._options import SlideMpp, Verbose
from wsiseg.cli._report import reported, say, speak


@reported
def view(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="[SLIDE] RESULT [RESULT]",
            help="The slide, and one or two results: .zarr, .geojson, .geojson.gz or .zip. The slide may be "
            "left out where a .zarr lies beside it.",
            show_default=False,
        ),
    ],
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Of the address on this machine; 0 takes a free one.")
    ] = 0,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Print the address, and leave the browser to you.")
    ] = False,
    slide_mpp: SlideMpp = None,
    any_slide: Annotated[
        bool, typer.Option("--any-slide", help="Show results over a slide that they were not made of.")
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Show a slide and its nuclei on a page in the browser, until Ctrl-C.

    Two results are laid over one another, or shown side by side. The page is served on 127.0.0.1 alone, at
    an address with a random token in it; who does not know that sees nothing.

    [bold]Examples[/bold]

    wsiseg view slide.svs slide.zarr

    wsiseg view slide.zarr --no-browser --port 8123      on a server; ssh -L 8123:127.0.0.1:8123 SERVER reaches it
    """
    speak(quiet=False, verbose=verbose)
    import webbrowser

    from wsiseg.view.opening import open_view
    from wsiseg.view.server import ViewServer

    say(f"reading {', '.join(files)}")
    content = open_view(files, slide_mpp=slide_mpp, any_slide=any_slide)
    try:
        server = ViewServer(content, port)
    except BaseException:
        content.close()
        raise
    with server:
        try:
            for found in content.results:
                say(f"{found.path.name}: {len(found.nuclei):,} nuclei")
            print(server.url, flush=True)
            say("Ctrl-C ends it; who has this address sees the slide")
            if not no_browser:
                webbrowser.open(server.url)
            server.serve_forever()
        except KeyboardInterrupt:
            # That is how it is meant to end.
            say("ended")
