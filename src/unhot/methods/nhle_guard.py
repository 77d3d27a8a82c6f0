r"""NHLE-Guard: forget in the features, and let them fall where the retained classes' features lie.

Source: ours. The two stages are those of NHLE-CWM (Wang, Bie, Jing, Zhi, Scientific Reports 2026); that a few samples
get their spread from other classes is from Yang, Liu, Xu: Free lunch for few-shot learning, ICLR 2021; the images of
bare mode follow Cha et al.: Learning to unlearn, AAAI 2024.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import AliasChoices, Field, JsonValue
from torch import Tensor
from torch.nn.functional import softmax
from torch.nn.utils.parametrize import register_parametrization, remove_parametrizations
from torch.optim.lr_scheduler import LinearLR

from unhot.data.augment import Augment
from unhot.data.images import FORWARD, LabelledImages, at_once
from unhot.methods.base import Batch, Data, Method, Outcome, Use
from unhot.methods.parts.batches import logits_of
from unhot.methods.parts.likeness import energy_of_features
from unhot.methods.parts.losses import Request, masked
from unhot.methods.parts.preconditioning import Spared
from unhot.methods.parts.stand_ins import stand_ins
from unhot.methods.parts.stopping import probability
from unhot.models.classifier import Classifier
from unhot.models.cut import Cut
from unhot.models.layers import nearest_head, pooled
from unhot.runtime import Runtime
from unhot.statistics import ClassStatistics

VIEWS = 8  # shifted copies of each sample
AROUND, MOST = 512, 4096  # draws around them for each class to forget, and of all together
REPLAYED, EACH = 2048, 64  # draws of the retained classes, but for each no fewer than this
HELD_OUT = 4  # one in so many draws is held out: it decides when to stop
FORGET, RETAIN, TARGET = 64, 128, 128  # per step: samples and draws around them; retained draws; features
CHECK = 10  # steps between two evaluations on the held-out draws
STRENGTH = {"guarded": 2e4, "bare": 1e6}
SPREAD = {"guarded": 3.0, "bare": 0.0}
MOVED = "samples moved until the model classifies them as retained classes"


class NhleGuard(Method):
    r"""Train until the samples have the outputs, and features like those, of the retained classes; then cut.

    .. math::
        W_l = W_l^o + V_l P_l^{1/2}, \quad P_l = (I + \rho S_l / \operatorname{tr} S_l)^{-1}, \\
        \min_V \operatorname{KL}(\tilde p^{1/T} \Vert p(x_f)) + \lambda \operatorname{energy}(h(x_f), h^o(x_r))
        + \mu \operatorname{KL}(\tilde p \Vert p(x_r)), \\
        x_r \sim \mathcal N(\mu_k, \Sigma_k), \quad x_f \in \{ s, \; s + \mathcal N(0, \Sigma_k) \},
        \; k \sim \tilde p^{1/T}(s)

    Only the layers nearest the head are trained. Their inputs x are drawn: for the retained classes from the Gaussians
    of the activations at the last replay point before the layers (:mod:`unhot.statistics`), for the classes to forget
    around shifted samples s, with the covariance of the retained class k that is most likely for a sample.
    :math:`\tilde p` is the original's distribution with the classes to forget left out, frozen; sharpened by T < 1,
    since a model that never saw the class is more confident of its images than one that must not name it. :math:`h` are
    the features and the inputs of earlier layers, both scaled by the drawn ones and normalised to length 1, compared
    with those of the original for x_r, as many of each class as :math:`\tilde p` says. S is the second moment of the
    inputs of a layer on images of retained classes. The mode, which the record notes, says where Gaussians and S come
    from:

    - *guarded*: from a guard that was passed, which was collected from training images;
    - *bare*: from a guard that is collected from samples moved until the model classifies them as retained classes
      (:mod:`unhot.methods.parts.stand_ins`).

    The head is not trained; normalisation statistics are frozen. One draw in four is held out. When the divergence of
    held-out retained draws from the masked original exceeds ``budget``, the run stops and is rolled back to the
    evaluation before. It also stops when the probability of the classes is low and so is the energy distance, if that
    is trained for.

    Attributes:
        lr: Initial learning rate of Adam on V; it falls to 0 linearly.
        steps: Maximum number of optimiser steps.
        depth: Share of the layers that is trained, counted from the head, as far as the guard's replay points reach.
        preconditioning: Strength rho, also read under its old name ``guard``; if None 2e4 in guarded mode, and 1e6 in
            bare mode, where S is less reliable.
        temperature: Temperature T.
        spread: Weight lambda of the energy distances; if None 3 in guarded mode, and 0 in bare mode, where the drawn
            features are too unlike those of images.
        stages: Number of earlier layers, counted from the head, whose inputs are matched as the features are.
        replay: Weight mu of the divergence on retained draws.
        budget: Stop when the divergence of the retained draws, in nats, is more than this.
        stop_at: Stop when the mean probability of the forgotten classes is no higher than this, and
        near: the energy distance of the features is no higher than this, if lambda is not 0.
        shift: Farthest shift of the images, as a share of their size; 0 for none.
        images: Number of images made in bare mode.
        descent: Number of steps in which they are made.
        cut: How the classes are cut out of the output; see :func:`unhot.models.cut.cut_classes`.
    """

    name: ClassVar[str] = "nhle-guard"
    uses: ClassVar[tuple[Use, ...]] = ("forget",)
    may_use: ClassVar[tuple[Use, ...]] = ("guard",)

    lr: float = Field(default=3e-3, gt=0)
    steps: int = Field(default=200, ge=0)
    depth: float = Field(default=0.25, gt=0, le=1)
    preconditioning: float | None = Field(default=None, ge=0, validation_alias=AliasChoices("preconditioning", "guard"))
    temperature: float = Field(default=0.5, gt=0)
    spread: float | None = Field(default=None, ge=0)
    stages: int = Field(default=1, ge=0)
    replay: float = Field(default=20.0, ge=0)
    budget: float = Field(default=0.05, gt=0)
    stop_at: float = Field(default=0.01, ge=0, le=1)
    near: float = Field(default=0.02, ge=0)
    shift: float = Field(default=1 / 8, ge=0, lt=1)
    images: int = Field(default=192, ge=1)
    descent: int = Field(default=10, ge=0)
    cut: Cut = "mask"

    def run(self, model: Classifier, data: Data, runtime: Runtime) -> Outcome:
        """Train until the samples are among the retained classes or the budget is spent."""
        mode = "guarded" if "guard" in data.uses else "bare"
        guard = (data.guard if mode == "guarded" else self._bare_guard(model, data, runtime)).to(data.forget.x)
        layers = [n for n in nearest_head(guard.info.layers, self.depth) if n in guard.info.replay_points]
        notes: dict[str, JsonValue] = {"mode": mode, "trained": len(layers)}
        if not layers:
            return Outcome(model, "nothing to train before the head", notes, self.cut)
        model.module.requires_grad_(False)  # otherwise a pass would store the inputs of every layer
        strength = STRENGTH[mode] if self.preconditioning is None else self.preconditioning
        spread = SPREAD[mode] if self.spread is None else self.spread
        drawn = _Draws(self, model, data, guard, layers, runtime)
        spared = [_parametrise(model, name, guard, strength) for name in layers]
        optimizer = torch.optim.Adam([s.change for s in spared], self.lr)
        schedule = LinearLR(optimizer, 1.0, 0.0, max(self.steps, 1))
        goal = f"probability at most {self.stop_at}" + (f" and energy at most {self.near}" if spread else "")
        kept, reason = [s.change.detach().clone() for s in spared], "all steps done"
        for step in range(self.steps + 1):
            if step % CHECK == 0 or step == self.steps:
                found = drawn.held_out()
                if not found["divergence"] <= self.budget:  # true of NaN too
                    reason = f"divergence more than {self.budget}: back to the last evaluation"
                    for change, before in zip(spared, kept, strict=True):
                        change.change.data.copy_(before)
                    break
                kept = [s.change.detach().clone() for s in spared]
                notes.update(found)
                if found["probability_left"] <= self.stop_at and (not spread or found["energy"] <= self.near):
                    reason = goal
                    break
            if step < self.steps:
                runtime.step(drawn.loss(spread), optimizer)
                schedule.step()
        for name in layers:
            remove_parametrizations(model.module.get_submodule(name), "weight")
        return Outcome(model, reason, notes, self.cut)

    def _bare_guard(self, model: Classifier, data: Data, runtime: Runtime) -> ClassStatistics:
        """Make images that stand in for the retained classes, and collect a guard from them."""
        x, _, original = data.forget
        retained = model.others(data.columns).to(x.device)
        images = stand_ins(model, x, original, retained, self.images, self.descent, runtime)
        taken = retained[logits_of(model, images)[:, retained].argmax(1)].cpu()
        names, keys = tuple(c.name for c in model.classes), tuple(range(len(images)))
        return ClassStatistics.collect(model, LabelledImages(images, taken, names, MOVED, keys), runtime)


class _Draws:
    """Draws at the replay point for the classes to forget and the retained ones, and the losses on them."""

    def __init__(
        self,
        method: NhleGuard,
        model: Classifier,
        data: Data,
        guard: ClassStatistics,
        layers: list[str],
        runtime: Runtime,
    ) -> None:
        self.method, self.model, self.columns = method, model, data.columns
        self.point, self.example = guard.info.replay_points[layers[0]], data.forget.x[:1]
        self.matched = [*layers[max(1, len(layers) - method.stages) :], model.head]
        self.generator = runtime.generator("draws")
        known = torch.tensor(model.columns(guard.info.classes))
        self.replayed = max(REPLAYED, EACH * len(known))
        classes = torch.randint(len(known), (self.replayed,), generator=self.generator)
        replayed = guard.draw(self.point, classes, self.generator)
        self.retained, self.features = self._with_outputs(replayed, known[classes])
        samples, _ = self._with_outputs(*self._views(data, runtime.generator("shift")))
        target = self._target(samples)
        likely = softmax(target.without_forgotten(target.original)[:, known], 1).cpu()
        which = torch.arange(min(AROUND * len(data.columns), MOST)) % len(samples.y)
        near = likely[which].multinomial(1, generator=self.generator).flatten()
        around, _ = self._with_outputs(guard.draw(self.point, near, self.generator, samples.x[which]), samples.y[which])
        self.around = around.part(slice(len(which) // HELD_OUT))
        trained = around.part(slice(len(which) // HELD_OUT, None))
        self.forget = Batch(*(torch.cat(pair) for pair in zip(samples, trained, strict=True)))
        self.weights = {}
        for column in data.columns:
            share = likely[samples.y.cpu() == column].mean(0) / classes.bincount(minlength=len(known)).clamp_min(1)
            self.weights[column] = share[classes]

    def loss(self, spread: float) -> Tensor:
        """Return the loss of a step on some training draws; ``spread`` is the weight of the energy distances."""
        forget = self.forget.part(torch.randint(len(self.forget.y), (FORGET,), generator=self.generator))
        chosen = torch.randint(self.replayed // HELD_OUT, self.replayed, (RETAIN,), generator=self.generator)
        retained = self.retained.part(chosen)
        logits, features = self._rest(torch.cat([forget.x, retained.x]))
        loss = masked(logits[:FORGET], self._target(forget))
        loss = loss + self.method.replay * self._divergence(logits[FORGET:], retained)
        if spread:
            pairs = zip(features, self.features, strict=True)
            distances = [self._distance(h[:FORGET], forget.y, original) for h, original in pairs]
            loss = loss + spread * torch.stack(distances).mean()
        return loss

    @torch.no_grad()
    def held_out(self) -> dict[str, float]:
        """Return the measures by which a run is stopped, on the held-out draws."""
        retained = self.retained.part(slice(self.replayed // HELD_OUT))
        logits, features = self._rest(torch.cat([self.around.x, retained.x]))
        count = len(self.around.y)
        return {
            "probability_left": probability(logits[:count], self.columns),
            "energy": self._distance(features[-1][:count], self.around.y, self.features[-1]).item(),
            "divergence": self._divergence(logits[count:], retained).item(),
        }

    def _rest(self, flow: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return logits (N, K) and the pooled inputs of ``matched`` for activations of the replay point (N, ...)."""
        with self.model.replacing(self.point, flow), self.model.recording(self.matched) as inputs:
            logits = self.model.logits(self.example)
        return logits, [pooled(inputs[layer]) for layer in self.matched]

    @torch.no_grad()
    def _with_outputs(self, flow: Tensor, y: Tensor) -> tuple[Batch, list[Tensor]]:
        """Return activations (N, ...) with their columns (N,) and the original's logits; and their pooled features."""
        logits, features = zip(*(self._rest(some) for some in flow.split(FORWARD)), strict=True)
        whole = [torch.cat(parts) for parts in zip(*features, strict=True)]
        return Batch(flow, y.to(flow.device), torch.cat(logits)), whole

    @torch.no_grad()
    def _views(self, data: Data, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the activations of the replay point for shifted samples, (VIEWS B, ...), and their columns."""
        x, y, _ = data.forget
        shifted, flows = Augment(round(self.method.shift * x.shape[-1])), []
        with self.model.recording([self.point]) as seen:
            for _ in range(VIEWS):
                for some in shifted(x, generator).split(at_once(x)):
                    self.model.logits(some)
                    flows.append(seen[self.point])
        return torch.cat(flows), y.repeat(VIEWS)

    def _target(self, forget: Batch) -> Request:
        """Return the target of the outputs: the original's, sharpened."""
        return Request(forget.y, self.columns, forget.logits / self.method.temperature)

    def _divergence(self, logits: Tensor, retained: Batch) -> Tensor:
        """Return the divergence of outputs (N, K) on retained draws from the masked original's, in nats."""
        return masked(logits, Request(retained.y, self.columns, retained.logits))

    def _distance(self, h: Tensor, y: Tensor, features: Tensor) -> Tensor:
        """Return the energy distance of h (N, d) of classes y to the original's features, plus that of directions."""
        found = []
        for column in y.unique().tolist():
            drawn = features[self.weights[column].multinomial(TARGET, True, generator=self.generator)]
            found.append(energy_of_features(h[y == column], drawn))
        return torch.stack(found).mean()


def _parametrise(model: Classifier, name: str, guard: ClassStatistics, strength: float) -> Spared:
    """Parametrise the weights of a layer so that the inputs described by the guard are spared."""
    layer = model.module.get_submodule(name)
    spared = Spared(layer.get_parameter("weight"), *guard.second_moment(name), strength)
    register_parametrization(layer, "weight", spared)
    return spared
