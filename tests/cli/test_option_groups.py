"""Options that several commands share, as groups."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import typer

from unhot.cli.options import spread


@dataclass(frozen=True)
class Inner:
    high: Annotated[int, typer.Option("--high")] = 2


@dataclass(frozen=True)
class Group:
    names: Annotated[list[str], typer.Option("--name")] = field(default_factory=list)
    inner: Inner = field(default_factory=Inner)
    known: str = "by the command"


def test_a_command_gets_objects_and_typer_gets_their_options() -> None:
    got: list[object] = []

    def command(low: Annotated[int, typer.Option("--low")] = 1, *, group: Group, last: bool = False) -> None:
        got.extend([low, group, last])

    app = typer.Typer()
    app.command()(spread(command))
    app(["--name", "a", "--name", "b", "--high", "3"], standalone_mode=False)
    assert got == [1, Group(["a", "b"], Inner(3)), False]
    parameters = typer.main.get_command(app).params
    assert [p.name for p in parameters][:4] == ["low", "names", "high", "last"]
    got.clear()
    app([], standalone_mode=False)
    assert got == [1, Group(), False]
