"""audit(): measure an unlearned model beside the original, the masked original and retrained models."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from unhot.audit_record import AuditCost, AuditInputs, AuditRecord, ClassAccuracy, Curve, Measurement, Split, Subject
from unhot.data.images import LabelledImages
from unhot.data.samples import ImageSource, as_images
from unhot.errors import DataError, ModelError, UnknownNameError, raise_all, shortened
from unhot.evaluation import catalogue as metrics
from unhot.evaluation import pictures
from unhot.evaluation.attacks import catalogue as attacks
from unhot.evaluation.metric import Absent, Attack, Case, Finding, Measure, Metric
from unhot.evaluation.metrics.accuracy import per_class
from unhot.evaluation.scores import FILE, Score, info, to_csv
from unhot.evaluation.stats import Estimate
from unhot.evaluation.verdict import Thresholds, judge
from unhot.evaluation.view import Views
from unhot.files import staged_folder, write_atomic
from unhot.models.classifier import Classifier
from unhot.models.preflight import gradient_problem
from unhot.models.weights import check_weights
from unhot.record import ClassLabel, ForgetRecord, digest
from unhot.report.page import write_report
from unhot.report.thumbnails import PIXELS
from unhot.runtime import Runtime, usual_settings

TRAIN_IMAGES = 5_000  # as many of the train split are looked at
TEST_IMAGES = 20_000


@dataclass(frozen=True)
class Audit:
    """What was measured.

    Attributes:
        record: Everything that ``audit.json`` holds.
        drawings: What each model draws for the forgotten classes, uint8 (N, C, H, W).
        samples: The images that the method was given, uint8 (N, C, H, W), where they are known and may be shown.
        scores: Membership scores of single images: ``scores.csv``.
    """

    record: AuditRecord
    drawings: Mapping[Subject, Tensor] = field(default_factory=dict, repr=False)
    samples: Tensor | None = field(default=None, repr=False)
    scores: tuple[Score, ...] = field(default=(), repr=False)

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
            if (m.name, m.subject, m.split) == (name, subject, split):
                return m
        raise UnknownNameError("measurement", name, dict.fromkeys(m.name for m in self.record.measurements))

    def save(self, out: str | Path) -> None:
        """Write ``audit.json``, ``report.html`` and what goes with them to a folder that is empty or not there yet.

        Raises:
            OutputError: The folder is taken, or the disk is full.
        """
        with staged_folder(Path(out)) as stage:
            self.write(stage)

    def write(self, folder: Path) -> None:
        """Write the files of :meth:`save` into a folder that exists."""
        self.record.write(folder / "audit.json")
        if self.scores:
            write_atomic(folder / FILE, to_csv(self.scores))
        for subject, pixels in self.drawings.items():
            _write_strip(pixels, folder / f"inversion-{subject}.png")
        if self.samples is not None:
            _write_strip(self.samples, folder / "samples.png")
        write_report(folder)


def strip(pixels: Tensor) -> Image.Image:
    """Return a row of images side by side, of pixels uint8 (N, C, H, W)."""
    row = torch.cat(list(pixels.cpu()), dim=2).permute(1, 2, 0).numpy()
    return Image.fromarray(row.squeeze(2) if row.shape[2] == 1 else row)


def _write_strip(pixels: Tensor, path: Path) -> None:
    """Write a row of images, unless there are more than a page would read."""
    if pixels[:, 0].numel() <= PIXELS:
        strip(pixels).save(path)


def measures() -> dict[str, Measure]:
    """Return every measure that an audit takes, by name."""
    found = {n: Measure(metrics.get(n).higher_is_better, metrics.get(n).unit) for n in metrics}
    for name in attacks:
        found |= attacks.get(name).measures
    return found


@usual_settings()
def audit(
    *,
    original: nn.Module | Classifier,
    unlearned: nn.Module | Classifier,
    classes: Sequence[int | str | ClassLabel],
    test: ImageSource,
    train: ImageSource | None = None,
    retrained: nn.Module | Classifier | Sequence[nn.Module | Classifier] | None = None,
    quick: bool = False,
    thresholds: Thresholds | None = None,
    made_by: ForgetRecord | None = None,
    retrain_seconds: float | None = None,
    runtime: Runtime | None = None,
    shared: dict[Hashable, object] | None = None,
) -> Audit:
    """Measure an unlearned model beside the original, the masked original and retrained models.

    Args:
        original: The model before.
        unlearned: The model after; made by anything.
        classes: The forgotten classes, by index or by name.
        test: Images that none of the models was trained on, of all classes; at most 20,000 of them are looked at.
        train: Images that the original was trained on; at most 5,000 of them are looked at.
        retrained: One or more models trained without the classes.
        quick: Leave out the attacks that train or optimise, and the layers before the penultimate one.
        thresholds: Of the verdict.
        made_by: The record of the run that made the unlearned model.
        retrain_seconds: What training the retrained model took.
        runtime: Device, seed and progress.
        shared: Given to several audits with the same original, retrained models, images and runtime, which are all
            kept alive meanwhile, it holds what was computed of these.

    Raises:
        ModelError: A model does not fit.
        DataError: The images do not fit.
    """
    runtime = runtime or Runtime()
    started = runtime.clock()
    given: dict[Split, LabelledImages] = {"test": as_images(test)}
    if train is not None:
        given["train"] = as_images(train)
    limits: dict[Split, int] = {"test": TEST_IMAGES, "train": TRAIN_IMAGES}
    splits = {name: _subset(images, limits[name], runtime) for name, images in given.items()}
    if isinstance(retrained, nn.Module | Classifier):
        retrained = [retrained]
    before = _classifier(original, splits["test"], None, "original")
    after = _classifier(unlearned, splits["test"], before, "unlearned")
    references = [_classifier(m, splits["test"], before, "retrained") for m in retrained or []]
    labels = tuple(dict.fromkeys(before.label(c) for c in classes))
    for name, model in (("original", before), ("unlearned", after), *(("retrained", r) for r in references)):
        raise_all(ModelError, f"The {name} model does not fit", check_weights(model.module))
    specs = {m.input for m in (before, after, *references)}
    _check_same_inputs(splits.values(), before, (after, *references))
    aligned = {name: before.align(images) for name, images in splits.items()}
    if len(specs) == 1 and before.input is not None:  # else pictures are decoded for each model
        aligned = {name: images.held(before.input) for name, images in aligned.items()}
    _check_data(aligned["test"], before, labels)
    views = Views(before, after, references, labels, aligned, runtime, shared)
    for subject, models in views.models.items():
        for split in splits:
            for run in range(len(models)):
                views.of(subject, split, run)
    looked = runtime.clock()
    measured = [m for name in metrics for m in _measure(metrics.get(name), views)]
    curves = [*pictures.confusion(views), *pictures.feature_map(views), *([] if quick else pictures.layers(views))]
    chosen = {name: attacks.get(name)() for name in attacks}
    found = _attack_all(chosen.values(), views, quick)
    measured += found.measured
    by_name = {(m.name, m.subject): m for m in measured if m.split == "test"}
    record = AuditRecord(
        classes=labels,
        measurements=tuple(measured),
        verdict=judge(lambda name, subject: by_name[name, subject], thresholds or Thresholds()),
        per_class=tuple(_per_class(views)),
        curves=(*curves, *found.curves),
        seed=runtime.seed,
        attacks={name: attack.model_dump(mode="json") for name, attack in chosen.items()},
        scores=info(found.scores),
        inputs=_inputs(views, given),
        made_by=made_by,
        cost=AuditCost(
            forget_seconds=None if made_by is None else made_by.cost.seconds,
            floor_seconds=None if made_by is None else _floor(views, sum(made_by.samples.count)),
            retrain_seconds=retrain_seconds,
            audit_seconds=runtime.clock() - started,
            forward_seconds=looked - started,
        ),
        environment=runtime.environment(),
    )
    return Audit(record, found.drawings, scores=tuple(found.scores))


@dataclass
class _Found:
    """What the attacks found."""

    measured: list[Measurement] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    drawings: dict[Subject, Tensor] = field(default_factory=dict)
    scores: list[Score] = field(default_factory=list)


def _attack_all(chosen: Collection[Attack], views: Views, quick: bool) -> _Found:
    total = _Found()
    with views.runtime.progress("attacks", len(chosen)) as advance:
        for attack in chosen:
            for subject in views.models:
                found = _attacked(attack, views, subject, quick)
                total.measured += _from_findings(attack, subject, found)
                for finding in (f for f in found if isinstance(f, Finding)):
                    total.curves += finding.curves
                    total.scores += finding.scores
                    if finding.pictures:  # of several retrained models the first
                        total.drawings.setdefault(subject, finding.pictures["inversion"])
            advance(1)
    return total


def _inputs(views: Views, given: Mapping[Split, LabelledImages]) -> AuditInputs:
    """Give the digests of what was looked at."""
    splits = views.splits
    (original,), (unlearned,) = views.models["original"], views.models["unlearned"]
    return AuditInputs(
        original_sha256=original.sha256(),
        unlearned_sha256=unlearned.sha256(),
        retrained_sha256=tuple(m.sha256() for m in views.models["retrained"]),
        data="; ".join(i.origin for i in splits.values()),
        data_sha256={name: digest(list(i.digests())) for name, i in splits.items()},
        images={name: len(i) for name, i in splits.items()},
        given={name: len(i) for name, i in given.items() if len(i) > len(splits[name])},
        preprocessing=original.input,
    )


def _floor(views: Views, count: int) -> float:
    """Time one forward and backward pass of the original over as many images as a method was given."""
    model, runtime = views.models["original"][0].copy(views.runtime.device), views.runtime
    model.module.eval()
    x = views.splits["test"].inputs(torch.arange(min(count, len(views.splits["test"]))), model.input, runtime.device)
    return runtime.median_seconds(lambda: model.logits(x).sum().backward())


def _measure(metric: Metric, views: Views) -> Iterator[Measurement]:
    for subject, models in views.models.items():
        for split in metric.splits:
            try:
                if split not in views.splits:
                    raise Absent(f"no {split} images were given")
                if not models:
                    raise Absent("no retrained model was given")
                found = [metric.measured(Case(views, subject, split, run)) for run in range(len(models))]
            except Absent as reason:
                yield _absent(metric.name, Measure(metric.higher_is_better, metric.unit), subject, split, str(reason))
            else:
                yield _present(metric.name, Measure(metric.higher_is_better, metric.unit), subject, split, found)


def _attacked(attack: Attack, views: Views, subject: Subject, quick: bool) -> list[Finding] | str:
    """Attack every model of a subject; a text is the reason why not."""
    if quick and attack.slow:
        return "left out by --quick"
    if not views.models[subject]:
        return "no retrained model was given"
    try:
        return [attack.found(Case(views, subject, "test", run)) for run in range(len(views.models[subject]))]
    except Absent as reason:
        return str(reason)
    except RuntimeError:
        model, images = views.models[subject][0], views.splits["test"]
        x = images.inputs(torch.arange(1), model.input, model.device)
        if problem := gradient_problem(model.module, x, model.head):
            return f"it needs gradients, and the model does not give them: {problem}"
        raise


def _from_findings(attack: Attack, subject: Subject, found: list[Finding] | str) -> Iterator[Measurement]:
    for name, measure in attack.measures.items():
        if isinstance(found, str):
            yield _absent(name, measure, subject, "test", found)
            continue
        estimates = [f.estimates[name] for f in found]
        reasons = [e for e in estimates if isinstance(e, str)]
        if reasons:
            yield _absent(name, measure, subject, "test", reasons[0])
        else:
            yield _present(name, measure, subject, "test", [e for e in estimates if not isinstance(e, str)])


def _present(name: str, measure: Measure, subject: Subject, split: Split, found: list[Estimate]) -> Measurement:
    """Make one measurement of those of one or several models: their mean, within all of their intervals."""
    values = [e.value for e in found]
    low, high = min(e.low for e in found), max(e.high for e in found)
    return Measurement(
        name=name,
        subject=subject,
        split=split,
        unit=measure.unit,
        higher_is_better=measure.higher_is_better,
        value=min(high, max(low, statistics.fmean(values))),  # a mean may round past equal ends
        low=low,
        high=high,
        n=max(e.n for e in found),
        runs=tuple(values) if len(values) > 1 else (),
    )


def _absent(name: str, measure: Measure, subject: Subject, split: Split, reason: str) -> Measurement:
    return Measurement(
        name=name,
        subject=subject,
        split=split,
        unit=measure.unit,
        higher_is_better=measure.higher_is_better,
        absent_because=reason,
    )


def _per_class(views: Views) -> Iterator[ClassAccuracy]:
    classes = views.models["original"][0].classes
    for split in views.splits:
        for subject, models in views.models.items():
            if models:
                for column, e in per_class(Case(views, subject, split)).items():
                    label = classes[column]
                    yield ClassAccuracy(
                        subject=subject, split=split, label=label, value=e.value, low=e.low, high=e.high, n=e.n
                    )


def _classifier(
    model: nn.Module | Classifier, images: LabelledImages, original: Classifier | None, subject: Subject
) -> Classifier:
    """Wrap a bare net, whose inputs and classes are those of the original, and look at what a net returns."""
    some = torch.arange(min(2, len(images)))
    spec = original.input if original is not None else None
    if isinstance(model, Classifier):
        spec, device = model.input, model.device
    else:
        weights = list(model.parameters()) if isinstance(model, nn.Module) else []
        device = weights[0].device if weights else torch.device("cpu")
    try:
        found = Classifier.wrap(model, example=images.inputs(some, spec, device), input=spec)
    except ModelError as error:
        raise ModelError(f"The {subject} model cannot be audited. {error}") from error
    if isinstance(model, Classifier) or original is None or len(found.classes) != len(original.classes):
        return found
    return replace(found, classes=original.classes, outputs=original.outputs)


def _subset(images: LabelledImages, limit: int, runtime: Runtime) -> LabelledImages:
    if len(images) <= limit:
        return images
    order = torch.randperm(len(images), generator=runtime.generator("audit", images.origin))
    return images.select(order[:limit].sort().values)


def _check_same_inputs(given: Iterable[LabelledImages], model: Classifier, others: Iterable[Classifier]) -> None:
    """Refuse tensors that are inputs of one model and not of another."""
    floating = [i.origin for i in given if isinstance(i.x, Tensor) and i.x.is_floating_point()]
    if floating and not all(model.same_inputs(other) for other in others if None not in (model.input, other.input)):
        raise DataError(
            f"{floating[0]}: tensors of floats are taken as they are, and the models normalise images differently. "
            "Give pixels as uint8, or pictures."
        )


def _check_data(images: LabelledImages, model: Classifier, labels: tuple[ClassLabel, ...]) -> None:
    if not labels:
        raise DataError("No forgotten class is named. Name at least one.")
    if len(labels) >= len(model.classes):
        raise ModelError("Every class is named as forgotten. Leave at least one class to be retained.")
    present = set(images.y.unique().tolist())
    columns = model.columns(labels)
    if missing := [c.name for c, i in zip(labels, columns, strict=True) if i not in present]:
        raise DataError(f"{images.origin}: no images of {shortened(missing)}. Give test images of these classes.")
    if present <= set(columns):
        raise DataError(f"{images.origin}: images of the forgotten classes only. Give images of other classes too.")
