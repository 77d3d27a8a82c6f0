"""unhot: make a trained image classifier forget classes from a handful of their images, and see what was forgotten.

Names are imported when they are first used, so that ``import unhot`` does not import torch. What is not listed in
``unhot.__all__`` may change from one release to the next.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from unhot.version import __version__ as __version__

if TYPE_CHECKING:
    from unhot import errors, methods, testing
    from unhot.data.concept import LabelMap
    from unhot.data.images import LabelledImages
    from unhot.data.named import load_named
    from unhot.data.samples import Samples, draw, folder
    from unhot.data.source import Source, load_source
    from unhot.data.unlabelled import Unlabelled, unlabelled
    from unhot.errors import UnhotError, UnhotWarning
    from unhot.evaluation.audit import Audit
    from unhot.evaluation.auditor import Auditor, audit
    from unhot.evaluation.diagnosis import diagnose
    from unhot.evaluation.verdict import Thresholds
    from unhot.methods.base import ForgetResult, Method, Outcome
    from unhot.methods.forget import forget
    from unhot.methods.function import method
    from unhot.methods.parts.data import Batch, Data, Use
    from unhot.models.arch import build
    from unhot.models.bundle import load, save
    from unhot.models.classifier import Classifier
    from unhot.models.formats.exports.export import export
    from unhot.records.audit import Measurement
    from unhot.records.model import InputSpec
    from unhot.reference import partial_reference
    from unhot.runtime import Runtime
    from unhot.statistics import ClassStatistics
    from unhot.training import train

_NAMES = {
    "unhot.data.concept": "LabelMap",
    "unhot.data.images": "LabelledImages",
    "unhot.data.named": "load_named",
    "unhot.data.samples": "Samples draw folder",
    "unhot.data.source": "Source load_source",
    "unhot.data.unlabelled": "Unlabelled unlabelled",
    "unhot.errors": "UnhotError UnhotWarning",
    "unhot.evaluation.audit": "Audit",
    "unhot.evaluation.auditor": "Auditor audit",
    "unhot.evaluation.diagnosis": "diagnose",
    "unhot.evaluation.verdict": "Thresholds",
    "unhot.methods.base": "ForgetResult Method Outcome",
    "unhot.methods.forget": "forget",
    "unhot.methods.function": "method",
    "unhot.methods.parts.data": "Batch Data Use",
    "unhot.models.arch": "build",
    "unhot.models.bundle": "load save",
    "unhot.models.classifier": "Classifier",
    "unhot.models.formats.exports.export": "export",
    "unhot.records.audit": "Measurement",
    "unhot.records.model": "InputSpec",
    "unhot.runtime": "Runtime",
    "unhot.statistics": "ClassStatistics",
    "unhot.reference": "partial_reference",
    "unhot.training": "train",
}

_HOMES = {name: module for module, names in _NAMES.items() for name in names.split()}

_MODULES = ("errors", "methods", "testing")

__all__ = [
    "Audit",
    "Auditor",
    "Batch",
    "ClassStatistics",
    "Classifier",
    "Data",
    "ForgetResult",
    "InputSpec",
    "LabelMap",
    "LabelledImages",
    "Measurement",
    "Method",
    "Outcome",
    "Runtime",
    "Samples",
    "Source",
    "Thresholds",
    "UnhotError",
    "UnhotWarning",
    "Unlabelled",
    "Use",
    "audit",
    "build",
    "diagnose",
    "draw",
    "errors",
    "export",
    "folder",
    "forget",
    "load",
    "load_named",
    "load_source",
    "method",
    "methods",
    "partial_reference",
    "save",
    "testing",
    "train",
    "unlabelled",
]


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return importlib.import_module(f"unhot.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'unhot' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
