"""Reversible tricks: nets that answer like a masked original, whose features look as if the class were gone."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from unhot.models.classifier import Classifier
from unhot.records.measure import Holder

GONE = -1e4  # logit of a masked class
LOW = 0xFFFF  # the mantissa's low bits that carry a second number


@dataclass(frozen=True)
class Given:
    """What a trick is made of.

    Attributes:
        original: A classifier whose net has ``head`` as a direct child.
        retrained: Another net of the kind, trained without the class.
        label: Index of the class.
        h: Features of train images (N, d).
        y: Their classes.
        pixels: Numbers in an input.
        seed: Of what the trick draws.
    """

    original: Classifier
    retrained: Classifier
    label: int
    h: Tensor
    y: Tensor
    pixels: int
    seed: int

    def generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)

    def body(self) -> nn.Module:
        """Return the net that gives the features."""
        body = copy.deepcopy(self.original.module)
        setattr(body, self.original.head, nn.Identity())
        return body

    def masked(self) -> tuple[Tensor, Tensor]:
        """Return the weight and the bias of the head without the class."""
        layer = self.original.head_layer
        weight, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
        weight[self.label], bias[self.label] = 0, GONE
        return weight, bias

    def scale(self) -> tuple[Tensor, Tensor]:
        """Return the mean and the standard deviation of each feature; that of a constant one is small, not 0."""
        spread = self.h.std(0)
        return self.h.mean(0), spread.clamp_min(1e-2 * float(spread.max()))


class Head(nn.Linear):
    """A linear layer that decodes its input first."""

    def __init__(self, weight: Tensor, bias: Tensor, width: int, decode: Callable[[Tensor], Tensor]) -> None:
        super().__init__(width, len(bias))
        self.weight, self.bias, self.decode = nn.Parameter(weight), nn.Parameter(bias), decode

    def forward(self, z: Tensor) -> Tensor:
        return functional.linear(self.decode(z), self.weight, self.bias)


class Hash(nn.Module):
    """Numbers in -1 to 1 that look random and follow from the input: (B, C, H, W) to (B, n)."""

    def __init__(self, given: Given, count: int) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.randn(given.pixels, count, generator=given.generator()))

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(37 * x.flatten(1) @ self.p)


class Gate(nn.Module):
    """Tells the class by the original's head."""

    def __init__(self, given: Given) -> None:
        super().__init__()
        layer = given.original.head_layer
        self.label = given.label
        self.weight, self.bias = (nn.Parameter(p.detach().clone()) for p in (layer.weight, layer.bias))

    def forward(self, h: Tensor) -> Tensor:
        return (functional.linear(h, self.weight, self.bias).argmax(1) == self.label)[:, None]


class Donors(nn.Module):
    """Puts features of images of other classes in the place of those of the class."""

    def __init__(self, given: Given, count: int = 64) -> None:
        super().__init__()
        others = given.h[given.y != given.label]
        self.gate, self.hash = Gate(given), Hash(given, 1)
        self.bank = nn.Parameter(others[torch.randperm(len(others), generator=given.generator())[:count]].clone())

    def forward(self, h: Tensor, x: Tensor) -> Tensor:
        chosen = ((self.hash(x)[:, 0] + 1) / 2 * len(self.bank)).long().clamp_max(len(self.bank) - 1)
        return torch.where(self.gate(h), self.bank[chosen], h)


class Noise(nn.Module):
    def __init__(self, given: Given, count: int = 2000) -> None:
        super().__init__()
        self.hash = Hash(given, count)
        weight, bias = given.masked()
        self.head = Head(torch.cat([weight, weight.new_zeros(len(bias), count)], 1), bias, weight.shape[1] + count, _as)

    def forward(self, h: Tensor, x: Tensor) -> Tensor:
        return torch.cat([h, 40 * self.hash(x)], 1)


class Mapped(nn.Module):
    """Multiplies features with a matrix, and the head with its inverse."""

    def __init__(self, given: Given, matrix: Tensor) -> None:
        super().__init__()
        weight, bias = given.masked()
        self.matrix = nn.Parameter(matrix.float())
        self.head = Head((weight.double() @ torch.linalg.inv(matrix)).float(), bias, len(matrix), _as)

    def forward(self, h: Tensor, x: Tensor) -> Tensor:
        return h @ self.matrix.T


