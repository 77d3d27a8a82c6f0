"""The commands put together, and what their errors look like."""

from __future__ import annotations

import io
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperGroup

from unhot.cli import guard
from unhot.cli.advise import advise
from unhot.cli.allocator import keep_freed_memory
from unhot.cli.audit import audit, compare
from unhot.cli.bench import bench
from unhot.cli.catalogue import env, list_, show
from unhot.cli.deletion import certify, keys
from unhot.cli.demo import demo
from unhot.cli.doctor import doctor
from unhot.cli.export import export
from unhot.cli.failure import FAILED, described
from unhot.cli.forget import forget
from unhot.cli.log import log
from unhot.cli.options import spread
from unhot.cli.output import note, prepare_streams
from unhot.cli.patch import apply, diff, revert
from unhot.cli.reference import reference
from unhot.cli.replay import replay
from unhot.cli.report import report
from unhot.cli.requests import request
from unhot.cli.train import train
from unhot.cli.verify import verify
from unhot.errors import OptionError
from unhot.version import __version__


class _InOrder(TyperGroup):
    """Lists the commands in the order in which one needs them; a group of commands would come last."""

    def list_commands(self, ctx: Any) -> list[str]:
        names = super().list_commands(ctx)
        names.insert(names.index("forget") + 1, names.pop(names.index("guard")))
        return names


app = typer.Typer(
    name="unhot",
    cls=_InOrder,
    help="Make a trained image classifier forget classes from a handful of their images, and audit what was forgotten.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# commands that several processes share, of which number 0 writes; of any other command only number 0 runs
SHARED = ("train", "forget", "audit", "compare", "bench")
TRACEBACK = "--traceback"
MAY_BE_EMPTY = ("--note",)

app.command("demo")(spread(demo))
app.command("train")(spread(train))
app.command("doctor")(spread(doctor))
app.command("advise")(spread(advise))
app.command("forget")(spread(forget))
app.add_typer(guard.app)
app.command("export")(spread(export))
app.command("reference")(spread(reference))
app.command("audit")(spread(audit))
app.command("compare")(spread(compare))
app.command("bench")(spread(bench))
app.command("report")(spread(report))
app.command("keys")(spread(keys))
app.command("certify")(spread(certify))
app.command("verify")(spread(verify))
app.command("request")(spread(request))
app.command("diff")(spread(diff))
app.command("apply")(spread(apply))
app.command("revert")(spread(revert))
app.command("replay")(spread(replay))
app.command("log")(spread(log))
app.command("list")(spread(list_))
app.command("show")(spread(show))
app.command("env")(spread(env))


@app.callback(invoke_without_command=True)
def options(
    context: typer.Context,
    show_version: bool = typer.Option(False, "--version", help="Show the version and exit.", is_eager=True),
    show_traceback: bool = typer.Option(False, TRACEBACK, help="Show the traceback of an error."),
) -> None:
    """Take the options that come before a command."""
    if show_version:
        typer.echo(__version__)
        raise typer.Exit
    if context.invoked_subcommand not in SHARED and int(os.environ.get("RANK", "0")):  # of torchrun, accelerate launch
        raise typer.Exit


def run(argv: list[str], interrupted: Callable[[], bool]) -> int:
    """Run a command and return its exit code; every error becomes a message, never a traceback.

    Args:
        argv: The arguments.
        interrupted: Whether Ctrl-C was pressed, so that any error may be what a library made of it, and is raised.
    """
    prepare_streams()
    keep_freed_memory()
    if TRACEBACK in argv:  # wherever it stands
        argv = [TRACEBACK, *(word for word in argv if word != TRACEBACK)]
    try:
        _refuse_empty(argv)
        with warnings.catch_warnings():
            warnings.showwarning = _one_line  # type: ignore[assignment]
            code = app(argv, standalone_mode=False)
            sys.stdout.flush()
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else int(bool(done.code))
    except BrokenPipeError:
        _leave_closed_pipe()
        return FAILED
    except Exception as error:
        if interrupted():
            raise
        if TRACEBACK in argv:
            note(traceback.format_exc())
        if (code := _usage(error)) is None:
            message, code = described(error)
            note(f"Error: {message}")
    return code if isinstance(code, int) else 0


def _refuse_empty(argv: list[str]) -> None:
    """Refuse an empty argument, which as a path would be the current folder; the text of a record may be empty.

    Raises:
        OptionError: There is one, as where a variable of the shell is not set.
    """
    for before, word in zip(["", *argv], argv, strict=False):
        option = before if word == "" else word.removesuffix("=")
        if (word == "" or (word.startswith("--") and word.endswith("="))) and option not in MAY_BE_EMPTY:
            what = f"{option} is empty" if option.startswith("-") else "An argument is empty"
            raise OptionError(f"{what}. Is a variable of the shell not set?")


def _usage(error: Exception) -> int | None:
    """Print what the command-line library says of wrong usage, and return its exit code; None for any other error."""
    show, code = getattr(error, "show", None), getattr(error, "exit_code", None)
    if show is None or not isinstance(code, int):
        return None
    text = io.StringIO()
    show(file=text)
    note(text.getvalue().rstrip("\n").replace("Value error, ", ""))  # what pydantic puts before a choice that is none
    return code


def _leave_closed_pipe() -> None:
    """Let nothing more be written to a pipe whose reader is gone, at the end of the process least of all."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _one_line(message: Warning | str, *_: object) -> None:
    note(f"Note: {getattr(message, 'command_line', None) or message}")
