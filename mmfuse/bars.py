"""Where a bar of progress can be drawn, and one that counts what is done."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from mmfuse.pulse import now


def can_draw(console: Any) -> bool:
    """Whether a rich Console can draw a bar in place: a terminal, or a notebook that has widgets.

    Without these, rich warns in a notebook and draws nothing, and lines are told instead.
    """
    return console.is_terminal or (console.is_jupyter and find_spec("ipywidgets") is not None)


class Bar:
    """A progress bar on standard error or in a notebook, where one can be drawn; `now` is told in any case."""

    def __init__(self, title: str):
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        console = Console(stderr=True)
        columns = (
            TextColumn(title),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
        )
        self.bar = Progress(
            *columns, TextColumn("left"), TimeRemainingColumn(), console=console, disable=not can_draw(console)
        )
        self.task = self.bar.add_task("", total=None, note="")
        self.title = title
        now(title)

    def __enter__(self) -> Bar:
        self.bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.bar.stop()

    def update(self, done: int, total: int, note: str = "") -> None:
        """Show how many are done, of how many, and a word on them."""
        self.bar.update(self.task, completed=done, total=total, note=note)
        now(self.title, done, total, note)
