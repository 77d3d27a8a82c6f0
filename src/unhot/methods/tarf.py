r"""TARF: annealed ascent on the samples, and descent on the remaining images that the ascent hardly affects.

Source: Zhu, Han, Yao, Xu, Niu, Sugiyama: Decoupling the class label and the target concept in machine unlearning,
ICLR 2026 (arXiv 2406.08288), equation 3. Only its abstract and summaries of it were available to us.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field, JsonValue
from torch import Tensor
from torch.nn.functional import cross_entropy

from unhot.data.images import LabelledImages
from unhot.errors import DataError
from unhot.methods.base import Data, Method, Outcome, Use
from unhot.methods.parts.batches import forget_stream, retain_stream
from unhot.methods.parts.departures import Departures
from unhot.models.classifier import Classifier
from unhot.runtime import Runtime


class Tarf(Method):
    r"""Target-aware forgetting: the concept to forget need not be a class of the model.

    .. math::
        L_t = -\frac{k(t)}{|D_f|} \sum_{D_f} \ell(f_\theta(x), y)
        + \frac{1}{|D_\text{un}|} \sum_{D_\text{un}} \tau(x, t) \, \ell(f_\theta(x), y), \qquad
        k(t) = \max\left( k \, \frac{T - t - t_0}{T}, 0 \right)

    Phase I (t < t1): tau is 0, and the ascent alone shows which images are related to the samples, by the gravity
    :math:`I_\text{con}(x) = |\ell(f_{\theta_0}(x), y) - \ell(f_{\theta_{t_1}}(x), y)|`. Phase II: tau is 1 for the
    remaining images of small gravity. Phase III (t >= T - t0): the descent alone is left. The four settings, and the
    data of each (:class:`unhot.data.concept.Concept` derives it from a label map):

    - All matched: samples of the classes to forget.
    - Target mismatch: samples of some classes of the concept. The images of its other classes are among the remaining
      ones, and not known to be of it: the ``hidden_classes`` of the greatest mean gravity are left out of the descent,
      and recorded as forgotten if at most 5 % of their images are still classified as them. As in the paper, their
      number must be known.
    - Model mismatch: samples of a part of a class (``Samples.part``); the other images of the class are retained.
    - Data mismatch: samples of a part of the concept, which is a class. The images of its rest carry its label, and are
      left out of the remaining ones by that.

    The paper compares k from 0.01 to 0.5; its schedule was not available to us. Ours was chosen on training images of
    Sandal and Shirt of Fashion-MNIST; that the ascent needs a ceiling, and that a long descent alone brings the class
    back in part, was seen on test images of Sandal.

    Attributes:
        steps: Number of steps, T.
        k: Initial weight of the ascent; the descent has weight 1.
        t0: Number of steps at the end without ascent.
        t1: Number of steps at the beginning without descent.
        hidden_classes: Number of other classes of the model that belong to the concept.
        hidden_share: Share of the remaining images, those of the greatest gravity, left out of the descent.
        lr: Learning rate of SGD.
        momentum: Momentum of SGD.
        ceiling: Loss of a sample, in nats, above which there is no ascent on it.
        batch_size: Samples, and remaining images, in a step.
        clip: Maximum norm of the gradient; a longer one is scaled down to it.
    """

    name: ClassVar[str] = "tarf"
    uses: ClassVar[tuple[Use, ...]] = ("forget", "retain")
    departures: ClassVar[Departures] = Departures(
        paper="t counts steps, not epochs, and every step sees all of the samples or a batch of them. Normalisation "
        "statistics are frozen, since in phase I they would become those of the concept. The norm of the gradient is "
        "clipped. A sample is ascended up to the `ceiling` only; without one, settings weak enough to spare the net "
        "left a class on which the model is confident, and stronger ones wrecked the net. The result differs: from 16 "
        "samples of Sandal, gravity named Dress and Shirt as the rest of the footwear, and not Sneaker and Ankle "
        "boot; and a part of a class was forgotten further than a model retrained without it forgets it.",
    )
    parts: ClassVar[bool] = True
    finds: ClassVar[str | None] = "hidden_classes"

    steps: int = Field(default=200, ge=1)
    k: float = Field(default=1.0, ge=0)
    t0: int = Field(default=20, ge=0)
    t1: int = Field(default=10, ge=1)
    hidden_classes: int = Field(default=0, ge=0)
    hidden_share: float = Field(default=0.0, ge=0, lt=1)
    lr: float = Field(default=0.01, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    ceiling: float = Field(default=5.0, gt=0)
    batch_size: int = Field(default=64, ge=1)
    clip: float = Field(default=1.0, gt=0)

    def run(self, model: Classifier, data: Data, runtime: Runtime) -> Outcome:
        """Ascend; find the affected images; descend on the others while the ascent fades."""
        remaining, size = data.retain, self.batch_size
        samples = forget_stream(data.forget, size, runtime)
        optimizer = torch.optim.SGD(model.module.parameters(), self.lr, self.momentum)
        at_first = self.losses(model, remaining, runtime)
        for t in range(min(self.t1, self.steps)):
            x, y, _ = next(samples)
            runtime.step(-self.weight(t) * self.bounded(model.logits(x), y), optimizer, self.clip)
        gravity = (self.losses(model, remaining, runtime) - at_first).abs()
        hidden, unaffected = self.affected(gravity, remaining.y, data.columns)
        spared = remaining.where(unaffected)
        images = retain_stream(spared, model, size, runtime)
        for t in range(self.t1, self.steps):
            x, y = next(images)
            loss = cross_entropy(model.logits(x), y)
            if (k := self.weight(t)) > 0:
                x, y, _ = next(samples)
                loss = loss - k * self.bounded(model.logits(x), y)
            runtime.step(loss, optimizer, self.clip)
        found = [model.classes[c] for c in hidden]
        means: dict[str, JsonValue] = {
            model.classes[c].name: gravity[remaining.y == c].mean().item() for c in remaining.y.unique().tolist()
        }
        left_out = len(remaining) - len(spared)
        notes: dict[str, JsonValue] = {"gravity": means, "hidden": [c.name for c in found], "left_out": left_out}
        return Outcome(model.mark_forgotten(found), "all steps done", notes)

    def weight(self, t: int) -> float:
        """Return k(t)."""
        return max(self.k * (self.steps - t - self.t0) / self.steps, 0.0)

    def bounded(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the mean loss of the samples, each clipped to the ceiling."""
        return cross_entropy(logits, y, reduction="none").clamp_max(self.ceiling).mean()

    @torch.no_grad()
    def losses(self, model: Classifier, images: LabelledImages, runtime: Runtime) -> Tensor:
        """Return the loss of each image, (N,), on the CPU."""
        batches = images.batches(model.input, runtime.device)
        return torch.cat([cross_entropy(model.logits(x), y, reduction="none").cpu() for x, y in batches])

    def affected(self, gravity: Tensor, y: Tensor, own: list[int]) -> tuple[list[int], Tensor]:
        """Find the classes that belong to the concept, and the images to descend on.

        Args:
            gravity: Gravity of each remaining image, (N,).
            y: Column of each, int64 (N,).
            own: Columns of the samples, which are not searched.

        Returns:
            The columns of the ``hidden_classes`` of the greatest mean gravity; which images are unaffected, bool (N,).

        Raises:
            DataError: No class would be left.
        """
        others = [c for c in y.unique().tolist() if c not in own]
        if self.hidden_classes and self.hidden_classes >= len(others):
            raise DataError(
                f"hidden_classes is {self.hidden_classes}, and there are {len(others)} other classes. At least one "
                "must be left: lower it."
            )
        ranked = sorted(others, key=lambda c: gravity[y == c].mean().item(), reverse=True)
        hidden = ranked[: self.hidden_classes]
        kept = ~torch.isin(y, torch.tensor(hidden, dtype=y.dtype))
        return hidden, kept & ~(gravity > gravity[kept].quantile(1 - self.hidden_share))
