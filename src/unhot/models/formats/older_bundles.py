"""Bundles of version 1: the edits of a head are inferred from its name, its weights and a factory of unhot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, JsonValue, ValidationError
from torch import Tensor, nn

from unhot.errors import ModelError, invalid_values
from unhot.models.head import is_plain
from unhot.models.head_edits.bottleneck import BottleneckEdit
from unhot.models.head_edits.edit import HeadEdit
from unhot.models.head_edits.excise import ExciseEdit
from unhot.models.head_edits.forgotten import ForgottenEdit
from unhot.models.head_edits.mask import CUT_LOGIT, CUT_OUTPUTS, MaskEdit
from unhot.models.head_edits.projection import ProjectionEdit
from unhot.records.base import Stored
from unhot.records.model import MOST_WIDTH, BundleInfo

PROJECTED = "unhot.models.projection:projected"  # the architecture of a net with a projection before its head


class _Projected(Stored):
    """The options of the factory."""

    arch: str
    head: str
    rank: Annotated[int, Field(ge=0, le=MOST_WIDTH)]
    options: dict[str, JsonValue] = Field(default_factory=dict)


def of_users(info: BundleInfo, where: str) -> BundleInfo:
    """Return a description with the user's architecture, and the projection among the edits of the head.

    Raises:
        ModelError: The options of the projection are damaged.
    """
    if info.schema_version > 1 or info.arch != PROJECTED:
        return info
    try:
        inner = _Projected.model_validate(info.arch_options)
    except ValidationError as error:
        wrong = invalid_values(error)[0]
        raise ModelError(f"{where} has arch_options that no projection has: {wrong}.") from error
    projection = ProjectionEdit(layer=inner.head, rank=inner.rank).model_dump()
    return info.model_copy(update={"arch": inner.arch, "arch_options": inner.options, "head_edits": (projection,)})


def inferred_edits(info: BundleInfo, state: Mapping[str, Tensor], net: nn.Module) -> tuple[HeadEdit, ...]:
    """Return the edits of the head of a bundle of version 1.

    Args:
        info: A description that :func:`of_users` returned.
        state: The weights.
        net: The net as built by the architecture, without edits; or by a graph, with the layers of all edits.
    """
    found: list[HeadEdit] = [ProjectionEdit.model_validate(edit) for edit in info.head_edits]
    before, _, child = info.head.rpartition(".")
    layers = dict(net.named_modules())
    projected = before in [edit.head_after("") for edit in found]
    narrow = state.get(f"{before}.0.weight") if child == "1" else None
    narrowed = narrow is not None and narrow.ndim == 2 and (projected or _is_plain(layers.get(before)))
    gone = tuple(sorted({*range(info.outputs)} - {c.index for c in info.classes}))
    if gone and len(info.classes) + len(gone) == info.outputs:
        found.append(ExciseEdit(layer=before if narrowed else info.head, outputs=gone))
    if narrow is not None and narrowed:
        found.append(BottleneckEdit(layer=before, width=len(narrow)))
    weight, bias, flags = (state.get(f"{info.head}.{name}") for name in ("weight", "bias", CUT_OUTPUTS))
    if flags is not None and flags.any():
        found.append(MaskEdit(layer=info.head, outputs=_where(flags), by="hook"))
    elif weight is not None and weight.ndim == 2 and bias is not None and bias.shape == weight.shape[:1]:
        masked = (weight == 0).all(1) & (bias == bias.new_tensor(CUT_LOGIT))
        added = not bias[~masked].any()  # a bias of zeros does nothing for the other classes
        found += [MaskEdit(layer=info.head, outputs=_where(masked), adds_bias=added)] if masked.any() else []
    return (*found, *([ForgottenEdit(classes=info.forgotten)] if info.forgotten else []))


def _is_plain(layer: nn.Module | None) -> bool:
    return isinstance(layer, nn.Linear) and is_plain(layer)


def _where(flags: Tensor) -> tuple[int, ...]:
    return tuple(flags.nonzero().flatten().tolist())
