"""Progress of a training: a bar a stage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from wsiseg.cli._report import say


@contextmanager
def bars(*, quiet: bool) -> Iterator[Callable[[str, int, int, float], None] | None]:
    """One bar a stage; on something that is no terminal a line now and then."""
    if quiet:
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield (
            lambda stage, step, steps, loss: (
                say(f"{stage}: step {step} of {steps}, loss {loss:.4f}") if step % 100 == 0 else None
            )
        )
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.4f}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as drawn:
        tasks: dict[str, object] = {}

        def show(stage: str, step: int, steps: int, loss: float) -> None:
            if stage not in tasks:
                tasks[stage] = drawn.add_task(stage, total=steps, loss=loss)
            drawn.update(tasks[stage], completed=step, loss=loss)  # type: ignore[arg-type]

        yield show
