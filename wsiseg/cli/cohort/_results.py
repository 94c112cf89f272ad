"""The folder of results, which every command of a cohort takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Results = Annotated[
    Path, typer.Argument(help="Folder of results, as `cohort plan` made it.", show_default=False)
]
