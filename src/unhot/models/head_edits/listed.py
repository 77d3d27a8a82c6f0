"""All kinds of edits: reading them from ``bundle.json`` and from the layers of a net."""

from __future__ import annotations

from itertools import accumulate
from typing import Annotated

from pydantic import Field, TypeAdapter
from torch import nn

from unhot.models.head_edits.bottleneck import Bottleneck, BottleneckEdit
from unhot.models.head_edits.edit import HeadEdit
from unhot.models.head_edits.excise import ExciseEdit
from unhot.models.head_edits.filter import Filtered, FilterEdit
from unhot.models.head_edits.forgotten import ForgottenEdit
from unhot.models.head_edits.mask import CUT_OUTPUTS, MaskEdit
from unhot.models.head_edits.projection import Projection, ProjectionEdit

Listed = Annotated[
    MaskEdit | ExciseEdit | BottleneckEdit | ProjectionEdit | FilterEdit | ForgottenEdit, Field(discriminator="kind")
]
ADAPTER: TypeAdapter[tuple[Listed, ...]] = TypeAdapter(tuple[Listed, ...])


def edits_in(net: nn.Module, head: str) -> tuple[HeadEdit, ...]:
    """Infer the edits of a net that comes without its classifier from the layers that unhot added to it.

    Args:
        net: The net.
        head: Dotted name of its final linear layer.
    """
    found: list[HeadEdit] = [FilterEdit(classes=(), selected=True)] if isinstance(net, Filtered) else []
    for name in accumulate(head.split(".")[:-1], "{}.{}".format):
        layer = net.get_submodule(name)
        if isinstance(layer, Filtered):
            found.append(FilterEdit(classes=(), selected=True))
        elif isinstance(layer, Bottleneck):
            found.append(BottleneckEdit(layer=name, width=layer[0].out_features))
        elif isinstance(layer, nn.Sequential) and isinstance(layer[0], Projection):
            found.append(ProjectionEdit(layer=name, rank=len(layer[0].away)))
    flags = dict(net.get_submodule(head).named_buffers(recurse=False)).get(CUT_OUTPUTS)
    if flags is not None and flags.any():
        found.append(MaskEdit(layer=head, outputs=tuple(flags.nonzero().flatten().tolist()), by="hook"))
    return tuple(found)
