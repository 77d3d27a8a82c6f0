"""The reference of the methods: what each does, reads and can be set to, made of its docstrings and fields."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from typing import Any

from docstrings import fields, markdown, prose

from unhot import methods
from unhot.methods.base import Method


def page() -> str:
    """Return what `make docs` adds to the page."""
    known = {name: methods.catalogue.known(name) for name in methods.catalogue}
    text = ["| method | what it is |", "| --- | --- |"]
    text += [f"| [{name}](#{_place(name)}) | {entry.summary} |" for name, entry in known.items()]
    text += [f"\n{_method(name, methods.get(name))}" for name in known]
    return "\n".join(text) + "\n"


def _place(name: str) -> str:
    return name.replace("+", "-plus")


def _method(name: str, method: type[Method]) -> str:
    parts = [f"## {name} {{#{_place(name)}}}", markdown(inspect.getdoc(inspect.getmodule(method)) or "")]
    given = f"; if given: {', '.join(method.may_use)}" if method.may_use else ""
    parts += [f"**Reads:** {', '.join(method.uses) or 'nothing but the class'}{given}.", prose(method)]
    if any(method.departures):
        parts.append(str(method.departures))
    rows = list(_settings(method))
    if rows:
        parts.append("\n".join(["| setting | default | allowed | meaning |", "| --- | --- | --- | --- |", *rows]))
    parts += [
        f"`-o preset={preset}`: {', '.join(f'{k} {v}' for k, v in values.items())}."
        for preset, values in method.presets.items()
    ]
    return "\n\n".join(parts) + "\n"


def _settings(method: type[Method]) -> Iterator[str]:
    said = fields(method)
    for name, field in method.model_json_schema().get("properties", {}).items():
        meaning = said.get(name, "").replace("|", "\\|")
        yield f"| `{name}` | `{json.dumps(field['default'])}` | {_allowed(field)} | {meaning} |"


def _allowed(field: dict[str, Any]) -> str:
    """Return the values that a setting can have."""
    if "anyOf" in field:
        return " or ".join(filter(None, map(_allowed, field["anyOf"])))
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    signs = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    bounds = " and ".join(f"{sign} {field[k]:g}" for k, sign in signs.items() if k in field)
    return f"{field.get('type', 'any value')} {bounds}".strip()
