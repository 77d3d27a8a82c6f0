"""The page of the command line, made of the commands as Typer knows them."""

from __future__ import annotations

import re

import typer
from typer.cli import get_docs_for_click

from unhot.cli.app import app


def page() -> str:
    """Return what `make docs` adds to the page: each command, its arguments, and its options with their defaults."""
    command = typer.main.get_command(app)
    context = command.make_context("unhot", [], resilient_parsing=True)
    text = get_docs_for_click(obj=command, ctx=context, name="unhot")
    _, *sections = re.split(r"^(?=## )", text, flags=re.MULTILINE)
    known = {name: command.get_command(context, name) for name in command.list_commands(context)}
    listed = "\n".join(_line(name, found.get_short_help_str(limit=1000)) for name, found in known.items())
    shown = [re.sub(r"^\*\*Commands\*\*:\n\n(\* .*\n)+", "", section, flags=re.MULTILINE) for section in sections]
    return f"| command | what it does |\n| --- | --- |\n{listed}\n\n{''.join(shown)}"


def _line(name: str, summary: str) -> str:
    return f"| [`unhot {name}`](#unhot-{name}) | {summary} |"
