"""Class weight masking only: the baseline of every claim, since it forgets nothing in the features."""

from __future__ import annotations

from typing import ClassVar

from unhot.methods.base import Data, Method, Outcome, Use
from unhot.models.classifier import Classifier
from unhot.models.cut import Cut
from unhot.runtime import Runtime


class Mask(Method):
    """Cut the class out of the output, and do nothing else.

    Forget accuracy is 0 afterwards and no retained image is misclassified that was not before; the features, and all
    that can be read from them, are those of the original model.

    Attributes:
        cut: How the classes are cut; see :func:`unhot.models.cut.cut_classes`.

    Source: Wang, Bie, Jing, Zhi, Knowledge and Information Systems 2025 (weight masking); the bias is a reconstruction.
    """

    name: ClassVar[str] = "mask"
    uses: ClassVar[tuple[Use, ...]] = ()

    cut: Cut = "mask"

    def run(self, model: Classifier, data: Data, runtime: Runtime) -> Outcome:
        """Cut."""
        return Outcome(model, "done", cut=self.cut)
