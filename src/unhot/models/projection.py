"""Projection: a layer before the head that takes directions out of the features."""

from __future__ import annotations

from dataclasses import replace

import torch
from pydantic import JsonValue
from torch import Tensor, nn

from unhot.models.arch import build
from unhot.models.classifier import Classifier, linear, replace_layer
from unhot.records.model import InputSpec


class Projection(nn.Module):
    """h - (h U^T) U, for features h (B, d) and orthonormal rows U (k, d): what lies along U is lost.

    U is a parameter, so that it is kept with the weights; no gradient reaches it.
    """

    def __init__(self, rank: int, features: int) -> None:
        super().__init__()
        self.away = nn.Parameter(torch.zeros(rank, features), requires_grad=False)

    def forward(self, h: Tensor) -> Tensor:
        """Return the features without what lies along U."""
        return project_out(h, self.away.detach())


def project_out(h: Tensor, away: Tensor) -> Tensor:
    """Return h (B, d) without what lies along orthonormal rows ``away`` (k, d)."""
    left: Tensor = h - h @ away.T @ away
    return left


def span(rows: Tensor) -> Tensor:
    """Return orthonormal rows (k, d) that span ``rows`` (n, d), of the same kind; k < n if some depend on others."""
    _, lengths, basis = torch.linalg.svd(rows.detach().cpu().double(), full_matrices=False)
    found: Tensor = basis[lengths > 1e-6 * lengths.max()].to(rows)
    return found


def project_features(model: Classifier, rows: Tensor) -> Classifier:
    """Take the span of some rows (n, d) out of the features, by a layer before the head, in place.

    The features of the classifier returned, the input of its head, are projected. No weight layer of a usual net could
    hold the projection: features come out of a ReLU, a maximum or a normalisation, and projected ones do not.

    Returns:
        The classifier with ``head`` brought up to date, and with an ``arch`` that builds the net with the layer, where
        it could be built by name before.
    """
    head, place, earlier = model.head_layer, model.head, _projection(model)
    away = span(rows if earlier is None else torch.cat([earlier.away, rows]))
    layer = Projection(*away.shape).to(head.weight).train(head.training)
    with torch.no_grad():
        layer.away.copy_(away)
    if earlier is not None:  # one layer for all that is taken out: a second one would bring some of the first back
        replace_layer(model.module, f"{place[:-1]}0", layer)
        return replace(model, arch_options=model.arch_options | ({"rank": len(away)} if model.arch else {}))
    replace_layer(model.module, place, nn.Sequential(layer, head).train(head.training))
    model = replace(model, head=f"{place}.1")
    if model.arch is None:
        return model
    inner: dict[str, JsonValue] = {"arch": model.arch, "options": model.arch_options, "head": place, "rank": len(away)}
    return replace(model, arch=f"{__name__}:{projected.__name__}", arch_options=inner)


def projected(
    outputs: int,
    arch: str,
    head: str,
    rank: int,
    options: dict[str, JsonValue] | None = None,
    channels: int | None = None,
    size: int | None = None,
) -> nn.Module:
    """Build an architecture with a projection before its head, as :func:`project_features` leaves it.

    Args:
        outputs: Number of classes.
        arch: The architecture.
        head: Dotted name of its final linear layer.
        rank: Number of directions that are taken out.
        options: Keyword arguments of the architecture.
        channels: Of its inputs; None if they are not known.
        size: Height and width of its inputs.
    """
    spec = None
    if channels is not None and size is not None:
        known = {"height": size, "width": size, "channels": channels, "mean": [0.0] * channels, "std": [1.0] * channels}
        spec = InputSpec.model_validate(known)
    net = build(arch, outputs, spec, options)
    final = linear(net, head)
    replace_layer(net, head, nn.Sequential(Projection(rank, final.in_features), final))
    return net


def _projection(model: Classifier) -> Projection | None:
    """Return the projection before the head, if there is one."""
    found = dict(model.module.named_modules()).get(f"{model.head[:-1]}0") if model.head.endswith(".1") else None
    return found if isinstance(found, Projection) else None
