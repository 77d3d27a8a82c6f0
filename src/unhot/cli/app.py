"""The commands put together, and what their errors look like."""

from __future__ import annotations

import sys
import traceback
import warnings
from importlib.metadata import version

import typer

from unhot.cli.audit import audit, compare
from unhot.cli.bench import bench
from unhot.cli.catalogue import env, list_, show
from unhot.cli.demo import demo
from unhot.cli.forget import forget
from unhot.cli.guard import guard
from unhot.cli.report import report
from unhot.cli.train import train
from unhot.errors import InputError, UnhotError

app = typer.Typer(
    name="unhot",
    help="Make a trained image classifier forget classes from a handful of their images, and see what was forgotten.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo")(demo)
app.command("train")(train)
app.command("forget")(forget)
app.command("guard")(guard)
app.command("audit")(audit)
app.command("compare")(compare)
app.command("bench")(bench)
app.command("report")(report)
app.command("list")(list_)
app.command("show")(show)
app.command("env")(env)


@app.callback(invoke_without_command=True)
def options(
    show_version: bool = typer.Option(False, "--version", help="Show the version and stop.", is_eager=True),
    show_traceback: bool = typer.Option(False, "--traceback", help="Show where an error comes from."),
) -> None:
    """Take the options that come before a command."""
    if show_version:
        typer.echo(version("unhot"))
        raise typer.Exit


def run(argv: list[str]) -> int:
    """Run a command and return its exit code; errors that unhot raises on purpose become one message."""
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _one_line  # type: ignore[assignment]
            app(argv)
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else int(bool(done.code))
    except (UnhotError, OSError) as error:
        if "--traceback" in argv:
            traceback.print_exc()
        sys.stderr.write(f"Error: {error}\n")
        return 2 if isinstance(error, InputError) else 1
    return 0


def _one_line(message: Warning | str, *_: object) -> None:
    sys.stderr.write(f"Note: {message}\n")
