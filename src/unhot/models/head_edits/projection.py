"""Projection: a layer before the head that takes directions out of the features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from unhot.errors import ModelError
from unhot.models.head import linear, replace_layer
from unhot.models.head_edits.edit import LayerEdit, Values
from unhot.records.model import MOST_WIDTH

if TYPE_CHECKING:
    from unhot.models.classifier import Classifier

Deploy = Literal["layer", "head"]


class Projection(nn.Module):
    """h - (h U^T) U, for features h (B, d) and orthonormal rows U (k, d): what lies along U is lost.

    U is a parameter, so that it is kept with the weights; no gradient reaches it.
    """

    def __init__(self, rank: int, features: int) -> None:
        super().__init__()
        self.away = nn.Parameter(torch.zeros(rank, features), requires_grad=False)

    def reset_parameters(self) -> None:
        """Take nothing out."""
        nn.init.zeros_(self.away)

    def forward(self, h: Tensor) -> Tensor:
        """Return the features without what lies along U."""
        return project_out(h, self.away.detach())


def project_out(h: Tensor, away: Tensor) -> Tensor:
    """Return h (B, d) without what lies along orthonormal rows ``away`` (k, d)."""
    left: Tensor = h - h @ away.t() @ away
    return left


def span(rows: Tensor) -> Tensor:
    """Return orthonormal rows (k, d) that span ``rows`` (n, d), of the same kind; k < n if some depend on others."""
    _, lengths, basis = torch.linalg.svd(rows.detach().cpu().double(), full_matrices=False)
    found: Tensor = basis[lengths > 1e-6 * lengths.max()].to(rows)
    return found


class ProjectionEdit(LayerEdit):
    """Take the span of some rows (n, d) out of the features.

    By a layer, the features that are published, the input of the head, are projected. No weight layer of a usual net
    could hold the projection: features come out of a ReLU, a maximum or a normalisation, and projected ones do not. One
    layer takes out all, since a second one would bring some of the first's back.

    Attributes:
        rank: How many directions the layer takes out in all.
        deploy: ``head`` takes them out of the rows of a plain head instead, which gives the same logits, and leaves
            the features.
    """

    weight: ClassVar[str] = "away"

    kind: Literal["projection"] = "projection"
    rank: Annotated[int, Field(ge=0, le=MOST_WIDTH)]
    deploy: Deploy = "layer"

    @classmethod
    def of(cls, model: Classifier, rows: Tensor, deploy: Deploy = "layer") -> tuple[Self, Values]:
        """Return the edit that takes out the span of some rows (n, d), and what its layers hold."""
        if deploy == "head":
            away, weight = span(rows), model.head_layer.weight.detach()
            edit = cls(layer=model.head, rank=len(away), deploy=deploy)
            return edit, {f"{model.head}.weight": project_out(weight, away)}
        if (place := cls.place(model)) != model.head:
            rows = torch.cat([model.module.get_parameter(f"{place}.0.away").detach(), rows])
        away = span(rows)
        return cls(layer=place, rank=len(away)), {f"{place}.0.away": away}

    def structure(self, net: nn.Module) -> nn.Module:
        """Put a projection before the head."""
        if self.deploy == "head":
            return net
        there = self.is_there(net)
        head = linear(net, f"{self.layer}.1" if there else self.layer)
        if self.rank > head.in_features:
            raise ModelError(f"{self.rank} directions cannot be taken out of {head.in_features} features.")
        layer = Projection(self.rank, head.in_features).to(head.weight).train(head.training)
        if there:  # in a graph it is a parameter alone
            net.get_submodule(f"{self.layer}.0").away = layer.away
        else:
            replace_layer(net, self.layer, nn.Sequential(layer, head).train(head.training))
        return net

    def head_after(self, head: str) -> str:
        """Return the name of the head behind the projection."""
        return f"{self.layer}.1" if self.deploy == "layer" else head
