"""Projection: a layer before the head that removes directions from the features."""

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
    """h - (h U^T) U, for features h (B, d) and orthonormal rows U (k, d): components along U are removed.

    U is a parameter, so that it is stored with the weights; no gradient reaches it.
    """

    def __init__(self, rank: int, features: int) -> None:
        super().__init__()
        self.away = nn.Parameter(torch.zeros(rank, features), requires_grad=False)

    def reset_parameters(self) -> None:
        """Remove nothing."""
        nn.init.zeros_(self.away)

    def forward(self, h: Tensor) -> Tensor:
        """Return the features without their components along U."""
        return project_out(h, self.away.detach())


def project_out(h: Tensor, away: Tensor) -> Tensor:
    """Return h (B, d) without its components along orthonormal rows ``away`` (k, d)."""
    left: Tensor = h - h @ away.t() @ away
    return left


def span(rows: Tensor) -> Tensor:
    """Return orthonormal rows (k, d) that span ``rows`` (n, d), of the same kind; k < n if some depend on others."""
    _, lengths, basis = torch.linalg.svd(rows.detach().cpu().double(), full_matrices=False)
    found: Tensor = basis[lengths > 1e-6 * lengths.max()].to(rows)
    return found


class ProjectionEdit(LayerEdit):
    """Remove the span of some rows (n, d) from the features.

    A layer projects the input of the head, the features that are published. No earlier layer of a usual net could: its
    features come from a ReLU, a maximum or a normalisation, and projected ones do not. One layer removes all
    directions, since a second one would bring back some of the first.

    Attributes:
        rank: Number of directions that the layer removes in all.
        deploy: ``head`` removes them from the rows of a plain head instead, which gives the same logits and keeps the
            features.
    """

    weight: ClassVar[str] = "away"

    kind: Literal["projection"] = "projection"
    rank: Annotated[int, Field(ge=0, le=MOST_WIDTH)]
    deploy: Deploy = "layer"

    @classmethod
    def of(cls, model: Classifier, rows: Tensor, deploy: Deploy = "layer") -> tuple[Self, Values]:
        """Return the edit that removes the span of some rows (n, d), and the weights of its layers."""
        if deploy == "head":
            away, weight = span(rows), model.head_layer.weight.detach()
            edit = cls(layer=model.head, rank=len(away), deploy=deploy)
            return edit, {f"{model.head}.weight": project_out(weight, away)}
        if (place := cls.place(model)) != model.head:
            rows = torch.cat([model.module.get_parameter(f"{place}.0.away").detach(), rows])
        away = span(rows)
        return cls(layer=place, rank=len(away)), {f"{place}.0.away": away}

    def structure(self, net: nn.Module) -> nn.Module:
        """Insert a projection before the head."""
        if self.deploy == "head":
            return net
        there = self.is_there(net)
        head = linear(net, f"{self.layer}.1" if there else self.layer)
        if self.rank > head.in_features:
            raise ModelError(f"{self.rank} directions cannot be removed from {head.in_features} features.")
        layer = Projection(self.rank, head.in_features).to(head.weight).train(head.training)
        if there:  # in a graph it is a parameter alone
            net.get_submodule(f"{self.layer}.0").away = layer.away
        else:
            replace_layer(net, self.layer, nn.Sequential(layer, head).train(head.training))
        return net

    def head_after(self, head: str) -> str:
        """Return the name of the head behind the projection."""
        return f"{self.layer}.1" if self.deploy == "layer" else head
