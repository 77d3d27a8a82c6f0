"""WeightFilter: gates on the weights of a classifier, a row for each class, that hide a class when it is selected.

Source: Poppi, Sarto, Cornia, Baraldi, Cucchiara: Multi-class unlearning for image classification via weight filtering,
IEEE Intelligent Systems 2024 (arXiv 2304.02049).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from unhot.errors import ModelError, shortened
from unhot.files import write_atomic
from unhot.models.classifier import Classifier
from unhot.models.head_edits.filter import FilterEdit, gated_weights
from unhot.models.weights import read_tensors
from unhot.records.model import ClassLabel

FORMAT = "unhot weight filter 1"


@dataclass(frozen=True)
class WeightFilter:
    r"""Gates on the weights of a classifier: with class c selected, :math:`\hat w_l = \alpha_l[c] \odot w_l`.

    A gate multiplies one output filter of a convolution, or one output row of a linear layer or of an attention's
    projections; biases and normalisation are not changed. Gates of one leave the classifier unchanged. A filter only
    hides: whoever has the weights can leave it out. :meth:`bake` makes it permanent.

    Attributes:
        model: The classifier; never changed.
        gates: Gates (K, rows), 0 to 1, of each gated weight, by dotted name: a row for each output column.
    """

    model: Classifier
    gates: dict[str, Tensor]

    @classmethod
    def of(cls, model: Classifier) -> WeightFilter:
        """Make a filter whose gates are all one."""
        weights = gated_weights(model.module)
        return cls(model, {n: w.new_ones(len(model.classes), len(w)) for n, w in weights.items()})

    def row(self, *classes: int | str) -> dict[str, Tensor]:
        """Return the gates (rows,) of each weight for some classes; of several, their product.

        Rows are learned one by one: where the row of one class sends its images to another class, and the row of that
        to the first, their product may hide neither. ``wf-net`` learns one row for a request of several classes.

        Raises:
            UnknownNameError: The model has no such class.
        """
        columns = self.model.columns(self._labels(classes))
        return {name: gates[columns].prod(0) for name, gates in self.gates.items()}

    def select(self, *classes: int | str) -> Classifier:
        """Return the classifier with these classes hidden at run time; it shares its weights with the original.

        Raises:
            UnknownNameError: The model has no such class.
        """
        row = self.row(*classes)
        return self.model.edited(*FilterEdit.of(self.model, self._labels(classes), row, selected=True))

    def bake(self, *classes: int | str) -> Classifier:
        """Return a copy of the classifier with the gates multiplied into its weights: it needs no filter.

        Raises:
            UnknownNameError: The model has no such class.
        """
        copy, labels = self.model.copy(), self._labels(classes)
        return copy.edited(*FilterEdit.of(copy, labels, self.row(*classes))).mark_forgotten(labels)

    def _labels(self, classes: tuple[int | str, ...]) -> list[ClassLabel]:
        return [self.model.label(c) for c in classes]

    def save(self, path: str | Path) -> None:
        """Write the gates, without the weights, to a safetensors file."""
        names = json.dumps([c.name for c in self.model.classes])
        described = {"format": FORMAT, "model_sha256": self.model.sha256(), "classes": names}
        write_atomic(Path(path), save({n: g.detach().cpu().contiguous() for n, g in self.gates.items()}, described))

    @classmethod
    def load(cls, path: str | Path, model: Classifier) -> WeightFilter:
        """Read the gates of a model.

        Raises:
            ModelError: The file is missing or damaged, or was made for another model.
        """
        if not Path(path).is_file():
            raise ModelError(f"{path} is not a readable file of a weight filter: there is no regular file.")
        try:
            described, found = read_tensors(Path(path))
        except Exception as error:  # of an unknown number type it raises a KeyError
            raise ModelError(f"{path} is not a readable file of a weight filter: {error}.") from error
        if described.get("format") != FORMAT:
            raise ModelError(f"{path} is not a weight filter that this unhot can read.")
        blank = cls.of(model).gates
        if described.get("model_sha256") != model.sha256() or {n: g.shape for n, g in found.items()} != {
            n: g.shape for n, g in blank.items()
        }:
            raise ModelError(f"{path} is a weight filter of another model. Learn one for this model.")
        if odd := [n for n, g in found.items() if not (g.is_floating_point() and bool(((g >= 0) & (g <= 1)).all()))]:
            raise ModelError(f"{path} is damaged: gates of {shortened(odd, 3)} are not numbers from 0 to 1.")
        return cls(model, {name: found[name].to(gates) for name, gates in blank.items()})
