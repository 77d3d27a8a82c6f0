"""audit(): measure an unlearned model beside the original, the masked original and retrained models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from unhot.data.images import LabelledImages
from unhot.data.samples import ImageSource, as_images
from unhot.errors import DataError, ModelError, UnknownNameError, shortened
from unhot.evaluation import catalogue as metrics
from unhot.evaluation.metric import Absent, Case, Metric
from unhot.evaluation.metrics.accuracy import per_class
from unhot.evaluation.view import Views
from unhot.files import staged_folder
from unhot.models.classifier import Classifier
from unhot.record import AuditInputs, AuditRecord, ClassAccuracy, ClassLabel, Measurement, Split, Subject, digest
from unhot.runtime import Runtime

TRAIN_IMAGES = 5_000  # as many of the train split are looked at
TEST_IMAGES = 50_000


@dataclass(frozen=True)
class Audit:
    """What was measured."""

    record: AuditRecord

    def __getitem__(self, name: str) -> Measurement:
        """Return a measurement of the unlearned model, on test images where there are both.

        Raises:
            UnknownNameError: There is none of that name.
        """
        return self.get(name)

    def get(self, name: str, subject: Subject = "unlearned", split: Split = "test") -> Measurement:
        """Return one measurement.

        Raises:
            UnknownNameError: There is none of that name.
        """
        for m in self.record.measurements:
            if (m.name, m.subject) == (name, subject) and m.split in (split, None):
                return m
        raise UnknownNameError("measurement", name, dict.fromkeys(m.name for m in self.record.measurements))

    def save(self, out: str | Path) -> None:
        """Write ``audit.json`` to a folder that does not exist yet or is empty.

        Raises:
            OutputError: The folder is taken, or the disk is full.
        """
        with staged_folder(Path(out)) as stage:
            self.write(stage)

    def write(self, folder: Path) -> None:
        """Write ``audit.json`` into a folder that exists."""
        self.record.write(folder / "audit.json")


def audit(
    *,
    original: nn.Module | Classifier,
    unlearned: nn.Module | Classifier,
    classes: Sequence[int | str],
    test: ImageSource,
    train: ImageSource | None = None,
    retrained: nn.Module | Classifier | Sequence[nn.Module | Classifier] | None = None,
    runtime: Runtime | None = None,
) -> Audit:
    """Measure an unlearned model beside the original, the masked original and retrained models.

    Args:
        original: The model before.
        unlearned: The model after; made by anything.
        classes: The forgotten classes, by index or by name.
        test: Images that none of the models was trained on, of all classes.
        train: Images that the original was trained on; the first 5,000 of a seeded shuffle are looked at.
        retrained: One or more models trained without the classes.
        runtime: Device, seed and progress.

    Raises:
        ModelError: A model does not fit.
        DataError: The images do not fit.
    """
    runtime = runtime or Runtime()
    started = runtime.clock()
    splits: dict[Split, LabelledImages] = {"test": _subset(as_images(test), TEST_IMAGES, runtime)}
    if train is not None:
        splits["train"] = _subset(as_images(train), TRAIN_IMAGES, runtime)
    if isinstance(retrained, nn.Module | Classifier):
        retrained = [retrained]
    before, after, *references = (
        _classifier(m, splits["test"], runtime) for m in [original, unlearned, *(retrained or [])]
    )
    labels = tuple(before.label(c) for c in classes)
    aligned = {name: _held(before.align(images), before) for name, images in splits.items()}
    _check_data(aligned["test"], before, labels)
    views = Views(before, after, references, labels, aligned, runtime)
    measurements = [m for name in metrics for m in _measure(metrics.get(name), views)]
    record = AuditRecord(
        classes=labels,
        measurements=tuple(measurements),
        per_class=tuple(_per_class(views)),
        inputs=AuditInputs(
            original_sha256=before.sha256(),
            unlearned_sha256=after.sha256(),
            retrained_sha256=tuple(m.sha256() for m in references),
            data=", ".join(i.origin for i in splits.values()),
            data_sha256={name: digest(list(i.digests())) for name, i in aligned.items()},
        ),
        cost={"seconds": runtime.clock() - started},
        environment=runtime.environment(),
    )
    return Audit(record)


def _measure(metric: Metric, views: Views) -> Iterator[Measurement]:
    for subject, models in views.models.items():
        for split in metric.splits:
            head = {
                "name": metric.name,
                "subject": subject,
                "split": split,
                "unit": metric.unit,
                "higher_is_better": metric.higher_is_better,
            }
            try:
                if split not in views.splits:
                    raise Absent(f"no {split} images were given")
                if not models:
                    raise Absent("no retrained model was given")
                found = [metric.compute(Case(views, subject, split, run)) for run in range(len(models))]
            except Absent as reason:
                yield Measurement(**head, absent_because=str(reason))
                continue
            values = [e.value for e in found]
            yield Measurement(
                **head,
                value=sum(values) / len(values),
                low=min(e.low for e in found),
                high=max(e.high for e in found),
                n=sum(e.n for e in found),
                runs=tuple(values) if len(values) > 1 else (),
            )


def _per_class(views: Views) -> Iterator[ClassAccuracy]:
    original = views.models["original"][0]
    for split in views.splits:
        for subject, models in views.models.items():
            if not models:
                continue
            for column, e in per_class(Case(views, subject, split)).items():
                yield ClassAccuracy(
                    subject=subject,
                    split=split,
                    label=original.classes[column],
                    value=e.value,
                    low=e.low,
                    high=e.high,
                    n=e.n,
                )


def _classifier(model: nn.Module | Classifier, images: LabelledImages, runtime: Runtime) -> Classifier:
    if isinstance(model, Classifier):
        return model
    example = images.inputs(torch.arange(min(2, len(images))), None, torch.device("cpu"))
    return Classifier.wrap(model, example=example)


def _subset(images: LabelledImages, limit: int, runtime: Runtime) -> LabelledImages:
    if len(images) <= limit:
        return images
    order = torch.randperm(len(images), generator=runtime.generator("audit", images.origin))
    return images.select(order[:limit].sort().values)


def _held(images: LabelledImages, model: Classifier) -> LabelledImages:
    return images if model.input is None else images.held(model.input)


def _check_data(images: LabelledImages, model: Classifier, labels: tuple[ClassLabel, ...]) -> None:
    if not labels:
        raise DataError("No forgotten class is named. Name at least one.")
    if len(labels) >= len(model.classes):
        raise ModelError("Every class is named as forgotten. Leave at least one class to be retained.")
    present = set(images.y.unique().tolist())
    columns = model.columns(labels)
    if missing := [c.name for c, i in zip(labels, columns, strict=True) if i not in present]:
        raise DataError(
            f"{images.origin}: no images of {shortened(missing)}. Give test images of the forgotten classes."
        )
    if present <= set(columns):
        raise DataError(f"{images.origin}: images of the forgotten classes only. Give images of other classes too.")
