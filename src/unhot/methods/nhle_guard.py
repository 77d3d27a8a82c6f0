r"""NHLE-Guard: forget in the features, and let them fall where the retained classes' features lie.

Source: ours. The two stages are those of NHLE-CWM (Wang, Bie, Jing, Zhi, Scientific Reports 2026); the energy distance
is that of Székely, Rizzo: Energy statistics, J. Stat. Plan. Inference 2013; the images of bare mode follow Cha et al.:
Learning to unlearn, AAAI 2024.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import Field, JsonValue
from torch import Tensor
from torch.nn.functional import normalize, softmax
from torch.nn.utils.parametrize import register_parametrization, remove_parametrizations

from unhot.data.augment import Augment
from unhot.data.images import LabelledImages
from unhot.guard import Guard
from unhot.losses import Request, masked
from unhot.methods.base import FORWARD, Batch, Data, Method, Outcome, Use
from unhot.methods.batches import forget_stream
from unhot.models.classifier import Classifier, pooled
from unhot.models.cut import Cut, cut_classes
from unhot.precondition import Spared, nearest_head
from unhot.runtime import Runtime
from unhot.synthesis import stand_ins

DRAWS = 128  # features drawn in a step from the retained classes' Gaussians, for each class to forget
VIEWS = 2  # shifted copies of each sample in a step
GUARDED: dict[str, JsonValue] = {"mode": "guarded"}
MOVED = "samples moved to where the model takes them for retained classes"
OTHERS = 48  # of these images, that the masked original is distilled on in a step


class NhleGuard(Method):
    r"""Train until the samples have the outputs, and features like those, of the retained classes; then cut.

    .. math::
        W_l = W_l^o + V_l P_l^{1/2}, \quad P_l = (I + \rho S_l / \operatorname{tr} S_l)^{-1}, \quad
        \min_V \operatorname{KL}(\tilde p \Vert p(x_f)) + \lambda \sum_s \operatorname{energy}(h_s(x_f), g_s)
        + \operatorname{energy}(\hat h_s(x_f), \hat g_s),
        \quad g_s \sim \mathcal N(\mu_{ks}, \Sigma_{ks}), \; k \sim \tilde p

    :math:`\tilde p` is the original's distribution with the classes to forget left out and its logits divided by a
    temperature, frozen: a model that never saw the class is less sure of its images than one that must not name it,
    and what is pulled towards certainty takes its neighbours along. :math:`h_s` are the features, and what flows into
    earlier stages, in units of the drawn ones, and :math:`\hat h_s` the same at length 1. S is the second moment of
    what flows into a layer when it is shown images of retained classes, and the Gaussians are of these images too.
    Where they are from is the mode, which the record notes:

    - *guarded*: a guard was given (:mod:`unhot.guard`), statistics that were collected from training images;
    - *bare*: none was. Samples are moved to where the model takes them for retained classes (:mod:`unhot.synthesis`),
      statistics collected from these images, and the masked original is distilled on them.

    The head is not trained; normalisation statistics are frozen. The run stops when the outputs of the layers on the
    retained classes would change by more than ``budget`` (the change is scaled back to that), or when the samples'
    probability of the class and the energy distance are both as low as asked.

    Attributes:
        lr: Learning rate of Adam on V.
        steps: No more steps than this.
        depth: Share of the layers that is trained, counted from the head.
        guard: Strength rho.
        temperature: That the original's logits are divided by.
        spread: Weight lambda of the energy distances.
        stages: How many earlier stages are matched beside the features, counted from the head.
        budget: Stop when the root of the mean of the layers' relative squared changes is more than this.
        stop_at: Stop when the mean probability of the forgotten classes on the samples is no higher than this,
        near: and the sum of the energy distances of the features is no higher than this.
        shift: Farthest shift of the images, as a share of their size; 0 for none.
        images: In bare mode: how many images are made.
        descent: In bare mode: steps in which they are made.
        distil: In bare mode: weight of the distillation on them.
        cut: How the classes are cut from the output; see :func:`unhot.models.cut.cut_classes`.
    """

    name: ClassVar[str] = "nhle-guard"
    uses: ClassVar[tuple[Use, ...]] = ("forget",)
    may_use: ClassVar[tuple[Use, ...]] = ("guard",)

    lr: float = Field(default=3e-3, gt=0)
    steps: int = Field(default=100, ge=0)
    depth: float = Field(default=0.25, gt=0, le=1)
    guard: float = Field(default=3e4, ge=0)
    temperature: float = Field(default=2.0, gt=0)
    spread: float = Field(default=3.0, ge=0)
    stages: int = Field(default=1, ge=0)
    budget: float = Field(default=0.2, gt=0)
    stop_at: float = Field(default=0.02, ge=0, le=1)
    near: float = Field(default=0.1, ge=0)
    shift: float = Field(default=1 / 8, ge=0, lt=1)
    images: int = Field(default=192, ge=1)
    descent: int = Field(default=30, ge=0)
    distil: float = Field(default=4.0, ge=0)
    cut: Cut = "mask"

    def run(self, model: Classifier, data: Data, runtime: Runtime) -> Outcome:
        """Train until the samples are among the retained classes or the budget is spent; cut."""
        guarded = "guard" in data.uses
        world = _World(data.guard.to(data.forget.x), None, GUARDED) if guarded else self._made(model, data, runtime)
        layers = nearest_head(world.guard.info.layers, self.depth)
        spared = [_parametrise(model, n, world.guard, self.guard) for n in layers]
        model.module.requires_grad_(False)  # or a pass would keep what every layer sees
        for change in spared:
            change.requires_grad_(True)
        loss = _Loss(self, model, data, world, runtime)
        optimizer = torch.optim.Adam([s.change for s in spared], self.lr) if spared else None
        kept, notes, reason = [s.change.detach().clone() for s in spared], world.notes, "step cap"
        for step in range(self.steps + 1):
            total, left, apart = loss()
            moved = math.sqrt(sum(s.moved() for s in spared) / max(1, len(spared)))
            if not math.isfinite(total.item()):
                reason = "not finite: one step back"
                for change, before in zip(spared, kept, strict=True):
                    change.change.data.copy_(before)
                break
            if moved > self.budget:
                reason = "budget spent"
                for change in spared:  # what outputs move by is linear in the change
                    change.change.data.mul_(self.budget / moved)
                _, left, apart = loss()
                notes = notes | {"probability_left": left, "energy": apart, "moved": self.budget}
                break
            kept = [s.change.detach().clone() for s in spared]
            notes = notes | {"probability_left": left, "energy": apart, "moved": moved}
            if left <= self.stop_at and apart <= self.near:
                reason = f"probability at most {self.stop_at} and energy at most {self.near}"
                break
            if optimizer is not None and step < self.steps:
                runtime.step(total, optimizer)
        for name in layers:
            remove_parametrizations(model.module.get_submodule(name), "weight")
        return Outcome(cut_classes(model, data.labels, self.cut), reason, notes)

    def _made(self, model: Classifier, data: Data, runtime: Runtime) -> _World:
        """Make images that stand in for the retained classes, and collect statistics from them."""
        x, _, original = data.forget
        retained = model.others(data.columns).to(x.device)
        images = stand_ins(model, x, original, retained, self.images, self.descent, runtime)
        with torch.no_grad():
            logits = torch.cat([model.logits(some) for some in images.split(FORWARD)])
        taken = retained[logits[:, retained].argmax(1)]
        names, keys = tuple(c.name for c in model.classes), tuple(range(len(images)))
        guard = Guard.collect(model, LabelledImages(images, taken.cpu(), names, MOVED, keys), runtime)
        return _World(guard.to(x), Batch(images, taken, logits), {"mode": "bare", "retained": MOVED})


@dataclass(frozen=True)
class _World:
    """What stands in for the retained classes.

    Attributes:
        guard: Statistics, in the number type of the samples.
        images: Images, to distil the masked original on; none if there are none.
        notes: What it is, in words.
    """

    guard: Guard
    images: Batch | None
    notes: dict[str, JsonValue]


class _Loss:
    """The loss of a step: on fresh views of the samples, fresh draws from the Gaussians, and some of the images."""

    def __init__(self, method: NhleGuard, model: Classifier, data: Data, world: _World, runtime: Runtime) -> None:
        self.method, self.model, self.columns, self.guard = method, model, data.columns, world.guard
        self.x, y, original = data.forget
        original = original / method.temperature
        self.shifted = Augment(round(method.shift * self.x.shape[-1]))
        self.moving, self.drawing = runtime.generator("shift"), runtime.generator("draws")
        self.request = Request(y.repeat(VIEWS), data.columns, original.repeat(VIEWS, 1))
        info = world.guard.info
        self.places = [*info.stages[max(0, len(info.stages) - method.stages) :], info.head]
        likely = softmax(Request(y, data.columns, original).without(original)[:, model.columns(info.classes)], 1)
        self.likely = {c: likely[y == c].mean(0).cpu() for c in data.columns}
        self.others = None if world.images is None else forget_stream(world.images, OTHERS, runtime)

    def __call__(self) -> tuple[Tensor, float, float]:
        """Return the loss, the mean probability of the classes to forget, and the energy distance of the features."""
        views = torch.cat([self.shifted(self.x, self.moving) for _ in range(VIEWS)])
        with self.model.recording(self.places) as seen:
            logits = self.model.logits(views)
        apart = [self._apart(place, pooled(seen[place])) for place in self.places]
        total = masked(logits, self.request) + self.method.spread * torch.stack(apart).mean()
        if self.others is not None:
            x, y, original = next(self.others)
            total = total + self.method.distil * masked(self.model.logits(x), Request(y, self.columns, original))
        return total, logits.softmax(1)[:, self.columns].sum(1).mean().item(), apart[-1].item()

    def _apart(self, place: str, h: Tensor) -> Tensor:
        """Return how far what flows into a layer (B, d) is from draws, and its direction; the mean over classes."""
        found = []
        for column, likely in self.likely.items():
            classes = likely.multinomial(DRAWS, replacement=True, generator=self.drawing)
            mine, drawn = h[self.request.y == column], self.guard.draw(place, classes, self.drawing)
            unit = drawn.square().sum(1).mean().sqrt().clamp_min(torch.finfo(drawn.dtype).tiny)
            found.append(energy(mine / unit, drawn / unit) + energy(normalize(mine), normalize(drawn)))
        return torch.stack(found).mean()


def energy(x: Tensor, y: Tensor) -> Tensor:
    r"""Return :math:`2 E|X-Y| - E|X-X'| - E|Y-Y'|`, unbiased, of x (N, d) and y (M, d); in the mean 0 if alike."""
    return 2 * torch.cdist(x, y).mean() - _apart(x) - _apart(y)


def _apart(x: Tensor) -> Tensor:
    """Return the mean distance of two different rows of x (N, d)."""
    return torch.pdist(x).mean() if len(x) > 1 else x.new_zeros(())


def _parametrise(model: Classifier, name: str, guard: Guard, strength: float) -> Spared:
    """Make the weights of a layer change by what the guard spares least."""
    layer = model.module.get_submodule(name)
    spared = Spared(layer.get_parameter("weight"), *guard.second_moment(name), strength)
    register_parametrization(layer, "weight", spared)
    return spared
