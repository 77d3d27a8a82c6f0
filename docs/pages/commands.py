"""The page of the command line, made of the commands as Typer knows them."""

from __future__ import annotations

import re

import typer
from typer.cli import get_docs_for_click

from unhot.cli.app import app

HEAD = """# Command line

Results go to stdout, everything else to stderr; every command that has results has `--json`. Exit codes: 0 done, 1
failed, 2 bad usage or input, 3 a bound of `--require` was not met or a deletion record does not hold, 130 interrupted.
`python -m unhot` is the same as `unhot`.
"""


def page() -> str:
    """Return the page: what each command does, its arguments and its options with their defaults."""
    command = typer.main.get_command(app)
    context = command.make_context("unhot", [], resilient_parsing=True)
    text = get_docs_for_click(obj=command, ctx=context, name="unhot")
    _, *sections = re.split(r"^(?=## )", text, flags=re.MULTILINE)
    known = {name: command.get_command(context, name) for name in command.list_commands(context)}
    listed = "\n".join(_line(name, found.get_short_help_str(limit=1000)) for name, found in known.items())
    shown = [re.sub(r"^\*\*Commands\*\*:\n\n(\* .*\n)+", "", section, flags=re.MULTILINE) for section in sections]
    return f"{HEAD}\n| command | what it does |\n| --- | --- |\n{listed}\n\n{''.join(shown)}"


def _line(name: str, summary: str) -> str:
    return f"| [`unhot {name}`](#unhot-{name}) | {summary} |"
