"""LastStage: the layers nearest the head, run on what was recorded at the point before them."""

from __future__ import annotations

from collections.abc import Container, Sequence
from copy import copy, deepcopy
from typing import NamedTuple

import torch
from torch import Tensor

from unhot.data.augment import Augment
from unhot.data.images import FORWARD, at_once
from unhot.models.classifier import Classifier
from unhot.models.layers import nearest_head, weight_layers
from unhot.models.replay import replay_points


class Flow(NamedTuple):
    """Inputs of the last stage for some images, and the original's logits and features for them.

    Attributes:
        into: Inputs of the stage (N, ...), in bfloat16 to save memory.
        logits: The original's logits, (N, K).
        features: The original's inputs of the head, (N, d).
        image: Which image each is a copy of, int64 (N,).
    """

    into: Tensor
    logits: Tensor
    features: Tensor
    image: Tensor

    def __len__(self) -> int:
        return len(self.logits)

    def part(self, index: Tensor | slice) -> Flow:
        """Return some of them."""
        return Flow(*(values[index] for values in self))

    @classmethod
    def of(cls, parts: list[Flow]) -> Flow:
        """Join some."""
        return cls(*(torch.cat(values) for values in zip(*parts, strict=True)))


class LastStage:
    """The last layers of a net, which are run without those before; only their weights have gradients.

    Attributes:
        point: Name of the module at which the stage begins: its input alone determines the output of the net.
        layers: Names of the linear layers and convolutions from there to the head, which is not one of them.

    Args:
        model: The classifier, in eval mode.
        example: An input (1, C, H, W).
        depth: Share of the layers that the stage has at least.
        known: Points where it may begin; any if None.
    """

    def __init__(self, model: Classifier, example: Tensor, depth: float, known: Container[str] | None = None) -> None:
        self.model, self.example = model, example
        layers = weight_layers(model, example)
        points = replay_points(model, layers, example)
        near = [n for n in nearest_head(layers, depth) if known is None or points[n] in known]
        self.point = points[near[0]] if near else ""
        self.layers = layers[min(i for i, layer in enumerate(layers) if points[layer] == self.point) :] if near else []

        model.module.requires_grad_(False)  # otherwise a pass would store the inputs of every layer
        for p in self.trained():
            p.requires_grad_(True)

    def trained(self) -> list[Tensor]:
        """Return the weights and biases of the layers."""
        layers = [self.model.module.get_submodule(name) for name in self.layers]
        return [p for layer in layers for p in layer.parameters(recurse=False)]

    @torch.no_grad()
    def renew(self, original: Sequence[Tensor], kept: float, generator: torch.Generator) -> None:
        """Set the weights to a share of the original ones, plus noise under which their spread stays; and the biases.

        Args:
            original: Weights and biases of the original, in the order of :meth:`trained`.
            kept: The share, 0 to 1.
            generator: Gives the noise.
        """
        for p, old in zip(self.trained(), original, strict=True):
            noise = torch.randn(old.shape, generator=generator).to(old)
            new = kept * old + (1 - kept**2) ** 0.5 * old.std(correction=0) * noise
            p.copy_(new if old.ndim > 1 else old)

    @torch.no_grad()
    def flow(
        self, x: Tensor, copies: int = 1, shift: int = 0, generator: torch.Generator | None = None, flip: bool = False
    ) -> Flow:
        """Record the inputs of the stage.

        Args:
            x: Inputs (N, C, H, W).
            copies: Number of copies of each; all but the first are shifted, and flipped at random.
            shift: Farthest shift of the copies, in pixels.
            generator: Gives the shifts.
            flip: Whether left and right of the copies may be swapped.
        """
        augment, parts = Augment(shift, flip), []
        with self.model.recording([self.point, self.model.head]) as seen:
            for copy in range(copies):
                for image in torch.arange(len(x), device=x.device).split(at_once(x)):
                    some = x[image] if not copy or generator is None else augment(x[image], generator)
                    logits = self.model.logits(some)
                    parts.append(Flow(seen[self.point].bfloat16(), logits, seen[self.model.head], image))
        return Flow.of(parts)

    @torch.no_grad()
    def replayed(self, into: Tensor) -> Flow:
        """Run the stage on inputs of it, (N, ...)."""
        image = torch.arange(len(into), device=into.device)
        return Flow.of([Flow(into[i].bfloat16(), *self(into[i].bfloat16()), i) for i in image.split(FORWARD)])

    def frozen(self) -> LastStage:
        """Return the stage as it is now, of a copy of the net."""
        stage = copy(self)
        stage.model = deepcopy(self.model)
        return stage

    def __call__(self, into: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (N, K) and features (N, d) for inputs of the stage, (N, ...)."""
        kind = self.example.dtype
        with self.model.replacing(self.point, into.to(kind)), self.model.recording([self.model.head]) as seen:
            logits = self.model.logits(self.example)
        return logits, seen[self.model.head]
