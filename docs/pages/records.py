"""The pages of the records: the JSON schema of every file that unhot writes, and its fields in tables."""

from __future__ import annotations

import inspect
import json
from typing import Any

from docstrings import fields, prose
from pydantic import BaseModel

from unhot.records import (
    advice,
    audit,
    bench,
    deletion,
    diagnosis,
    export,
    forget,
    graph,
    inversion,
    ledger,
    model,
    patch,
    request,
    results,
    statistics,
    train,
)
from unhot.records.base import Record

# name of the schema -> where such a record is found, and what it is
RECORDS: dict[str, tuple[str, type[Record]]] = {
    "bundle": ("`bundle.json` of a model", model.BundleInfo),
    "graph": ("`graph.json` of a model", graph.Graph),
    "train": ("`record.json` beside a model that `unhot train` made", train.TrainRecord),
    "forget": ("`record.json` beside a model that `unhot forget` made", forget.ForgetRecord),
    "ledger-line": ("each line of `requests.jsonl` beside a model", ledger.Line),
    "audit": ("`audit.json` in the folder of an audit", audit.AuditRecord),
    "guard": ("the header of a guard file, in its safetensors metadata", statistics.StatisticsInfo),
    "cache": ("the header of a file of `--cache`, in its safetensors metadata", inversion.InversionInfo),
    "deletion": ("`record.json` of a deletion record", deletion.DeletionRecord),
    "patch": ("`patch.json` of `unhot diff`", patch.PatchRecord),
    "request": ("`request.json` in a folder of `unhot request` or `unhot replay`", request.Begun),
    "cell": ("`cells/DIGEST/record.json` of a benchmark", bench.CellRecord),
    "failure": ("`failure.json` of a benchmark", bench.FailureRecord),
    "timing": ("`timing.json` of a benchmark", bench.TimingRecord),
    "results": ("`results.json` of a benchmark", results.Results),
    "diagnosis": ("what `unhot doctor --json` prints", diagnosis.Diagnosis),
    "advice": ("what `unhot advise --json` prints", advice.Advice),
    "export": ("what `unhot export --json` prints", export.ExportRecord),
}


def page() -> str:
    """Return what `make docs` adds to the page: a section for each kind of record, and one for each object in it."""
    text, said = list[str](), set[str]()
    for name, (where, record) in RECORDS.items():
        schema = described(record)
        text.append(f"## {record.__name__}\n\nThis is {where}. [JSON schema](schemas/{name}.json)\n")
        text.append(_section(schema))
        for part, content in schema.get("$defs", {}).items():
            if part not in said and "properties" in content:
                text.append(f"### {part}\n\n{_section(content)}")
                said.add(part)
    return "\n".join(text)


def schemas() -> dict[str, str]:
    """Return the JSON schema of every kind of record, by name."""
    return {name: json.dumps(described(record), indent=2) + "\n" for name, (_, record) in RECORDS.items()}


def described(record: type[Record]) -> dict[str, Any]:
    """Return the JSON schema of a record, with the descriptions of its fields from the docstrings."""
    schema = record.model_json_schema()
    for part in _parts(record):
        found = schema if part is record else schema.get("$defs", {}).get(part.__name__)
        if found is None:
            continue
        found["description"], said = _said(part)
        for name, field in found.get("properties", {}).items():
            field.pop("title", None)
            if name in said:
                field["description"] = said[name]
    return schema


def _parts(record: type[BaseModel]) -> list[type[BaseModel]]:
    """Return all models that a record can hold: those of the modules of its fields."""
    found: dict[type[BaseModel], None] = {record: None}
    for module in (audit, bench, deletion, diagnosis, export, forget, graph, ledger, model, patch, results, train):
        models = (m for _, m in inspect.getmembers(module, inspect.isclass) if issubclass(m, BaseModel))
        found |= dict.fromkeys(models)
    return list(found)


def _said(part: type[BaseModel]) -> tuple[str, dict[str, str]]:
    """Return what a class says of itself, and of each of its fields, those of its bases included."""
    owners = [c for c in part.__mro__ if issubclass(c, BaseModel) and c is not BaseModel]
    said = {name: text for owner in reversed(owners) for name, text in fields(owner).items()}
    return " ".join(prose(part).split()), said


def _section(schema: dict[str, Any]) -> str:
    required = schema.get("required", [])
    rows = []
    for name, field in schema["properties"].items():
        default = (
            "required" if name in required else f"`{json.dumps(field['default'])}`" if "default" in field else "empty"
        )
        said = field.get("description", "").replace("|", "\\|")
        rows.append(f"| `{name}` | {_kind(field)} | {default} | {said} |")
    table = "\n".join(["| field | type | default | meaning |", "| --- | --- | --- | --- |", *rows])
    return f"{schema.get('description', '')}\n\n{table}\n"


def _kind(field: dict[str, Any]) -> str:
    """Return the type of a field in words; that of an object links to its section."""
    if "$ref" in field:
        return _linked(field["$ref"].rsplit("/", 1)[1])
    if "const" in field or "enum" in field:
        return " or ".join(f"`{json.dumps(v)}`" for v in field.get("enum", [field.get("const")]))
    for key in ("anyOf", "oneOf"):
        if key in field:
            return " or ".join(dict.fromkeys(_kind(option) for option in field[key]))
    if field.get("type") == "array":
        items = field.get("prefixItems") or [field.get("items", {})]
        return "array of " + ", ".join(dict.fromkeys(_kind(item) for item in items))
    if isinstance(field.get("additionalProperties"), dict):
        return f"object of {_kind(field['additionalProperties'])}"
    return field.get("type", "any value")


def _linked(name: str) -> str:
    return "any value" if name == "JsonValue" else f"[{name}](#{name.lower()})"
