"""unhot: make a trained image classifier forget classes from a handful of their images, and see what was forgotten.

Names are imported when they are first used, so that ``import unhot`` does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unhot import methods
    from unhot.data.concept import LabelMap
    from unhot.data.named import load_named
    from unhot.data.samples import Samples, draw, folder
    from unhot.errors import UnhotError
    from unhot.evaluation.audit import Audit
    from unhot.evaluation.auditor import audit
    from unhot.methods.base import ForgetResult, Method
    from unhot.methods.forget import forget
    from unhot.methods.function import method
    from unhot.models.bundle import load, save
    from unhot.models.classifier import Classifier
    from unhot.records.model import InputSpec
    from unhot.runtime import Runtime

_HOMES = {
    "Audit": "unhot.evaluation.audit",
    "Classifier": "unhot.models.classifier",
    "ForgetResult": "unhot.methods.base",
    "InputSpec": "unhot.records.model",
    "LabelMap": "unhot.data.concept",
    "Method": "unhot.methods.base",
    "Runtime": "unhot.runtime",
    "Samples": "unhot.data.samples",
    "UnhotError": "unhot.errors",
    "audit": "unhot.evaluation.auditor",
    "draw": "unhot.data.samples",
    "folder": "unhot.data.samples",
    "forget": "unhot.methods.forget",
    "load": "unhot.models.bundle",
    "load_named": "unhot.data.named",
    "method": "unhot.methods.function",
    "save": "unhot.models.bundle",
}

_PACKAGES = ("methods",)

__all__ = [
    "Audit",
    "Classifier",
    "ForgetResult",
    "InputSpec",
    "LabelMap",
    "Method",
    "Runtime",
    "Samples",
    "UnhotError",
    "audit",
    "draw",
    "folder",
    "forget",
    "load",
    "load_named",
    "method",
    "methods",
    "save",
]


def __getattr__(name: str) -> object:
    if name in _PACKAGES:
        return importlib.import_module(f"unhot.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'unhot' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
