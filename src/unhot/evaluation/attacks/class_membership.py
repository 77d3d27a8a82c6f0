"""Class-level membership: do outputs tell images of the forgotten class from those of its neighbours?"""

from __future__ import annotations

import torch
from pydantic import Field
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from unhot.evaluation.metric import Attack, Case, Finding, NotMeasurable
from unhot.evaluation.stats import Estimate, averaged, paired_drop, proportion
from unhot.evaluation.view import View

LEAST = 20


class ClassMembership(Attack):
    """A classifier of outputs decides between the forgotten class and each of its neighbours.

    For each of the classes that a retrained model (the original, where there is none) most often takes forgotten images
    for, a logistic regression on the log-probabilities of the retained classes is fitted to one half of the test images
    of the two classes and tested on the other. ``class_mia_gap`` is its accuracy minus that on a retrained model's
    outputs: above 0 the outputs give the forgotten class away, below 0 they hide it better than a retrained model's do.

    Attributes:
        neighbours: Classes to tell the forgotten one from.

    Source: CMIA, TREW, ICML 2026; unlike there, with logistic regression.
    """

    neighbours: int = Field(default=3, ge=1)

    def run(self, case: Case) -> Finding:
        """Attack."""
        pairs = self._pairs(case)
        mine = torch.cat([self._hits(case, case.view, *pair) for pair in pairs])
        estimates: dict[str, Estimate | str] = {"class_mia_accuracy": proportion(mine)}
        try:
            references = [torch.cat([self._hits(case, r, *pair) for pair in pairs]) for r in case.references()]
            gaps = [paired_drop(mine, theirs) for theirs in references]
            estimates["class_mia_gap"] = averaged(gaps)._replace(n=len(mine))
        except NotMeasurable as reason:
            estimates["class_mia_gap"] = str(reason)
        return Finding(estimates)

    def _pairs(self, case: Case) -> list[tuple[int, int]]:
        """Choose the neighbours, the same for every model: (forgotten column, neighbour's column)."""
        models = case.views.models["retrained"]
        view = case.views.of("retrained" if models else "original", "test").masked
        pairs = []
        for column in case.views.columns:
            taken = torch.bincount(view.logits[view.y == column].argmax(1), minlength=view.logits.shape[1])
            present = torch.tensor([int((view.y == c).sum()) >= LEAST for c in range(len(taken))])
            order = (taken * present).argsort(descending=True, stable=True).tolist()
            pairs += [(column, c) for c in order if present[c] and c not in case.views.columns][: self.neighbours]
        if not pairs or min(int((view.y == c).sum()) for c in case.views.columns) < LEAST:
            raise NotMeasurable(f"fewer than {LEAST} test images of a forgotten class or of its neighbours")
        return pairs

    def _hits(self, case: Case, view: View, column: int, neighbour: int) -> Tensor:
        """Fit to one half of the images of two classes; return which of the other half are told apart, bool (N,)."""
        outputs = view.retained_outputs
        parts = [
            torch.cat([_balanced(half, view.y, c, (column, neighbour)) for c in (column, neighbour)])
            for half in case.halves
        ]
        if min(map(len, parts)) == 0:
            raise NotMeasurable("no images of a forgotten class or of its neighbour in one half of the test images")
        x, y = ([outputs[p].numpy() for p in parts], [(view.y[p] == column).numpy() for p in parts])
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(x[0], y[0])
        return torch.from_numpy(model.predict(x[1]) == y[1])


def _balanced(half: Tensor, y: Tensor, wanted: int, pair: tuple[int, int]) -> Tensor:
    """Return positions of one class of a pair in a half, as many as of the other."""
    count = min(int((y[half] == c).sum()) for c in pair)
    return half[y[half] == wanted][:count]
