"""What a person sees: results on stdout, progress and notes on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], object]]:
    """Show a bar on stderr while the block runs, where that is a terminal; see :class:`unhot.runtime.Progress`."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    shown = sys.stderr.isatty()
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not shown) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.advance(task, done)


def note(text: str) -> None:
    """Say something that is not a result."""
    sys.stderr.write(text + "\n")


def say(text: str) -> None:
    """Print a line of the result."""
    sys.stdout.write(text + "\n")


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; the first column is text, the others are numbers."""
    grid = Table(title=title or None, title_justify="left", title_style="bold")
    for i, name in enumerate(columns):
        grid.add_column(name, justify="left" if i == 0 else "right", no_wrap=i == 0)
    for row in rows:
        grid.add_row(*row)
    width = None if sys.stdout.isatty() else 150
    Console(width=width).print(grid)
