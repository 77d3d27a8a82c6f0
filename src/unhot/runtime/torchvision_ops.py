"""Let torchvision be imported beside a torch of another build.

A torchvision wheel built for CUDA beside a CPU-only torch fails to import with "operator torchvision::nms does not
exist". unhot uses torchvision's data sets, transforms and classifiers, none of which calls that operator; declaring its
schema before the first import is enough. Where the operators load by themselves nothing is declared.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch

_KEEP: list[torch.library.Library] = []
_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


def prepare() -> None:
    """Make ``import torchvision`` work; call it before every such import."""
    spec = importlib.util.find_spec("torchvision")
    if _KEEP or hasattr(torch.ops.torchvision, "nms") or spec is None or spec.origin is None:
        return
    for library in Path(spec.origin).parent.glob("_C*.so"):
        try:
            torch.ops.load_library(library)
        except OSError:
            continue
        if hasattr(torch.ops.torchvision, "nms"):
            return
    declared = torch.library.Library("torchvision", "DEF")
    for schema in _SCHEMAS:
        declared.define(schema)
    _KEEP.append(declared)
