"""Learning curves as a picture: what the stages of a run learned, step by step."""

from __future__ import annotations

import csv
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wsiseg.errors import DataError
from wsiseg.export import complete


def draw_curves(run: Path) -> Path:
    """Draw every `STAGE.csv` of a run into its `curves.png`, a panel a stage, in the order they were taught.

    Raises
    ------
    DataError
        If the run has no learning curve, or one cannot be read.
    """
    files = sorted(run.glob("*.csv"), key=lambda path: path.stat().st_mtime)
    if not files:
        raise DataError(f"{run}: holds no learning curve (STAGE.csv)")
    figure = Figure(figsize=(5 * len(files), 3.6), layout="constrained")
    for axes, path in zip(figure.subplots(1, len(files), squeeze=False)[0], files, strict=True):
        _panel(axes, path)
    picture = run / "curves.png"
    with complete(picture) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
    return picture


def _panel(axes: Axes, path: Path) -> None:
    """The loss of a stage, and on a second axis what held-out images said."""
    curves = _columns(path)
    steps, loss = curves.pop("loss", ([], []))
    axes.plot(steps, loss, color="tab:blue", linewidth=1)
    axes.set(title=path.stem, xlabel="step", ylabel="loss (mean of 50 steps)")
    axes.grid(alpha=0.3)
    if curves:
        right = axes.twinx()
        right.set(ylabel="held-out images", ylim=(0, 1))
        for color, (name, (at, values)) in zip(("tab:orange", "tab:green"), curves.items(), strict=False):
            right.plot(at, values, color=color, marker=".", label=name)
        right.legend(loc="lower right", fontsize="small")


def _columns(path: Path) -> dict[str, tuple[list[int], list[float]]]:
    """Column name -> steps and values where the column has one."""
    columns: dict[str, tuple[list[int], list[float]]] = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                for name, value in row.items():
                    if name != "step" and value:
                        at, values = columns.setdefault(name, ([], []))
                        at.append(int(row["step"]))
                        values.append(float(value))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: is no learning curve ({error})") from error
    return columns
