"""Relearning: how fast fine-tuning on a few images brings the forgotten class back."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.optim import SGD

from unhot.data.images import CACHED, LabelledImages, at_once
from unhot.evaluation.metric import Attack, Case, Finding, NotMeasurable
from unhot.evaluation.stats import Estimate, mean
from unhot.models.classifier import Classifier
from unhot.models.head import is_plain, linear_like, replace_layer
from unhot.records.audit import PlotData

PROBED = 200  # test images of the class after every evaluation
LEAST = 5  # images of a class to learn from and to ask about, where both must come from the test images


class Relearning(Attack):
    """All weights are fine-tuned on a few images of the forgotten classes and as many of others.

    Before, the rows of the forgotten classes in the head are set to zero weights and the mean bias of the others, for
    every model alike, so that what is measured is what the features still hold and not how the row was cut.
    Normalisation statistics stay frozen. ``relearn_steps`` is the number of steps until accuracy on forgotten test
    images reaches ``target`` of the original model's; where that is not reached, the number of steps tried, plus one
    evaluation's. ``relearn_ratio`` is that of a model divided by a retrained model's: below 1 the class comes back
    faster than into a model that never saw it.

    Without train images the test images of each forgotten class are halved: one half is learned from, `shots` of it or
    all if they are fewer, and accuracy is measured on the other half.

    Attributes:
        shots: Images of each forgotten class; half of a batch, the other half is of other classes.
        steps: No more steps than this.
        every: Steps between evaluations.
        lr: Learning rate of SGD with momentum 0.9.
        target: Share of the original model's forget accuracy that is to be reached.
        tries: Independent draws of the images.

    Source: relearn time, Golatkar, Achille, Soatto, ECCV 2020; anamnesis index, Chundawat et al., TIFS 2023.
    """

    shots: int = Field(default=16, ge=1)
    steps: int = Field(default=40, ge=1)
    every: int = Field(default=4, ge=1)
    lr: float = Field(default=0.01, gt=0)
    target: float = Field(default=0.8, gt=0, le=1)
    tries: int = Field(default=2, ge=1)

    def run(self, case: Case) -> Finding:
        """Attack."""
        curves = self.curves(case)
        steps = torch.tensor([self._reached(case, c) for c in curves])
        estimates: dict[str, Estimate | str] = {"relearn_steps": self._spread(steps)}
        try:
            case.references()
            others = [self._reference(case, i) for i in range(len(case.views.models["retrained"]))]
            least = float(self.every)  # what is there before the first step took no longer than the first evaluation
            estimates["relearn_ratio"] = self._spread(steps.clamp_min(least) / torch.stack(others).mean(0))
        except NotMeasurable as reason:
            estimates["relearn_ratio"] = str(reason)
        estimates["relearn_accuracy"] = mean(torch.tensor(curves).mean(1), 0.0, 1.0)
        x = tuple(float(s) for s in range(0, self.steps + 1, self.every))
        y = tuple(torch.tensor(curves).mean(0).tolist())
        return Finding(estimates, (PlotData(name="relearning", subject=case.subject, run=case.run, x=x, y=y),))

    def curves(self, case: Case) -> list[list[float]]:
        """Return accuracy on forgotten test images before the first step and after every ``every`` steps, for each try.

        Models of the same weights before the head give the same curves, so they are computed once.
        """
        return case.once(("relearning", self), lambda: [self._curve(case, i) for i in range(self.tries)])

    def _curve(self, case: Case, attempt: int) -> list[float]:
        model = _with_new_rows(case)
        generator = case.runtime.generator("relearning", attempt)
        pool, probes = case.images(case.learns_from), case.images("test")
        known, asked = self._shared_out(case, pool)
        mine = torch.cat([k[torch.randperm(len(k), generator=generator)[: self.shots]] for k in known])
        others = (~case.is_forget(pool.y)).nonzero().flatten()
        if len(others) == 0:
            raise NotMeasurable("no images of the other classes to learn from")
        device = case.runtime.device
        x_f, y_f = pool.inputs(mine, model.input, device), pool.y[mine].to(device)
        optimizer = SGD(model.module.parameters(), self.lr, momentum=0.9)
        x_test, y_test = probes.inputs(asked, model.input, device), probes.y[asked].to(device)
        accuracy = []
        for step in range(self.steps + 1):
            if step % self.every == 0:
                with torch.no_grad():
                    some = x_test.split(at_once(x_test, CACHED))
                    predicted = torch.cat([model.logits(x).argmax(1) for x in some])
                accuracy.append((predicted == y_test).float().mean().item())
            if step == self.steps:
                break
            index = others[torch.randint(len(others), (len(mine),), generator=generator)]
            x = torch.cat([x_f, pool.inputs(index, model.input, device)])
            y = torch.cat([y_f, pool.y[index].to(device)])
            loss = cross_entropy(model.logits(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return accuracy

    def _shared_out(self, case: Case, pool: LabelledImages) -> tuple[list[Tensor], Tensor]:
        """Return positions in the pool of each forgotten class, and of the test images that accuracy is measured on."""
        known = [(pool.y == c).nonzero().flatten() for c in case.views.columns]
        fewest = min(map(len, known))
        if case.learns_from == "train":
            if fewest < self.shots:
                raise NotMeasurable(f"only {fewest} images of a forgotten class to learn from, {self.shots} are needed")
            return known, case.some_forgotten(PROBED)
        if fewest < 2 * LEAST:
            raise NotMeasurable(
                f"no train images of the class were given, and to halve the test images of a forgotten class "
                f"{2 * LEAST} are needed, there are {fewest}"
            )
        generator = case.runtime.generator("relearning", "halves")
        halves = [k[torch.randperm(len(k), generator=generator)].tensor_split(2) for k in known]
        rest = torch.cat([second for _, second in halves])
        return [first for first, _ in halves], rest[torch.randperm(len(rest), generator=generator)[:PROBED]]

    def _reached(self, case: Case, curve: list[float]) -> float:
        view = case.views.of("original", "test")
        goal = self.target * float(view.correct[view.is_forget].float().mean())
        for i, value in enumerate(curve):
            if value >= goal:
                return float(i * self.every)
        return float(self.steps + self.every)

    def _reference(self, case: Case, run: int) -> Tensor:
        other = Case(case.views, "retrained", case.split, run)
        return torch.tensor([max(self._reached(other, c), float(self.every)) for c in self.curves(other)])

    @staticmethod
    def _spread(values: Tensor) -> Estimate:
        """Return the mean over tries, with the least and the greatest for an interval: there are few."""
        return Estimate(mean(values).value, float(values.min()), float(values.max()), len(values))


def _with_new_rows(case: Case) -> Classifier:
    """Return a copy whose head has a row for every class of the original, those of the forgotten classes as new."""
    model = case.model.trainable(case.runtime.device)
    model.module.eval().requires_grad_(True)
    old, places = model.head_layer, case.views.places(case.model)
    if not is_plain(old):
        raise NotMeasurable(
            f"its head is a {type(old).__name__}, which cannot be given new rows as a plain nn.Linear can"
        )
    new = linear_like(old, rows=len(case.views.models["original"][0].classes))
    kept = [i for i, place in enumerate(places) if place not in case.views.columns]
    retained = [i for i in kept if places[i] not in case.views.earlier]  # the others may have a bias that cuts them off
    with torch.no_grad():
        bias = old.bias if old.bias is not None else torch.zeros(old.out_features).to(old.weight)
        new.weight.zero_()
        new.bias.fill_(bias[retained].mean())
        new.weight[[places[i] for i in kept]] = old.weight[kept]
        new.bias[[places[i] for i in kept]] = bias[kept]
    replace_layer(model.module, model.head, new)
    return model
