r"""POUR: remove the direction of the class from the features.

Source: Le, Peng, Liu, Noble: POUR: A provably optimal method for unlearning representations via neural collapse, CVPR
2026 (arXiv 2511.19339). Only its abstract and summaries were available to us: settings are ours.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from unhot.data.images import at_once
from unhot.errors import ModelError, OptionError
from unhot.methods.base import Batch, Data, Method, Outcome, Use
from unhot.methods.parts.batches import forget_stream
from unhot.methods.parts.departures import Departures
from unhot.methods.parts.stopping import Stop
from unhot.models.classifier import Classifier
from unhot.models.cut import Cut
from unhot.models.head import is_plain
from unhot.models.head_edits.projection import Deploy, ProjectionEdit, project_out, span
from unhot.runtime import Runtime


class PourP(Method):
    r"""Project the features onto the complement of the head's rows of the class, in closed form.

    .. math::
        h \leftarrow (I - U^\top U)\, h, \quad U \text{ an orthonormal basis of the rows } w_f;
        \text{ for one class } I - w_f w_f^\top / \lVert w_f \rVert^2

    No image is read. The logit of the class becomes its bias. A layer before the head projects the features that the
    head reads and that are published; a bundle of such a model loads as any other. Everything before that layer is
    unchanged, and whoever holds the weights can remove the layer. Where the features are far from neural collapse, the
    bias may win on images of other classes: then the row must be cut too.

    Attributes:
        deploy: Place of the projection: ``layer`` before the head; ``head`` in the rows of the head, which gives the
            same outputs and keeps the architecture and the features.
        cut: How the class is cut out of the output after that; see :func:`unhot.models.cut.cut_classes`.
    """

    name: ClassVar[str] = "pour-p"
    uses: ClassVar[tuple[Use, ...]] = ()

    deploy: Deploy = "layer"
    cut: Cut = "none"

    def run(self, model: Classifier, data: Data, runtime: Runtime) -> Outcome:
        """Project."""
        head = model.head_layer
        rows = head.weight[data.columns]
        if self.deploy == "layer":
            _check_direction(model, data.columns, span(rows), runtime)
        elif not is_plain(head):
            raise OptionError(
                f"deploy=head edits the weights of a plain nn.Linear, and the head {model.head!r} is a "
                f"{type(head).__name__} that computes its logits in another way. Choose deploy=layer."
            )
        model = model.edited(*ProjectionEdit.of(model, rows, self.deploy))
        return Outcome(model, "done", cut=self.cut)


@torch.no_grad()
def _check_direction(model: Classifier, columns: list[int], away: Tensor, runtime: Runtime) -> None:
    """Refuse a head whose logits of the classes depend on more of the features than lies along some rows (k, d).

    Raises:
        ModelError: They do.
    """
    head = model.head_layer
    features = torch.randn(8, head.in_features, generator=runtime.generator("features")).to(away)
    nothing, left = (head(h)[:, columns] for h in (torch.zeros_like(features), project_out(features, away)))
    moved, scale = (left - nothing).abs().max(), (head(features)[:, columns] - nothing).abs().max()
    if not moved <= torch.finfo(away.dtype).eps ** 0.5 * scale:
        raise ModelError(
            f"The head {model.head!r}, a {type(head).__name__}, reads more of the features than its weights of the "
            "class say, so that no direction is that of the class. Choose another method."
        )


class PourD(Method):
    r"""Train the net until its features of the samples are those of POUR-P.

    .. math::
        \min_\theta \frac{\sum_x \lVert h_\theta(x) - P h_o(x) \rVert^2}{\sum_x \lVert h_o(x) - P h_o(x) \rVert^2},
        \quad P = I - U^\top U

    The head is neither trained nor cut; normalisation statistics are frozen. The paper's settings were not available to
    us; ours were chosen on 16 samples of classes of Fashion-MNIST and MNIST: after the run hardly a sample is
    classified as the class, and outputs on distorted copies of the samples have changed least.

    Attributes:
        lr: Learning rate of SGD with momentum 0.9.
        steps: Maximum number of optimiser steps.
        batch_size: Samples in a step.
        stop_at: Stop when the distance, the loss above, is no more than this.
    """

    name: ClassVar[str] = "pour-d"
    uses: ClassVar[tuple[Use, ...]] = ("forget",)
    departures: ClassVar[Departures] = Departures(
        paper="The distance is a share of the length that the projection removes, so that `lr` and `stop_at` mean the "
        "same for every net.",
    )

    lr: float = Field(default=0.01, gt=0)
    steps: int = Field(default=100, ge=0)
    batch_size: int = Field(default=128, ge=1)
    stop_at: float = Field(default=0.1, ge=0)

    def run(self, model: Classifier, data: Data, runtime: Runtime) -> Outcome:
        """Distil."""
        x, y, _ = data.forget
        away = span(model.head_layer.weight[data.columns])
        with torch.no_grad():
            h = torch.cat([model.features(some) for some in x.split(at_once(x))])
            target = project_out(h, away)
            taken_out = (h - target).square().sum(1).mean().clamp_min(torch.finfo(h.dtype).tiny)
        optimizer = torch.optim.SGD(model.module.parameters(), self.lr, momentum=0.9)
        batches = forget_stream(Batch(x, y, target), self.batch_size, runtime)
        stop = Stop(self.stop_at, self.steps, measure="distance")
        for some, _, goal in batches:
            loss = (model.features(some) - goal).square().sum(1).mean() / taken_out
            if stop(loss.item()):
                break
            runtime.step(loss, optimizer)
        return Outcome(model, stop.reason, {"distance": stop.value})
