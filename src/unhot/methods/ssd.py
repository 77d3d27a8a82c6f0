r"""SSD and LFSSD: dampen the weights that matter to the class far more than to the rest.

Source: Foster, Schoepf, Brintrup: Fast machine unlearning without retraining through selective synaptic dampening,
AAAI 2024 (arXiv 2308.07707), equations 5 to 7; Loss-free machine unlearning, ICLR 2024 tiny papers (arXiv 2402.19308);
their released code.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import torch
from pydantic import Field, JsonValue
from torch import Tensor
from torch.nn.functional import cross_entropy

from unhot.methods.base import Data, Method, Outcome, Use
from unhot.methods.parts.departures import Departures
from unhot.models.classifier import Classifier
from unhot.runtime import Runtime


class Ssd(Method):
    r"""Selective synaptic dampening, in closed form.

    .. math::
        \theta_i \leftarrow \theta_i \min\left( \lambda \frac{I_i(D)}{I_i(D_f)}, 1 \right)
        \quad\text{where } I_i(D_f) > \alpha I_i(D), \qquad
        I_i(S) = \operatorname*{mean}_{x \in S} \left( \frac{\partial \ell(x)}{\partial \theta_i} \right)^2

    D is the retained images. If it were all images, a class with more than 1 / ``alpha`` of them would have
    :math:`\alpha I_i(D) \ge I_i(D_f)` for every weight, so that with ten classes nothing could be dampened; with many
    classes the two hardly differ.

    ``alpha`` was chosen on training images of Fashion-MNIST and MNIST, 300 of the class and some of the others; the
    paper's is 10, or 5 for its ViT. If the loss on the samples is almost 0, as on a few samples of an easy class, there
    is no gradient and nothing is forgotten; ``lfssd`` needs no loss.

    Attributes:
        alpha: How many times as important to the class a weight must be to be dampened.
        strength: lambda; less dampens more.
        images: Maximum number of retained images to read; drawn at random.
    """

    name: ClassVar[str] = "ssd"
    uses: ClassVar[tuple[Use, ...]] = ("forget", "retain")
    departures: ClassVar[Departures] = Departures(
        paper="D is the retained images and not all images.",
        code="The gradient of each image is squared, where the code squares the mean gradient of a batch.",
    )
    presets: ClassVar[dict[str, dict[str, JsonValue]]] = {
        "resnet18": {"alpha": 10.0, "strength": 1.0},
        "vit": {"alpha": 5.0, "strength": 1.0},
        "pins": {"alpha": 50.0, "strength": 0.1},
    }

    alpha: float = Field(default=5.0, gt=0)
    strength: float = Field(default=1.0, ge=0)
    images: int = Field(default=5_000, ge=1)

    def run(self, model: Classifier, data: Data, runtime: Runtime) -> Outcome:
        """Measure the importance of every weight to both, and dampen."""
        x, y, _ = data.forget
        order = torch.randperm(len(data.retain), generator=runtime.generator("retained images"))
        retained = data.retain.select(order[: self.images].sort().values).batches(model.input, runtime.device)
        forget, rest = self.importance(model, [(x, y)]), self.importance(model, retained)
        dampened, count = 0, 0
        with torch.no_grad():
            for weight, mine, others in zip(model.module.parameters(), forget, rest, strict=True):
                chosen = mine > self.alpha * others
                factor = (self.strength * others / mine).clamp_max(1.0)
                weight.copy_(torch.where(chosen, weight * factor, weight))
                dampened, count = dampened + int(chosen.sum()), count + chosen.numel()
        return Outcome(model, "done", {"dampened": dampened / count})

    def importance(self, model: Classifier, batches: Iterable[tuple[Tensor, Tensor]]) -> list[Tensor]:
        """Return the mean importance of every weight over the images, in the order of the net's parameters."""
        weights, count = list(model.module.parameters()), 0
        total = [torch.zeros_like(w) for w in weights]
        for x, y in batches:
            for image, label in zip(x.split(1), y.split(1), strict=True):  # one at a time: the mean comes last
                score = self.score(model.logits(image), label)
                gradients = torch.autograd.grad(score, weights, materialize_grads=True)
                for sum_so_far, gradient in zip(total, gradients, strict=True):
                    sum_so_far += self.size(gradient)
                count += 1
        return [t / count for t in total]

    def score(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the score of logits (1, K) whose gradient measures the weights' importance."""
        return cross_entropy(logits, y)

    def size(self, gradient: Tensor) -> Tensor:
        """Return the importance of the weights, from a gradient of the score."""
        return gradient.square()


class Lfssd(Ssd):
    r"""SSD without labels and without a loss; all else is as in ``ssd``.

    .. math::
        I_i(S) = \operatorname*{mean}_{x \in S} \left\lvert
        \frac{\partial \lVert z(x) \rVert^2}{\partial \theta_i} \right\rvert

    ``alpha`` was chosen as that of ``ssd``.

    Attributes:
        alpha: How many times as important to the class a weight must be to be dampened.
        strength: lambda; less dampens more.
        images: Maximum number of retained images to read; drawn at random.
    """

    name: ClassVar[str] = "lfssd"
    presets: ClassVar[dict[str, dict[str, JsonValue]]] = {}

    alpha: float = Field(default=7.0, gt=0)

    def score(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the squared norm of the logits."""
        return logits.square().sum()

    def size(self, gradient: Tensor) -> Tensor:
        """Return the gradient's absolute value."""
        return gradient.abs()
