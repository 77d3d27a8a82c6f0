"""What a person sees: results on stdout, progress and notes on stderr.

Nothing that is printed acts on the terminal: names go through :mod:`unhot.escaping`, and are never read as markup.
"""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self, TextIO

from unhot.escaping import ENCODING_ERRORS, line, terminal

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn, TaskID

SECONDS = 60.0  # between two lines about a loop, where stderr is no terminal


def prepare_streams() -> None:
    """Let stdout and stderr escape what their encoding does not have, as with ``LC_ALL=C``.

    Where they are closed (``>&-``), what is written to them goes nowhere.
    """
    for name in ("stdin", "stdout", "stderr"):  # in this order, so that no file of ours gets the number of one
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("r+", encoding="utf-8"))  # noqa: SIM115  # as long as the process
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ENCODING_ERRORS)
    _lines.said_at = time.monotonic()


class _Lines:
    """Says once a minute how far a loop is, where stderr is no terminal: a log shows that something goes on."""

    def __init__(self) -> None:
        self.said_at = time.monotonic()

    @contextmanager
    def progress(self, what: str, total: int) -> Iterator[Callable[[int], object]]:
        """Follow a loop; see :class:`unhot.runtime.Progress`."""
        so_far = 0

        def advance(done: int) -> None:
            nonlocal so_far
            so_far += done
            if time.monotonic() - self.said_at >= SECONDS:
                self.said_at = time.monotonic()
                note(f"{line(what)}: {so_far:,} of {total:,}")

        yield advance


_lines = _Lines()


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], object]]:
    """Show a bar on stderr while the block runs, or a line a minute where that is no terminal.

    See :class:`unhot.runtime.Progress`.
    """
    if not sys.stderr.isatty():
        with _lines.progress(what, total) as advance:
            yield advance
        return
    from rich.progress import MofNCompleteColumn

    with _bar(MofNCompleteColumn()) as bar:
        task = bar.add_task(line(what), total=total)
        yield lambda done: bar.advance(task, done)


class Board:
    """Shows on stderr how much of a known amount of work is done, and what is going on, where that is a terminal.

    Args:
        total: Estimated seconds of all work.
    """

    def __init__(self, total: float) -> None:
        from rich.progress import TaskProgressColumn

        self._bar = _bar(TaskProgressColumn())
        self._all = self._bar.add_task("grid", total=total)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        """Show it."""
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Take it away."""
        self._bar.stop()

    def begin(self, key: str, title: str) -> None:
        """Show that a task is running."""
        self._tasks[key] = self._bar.add_task(line(title), total=None)

    def end(self, key: str, seconds: float) -> None:
        """Count a task as done."""
        if key in self._tasks:
            self._bar.remove_task(self._tasks.pop(key))
        self._bar.advance(self._all, seconds)

    @contextmanager
    def progress(self, what: str, total: int) -> Iterator[Callable[[int], object]]:
        """Show a loop of the running task; see :class:`unhot.runtime.Progress`."""
        if not sys.stderr.isatty():
            with _lines.progress(what, total) as advance:
                yield advance
            return
        task = self._bar.add_task(f"  {line(what)}", total=total)
        try:
            yield lambda done: self._bar.advance(task, done)
        finally:
            self._bar.remove_task(task)


@contextmanager
def quieted() -> Iterator[None]:
    """Let what is written to stderr go nowhere while the block runs, but for what :func:`complain` prints."""
    _heard.append(sys.stderr)
    try:
        with Path(os.devnull).open("w", encoding="utf-8") as nowhere, redirect_stderr(nowhere):
            yield
    finally:
        _heard.pop()


_heard: list[TextIO] = []  # stderr as it was before quieted()


def complain(text: str) -> None:
    """Print to stderr why the exit code is not 0; ``--quiet`` does not keep it back."""
    with redirect_stderr(_heard[-1] if _heard else sys.stderr):
        note(text)


def note(text: str) -> None:
    """Print what is not a result to stderr; an error in writing it (a full disk, a reader that left) is ignored."""
    with suppress(OSError):
        sys.stderr.write(terminal(text) + "\n")


def say(text: str) -> None:
    """Print a line of the result, or JSON, which stays the same value."""
    sys.stdout.write(terminal(text) + "\n")


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], text: int = 1) -> None:
    """Print a table whose first ``text`` columns are text, and the others numbers."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(title=Text(line(title)) if title else None, title_justify="left", title_style="bold")
    for i, name in enumerate(columns):
        grid.add_column(Text(line(name)), justify="left" if i < text else "right", no_wrap=i == 0, overflow="fold")
    for row in rows:
        grid.add_row(*(Text(line(cell)) for cell in row))
    width = None if sys.stdout.isatty() else 150
    Console(width=width).print(grid)


def _bar(amount: ProgressColumn) -> Progress:
    """Return a progress bar with a description, which is silent where stderr is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}", markup=False), BarColumn(), amount, TimeRemainingColumn()
    return Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
