"""``unhot list``, ``unhot show`` and ``unhot env``."""

from __future__ import annotations

import inspect
import json as jsonlib
import textwrap
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unhot.cli.options import Json
from unhot.errors import InputError, UnknownNameError
from unhot.registry import Entry

if TYPE_CHECKING:
    from unhot.registry import Registry


class Kind(StrEnum):
    """What can be listed."""

    METHODS = "methods"
    METRICS = "metrics"
    ATTACKS = "attacks"
    MODELS = "models"
    DATASETS = "datasets"


MEASURES = "measures"  # of metrics and attacks; what the pages of an audit show, and --require bounds


def _catalogue(kind: Kind) -> Registry[Any, Any]:
    """Return a catalogue, which is imported now: the measures that two of them declare take time to check."""
    from unhot import data, methods, models
    from unhot.evaluation import attacks, metrics

    packages = {
        Kind.METHODS: methods,
        Kind.METRICS: metrics,
        Kind.ATTACKS: attacks,
        Kind.MODELS: models,
        Kind.DATASETS: data,
    }
    found: Registry[Any, Any] = packages[kind].catalogue
    return found


# further columns of a list; what an installed package names without declaring it has none of these
MORE: dict[Kind, dict[str, Callable[[Any], str]]] = {
    Kind.METHODS: {"reads": lambda e: e.reads, "published": lambda e: e.origin},
    Kind.METRICS: {"how to read it": lambda e: e.measure.reading if hasattr(e, "measure") else ""},
    Kind.ATTACKS: {"measures": lambda e: ", ".join(m.name for m in getattr(e, "measures", ()))},
}


def list_(
    what: Annotated[str, typer.Argument(metavar="|".join([*Kind, MEASURES]), help="What to list.")], json: Json = False
) -> None:
    """List methods, metrics, attacks, measures, models or data sets."""
    from unhot.cli.output import say, table

    if what == MEASURES:
        _list_measures(json)
        return
    if what not in list(Kind):
        raise UnknownNameError("list", what, [*Kind, MEASURES])
    kind = Kind(what)
    known = {name: _entry(kind, name) for name in _catalogue(kind)}
    if json:
        say(jsonlib.dumps({name: entry.summary for name, entry in known.items()}, indent=2))
    else:
        more = MORE.get(kind, {})
        rows = [(name, entry.summary, *(cell(entry) for cell in more.values())) for name, entry in known.items()]
        table("", [kind.value, "what it is", *more], rows, text=2 + len(more))


def _list_measures(json: bool) -> None:
    from unhot.cli.output import say, table
    from unhot.evaluation.catalogue import measures

    known = measures()
    if json:
        say(jsonlib.dumps({name: m.title for name, m in known.items()}, indent=2))
    else:
        rows = [(name, m.title, m.reading) for name, m in known.items()]
        table("", [MEASURES, "what it is", "how to read it"], rows, text=3)


def show(
    method: Annotated[str, typer.Argument(metavar="METHOD", help="See: unhot list methods.")], json: Json = False
) -> None:
    """Show a method: formula, source, data and hyperparameters."""
    from unhot import methods
    from unhot.cli.output import say, table
    from unhot.cli.plain_text import plain

    found = methods.get(method)
    module = inspect.getmodule(found)
    fields = found.model_json_schema().get("properties", {})
    if json:
        about = {"name": method, "uses": found.uses, "may_use": found.may_use, "presets": found.presets}
        about |= {"departures": found.departures._asdict(), "hyperparameters": fields}
        say(jsonlib.dumps(about, indent=2))
        return
    say(f"{method}: {plain(inspect.getdoc(module) or '')}\n")
    given = f"; if given: {', '.join(found.may_use)}" if found.may_use else ""
    say(f"Reads: {', '.join(found.uses) or 'nothing but the class'}{given}\n")
    say(plain(inspect.getdoc(found) or ""))
    say("\n" + textwrap.fill(str(found.departures), 120) if any(found.departures) else "")
    rows = [
        (name, _kind(f), f["default"] if isinstance(f["default"], str) else jsonlib.dumps(f["default"]), _range(f))
        for name, f in fields.items()
    ]
    table("", ["hyperparameter (-o)", "type", "default", "allowed"], rows)
    for name, values in found.presets.items():
        say(f"-o preset={name}: {', '.join(f'{k} {v}' for k, v in values.items())}")


def _entry(kind: Kind, name: str) -> Entry:
    """Return what is known of an entry; what an installed package measures is known only by importing it."""
    catalogue = _catalogue(kind)
    if kind not in (Kind.METRICS, Kind.ATTACKS):
        return catalogue.known(name)
    try:
        entry: Entry = catalogue.entry(name)
    except InputError as error:
        return Entry("", str(error))
    return entry


def env(json: Json = False) -> None:
    """Show versions and devices, to paste into a bug report."""
    from unhot.cli.output import say, table
    from unhot.runtime import Runtime

    found = Runtime().environment()
    if json:
        say(found.model_dump_json(indent=2))
    else:
        table("", ["", ""], [(k, str(v)) for k, v in found.model_dump().items()])


def _kind(field: dict[str, Any]) -> str:
    """Return the type of a field, as JSON has it; of one of several types all of them."""
    if "anyOf" in field:
        return " or ".join(map(_kind, field["anyOf"]))
    return "text" if "enum" in field else str(field.get("type", "value"))


def _range(field: dict[str, Any]) -> str:
    if "anyOf" in field:
        return " or ".join(filter(None, map(_range, field["anyOf"])))
    if "enum" in field:
        return ", ".join(field["enum"])
    signs = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    return " and ".join(f"{sign} {field[k]:g}" for k, sign in signs.items() if k in field)
