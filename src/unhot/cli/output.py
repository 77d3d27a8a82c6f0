"""What a person sees: results on stdout, progress and notes on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], object]]:
    """Show a bar on stderr while the block runs, where that is a terminal; see :class:`unhot.runtime.Progress`."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    shown = sys.stderr.isatty()
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not shown) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.advance(task, done)


class Board:
    """Shows on stderr how much of a known amount of work is done, and what is going on, where that is a terminal.

    Args:
        total: Estimated seconds of all work.
    """

    def __init__(self, total: float) -> None:
        columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
        self._all = self._bar.add_task("grid", total=total)
        self._pieces: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        """Show it."""
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Take it away."""
        self._bar.stop()

    def begin(self, key: str, title: str) -> None:
        """Show that a piece of work is going on."""
        self._pieces[key] = self._bar.add_task(title, total=None)

    def end(self, key: str, seconds: float) -> None:
        """Count a piece of work as done."""
        if key in self._pieces:
            self._bar.remove_task(self._pieces.pop(key))
        self._bar.advance(self._all, seconds)

    @contextmanager
    def progress(self, what: str, total: int) -> Iterator[Callable[[int], object]]:
        """Show a loop of the piece that is going on; see :class:`unhot.runtime.Progress`."""
        task = self._bar.add_task(f"  {what}", total=total)
        try:
            yield lambda done: self._bar.advance(task, done)
        finally:
            self._bar.remove_task(task)


def note(text: str) -> None:
    """Say something that is not a result."""
    sys.stderr.write(text + "\n")


def say(text: str) -> None:
    """Print a line of the result."""
    sys.stdout.write(text + "\n")


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], text: int = 1) -> None:
    """Print a table whose first ``text`` columns are text, and the others numbers."""
    grid = Table(title=title or None, title_justify="left", title_style="bold")
    for i, name in enumerate(columns):
        grid.add_column(name, justify="left" if i < text else "right", no_wrap=i == 0)
    for row in rows:
        grid.add_row(*row)
    width = None if sys.stdout.isatty() else 150
    Console(width=width).print(grid)
