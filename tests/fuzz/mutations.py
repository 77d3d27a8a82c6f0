"""Damage to files: values that do not fit, in places that seeded generators choose."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

ODD: tuple[Any, ...] = (
    None, True, 0, -1, 1, 2, 7, 2**31, 2**63, -(2**63), 0.5, -0.0, 1e308, 5e-324, "", "3", "99", "cat",
    "a/../b", "=1+1",
    "\x1b]0;x\x07[bold]", "<script>x</script>", "\u202e|`\n#", "word_" * 2_000, "$x^{$", [], [[]], [None], {}, {"a": 1},
    "test", "train", "original", "retrained",
)  # fmt: skip


def mutated(value: Any, rng: random.Random, changes: int = 1) -> Any:
    """Return a copy of a JSON value with some of its parts removed, repeated, swapped or replaced."""
    value = copy.deepcopy(value)
    for _ in range(changes):
        places = list(_places(value))
        if not places:
            return value
        # a record is mostly numbers of curves; choose by kind of place, or nothing else would be damaged
        kinds: dict[str, list[tuple[Any, Any]]] = {}
        for kind, place in places:
            kinds.setdefault(kind, []).append(place)
        holder, key = rng.choice(kinds[rng.choice(sorted(kinds))])
        _change(holder, key, rng)
    return value


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Return bytes that are cut short, have some changed, or some inserted or repeated."""
    if not content:
        return b"\x00"
    at, length = rng.randrange(len(content)), rng.choice((1, 2, 8, 100))
    how = rng.randrange(4)
    if how == 0:
        return content[:at]
    if how == 1:
        return content[:at] + rng.randbytes(length) + content[at + length :]
    if how == 2:
        return content[:at] + rng.choice((b"\x00", b"\xff\xfe", b'"', b"{", b"[" * 3_000, b"9" * 5_000)) + content[at:]
    return content[:at] + content[at : at + length] * 2 + content[at + length :]


def _places(value: Any, kind: str = "") -> Any:
    """Yield the kind of each place within a value (its path without positions in lists), and the place."""
    if isinstance(value, dict):
        for key in value:
            yield f"{kind}.{key}", (value, key)
            yield from _places(value[key], f"{kind}.{key}")
    elif isinstance(value, list):
        for i in range(len(value)):
            yield f"{kind}[]", (value, i)
            yield from _places(value[i], f"{kind}[]")


def _change(holder: Any, key: Any, rng: random.Random) -> None:
    how = rng.randrange(6)
    if how == 0:
        del holder[key]
    elif how == 1 and isinstance(holder, list):
        holder.insert(key, copy.deepcopy(holder[key]))
    elif how == 2:
        other = rng.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        holder[key], holder[other] = holder[other], holder[key]
    elif how == 3 and isinstance(holder[key], int | float):
        holder[key] = rng.choice((-holder[key], holder[key] * 1_000, holder[key] + 1))
    elif how == 4 and isinstance(holder, dict):
        holder[rng.choice(("surprise", "0", "kind"))] = holder[key]
    else:
        holder[key] = copy.deepcopy(rng.choice(ODD))


def toml(value: Any, inline: bool = False) -> str:
    """Return a value as TOML, as well as it can be: there is no null in it."""
    if isinstance(value, dict):
        pairs = [f"{json.dumps(key)} = {toml(item, inline=True)}" for key, item in value.items()]
        return "{ " + ", ".join(pairs) + " }" if inline else "\n".join(pairs)
    if isinstance(value, list):
        return "[" + ", ".join(toml(item, inline=True) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value).lower()
