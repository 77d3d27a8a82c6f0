r"""Preconditioning of weight gradients by the inputs that a layer's outputs are to be kept on.

The mean squared change of a layer's output on inputs with second moment :math:`S` under a change :math:`\Delta W` of
its weights is :math:`\operatorname{tr}(\Delta W S \Delta W^\top)`. Descending with that as the price multiplies the
gradient :math:`G` by :math:`(I + \rho S)^{-1}`: directions that these inputs use are spared, the others are free.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.utils.parametrize import is_parametrized

from unhot.models.classifier import Classifier

ROWS = 256  # inputs kept of each layer: as many as 1,024 did no better, and a solve grows with their square


def weight_layers(model: Classifier, x: Tensor) -> list[str]:
    """Return the names of the layers before the head that can be preconditioned, in the order they are called.

    These are the linear layers and the convolutions without groups whose weights are parameters, and not those of the
    head under another name.

    Args:
        model: The classifier.
        x: A few inputs (B, C, H, W).
    """
    head = model.head_layer.weight
    found = {
        n: m
        for n, m in model.module.named_modules()
        if n != model.head
        and not is_parametrized(m)
        and (isinstance(m, nn.Linear) or (isinstance(m, nn.Conv2d) and m.groups == 1))
        and m.weight is not head
    }
    with torch.no_grad(), model.recording(found) as seen:
        model.logits(x)
    return list(seen)


def nearest_head(names: Sequence[str], depth: float) -> Sequence[str]:
    """Return the last of some layers in the order they are called, at least a share ``depth`` (0 to 1) of them."""
    return names[len(names) - math.ceil(depth * len(names)) :]


@dataclass(frozen=True)
class Preconditioner:
    r""":math:`(I + \rho S / \operatorname{tr} S)^{-1}` for each of some layers.

    Attributes:
        layers: The layers, by name.
        factors: For each, its inputs A (n, d) scaled so that S = A^T A has trace rho, and the Cholesky factor of
            I + A A^T; by the Woodbury identity that is all that a product needs, however large d is. In float32 at
            least.
    """

    layers: dict[str, nn.Module]
    factors: dict[str, tuple[Tensor, Tensor]]

    @classmethod
    def of(
        cls, model: Classifier, names: Sequence[str], x: Tensor, strength: float, generator: torch.Generator
    ) -> Preconditioner:
        """Record what flows into some layers.

        Args:
            model: The classifier.
            names: Layers of :func:`weight_layers`.
            x: Inputs (B, C, H, W) on which the layers' outputs are to be kept.
            strength: rho; 0 leaves gradients as they are.
            generator: Chooses which inputs of a convolution are kept.
        """
        with torch.no_grad(), model.recording(names) as seen:
            model.logits(x)
        layers = {n: model.module.get_submodule(n) for n in names}
        factors = {}
        for name, layer in layers.items():
            flowing = seen[name]  # half precision is too coarse to be factorised, and torch does not offer it
            rows = some_rows(layer, flowing.to(torch.promote_types(flowing.dtype, torch.float32)), ROWS, generator)
            rows = rows * (strength / rows.square().sum().clamp_min(1e-12)).sqrt()
            factors[name] = rows, torch.linalg.cholesky(torch.eye(len(rows)).to(rows) + rows @ rows.T)
        return cls(layers, factors)

    def weights(self) -> list[Tensor]:
        """Return the weights of the layers, in order."""
        return [layer.get_parameter("weight") for layer in self.layers.values()]

    def __call__(self, gradients: tuple[Tensor, ...]) -> Iterator[Tensor]:
        """Give the preconditioned gradients of :meth:`weights`, in order and of the same shapes."""
        for (rows, factor), gradient in zip(self.factors.values(), gradients, strict=True):
            flat = gradient.flatten(1).to(rows.dtype)
            product = flat - torch.cholesky_solve(rows @ flat.T, factor).T @ rows
            yield product.to(gradient.dtype).view_as(gradient)


class Spared(nn.Module):
    r"""A weight W, parametrised as :math:`W + V P^{1/2}`, :math:`P = (I + \rho S / \operatorname{tr} S)^{-1}`.

    What is trained is V (out, d), from zero. Steps along the gradient of V are those of :class:`Preconditioner`; an
    optimiser that scales them coordinate by coordinate, as Adam does, still spares what S spares.

    Args:
        weight: The weight at the start.
        rows: B (n, d), and
        rest: a: S = B^T B + a I.
        strength: rho.
    """

    def __init__(self, weight: Tensor, rows: Tensor, rest: Tensor, strength: float) -> None:
        super().__init__()
        flat = weight.detach().flatten(1)
        self.change = nn.Parameter(torch.zeros_like(flat))
        rows, rest = rows.to(flat), rest.to(flat)
        trace = (rows.square().sum() + rest * rows.shape[1]).clamp_min(torch.finfo(flat.dtype).tiny)
        self.rows, self.rest = rows * (strength / trace).sqrt(), rest * strength / trace
        lengths, vectors = torch.linalg.eigh((self.rows @ self.rows.T).double())
        kept = lengths > 1e-6 * lengths[-1].clamp_min(1e-12)
        lengths, vectors = lengths[kept].to(flat), vectors[:, kept].to(flat)
        self.basis = (vectors / lengths.sqrt()).T @ self.rows
        self.scale = 1 - ((1 + self.rest) / (1 + self.rest + lengths)).sqrt()

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight with its change."""
        return weight + self.root(self.change).view_as(weight)

    def root(self, change: Tensor) -> Tensor:
        """Return V P^{1/2} (out, d) of V."""
        spared: Tensor = change - change @ self.basis.T * self.scale @ self.basis
        return spared / (1 + self.rest).sqrt()


def input_rows(layer: nn.Module, x: Tensor) -> Tensor:
    """Return the inputs (n, d) that a layer multiplies its weights (out, d) with."""
    return _places(layer, x).flatten(0, 2).flatten(1) if isinstance(layer, nn.Conv2d) else x.flatten(0, -2)


def some_rows(layer: nn.Module, x: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return at most ``count`` rows of :func:`input_rows`, chosen at random; only these are copied."""
    if not isinstance(layer, nn.Conv2d):
        rows = x.flatten(0, -2)
        return rows[torch.randperm(len(rows), generator=generator)[:count].to(x.device)]
    places = _places(layer, x)
    b, h, w = places.shape[:3]
    chosen = torch.randperm(b * h * w, generator=generator)[:count].to(x.device)
    return places[chosen // (h * w), chosen // w % h, chosen % w].flatten(1)


def _places(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """Return what a convolution looks at from each place, (B, H', W', C, k, k); a view of its padded inputs."""
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    x = pad(x, layer._reversed_padding_repeated_twice, mode=mode)  # of every side, whatever way the padding was given
    for dim in (0, 1):
        step = layer.dilation[dim]
        x = x.unfold(2 + dim, (layer.kernel_size[dim] - 1) * step + 1, layer.stride[dim])[..., ::step]
    return x.permute(0, 2, 3, 1, 4, 5)
