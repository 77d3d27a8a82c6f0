"""What determines the result of a run, for its record and as one digest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unhot.data.samples import Samples
from unhot.methods.parts.data import Data
from unhot.models.classifier import Classifier
from unhot.records.base import digest
from unhot.records.forget import RetainInfo, SamplesInfo

if TYPE_CHECKING:
    from unhot.methods.base import Method


def provenance(method: Method, model: Classifier, samples: Samples, data: Data, seed: int) -> dict[str, Any]:
    """Return those fields of a :class:`unhot.records.forget.ForgetRecord` that are known before the run.

    Args:
        method: The method with its hyperparameters.
        model: The original.
        samples: The images of the classes to forget.
        data: The data that the method may read.
        seed: The seed of the run.
    """
    settings, weights = method.model_dump(mode="json"), model.sha256()
    info = SamplesInfo(
        origin=samples.images.origin,
        count=tuple(int((data.samples.y == c).sum()) for c in data.columns),
        indices=samples.images.keys,
        sha256=samples.images.digests(),
    )
    retain = _retain(model, data)
    classes = [c.index for c in data.labels]
    determines: list[Any] = [method.name, settings, seed, weights, list(info.sha256), classes]
    determines += [] if samples.part is None else [samples.part]
    determines += [] if data.statistics is None else [data.statistics.sha256()]
    more = {
        "retain": None if retain is None else retain.sha256,
        "input": None if model.input is None else model.input.model_dump(mode="json"),
        "forgotten": [c.index for c in model.forgotten] or None,
        "labels": data.samples.y.tolist() if len(classes) > 1 else None,
    }
    determines += [{k: v} for k, v in more.items() if v is not None]
    return {
        "digest": digest(determines),
        "method": method.name,
        "hyperparameters": settings,
        "uses": data.uses,
        "classes": data.labels,
        "samples": info,
        "retain": retain,
        "seed": seed,
        "model_sha256": weights,
    }


def _retain(model: Classifier, data: Data) -> RetainInfo | None:
    """Describe images of the other classes, by one digest of them all: there may be very many."""
    images = data.others
    if images is None or "retain" not in data.uses:
        return None
    classes = [model.classes[c].index for c in images.y.tolist()]
    sha256 = digest([list(images.digests()), classes])
    return RetainInfo(origin=images.origin, count=len(images), labelled=data.labelled, sha256=sha256)
