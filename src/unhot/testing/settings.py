"""The contract of the settings of a method or an attack."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError


def class_problems(cls: type[BaseModel]) -> Iterator[str]:
    """Yield why a class cannot be made without arguments, or is not strict."""
    try:
        cls()
    except ValidationError as error:
        missing = ", ".join(str(e["loc"][0]) for e in error.errors() if e["loc"])
        yield f"It cannot be made without arguments. Give defaults that suit real data to: {missing}."
    if cls.model_config.get("extra") != "forbid" or not cls.model_config.get("frozen"):
        yield "Its model_config must keep frozen=True and extra='forbid'."


def written_problems(settings: BaseModel, name: str) -> Iterator[str]:
    """Yield why settings do not survive JSON and repr; ``name`` is their name in messages."""
    cls = type(settings)
    if cls.model_validate_json(settings.model_dump_json()) != settings:
        yield f"Its {name} do not survive JSON."
    try:
        call = ast.parse(repr(settings), mode="eval").body
        if not isinstance(call, ast.Call):
            raise ValueError("not a call")
        again = cls(**{str(k.arg): ast.literal_eval(k.value) for k in call.keywords})
    except (SyntaxError, ValueError):
        yield f"Its repr is not the call that makes it: {settings!r}."
    else:
        if again != settings:
            yield f"Its {name} do not survive repr: {settings!r}."


def idle_problems(
    settings: BaseModel,
    kind: str,
    alternatives: Mapping[str, Sequence[object]],
    same: Callable[[str, object], bool],
) -> Iterator[str]:
    """Yield the settings that have no effect.

    Args:
        settings: The settings; other values must change the result.
        kind: Name of one setting in messages.
        alternatives: For settings whose other values cannot be guessed: values that must change the result.
        same: Whether the result is the same with another value of a setting.
    """
    for name in type(settings).model_fields:
        values = list(alternatives.get(name) or _other_values(settings, name))
        if not values:
            yield f"No other value of {name!r} is known to check with. Pass alternatives={{{name!r}: [...]}}."
        dead = [v for v in values if same(name, v)]
        if dead and (name in alternatives or _is_choice(settings, name) or len(dead) == len(values)):
            old = getattr(settings, name)
            yield f"The {kind} {name!r} does nothing: {old!r} and {dead[0]!r} give the same result."


def _is_choice(settings: BaseModel, name: str) -> bool:
    """Return whether a setting is one of a few values, each of which must matter."""
    return get_origin(type(settings).model_fields[name].annotation) is Literal


def _other_values(settings: BaseModel, name: str) -> Iterator[object]:
    """Yield other values of a setting that its type and its range allow."""
    value = getattr(settings, name)
    candidates: list[object] = []
    if _is_choice(settings, name):
        candidates = list(get_args(type(settings).model_fields[name].annotation))
    elif isinstance(value, bool):
        candidates = [not value]
    elif isinstance(value, int):
        candidates = [value + 1, max(value // 2, 0), value * 3 + 2]
    elif isinstance(value, float):
        candidates = [value / 3, value * 3, value / 100, value * 100, 0.0, 0.5, 1.0]
    for candidate in candidates:
        try:
            other = type(settings).model_validate(settings.model_dump() | {name: candidate})
        except ValidationError:
            continue
        if other != settings:
            yield candidate
