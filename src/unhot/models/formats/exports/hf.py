"""Folders for ``from_pretrained`` of transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from pydantic import JsonValue
from torch import Tensor

from unhot.errors import ModelError
from unhot.models.adapted import LOGITS, part_of
from unhot.models.classifier import Classifier
from unhot.models.formats import huggingface
from unhot.models.formats.exports.target import Run, give_usual_mode
from unhot.models.formats.exports.weights_alone import WeightsAlone
from unhot.models.formats.origin import original_state
from unhot.packages import needed
from unhot.records.model import ClassLabel
from unhot.runtime import torchvision_ops
from unhot.runtime.silence import silence


class HuggingFace(WeightsAlone):
    """A folder like the one that the model came from, with its ``config.json`` and ``preprocessor_config.json``.

    Without the rows of excised classes, ``id2label`` and ``label2id`` are without them too. A head without a bias stays
    one, since the class of the net decides on that.
    """

    def __init__(self, model: Classifier, keep_keys: bool) -> None:
        self.origin = model.origin
        if self.origin is None or self.origin.kind != "hf":
            raise ModelError(
                "This model did not come from a folder of transformers, so it cannot be written as one. Export it as "
                "state_dict, onnx, torchscript or pt2."
            )
        super().__init__(model, keep_keys=True)
        self.config = relabelled(cast(dict[str, JsonValue], self.origin.files[huggingface.CONFIG]), model.classes)

    def write(self, path: Path) -> None:
        """Write the folder."""
        state = original_state(self.model)
        net: Any = huggingface.build(self.config)
        net.to(next(t.dtype for t in state.values() if t.is_floating_point()))
        net.load_state_dict(state)
        with silence():
            net.save_pretrained(path)  # by the names that its library gives weights on disk
        files = {} if self.origin is None else self.origin.files
        for name, content in (files | {huggingface.CONFIG: self.config}).items():
            (path / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        give_usual_mode(path)

    def load(self, path: Path) -> Run:
        """Load the folder by ``AutoModelForImageClassification``, offline."""
        torchvision_ops.prepare()
        with silence():
            (transformers,) = needed("hf", "transformers")
            net = transformers.AutoModelForImageClassification.from_pretrained(path, local_files_only=True).eval()

        def run(x: Tensor) -> Tensor:
            logits: Tensor = part_of(net(pixel_values=x), LOGITS)
            return logits

        return run


def relabelled(config: dict[str, JsonValue], classes: tuple[ClassLabel, ...]) -> dict[str, JsonValue]:
    """Return the content of a ``config.json`` for the classes that a model has now.

    Args:
        config: The content as it came; it stays as it is if it names these classes.
        classes: The class of each output.
    """
    before = config.get("id2label")
    known = before if isinstance(before, dict) else {}
    named = {str(i): _name(c, known.get(str(c.index))) for i, c in enumerate(classes)}
    if named == {str(k): v for k, v in known.items()} or (not known and _are_positions(classes)):
        return config
    changed: dict[str, JsonValue] = {"id2label": dict(named), "label2id": {n: int(i) for i, n in named.items()}}
    if "num_labels" in config:
        changed["num_labels"] = len(classes)
    return config | changed


def _name(label: ClassLabel, before: JsonValue) -> str:
    """Return the name of a class: its own, or that of before if it is but its number."""
    return str(before) if before is not None and label.name == str(label.index) else label.name


def _are_positions(classes: tuple[ClassLabel, ...]) -> bool:
    return [c.name for c in classes] == [str(i) for i in range(len(classes))]
