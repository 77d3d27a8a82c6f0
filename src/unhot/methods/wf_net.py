r"""WF-Net: learn a gate for every filter and every class, and multiply those of the classes to forget into the weights.

Source: Poppi, Sarto, Cornia, Baraldi, Cucchiara: Multi-class unlearning for image classification via weight filtering,
IEEE Intelligent Systems 2024 (arXiv 2304.02049). Only its abstract and summaries of it were available to us.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy

from unhot.data.samples import ImageSource, as_images
from unhot.errors import DataError, shortened
from unhot.methods.base import Data, Method, Outcome, Use
from unhot.methods.parts.batches import forget_stream, retain_stream
from unhot.methods.parts.departures import Departures
from unhot.models.classifier import Classifier
from unhot.models.head_edits.filter import FilterEdit, call, gated_weights
from unhot.models.weight_filter import WeightFilter
from unhot.runtime import Runtime, usual_settings

Row = dict[str, Tensor]
Batches = Iterator[tuple[Tensor, Tensor]]

FLOOR = 0.01  # added to a loss before its reciprocal is taken: the loss of a confident sample is 0


class WfNet(Method):
    r"""Learn gates :math:`\alpha_l[c] \in [0, 1]` on the filters of every layer, then multiply them into the weights.

    .. math::
        \min_{\alpha[c]} \; \frac{1}{|D_r|} \sum_{D_r} \ell(f_{\alpha[c]}(x), y)
        + \frac{\lambda_1}{|D_f|} \sum_{D_f} \frac{1}{\ell(f_{\alpha[c]}(x), y)}
        + \lambda_2 \operatorname{mean}(1 - \alpha[c]), \qquad \hat w_l = \alpha_l[c] \odot w_l

    As in the paper one row of gates serves one class c, and all rows can be learned at once, to be selected at run time
    (:class:`unhot.models.weight_filter.WeightFilter`). Rows share no parameters, so the method learns only the row that
    it multiplies into the weights: one for all classes to forget, if there are several.

    The paper's learning rate, lambdas and number of steps were not available to us; ours were chosen on training images
    of Fashion-MNIST.

    Attributes:
        steps: Number of steps of Adam for a row.
        lr: Learning rate of Adam.
        batch_size: Images in a step: half of them of the class, half of the others.
        forget_weight: Weight lambda_1 of the reciprocal loss on the class.
        sparsity: Weight lambda_2 of the penalty on closed gates.
    """

    name: ClassVar[str] = "wf-net"
    uses: ClassVar[tuple[Use, ...]] = ("forget", "retain")
    departures: ClassVar[Departures] = Departures(
        paper="Gates are clipped to 0..1 after each step, so that they can be exactly one. 0.01 is added to a loss "
        "before its reciprocal is taken, since the loss of a sample on which the model is confident is 0. "
        "Normalisation statistics are frozen, since normalising by those of the batch undoes the gates before it. A "
        "step serves one row, where the paper pairs each image with several random rows.",
    )

    steps: int = Field(default=200, ge=1)
    lr: float = Field(default=0.05, gt=0)
    batch_size: int = Field(default=128, ge=2)
    forget_weight: float = Field(default=0.1, gt=0)
    sparsity: float = Field(default=0.1, ge=0)

    def run(self, model: Classifier, data: Data, runtime: Runtime) -> Outcome:
        """Learn the gates, and multiply them into the weights."""
        model.module.requires_grad_(False)
        half, retained = self.batch_size // 2, data.retain
        forget = forget_stream(data.forget, half, runtime)
        retain = retain_stream(retained, model, half, runtime)
        row = self._learn_row(model, ((x, y) for x, y, _ in forget), retain, runtime)
        model = model.edited(*FilterEdit.of(model, data.labels, row))
        return Outcome(model, "all steps done", {"mean_gate": _mean(row).item()})

    @usual_settings()
    def learn(self, model: Classifier, images: ImageSource, runtime: Runtime | None = None) -> WeightFilter:
        """Learn the gates of all classes once, to be selected at run time.

        Args:
            model: The classifier; it is not changed.
            images: Images of all its classes.
            runtime: Device, seed and progress.

        Raises:
            DataError: There are no images of a class.
        """
        runtime = runtime or Runtime()
        frozen, half = model.trainable(runtime.device), self.batch_size // 2
        frozen.module.eval().requires_grad_(False)
        known = frozen.align(as_images(images))
        present = sorted(set(known.y.tolist()))
        missing = [c.name for i, c in enumerate(model.classes) if i not in present and c not in model.forgotten]
        if missing or len(present) < 2:
            absent = shortened(missing) or "a second class"
            raise DataError(f"{known.origin}: there are no images of {absent}. Give some of every class.")
        gates = WeightFilter.of(frozen)
        for column in present:
            mine, others = (known.where((known.y == column) == own) for own in (True, False))
            forget = retain_stream(mine, frozen, half, runtime, "f", column)
            retain = retain_stream(others, frozen, half, runtime, column)
            for name, row in self._learn_row(frozen, forget, retain, runtime).items():
                gates.gates[name][column] = row
        return WeightFilter(model, {n: g.to(model.device) for n, g in gates.gates.items()})

    def _learn_row(self, model: Classifier, forget: Batches, retain: Batches, runtime: Runtime) -> Row:
        """Learn gates with which images to forget are misclassified, and the others are not."""
        row = {n: w.new_ones(len(w)).requires_grad_() for n, w in gated_weights(model.module).items()}
        optimizer = torch.optim.Adam(row.values(), self.lr)
        for _ in range(self.steps):
            runtime.step(self.loss(model, row, next(forget), next(retain)), optimizer)
            with torch.no_grad():
                for gate in row.values():
                    gate.clamp_(0, 1)
        return {name: gate.detach() for name, gate in row.items()}

    def loss(self, model: Classifier, row: Row, forget: tuple[Tensor, Tensor], retain: tuple[Tensor, Tensor]) -> Tensor:
        """Return the loss of one row of gates on images of its class and of others, each (inputs, columns)."""
        x, y = (torch.cat(parts) for parts in zip(forget, retain, strict=True))
        each = cross_entropy(call(model.module, row, x), y, reduction="none")
        mistaken, kept = each[: len(forget[1])], each[len(forget[1]) :]
        return kept.mean() + self.forget_weight * (1 / (mistaken + FLOOR)).mean() + self.sparsity * (1 - _mean(row))


def _mean(row: Row) -> Tensor:
    return torch.cat(list(row.values())).mean()
