"""What a user says of a model that another library wrote."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from unhot.data.preprocessing import Preprocessing
from unhot.errors import InputError, ModelError, shortened
from unhot.reading import parse_json, read_text
from unhot.records.model import ClassLabel


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a user says of a model; None where nothing is said.

    Attributes:
        preprocessing: Preprocessing that overrides all other.
        class_names: One name for each output.
        head: Dotted name of the final linear layer, if it cannot be found.
        output: The key or position of the logits in what the net returns, if it is not a tensor.
        trust_pickle: Whether a file of weights may run code while it is loaded.
    """

    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    class_names: tuple[str, ...] | None = None
    head: str | None = None
    output: str | None = None
    trust_pickle: bool = False

    def labels(self, otherwise: tuple[str, ...], where: str) -> tuple[ClassLabel, ...]:
        """Return the classes of a model.

        Args:
            otherwise: One name for each output, if the user names none.
            where: The model in messages.

        Raises:
            ModelError: The user gives another number of names than it has outputs.
        """
        names = otherwise if self.class_names is None else self.class_names
        if len(names) != len(otherwise):
            raise ModelError(
                f"{where} has {len(otherwise)} outputs, and {len(names)} class names were given "
                f"({shortened(names, 5)}). Give one name for each output, in order."
            )
        return tuple(ClassLabel(index=i, name=name) for i, name in enumerate(names))


def read_class_names(path: Path) -> tuple[str, ...]:
    """Read the names of classes: a JSON list, a JSON object of index and name or of name and index, or lines of text.

    Raises:
        InputError: The file has another form, or leaves an output without a name.
    """
    text = read_text(path)
    if text.lstrip()[:1] not in ("[", "{"):
        return _checked(text.splitlines(), path)
    content = parse_json(text, str(path))
    for key in ("id2label", "label2id", "label_names"):  # a config.json
        if isinstance(content, dict) and isinstance(content.get(key), dict | list):
            content = content[key]
    if isinstance(content, list):
        return _checked(content, path)
    if all(isinstance(v, int) for v in content.values()):
        content = {str(v): k for k, v in content.items()}
    if set(content) != {str(i) for i in range(len(content))}:
        raise InputError(
            f"{path} does not name every output once: its indices are {shortened(content, 5)}. Give a name for each of "
            f"0 to {len(content) - 1}."
        )
    return _checked([content[str(i)] for i in range(len(content))], path)


def _checked(names: Sequence[object], path: Path) -> tuple[str, ...]:
    """Return names of one kind without the space around them."""
    while names and isinstance(names[-1], str) and not names[-1].strip():
        names = names[:-1]
    for i, name in enumerate(names):
        if not isinstance(name, str) or not name.strip():
            raise InputError(f"{path}: the name of output {i} is {name!r}. Give a text, one name for each output.")
    if not names:
        raise InputError(f"{path} names no classes. Give one name for each output, a line each or as a JSON list.")
    return tuple(str(name).strip() for name in names)