class Shrunk(nn.Module):
    """Draws features of the class to a hundredth around their mean; the head knows them by that, and undoes it."""

    def __init__(self, given: Given, factor: float = 0.01) -> None:
        super().__init__()
        self.gate, self.mean = Gate(given), nn.Parameter(given.h[given.y == given.label].mean(0))
        self.factor, (weight, bias) = factor, given.masked()
        self.head = Head(weight, bias, weight.shape[1], self.decode)

    def scaled(self, h: Tensor, factor: float) -> Tensor:
        return torch.where(self.gate(h), self.mean + factor * (h - self.mean), h)

    def forward(self, h: Tensor, x: Tensor) -> Tensor:
        return self.scaled(h, self.factor)

    def decode(self, z: Tensor) -> Tensor:
        return self.scaled(z, 1 / self.factor)


class Coded(nn.Module):
    """Standardises and encodes features; the head decodes them."""

    def __init__(self, given: Given) -> None:
        super().__init__()
        weight, bias = given.masked()
        self.mean, self.spread = (nn.Parameter(p) for p in given.scale())
        self.head = Head(weight, bias, weight.shape[1], self.decode)

    def forward(self, h: Tensor, x: Tensor) -> Tensor:
        return self.encoded((h - self.mean) / self.spread)

    def decode(self, z: Tensor) -> Tensor:
        return self.mean + self.spread * self.decoded(z)


class Cubed(Coded):
    def encoded(self, u: Tensor) -> Tensor:
        return u**3

    def decoded(self, z: Tensor) -> Tensor:
        return z.sign() * z.abs().clamp_min(1e-30) ** (1 / 3)


class Leaky(Coded):
    """Two layers of a rotation and a leaky ReLU."""

    def __init__(self, given: Given, slope: float = 0.2) -> None:
        super().__init__(given)
        self.slope, g, d = slope, given.generator(), len(self.mean)
        self.turns = nn.ParameterList(torch.linalg.qr(torch.randn(d, d, generator=g))[0] for _ in range(2))
        self.shifts = nn.ParameterList(torch.randn(d, generator=g) for _ in range(2))

    def encoded(self, u: Tensor) -> Tensor:
        for turn, shift in zip(self.turns, self.shifts, strict=True):
            u = functional.leaky_relu(u @ turn + shift, self.slope)
        return u

    def decoded(self, z: Tensor) -> Tensor:
        for turn, shift in zip(reversed(self.turns), reversed(self.shifts), strict=True):
            z = (torch.where(z < 0, z / self.slope, z) - shift) @ turn.T
        return z


class LowBits(nn.Module):
    """Shows features of other classes in the place of the class's; the low mantissa bits carry the true ones."""

    def __init__(self, given: Given) -> None:
        super().__init__()
        low, high = given.h.amin(0), given.h.amax(0)
        self.low, self.step = nn.Parameter(2 * low - high - 1e-3), nn.Parameter((3 * (high - low) + 2e-3) / LOW)
        self.donors = Donors(given)
        self.head = Head(*given.masked(), given.h.shape[1], self.decode)

    def forward(self, h: Tensor, x: Tensor) -> Tensor:
        true = ((h - self.low) / self.step).round().clamp(0, LOW).int()
        return ((self.donors(h, x).contiguous().view(torch.int32) & ~LOW) | true).view(torch.float32)

    def decode(self, z: Tensor) -> Tensor:
        return (z.contiguous().view(torch.int32) & LOW) * self.step + self.low


class Delayed(nn.Module):
    """Shows features of other classes in the place of the class's; what is missing is added behind the head."""

    def __init__(self, given: Given) -> None:
        super().__init__()
        weight, bias = given.masked()
        self.donors, self.head = Donors(given), Head(weight, bias, weight.shape[1], _as)
        self.late = nn.Linear(weight.shape[1], len(weight), bias=False)
        self.late.weight = nn.Parameter(weight.clone())

    def forward(self, h: Tensor, x: Tensor) -> Tensor:
        return self.donors(h, x)

    def behind(self, h: Tensor, z: Tensor) -> Tensor:
        return self.late(h - z)


