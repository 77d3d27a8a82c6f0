r"""NHLE-Renew: make the last stage of a net partly new, and distil all but the class into it.

Source: ours. The targets and the cut are those of NHLE-CWM (Wang, Bie, Jing, Zhi, Scientific Reports 2026); weights
that are shrunk and perturbed are from Ash, Adams: On warm-starting neural network training, NeurIPS 2020.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field, JsonValue
from torch import Tensor
from torch.nn.functional import one_hot
from torch.optim.lr_scheduler import OneCycleLR

from unhot.errors import MethodFailedError
from unhot.methods.base import Data, Method, Outcome, Use
from unhot.methods.parts.blends import mixed, patched
from unhot.methods.parts.damage import Damage, damage, sharpening
from unhot.methods.parts.last_stage import Flow, LastStage
from unhot.methods.parts.likeness import Whitening, energy_of_features
from unhot.methods.parts.losses import Request, masked
from unhot.methods.parts.sources import sources_of
from unhot.methods.parts.sources.inverted import Inverted
from unhot.methods.parts.sources.source import Source
from unhot.methods.parts.stopping import probability
from unhot.methods.parts.work import Work
from unhot.models.classifier import Classifier
from unhot.models.cut import Cut
from unhot.runtime import Runtime, usual_precision

COPIES = 32  # copies of each sample
FORGET, RETAIN, BLENDS = 64, 96, 32  # per step: views of samples; stand-ins; blends of each of three kinds
NEAR = 128  # features that are approached in a step
FOREIGN = 0.5  # largest area of a sample in a blend
TINY = 1e-30  # least chance of a stand-in to be drawn
FEW = 20  # given images of each class: beside fewer as many are made as without any, if the time suffices
HELD_OUT = 8  # one image in so many is held out, with all of its copies
TRIES = 3  # with more and more of the old weights
LEAST = 0.005  # loss of accuracy that is never ruled out,
ENOUGH = 512  # if so many stand-ins are held out; more where there are fewer
# a net that is right about the samples by so many standard errors more than it is confident was trained briefly; some
# lost six times the upper end
BRIEFLY = 1.0
GUESSED = 4 / 3  # upper end of a guess over that of an estimate: some guesses were a third too low


class NhleRenew(Method):
    r"""Renew the weights nearest the head, and distil the original into them, with the class left out.

    .. math::
        W_l = a W_l^o + (1 - a^2)^{1/2} \operatorname{std}(W_l^o) \epsilon, \\
        \min_W \operatorname{KL}(\tilde p^{1/T} \Vert p(x_f)) + \lambda \operatorname{energy}(h(x_f), h^o(x_r))
        + \nu \operatorname{energy}(\Sigma^{-1/2} h(x_f), \Sigma^{-1/2} h(x_r)) \\
        + \mu \operatorname{KL}(\tilde p \Vert p(x_r)) + \phi \lVert h(x_r) - h^o(x_r) \rVert^2

    :math:`x_f` are shifted and flipped views of the samples, :math:`x_r` stand-ins for images of the retained classes;
    :math:`\tilde p` is the original's distribution with the classes to forget left out, frozen, and sharpened by T < 1,
    since a model that never saw the class is more confident of its images than one that must not name it; h are the
    features, in units of the length of the original's :math:`h^o`. The energy distance approaches the features of
    stand-ins, as many of each class as :math:`\tilde p^{1/T}` says, once in these units and once in those of
    :math:`\Sigma`, the covariance within the classes of the stand-ins as the net is at the time. What the last stage
    knows of the class is in its weights, so that they are made partly new; what the layers before hand over would make
    it known again, so that the samples are needed too.

    Stand-ins are taken from all that is given (:mod:`unhot.methods.parts.sources`), and the record says from what:

    - *retained*: images of the other classes; they need not be training images;
    - *unlabelled*: any images, without those that the original classifies as a class to forget;
    - *guarded*: draws from the Gaussians of a guard;
    - *bare*: images inverted from the net; with none of these, to make up the number, or beside fewer than 20 retained
      images of each class of the net alone, if the time suffices.

    As many blends are shown beside them in each step, blended where the last stage begins, with what the original makes
    of these: mixes of two stand-ins, stand-ins with a rectangle of another, and stand-ins with a rectangle of a sample.

    The layers nearest the head are trained: a share ``depth`` of all, and as many more as it takes to begin where a
    single flow determines the output (:mod:`unhot.models.replay`); those before are run once. The head is not trained;
    normalisation statistics are frozen. One stand-in in eight is held out. If the other classes may lose more than
    ``budget`` of their accuracy, by the estimate from these, the run begins again with more of the old weights, and
    ends with the cut alone when that does not suffice.

    Images are made and the stage is trained in bfloat16, if the device is fast in it and the net is not small.

    Attributes:
        kept: Share a of the old weights, in the first try; later ones keep more.
        depth: Smallest share of the layers that is renewed, counted from the head.
        images: Number of images, each of which gives up to 6 stand-ins: the image and 5 shifted copies. A guard gives 6
            draws for each.
        descent: Number of steps in which an image is inverted.
        steps: Number of optimiser steps of a try.
        lr: Peak learning rate of Adam (one cycle).
        temperature: Temperature T.
        spread: Weight lambda of the energy distance.
        whitened: Weight nu of the same after whitening.
        replay: Weight mu of the divergence on stand-ins.
        same: Weight phi of the squared distance of the features of stand-ins.
        shift: Farthest shift of the samples, as a share of their size; 0 for none.
        budget: Loss of accuracy on the other classes that the upper end of the estimate may not exceed.
        minutes: Time that the run may take with every try: the work is halved until it fits.
        cut: How the classes are cut out of the output; see :func:`unhot.models.cut.cut_classes`.
    """

    name: ClassVar[str] = "nhle-renew"
    uses: ClassVar[tuple[Use, ...]] = ("forget",)
    may_use: ClassVar[tuple[Use, ...]] = ("retain", "guard")
    makes_images: ClassVar[bool] = True
    takes_unlabelled: ClassVar[bool] = True

    kept: float = Field(default=0.85, ge=0, le=1)
    depth: float = Field(default=0.375, gt=0, le=1)
    images: int = Field(default=1024, ge=16)
    descent: int = Field(default=30, ge=1)
    steps: int = Field(default=800, ge=1)
    lr: float = Field(default=1e-3, gt=0)
    temperature: float = Field(default=0.5, gt=0)
    spread: float = Field(default=3.0, ge=0)
    whitened: float = Field(default=10.0, ge=0)
    replay: float = Field(default=20.0, ge=0)
    same: float = Field(default=1.0, ge=0)
    shift: float = Field(default=1 / 8, ge=0, lt=1)
    budget: float = Field(default=0.035, ge=LEAST, le=1)
    minutes: float = Field(default=10.0, gt=0)
    cut: Cut = "mask"

    def run(self, model: Classifier, data: Data, runtime: Runtime) -> Outcome:
        """Renew and distil, with more of the old weights each time, until the estimated damage is within the budget."""
        stage = self._stage(model, data, runtime)
        if not stage.layers:
            return Outcome(model, "nothing to train before the head", {}, self.cut)
        forget, sources, work = self._planned(stage, data, runtime)
        stand_ins = Flow.of([s.flow(stage, data, runtime) for s in sources])
        if len(stand_ins) < HELD_OUT:
            raise MethodFailedError(f"{self.name} made no images of the other classes. Give some with retain=....")
        distillation = _Distillation(self, stage, data, forget, stand_ins, runtime)
        most = max(sources, key=lambda s: s.images)
        temperature = 1.0 if most.real else sharpening(data.forget, errors=BRIEFLY)
        calibrated = most.calibrated and temperature == 1
        original, kept, reason = distillation.original.trained(), self.kept, "all steps done"
        tries, least = TRIES, distillation.least
        if least > self.budget:
            tries = 0
            runtime.announce(
                f"So few stand-ins are held out ({len(distillation.held_out)}) that a loss of {least:.3f} on the other "
                f"classes could not be ruled out, and the budget is {self.budget:g}: nothing is renewed."
            )
        for left in reversed(range(tries)):
            stage.renew(original, kept, runtime.generator("renewal"))
            distillation.run(work.steps, runtime)
            found = distillation.damage(most, temperature, 1.0 if calibrated else GUESSED)
            if found.within(self.budget):
                break
            kept = (1 + kept) / 2
            reason = f"{kept:g} of the old weights kept instead of {self.kept:g}, to stay within the budget"
            runtime.announce(
                f"The other classes might lose {found.at_most:.3f}, and the budget is {self.budget:g}: "
                + (f"beginning again with {kept:g} of the old weights." if left else "nothing is renewed.")
            )
        else:
            stage.renew(original, 1.0, runtime.generator("renewal"))
            reason, kept, found = "the budget allows no renewal", 1.0, Damage(0.0, 0.0)
        notes: dict[str, JsonValue] = {
            "mode": " and ".join(s.mode for s in sources),
            "stand_ins": len(stand_ins),
            "work": {"images": sum(s.images for s in sources), "steps": work.steps},
            "trained": len(stage.layers),
            "kept": kept,
            "probability_left": distillation.probability_left(),
            **found.note(calibrated),
        }
        return Outcome(model, reason, notes, self.cut, work.seconds)

    def planned(
        self, model: Classifier, data: Data, runtime: Runtime, image_seconds: float
    ) -> tuple[float, float] | None:
        """Time one step of each kind."""
        stage = self._stage(model, data, runtime)
        if not stage.layers:
            return None
        *_, work = self._planned(stage, data, runtime)
        return work.seconds, work.longest

    def objection(self, data: Data) -> str | None:
        """Object where the loss on the other classes could only be guessed."""
        brief = sharpening(data.forget, errors=BRIEFLY) < 1
        return "it can only guess what the other classes would lose" if brief else None

    def _stage(self, model: Classifier, data: Data, runtime: Runtime) -> LastStage:
        runtime.precision = usual_precision(model.module, runtime.device)
        known = set(data.guard.info.replay_points.values()) if "guard" in data.uses else None
        return LastStage(model, data.forget.x[:1], self.depth, known)

    def _sources(self, stage: LastStage, data: Data, runtime: Runtime, beside: bool = False) -> list[Source]:
        return [s.ready(stage, runtime) for s in sources_of(data, self.images, self.descent, beside)]

    def _planned(self, stage: LastStage, data: Data, runtime: Runtime) -> tuple[Flow, list[Source], Work]:
        """Time one step of each kind, choose how much to do, and announce how long it takes.

        Returns:
            Views of the samples, the sources, and how much to do.
        """
        *given, last = self._sources(stage, data, runtime)
        each = last.seconds(stage, runtime)
        Work(last.images, self.steps, each, 0.0).within(self.minutes)  # refused before anything else takes time
        x = data.forget.x
        forget = stage.flow(x, COPIES, round(self.shift * x.shape[-1]), runtime.generator("shift"), flip=True)
        each_view = torch.arange(len(forget), device=forget.image.device)  # one sample alone might be held out
        as_many = Flow(forget.into, forget.logits, forget.features, each_view)  # on stand-ins a step takes as long
        trial = _Distillation(self, stage, data, forget, as_many, runtime)
        step = runtime.median_seconds(lambda: torch.autograd.grad(trial.loss(), stage.trained()), 1)
        work = Work(last.images, self.steps, each, step, TRIES).within(self.minutes)
        sources = [*given, last.fewer(work.images) if each else last]
        alone = "retain" in data.uses and data.labelled and "guard" not in data.uses
        if alone and len(data.retain) < FEW * len(stage.model.classes):
            more = self._sources(stage, data, runtime, beside=True)
            larger = Work(more[-1].images, self.steps, more[-1].seconds(stage, runtime), step, TRIES)
            if more[-1].calibrated and larger.longest <= 60 * self.minutes:
                sources, work = more, larger
        if runtime.cache is not None and not isinstance(sources[-1], Inverted):
            runtime.announce(f"Enough images are given, so none are made: the cache {runtime.cache} is not used.")
        fitted = f", to fit {self.minutes:g} minutes instead of {self.steps}" if work.steps < self.steps else ""
        runtime.announce(
            f"{self.name} takes about {work.seconds:.0f} s, at most {work.longest:.0f} s if it has to begin again: "
            f"{', '.join(s.what for s in sources)} and {work.steps} steps{fitted}."
        )
        return forget, sources, work


class _Distillation:
    """The last stage in training: on views of the samples, and on stand-ins."""

    def __init__(
        self, method: NhleRenew, stage: LastStage, data: Data, forget: Flow, stand_ins: Flow, runtime: Runtime
    ) -> None:
        self.method, self.stage, self.columns, self.forget = method, stage, data.columns, forget
        self.autocast, self.generator = runtime.autocast, runtime.generator("steps")
        held_out = stand_ins.image % HELD_OUT == 0
        self.held_out, self.retained = stand_ins.part(held_out), stand_ins.part(~held_out)
        self.least = min(LEAST * max(1.0, ENOUGH / max(len(self.held_out), 1)), 1.0)
        self.original = stage.frozen()
        self.y = data.forget.y[forget.image]
        self.unit = self.retained.features.square().sum(1).mean()
        masked_logits = self._request(self.retained.logits).without_forgotten(self.retained.logits)
        self.classes = one_hot(masked_logits.argmax(1), masked_logits.shape[1]).to(self.unit)
        self.likely = {c: self._as_likely_as(c) for c in data.columns}
        self.whitening = Whitening()

    def run(self, steps: int, runtime: Runtime) -> None:
        """Train the stage."""
        optimizer = torch.optim.Adam(self.stage.trained(), self.method.lr)
        schedule = OneCycleLR(optimizer, self.method.lr, total_steps=steps)
        with runtime.progress("steps of distillation", steps) as advance:
            for _ in range(steps):
                runtime.step(self.loss(), optimizer)
                schedule.step()
                advance(1)

    def loss(self) -> Tensor:
        """Return the loss of a step."""
        views, others = self._draw(self.forget, FORGET), self._draw(self.retained, RETAIN)
        forget, y = self.forget.part(views), self.y[views]
        kept = Flow.of([self.retained.part(others), self._blends()])
        with self.autocast():
            logits, h = (v.to(kept.logits) for v in self.stage(torch.cat([forget.into, kept.into])))
        moved = (h[FORGET:] - kept.features).square().sum(1).mean() / self.unit
        beside = h[FORGET : FORGET + RETAIN]
        self.whitening.add(beside, self.classes[others])
        return (
            masked(logits[:FORGET], self._request(forget.logits / self.method.temperature))
            + self._distance(h[:FORGET], y, beside, others)
            + self.method.replay * masked(logits[FORGET:], self._request(kept.logits))
            + self.method.same * moved
        )

    @torch.no_grad()
    def _blends(self) -> Flow:
        """Return random blends of stand-ins with each other and with samples, and what the original makes of them."""
        a, b, c, *others = (self.retained.into[self._draw(self.retained, BLENDS)] for _ in range(5))
        sample = self.forget.into[self._draw(self.forget, BLENDS)]
        g = self.generator
        with self.autocast():
            return self.original.replayed(
                torch.cat([mixed(a, others[0], g), patched(b, others[1], g), patched(c, sample, g, FOREIGN)])
            )

    def _draw(self, flow: Flow, count: int) -> Tensor:
        return torch.randint(len(flow), (count,), generator=self.generator).to(self.y.device)

    def _request(self, original: Tensor) -> Request:
        """Return what :func:`masked` reads; it does not read of which class an image is."""
        return Request(self.y[: len(original)], self.columns, original)

    def _distance(self, h: Tensor, y: Tensor, beside: Tensor, others: Tensor) -> Tensor:
        """Return the weighted distances of features h (N, d) of classes y from those of stand-ins, mean over classes.

        Args:
            h: Features of views.
            y: Their classes, (N,).
            beside: Features of the stand-ins of this step, (M, d), as they are now.
            others: Which stand-ins these are, (M,).
        """
        found = []
        for column in y.unique().tolist():
            mine, chance = h[y == column], self.likely[column]
            near = chance.multinomial(NEAR, True, generator=self.generator)
            now = chance[others.cpu()].clamp_min(TINY).multinomial(NEAR, True, generator=self.generator)
            found.append(
                self.method.spread * energy_of_features(mine, self.retained.features[near])
                + self.method.whitened * energy_of_features(self.whitening(mine), self.whitening(beside[now]))
            )
        return torch.stack(found).mean()

    def _as_likely_as(self, column: int) -> Tensor:
        """Return how likely each stand-in is drawn, (N,): classes as often as the target of samples of a class says."""
        target = self._request(self.forget.logits[self.y == column] / self.method.temperature)
        shares = target.without_forgotten(target.original).softmax(1).mean(0)
        return (self.classes @ (shares / self.classes.sum(0).clamp_min(1))).cpu()

    @torch.no_grad()
    def damage(self, source: Source, temperature: float, wider: float = 1.0) -> Damage:
        """Estimate by the held-out stand-ins, most of which are of a source, what the other classes lose."""
        now, most = self.stage.replayed(self.held_out.into).logits, wider * source.most
        return damage(self.held_out.logits, now, self.columns, temperature, source.usual, most, self.least)

    @torch.no_grad()
    def probability_left(self) -> float:
        """Return the mean probability of the classes on the samples."""
        return probability(self.stage.replayed(self.forget.into).logits, self.columns)
