r"""Preconditioning of weight gradients by the inputs on which a layer's outputs should be preserved.

The mean squared change of a layer's output on inputs with second moment :math:`S` under a change :math:`\Delta W` of
its weights is :math:`\operatorname{tr}(\Delta W S \Delta W^\top)`. Descending with that as a penalty multiplies the
gradient :math:`G` by :math:`(I + \rho S)^{-1}`: directions that these inputs use are spared, the others are free.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unhot.data.images import at_once
from unhot.models.classifier import Classifier
from unhot.models.layers import some_rows

ROWS = 256  # inputs kept of each layer: 1,024 did no better, and the cost of a solve grows with their square


@dataclass(frozen=True)
class Preconditioner:
    r""":math:`(I + \rho S / \operatorname{tr} S)^{-1}` for each of some layers.

    Attributes:
        layers: The layers, by name.
        factors: For each layer, its inputs A (n, d), scaled so that S = A^T A has trace rho, and the Cholesky factor
            of I + A A^T; by the Woodbury identity a product needs no more, however large d is. In float32 at least.
    """

    layers: dict[str, nn.Module]
    factors: dict[str, tuple[Tensor, Tensor]]

    @classmethod
    def of(
        cls, model: Classifier, names: Sequence[str], x: Tensor, strength: float, generator: torch.Generator
    ) -> Preconditioner:
        """Record the inputs of some layers.

        Args:
            model: The classifier.
            names: Layers of :func:`weight_layers`.
            x: Inputs (B, C, H, W) on which the layers' outputs should be preserved.
            strength: rho; 0 leaves gradients as they are.
            generator: Chooses which inputs of a convolution are kept.
        """
        flows: dict[str, list[Tensor]] = {n: [] for n in names}
        with torch.no_grad(), model.recording(names) as seen:
            for some in x.split(at_once(x)):
                model.logits(some)
                for name, flow in flows.items():
                    flow.append(seen[name])
        layers = {n: model.module.get_submodule(n) for n in names}
        factors = {}
        for name, layer in layers.items():
            flowing = torch.cat(flows.pop(name))
            # half precision is too coarse for a Cholesky factor, and torch offers none
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

    V (out, d) is trained, from zero. Steps along the gradient of V are those of :class:`Preconditioner`; an
    optimiser that scales them coordinate by coordinate, as Adam does, still spares what S spares.

    Args:
        weight: The initial weight.
        rows: B (n, d) of S = B^T B + a I.
        rest: The scalar a of it.
        strength: The strength rho.
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
