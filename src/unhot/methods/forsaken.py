r"""Forsaken: sparse masks of the weights, found on the samples alone.

Source: Ma, Liu, Liu, Liu, Ma, Ren: Learn to forget: machine unlearning via neuron masking, IEEE Transactions on
Dependable and Secure Computing 20(4), 2023 (arXiv 2003.10933). Only its abstract and summaries of it were available to
us.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field, JsonValue
from torch import Tensor

from unhot.methods.base import Data, Method, Outcome, Use
from unhot.methods.parts.batches import forget_stream, logits_of
from unhot.methods.parts.departures import Departures
from unhot.methods.parts.stand_ins import distorted
from unhot.methods.parts.stopping import Stop, probability
from unhot.models.classifier import Classifier
from unhot.runtime import Runtime

DISTORTED = 64  # samples of which distorted copies are made, for the reference


class Forsaken(Method):
    r"""Add masks to the weights that make the samples look like images which the model was not trained on.

    .. math::
        \delta = \operatorname*{argmin}_\delta \operatorname*{mean}_{D_f}
        \operatorname{KL}(p_{\theta + \delta}(x) \Vert q) + \lambda \lVert \delta \rVert_1, \quad
        \theta \leftarrow \theta + \delta, \quad \text{round after round}

    From the paper: dummy gradients, the masks, are added to the weights again and again; they are sparse, so that most
    weights keep their values; they bring the output on the samples near q, the output on images that the model does not
    know. The masks are found by proximal steps :math:`\delta \leftarrow S_{a \lambda}(\delta - a \nabla_\delta
    \operatorname{KL})` with the soft threshold S. The paper's settings were not available to us; ours were chosen on
    classes of Fashion-MNIST and MNIST: after forgetting eight samples the model had forgotten eight others of the
    class, too, and its outputs on distorted copies (:func:`unhot.data.augment.distort`) had changed little.

    Attributes:
        rounds: Maximum number of masks.
        inner: Proximal steps by which a mask is found.
        step_size: Length of a proximal step as a share of the norm of all weights, before the threshold.
        l1: Penalty of the mask, as a share of the smallest one that leaves no mask.
        reference: Choice of q: ``uniform``, equal shares of the retained classes; or ``distorted``, the original's mean
            output on distorted copies of the samples (:func:`unhot.data.augment.distort`).
        floor: Probability of the forgotten classes in q.
        stop_at: Stop when the mean probability of the forgotten classes on a batch is no higher than this.
        batch_size: Samples in a round.
    """

    name: ClassVar[str] = "forsaken"
    uses: ClassVar[tuple[Use, ...]] = ("forget",)
    departures: ClassVar[Departures] = Departures(
        paper="Classes are forgotten, not single images: q gives the forgotten classes only `floor`, since images of "
        "other classes are all that a model without them knows. Rounds end when the samples are no longer classified "
        "as the forgotten classes.",
        reconstruction="The masks are found by proximal steps, whose soft threshold sets elements to exactly 0. A "
        "step is `step_size` times as long as the weights, and the penalty is `l1` times that from which on no weight "
        "would move.",
    )

    rounds: int = Field(default=40, ge=0)
    inner: int = Field(default=5, ge=1)
    step_size: float = Field(default=0.003, gt=0, le=1)
    l1: float = Field(default=0.3, ge=0, lt=1)
    reference: Literal["uniform", "distorted"] = "uniform"
    floor: float = Field(default=0.01, gt=0, lt=1)
    stop_at: float = Field(default=0.02, ge=0, le=1)
    batch_size: int = Field(default=128, ge=1)

    def run(self, model: Classifier, data: Data, runtime: Runtime) -> Outcome:
        """Add masks until the samples are no longer classified as the class."""
        log_q, weights = self.unknown(model, data, runtime).log(), list(model.module.parameters())
        original = [w.detach().clone() for w in weights]
        stop = Stop(self.stop_at, self.rounds, reason="round cap")
        for x, _, _ in forget_stream(data.forget, self.batch_size, runtime):
            if stop(probability(logits_of(model, x), data.columns)):
                break
            self.mask(model, x, log_q, runtime)
        moved = sum(int((w != old).sum()) for w, old in zip(weights, original, strict=True))
        notes: dict[str, JsonValue] = {"probability_left": stop.value, "moved": moved / sum(w.numel() for w in weights)}
        return Outcome(model, stop.reason, notes)

    def mask(self, model: Classifier, x: Tensor, log_q: Tensor, runtime: Runtime) -> None:
        """Find a mask by proximal steps, and leave it added to the weights."""
        weights = list(model.module.parameters())
        start = [w.detach().clone() for w in weights]
        length, penalty = self.step_size * _norm(start), torch.zeros(())
        for i in range(self.inner):
            log_p = model.logits(x).log_softmax(1)
            divergence = (log_p.exp() * (log_p - log_q)).sum(1).mean()
            gradients = torch.autograd.grad(divergence, weights, materialize_grads=True)
            if i == 0:
                penalty = self.l1 * torch.stack([g.abs().max() for g in gradients]).max()
            a = length / _norm(gradients).clamp_min(torch.finfo(length.dtype).tiny)
            with torch.no_grad():
                for weight, old, gradient in zip(weights, start, gradients, strict=True):
                    delta = weight - old - a * gradient
                    weight.copy_(old + delta.sign() * (delta.abs() - a * penalty).clamp_min(0))
            runtime.steps += 1

    @torch.no_grad()
    def unknown(self, model: Classifier, data: Data, runtime: Runtime) -> Tensor:
        """Return q, (K,): the output of a model on images that it does not know."""
        x, _, logits = data.forget
        earlier = model.columns(c for c in model.forgotten if c in model.classes)
        p = torch.ones_like(logits[0])
        if self.reference == "distorted":
            p = logits_of(model, distorted(x, DISTORTED, runtime)).softmax(1).mean(0)
        gone = [*data.columns, *earlier]
        p[gone] = 0
        q = (1 - self.floor) * p / p.sum()
        q[gone] = self.floor / len(gone)
        return q


def _norm(parts: list[Tensor] | tuple[Tensor, ...]) -> Tensor:
    return torch.stack([part.norm() for part in parts]).square().sum().sqrt()
