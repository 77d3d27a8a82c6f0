r"""NHLE-Guard: forget in the features, and let them fall where the retained classes' features lie.

Source: ours. The two stages are those of NHLE-CWM (Wang, Bie, Jing, Zhi, Scientific Reports 2026); the energy distance
is that of Székely, Rizzo: Energy statistics, J. Stat. Plan. Inference 2013; that a few samples get their spread from
other classes is from Yang, Liu, Xu: Free lunch for few-shot learning, ICLR 2021; the images of bare mode follow Cha et
al.: Learning to unlearn, AAAI 2024.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field, JsonValue
from torch import Tensor
from torch.nn.functional import normalize, softmax
from torch.nn.utils.parametrize import register_parametrization, remove_parametrizations
from torch.optim.lr_scheduler import LinearLR

from unhot.data.augment import Augment
from unhot.data.images import LabelledImages
from unhot.methods.base import Batch, Data, Method, Outcome, Use
from unhot.methods.parts.batches import FORWARD, logits_of
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
HELD = 4  # one in so many draws is not trained on, but tells when to stop
FORGET, RETAIN, TARGET = 64, 128, 128  # of these in a step: samples and draws around them; retained ones; features
CHECK = 10  # steps from one look at what is held out to the next
STRENGTH = {"guarded": 2e4, "bare": 1e6}
SPREAD = {"guarded": 3.0, "bare": 0.0}
MOVED = "samples moved to where the model takes them for retained classes"


class NhleGuard(Method):
    r"""Train until the samples have the outputs, and features like those, of the retained classes; then cut.

    .. math::
        W_l = W_l^o + V_l P_l^{1/2}, \quad P_l = (I + \rho S_l / \operatorname{tr} S_l)^{-1}, \\
        \min_V \operatorname{KL}(\tilde p^{1/T} \Vert p(x_f)) + \lambda \operatorname{energy}(h(x_f), h^o(x_r))
        + \mu \operatorname{KL}(\tilde p \Vert p(x_r)), \\
        x_r \sim \mathcal N(\mu_k, \Sigma_k), \quad x_f \in \{ s, \; s + \mathcal N(0, \Sigma_k) \},
        \; k \sim \tilde p^{1/T}(s)

    Only the layers nearest the head are trained. What flows into them, x, is drawn: for the retained classes from
    their Gaussians at the last replay point before the layers (:mod:`unhot.statistics`), for the classes to forget
    around shifted samples s, with the spread of the retained class k that a sample is taken for next. :math:`\tilde
    p` is the original's distribution with the classes to forget left out, frozen; sharpened by T < 1, since a model
    that never saw the class is surer of its images than one that must not name it. :math:`h` are the features, and
    what flows into earlier layers: in units of those drawn, at their own length and at length 1, against features
    that the original has for x_r, as many of each class as :math:`\tilde p` says. S is the second moment of what
    flows into a layer on images of retained classes. Where Gaussians and S are from is the mode, which the record
    notes:

    - *guarded*: a guard was given, which was collected from training images;
    - *bare*: none was. Samples are moved to where the model takes them for retained classes
      (:mod:`unhot.methods.parts.stand_ins`), and a guard is collected from these.

    The head is not trained; normalisation statistics are frozen. One draw in four is not trained on. On these the run
    is judged: it stops, and is taken back to the last look, when the retained ones' divergence from the masked original
    is more than ``budget``; it stops when the probability of the classes is low, and, where it is trained for, the
    energy distance too.

    Attributes:
        lr: Learning rate of Adam on V at first; it falls to 0 in even steps.
        steps: No more steps than this.
        depth: Share of the layers that is trained, counted from the head, as far as the guard's replay points reach.
        guard: Strength rho; None for 2e4 guarded, and 1e6 bare, where S is less to be trusted.
        temperature: T.
        spread: Weight lambda of the energy distances; None for 3 guarded, and 0 bare, where the features that are
            drawn are too unlike those of images to lead there.
        stages: How many earlier layers' inputs are matched beside the features, counted from the head.
        replay: Weight mu.
        budget: Stop when the divergence of the retained draws, in nats, is more than this.
        stop_at: Stop when the mean probability of the forgotten classes is no higher than this,
        near: and the energy distance of the features is no higher than this, if lambda is not 0.
        shift: Farthest shift of the images, as a share of their size; 0 for none.
        images: In bare mode: how many images are made.
        descent: In bare mode: steps in which they are made.
        cut: How the classes are cut from the output; see :func:`unhot.models.cut.cut_classes`.
    """

    name: ClassVar[str] = "nhle-guard"
    uses: ClassVar[tuple[Use, ...]] = ("forget",)
    may_use: ClassVar[tuple[Use, ...]] = ("guard",)

    lr: float = Field(default=3e-3, gt=0)
    steps: int = Field(default=200, ge=0)
    depth: float = Field(default=0.25, gt=0, le=1)
    guard: float | None = Field(default=None, ge=0)
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
        guard = (data.guard if mode == "guarded" else self._made(model, data, runtime)).to(data.forget.x)
        layers = [n for n in nearest_head(guard.info.layers, self.depth) if n in guard.info.replay_points]
        notes: dict[str, JsonValue] = {"mode": mode, "trained": len(layers)}
        if not layers:
            return Outcome(model, "nothing to train before the head", notes, self.cut)
        model.module.requires_grad_(False)  # or a pass would keep what every layer sees
        strength = STRENGTH[mode] if self.guard is None else self.guard
        spread = SPREAD[mode] if self.spread is None else self.spread
        drawn = _Draws(self, model, data, guard, layers, runtime)
        spared = [_parametrise(model, name, guard, strength) for name in layers]
        optimizer = torch.optim.Adam([s.change for s in spared], self.lr)
        schedule = LinearLR(optimizer, 1.0, 0.0, max(self.steps, 1))
        goal = f"probability at most {self.stop_at}" + (f" and energy at most {self.near}" if spread else "")
        kept, reason = [s.change.detach().clone() for s in spared], "step cap"
        for step in range(self.steps + 1):
            if step % CHECK == 0 or step == self.steps:
                found = drawn.held_out()
                if not found["divergence"] <= self.budget:  # nor is it if it is not a number
                    reason = f"divergence more than {self.budget}: back to the last look"
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

    def _made(self, model: Classifier, data: Data, runtime: Runtime) -> ClassStatistics:
        """Make images that stand in for the retained classes, and collect a guard from them."""
        x, _, original = data.forget
        retained = model.others(data.columns).to(x.device)
        images = stand_ins(model, x, original, retained, self.images, self.descent, runtime)
        taken = retained[logits_of(model, images)[:, retained].argmax(1)].cpu()
        names, keys = tuple(c.name for c in model.classes), tuple(range(len(images)))
        return ClassStatistics.collect(model, LabelledImages(images, taken, names, MOVED, keys), runtime)


class _Draws:
    """What flows through the replay point for the classes to forget and for the retained ones, and the losses on it."""

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
        self.places = [*layers[max(1, len(layers) - method.stages) :], model.head]
        self.generator = runtime.generator("draws")
        known = torch.tensor(model.columns(guard.info.classes))
        self.replayed = max(REPLAYED, EACH * len(known))
        classes = torch.randint(len(known), (self.replayed,), generator=self.generator)
        replayed = guard.draw(self.point, classes, self.generator)
        self.retained, self.features = self._seen(replayed, known[classes])
        samples, _ = self._seen(*self._views(data, runtime.generator("shift")))
        target = self._target(samples)
        likely = softmax(target.without_forgotten(target.original)[:, known], 1).cpu()
        which = torch.arange(min(AROUND * len(data.columns), MOST)) % len(samples.y)
        near = likely[which].multinomial(1, generator=self.generator).flatten()
        around, _ = self._seen(guard.draw(self.point, near, self.generator, samples.x[which]), samples.y[which])
        self.around = around.part(slice(len(which) // HELD))
        trained = around.part(slice(len(which) // HELD, None))
        self.forget = Batch(*(torch.cat(pair) for pair in zip(samples, trained, strict=True)))
        self.weights = {}
        for column in data.columns:
            share = likely[samples.y.cpu() == column].mean(0) / classes.bincount(minlength=len(known)).clamp_min(1)
            self.weights[column] = share[classes]

    def loss(self, spread: float) -> Tensor:
        """Return the loss of a step, on some of what is trained on, with a weight of the energy distances."""
        forget = self.forget.part(torch.randint(len(self.forget.y), (FORGET,), generator=self.generator))
        chosen = torch.randint(self.replayed // HELD, self.replayed, (RETAIN,), generator=self.generator)
        retained = self.retained.part(chosen)
        logits, features = self._rest(torch.cat([forget.x, retained.x]))
        loss = masked(logits[:FORGET], self._target(forget))
        loss = loss + self.method.replay * self._divergence(logits[FORGET:], retained)
        if spread:
            apart = [self._apart(h[:FORGET], forget.y, there) for h, there in zip(features, self.features, strict=True)]
            loss = loss + spread * torch.stack(apart).mean()
        return loss

    @torch.no_grad()
    def held_out(self) -> dict[str, float]:
        """Return how far it has come, on what is not trained on: the measures that a run is stopped by."""
        retained = self.retained.part(slice(self.replayed // HELD))
        logits, features = self._rest(torch.cat([self.around.x, retained.x]))
        count = len(self.around.y)
        return {
            "probability_left": probability(logits[:count], self.columns),
            "energy": self._apart(features[-1][:count], self.around.y, self.features[-1]).item(),
            "divergence": self._divergence(logits[count:], retained).item(),
        }

    def _rest(self, flow: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return logits (N, K) and what flows into the places, pooled, for what flows through the point (N, ...)."""
        with self.model.replacing(self.point, flow), self.model.recording(self.places) as seen:
            logits = self.model.logits(self.example)
        return logits, [pooled(seen[place]) for place in self.places]

    @torch.no_grad()
    def _seen(self, flow: Tensor, y: Tensor) -> tuple[Batch, list[Tensor]]:
        """Return a flow (N, ...) and its columns (N,) with what the original makes of it."""
        logits, features = zip(*(self._rest(some) for some in flow.split(FORWARD)), strict=True)
        places = [torch.cat(parts) for parts in zip(*features, strict=True)]
        return Batch(flow, y.to(flow.device), torch.cat(logits)), places

    @torch.no_grad()
    def _views(self, data: Data, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return what flows through the replay point for shifted samples, (VIEWS B, ...), and their columns."""
        x, y, _ = data.forget
        shifted, flows = Augment(round(self.method.shift * x.shape[-1])), []
        with self.model.recording([self.point]) as seen:
            for _ in range(VIEWS):
                for some in shifted(x, generator).split(FORWARD):
                    self.model.logits(some)
                    flows.append(seen[self.point])
        return torch.cat(flows), y.repeat(VIEWS)

    def _target(self, forget: Batch) -> Request:
        """Return what the outputs are to be: the original's, sharpened."""
        return Request(forget.y, self.columns, forget.logits / self.method.temperature)

    def _divergence(self, logits: Tensor, retained: Batch) -> Tensor:
        """Return how far outputs (N, K) on retained draws are from those of the masked original, in nats."""
        return masked(logits, Request(retained.y, self.columns, retained.logits))

    def _apart(self, h: Tensor, y: Tensor, features: Tensor) -> Tensor:
        """Return how far h (N, d) of the classes y is from the original's features, and its direction from theirs."""
        found = []
        for column in y.unique().tolist():
            drawn = features[self.weights[column].multinomial(TARGET, True, generator=self.generator)]
            unit = drawn.square().sum(1).mean().sqrt().clamp_min(torch.finfo(drawn.dtype).tiny)
            mine = h[y == column]
            found.append(energy(mine / unit, drawn / unit) + energy(normalize(mine), normalize(drawn)))
        return torch.stack(found).mean()


def energy(x: Tensor, y: Tensor) -> Tensor:
    r"""Return :math:`2 E|X-Y| - E|X-X'| - E|Y-Y'|`, unbiased, of x (N, d) and y (M, d); in the mean 0 if alike."""
    return 2 * torch.cdist(x, y).mean() - _within(x) - _within(y)


def _within(x: Tensor) -> Tensor:
    """Return the mean distance of two different rows of x (N, d)."""
    return torch.pdist(x).mean() if len(x) > 1 else x.new_zeros(())


def _parametrise(model: Classifier, name: str, guard: ClassStatistics, strength: float) -> Spared:
    """Make the weights of a layer change by what the guard spares least."""
    layer = model.module.get_submodule(name)
    spared = Spared(layer.get_parameter("weight"), *guard.second_moment(name), strength)
    register_parametrization(layer, "weight", spared)
    return spared
