"""Fine-tuning on the retained images only, so that the class fades by itself."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch.nn.functional import cross_entropy

from unhot.methods.base import Data, Method, Outcome, Use
from unhot.methods.parts.batches import retain_batches
from unhot.models.classifier import Classifier
from unhot.runtime import Runtime


class Finetune(Method):
    r"""Continue training without the class.

    .. math::
        L = \frac{1}{|D_r|} \sum_{D_r} \ell(f_\theta(x), y)

    The samples are not read. A baseline: the class is forgotten only as far as the learning rate moves the net,
    which is seldom far. As in training, normalisation takes the statistics of its batch and moves the running ones.

    Attributes:
        epochs: Passes over the retained images.
        lr: Learning rate of SGD with momentum 0.9 and weight decay 5e-4.
        batch_size: Images in a step.

    Source: Golatkar, Achille, Soatto: Eternal sunshine of the spotless net: selective forgetting in deep networks, CVPR
    2020 ("fine-tune"); Warnecke, Pirch, Wressnegger, Rieck: Machine unlearning of features and labels, NDSS 2023.
    """

    name: ClassVar[str] = "finetune"
    uses: ClassVar[tuple[Use, ...]] = ("retain",)
    moves_statistics: ClassVar[bool] = True

    epochs: int = Field(default=5, ge=0)
    lr: float = Field(default=0.02, gt=0)
    batch_size: int = Field(default=128, ge=1)

    def run(self, model: Classifier, data: Data, runtime: Runtime) -> Outcome:
        """Train on the retained images."""
        model.module.train()
        optimizer = torch.optim.SGD(model.module.parameters(), self.lr, momentum=0.9, weight_decay=5e-4)
        for epoch in range(self.epochs):
            for x, y in retain_batches(data.retain, model, self.batch_size, runtime, epoch):
                runtime.step(cross_entropy(model.logits(x), y), optimizer)
        return Outcome(model, "all epochs done")