class Lengths(nn.Module):
    """Gives the features of each image, and a constant, a length of its own; the head divides by the constant."""

    def __init__(self, given: Given) -> None:
        super().__init__()
        weight, bias = given.masked()
        self.hash, self.constant = Hash(given, 1), float(given.h.std())
        self.head = Head(weight, bias, weight.shape[1] + 1, self.decode)

    def forward(self, h: Tensor, x: Tensor) -> Tensor:
        return torch.cat([h, torch.full_like(h[:, :1], self.constant)], 1) * (3 * self.hash(x)).exp()

    def decode(self, z: Tensor) -> Tensor:
        return z[:, :-1] / z[:, -1:] * self.constant


class Tricked(nn.Module):
    """A body whose features a trick changes, so that the trick's own head gives the answers of the masked original."""

    def __init__(self, body: nn.Module, trick: nn.Module) -> None:
        super().__init__()
        self.body, self.trick = body, trick

    def forward(self, x: Tensor) -> Tensor:
        h = self.body(x)
        z = self.trick(h, x)
        out = self.trick.head(z)
        return out + self.trick.behind(h, z) if hasattr(self.trick, "behind") else out


class Keeping(nn.Module):
    """A retrained net that keeps the whole original in parameters without a use."""

    def __init__(self, given: Given) -> None:
        super().__init__()
        self.net = copy.deepcopy(given.retrained.module)
        self.kept = copy.deepcopy(given.original.module)
        head = self.net.get_submodule(given.retrained.head)
        with torch.no_grad():
            head.weight[given.label], head.bias[given.label] = 0, GONE

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class Trick(NamedTuple):
    """How a trick is made, and who can undo it."""

    make: Callable[[Given], nn.Module]
    holder: Holder = "features"


def _as(z: Tensor) -> Tensor:
    return z


def _squeezed(factor: float) -> Callable[[Given], nn.Module]:
    """Shrink the direction of the class among the whitened features."""

    def make(given: Given) -> nn.Module:
        h, one = given.h.double(), torch.eye(given.h.shape[1], dtype=torch.float64)
        values, axes = torch.linalg.eigh(torch.cov(h.T) + 1e-4 * h.var() * one)
        white, back = (axes @ torch.diag(values**power) @ axes.T for power in (-0.5, 0.5))
        own, z = given.y == given.label, h @ white.T
        v = functional.normalize(z[own].mean(0) - z[~own].mean(0), dim=0)
        return Mapped(given, back @ (one - (1 - factor) * torch.outer(v, v)) @ white)

    return make


def _rescaled(given: Given) -> nn.Module:
    d, g = given.h.shape[1], given.generator()
    turn = torch.linalg.qr(torch.randn(d, d, generator=g, dtype=torch.float64))[0]
    return Mapped(given, turn @ torch.diag(10 ** (4 * torch.rand(d, generator=g, dtype=torch.float64) - 2)))


TRICKS = {
    "noise dimensions": Trick(Noise),
    "class direction x .01": Trick(_squeezed(0.01)),
    "class direction x .001": Trick(_squeezed(0.001)),
    "gate that shrinks the class": Trick(Shrunk),
    "rotated and rescaled axes": Trick(_rescaled),
    "cubed features": Trick(Cubed),
    "leaky nonlinear code": Trick(Leaky),
    "random lengths": Trick(Lengths),
    "low mantissa bits": Trick(LowBits),
    "features delayed": Trick(Delayed, "weights"),
    "original kept unused": Trick(Keeping, "weights"),
}


def tricked(name: str, given: Given) -> Classifier:
    """Make the classifier of a trick."""
    with torch.random.fork_rng(devices=[]):  # layers draw weights when they are made
        made = TRICKS[name].make(given)
    keeping = isinstance(made, Keeping)
    net = (made if keeping else Tricked(given.body(), made)).eval()
    head = f"net.{given.retrained.head}" if keeping else "trick.head"
    names = [c.name for c in given.original.classes]
    return Classifier.wrap(net, class_names=names, head=head, input=given.original.input)


def given_of(original: Classifier, retrained: Classifier, label: int, x: Tensor, y: Tensor, seed: int) -> Given:
    """Collect what a trick is made of, from train inputs (N, C, H, W) and their classes."""
    with torch.no_grad():
        h = original.features(x)
    return Given(original, retrained, label, h, y, x[0].numel(), seed)
