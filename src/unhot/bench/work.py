"""What a worker does: train a model, run a cell, time a method. Nothing here writes to the store."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import torch
from pydantic import JsonValue
from torch.nn.functional import cosine_similarity, cross_entropy, kl_div, log_softmax

from unhot import methods, training
from unhot.bench.results import SEQUENCE
from unhot.data.augment import distort
from unhot.data.images import LabelledImages
from unhot.data.samples import Samples, draw_at, every
from unhot.data.source import Source, load_source
from unhot.errors import DataError, UnhotWarning
from unhot.evaluation.auditor import Auditor
from unhot.evaluation.metric import Case
from unhot.evaluation.metrics import catalogue as metrics
from unhot.evaluation.view import ModelResults, Views
from unhot.methods.base import ForgetResult, Method
from unhot.methods.parts.batches import FORWARD
from unhot.models.bundle import load, read_record, write_bundle
from unhot.models.classifier import Classifier
from unhot.records.audit import AuditRecord
from unhot.records.bench import BenchRecord, CellSpec, TimingRecord, TrainSpec
from unhot.records.model import ClassLabel
from unhot.records.train import TrainRecord
from unhot.runtime import Progress, Runtime, no_progress, pick_device
from unhot.statistics import MAX_IMAGES, ClassStatistics

Bundle = Path | dict[str, bytes]

MODELS_HELD = 8


@dataclass(frozen=True)
class WorkerConfig:
    """Where a worker computes, and where it finds the data.

    Attributes:
        data_dir: Where the named data sets are.
        device: As for torch; the best one if None.
        threads: Of the CPU; all if None.
        progress: Shows the progress of loops.
    """

    data_dir: Path | None = None
    device: str | None = None
    threads: int | None = None
    progress: Progress = field(default=no_progress)

    def runtime(self, seed: int = 0) -> Runtime:
        """Return a runtime, after setting the number of threads."""
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        return Runtime(device=pick_device(self.device), seed=seed, progress=self.progress)


def train(spec: TrainSpec, src: str, place: WorkerConfig, checkpoint: Path | None = None) -> dict[str, bytes]:
    """Train a model; return the files of its bundle.

    Args:
        spec: How.
        src: The data set, as for :func:`unhot.data.source.load_source`.
        place: Where.
        checkpoint: A file on this machine, from which an interrupted training goes on.
    """
    runtime = place.runtime(spec.seed)
    model, record = training.train(
        _source(src, place.data_dir, spec.data_sha256),
        spec.arch,
        options=dict(spec.arch_options),
        exclude=spec.excluded,
        settings=dict(spec.settings),
        seed=spec.seed,
        precision=spec.precision,
        runtime=runtime,
        checkpoint=checkpoint,
    )
    with tempfile.TemporaryDirectory() as folder:
        write_bundle(model, Path(folder), record)
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def cell(
    spec: CellSpec, src: str, options: dict[str, JsonValue], place: WorkerConfig, original: Bundle, *retrained: Bundle
) -> BenchRecord:
    """Forget, and measure what that did.

    Args:
        spec: What.
        src: The data set.
        options: What the grid set of the hyperparameters.
        place: Where.
        original: The model that is to forget.
        retrained: The references.
    """
    source, runtime = _source(src, place.data_dir, spec.original.data_sha256), place.runtime(spec.seed)
    model, references = _model(original), [_model(m) for m in retrained]
    method = methods.get(spec.method).of(dict(spec.hyperparameters))
    given = _given(method, spec, src, place, original)
    requests = [(c,) for c in spec.classes] if spec.in_sequence else [spec.classes]
    unlearned, sequence, results = model, [], list[ForgetResult]()
    results_of_original = ModelResults(model)
    for i, classes in enumerate(requests):
        samples = _samples(spec, source, classes)
        results.append(_forget(method, unlearned, samples, given, runtime))
        unlearned = results[-1].classifier
        if spec.in_sequence:
            sequence.append(_lost(results_of_original, unlearned, spec.classes[: i + 1], source, runtime))
    samples = _samples(spec, source, spec.classes)
    uncut = unlearned if spec.in_sequence else results[-1].uncut
    found = _audited(spec, src, place, model, unlearned, references)
    return BenchRecord(
        digest=spec.digest,
        spec=spec,
        names=_labels(model, source, spec.classes),
        options=options,
        uses=results[-1].record.uses,
        signals=signals(model, uncut, samples, runtime),
        before_cut=_before_cut(model, uncut, spec, source, runtime),
        measurements=found.measurements,
        verdict=found.verdict.label,
        sequence=tuple(sequence),
        stop_reason=results[-1].record.stop_reason,
        steps=sum(r.record.cost.steps for r in results),
        seconds=sum(r.record.cost.seconds for r in results),
        peak_memory_bytes=max(r.record.cost.peak_memory_bytes for r in results),
        environment=runtime.environment(),
    )


def timing(spec: CellSpec, src: str, place: WorkerConfig, original: Bundle) -> TimingRecord:
    """Time the method of a cell beside one forward and backward pass over its samples."""
    import psutil

    load = psutil.getloadavg()[0]
    source = _source(src, place.data_dir, spec.original.data_sha256)
    runtime, model = place.runtime(spec.seed), _model(original)
    method = methods.get(spec.method).of(dict(spec.hyperparameters))
    classes = spec.classes[:1] if spec.in_sequence else spec.classes
    samples = _samples(spec, source, classes)
    work = model.copy(runtime.device)
    x = samples.images.inputs(torch.arange(len(samples)), model.input, runtime.device)
    y = model.align(samples.images).y.to(runtime.device)

    def one_pass() -> None:
        for some, labels in zip(x.split(FORWARD), y.split(FORWARD), strict=True):
            cross_entropy(work.logits(some), labels).backward()

    floor = runtime.median_seconds(one_pass, what="one pass")
    results = list[ForgetResult]()
    given = _given(method, spec, src, place, original)
    forget = runtime.median_seconds(lambda: results.append(_forget(method, model, samples, given, runtime)))
    trained = read_record(_folder(original), TrainRecord)
    return TimingRecord(
        cell=spec.digest,
        spec=spec,
        floor_seconds=floor,
        forget_seconds=forget,
        steps=results[-1].record.cost.steps,
        train_seconds=None if trained is None else trained.cost.seconds,
        load=load,
        environment=runtime.environment(),
    )


@torch.no_grad()
def signals(model: Classifier, unlearned: Classifier, samples: Samples, runtime: Runtime) -> dict[str, float]:
    """Measure what may be seen with samples only: the samples, and distorted copies of them."""
    before, after = model.copy(runtime.device), unlearned.copy(runtime.device)
    x = samples.images.inputs(torch.arange(len(samples)), model.input, runtime.device)
    away = distort(x, Runtime().generator("drift"))
    gone = after.columns(c for c in model.requested(samples) if c in after.classes)
    (was, _), (now, logits) = before.features_and_logits(x), after.features_and_logits(x)
    kept = before.columns(after.classes)  # an excised class has no output
    expected, moved = log_softmax(before.logits(away)[:, kept], 1), log_softmax(after.logits(away), 1)
    return {
        "probability_left": logits.softmax(1)[:, gone].sum(1).mean().item(),
        "feature_cosine": cosine_similarity(was, now).mean().item() if was.shape == now.shape else 0.0,
        "drift_nats": kl_div(moved, expected, reduction="batchmean", log_target=True).item(),
    }


def _forget(method: Method, model: Classifier, samples: Samples, given: _Given, runtime: Runtime) -> ForgetResult:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnhotWarning)  # a user is told; here it is one of many draws
        return method(
            model,
            samples,
            retain=given.retain,
            guard=given.guard,
            seed=runtime.seed,
            runtime=runtime,
            force=True,
        )


class _Given(NamedTuple):
    """What a method reads beside its samples."""

    retain: LabelledImages | None
    guard: ClassStatistics | None


def _given(method: Method, spec: CellSpec, src: str, place: WorkerConfig, original: Bundle) -> _Given:
    where = src, place.data_dir, spec.original.data_sha256
    retain = _retained(_source(*where), spec, place.runtime(spec.seed)) if "retain" in method.uses else None
    return _Given(retain, _guard(_folder(original), *where) if spec.guarded else None)


@lru_cache(maxsize=MODELS_HELD)
def _guard(original: Path, src: str, data_dir: Path | None, content: str | None) -> ClassStatistics:
    """Collect what a guard holds, from as many training images as the command line does."""
    return ClassStatistics.collect(
        _loaded(original), _source(src, data_dir, content).train_images, max_images=MAX_IMAGES
    )


def _retained(source: Source, spec: CellSpec, runtime: Runtime) -> LabelledImages:
    """Draw images of the retained classes of the train split."""
    kept = source.train_images.without(spec.classes)
    if spec.retained is None or spec.retained >= len(kept):
        return kept
    order = torch.randperm(len(kept), generator=runtime.generator("retained"))
    return kept.select(order[: spec.retained].sort().values)


def _samples(spec: CellSpec, source: Source, classes: Sequence[int]) -> Samples:
    if spec.shots is not None:
        return draw_at(source.train_images, classes, spec.shots, spec.seed)
    return every(source.train_images, classes)


def _labels(model: Classifier, source: Source, classes: Sequence[int]) -> tuple[ClassLabel, ...]:
    """Return the classes of a model that some classes of the data are."""
    found = model.matched(source.train_images)
    return tuple(found[c] for c in classes)


def _before_cut(
    model: Classifier, uncut: Classifier, spec: CellSpec, source: Source, runtime: Runtime
) -> dict[str, float]:
    test = source.test_images.of(spec.classes)
    case = _case(ModelResults(model), uncut, spec.classes, source, test, runtime)
    was, now = case.original.features, case.view.features
    cosine = cosine_similarity(was, now).mean().item() if was.shape == now.shape else 0.0
    return {"forget_accuracy": case.view.correct.float().mean().item(), "feature_cosine": cosine}


def _lost(
    original: ModelResults, unlearned: Classifier, classes: Sequence[int], source: Source, runtime: Runtime
) -> dict[str, float]:
    case = _case(original, unlearned, classes, source, source.test_images, runtime)
    return {name: metrics.get(name)(case).value for name in sorted(SEQUENCE)}


def _case(
    original: ModelResults,
    unlearned: Classifier,
    classes: Sequence[int],
    source: Source,
    test: LabelledImages,
    runtime: Runtime,
) -> Case:
    model = original.model
    labels = _labels(model, source, classes)
    return Case(Views(original, unlearned, [], labels, {"test": model.align(test)}, runtime), "unlearned")


class _Shared:
    """What the audits of one model and its references share; another takes its place."""

    key: Hashable = None
    auditor: Auditor


def _audited(
    spec: CellSpec,
    src: str,
    place: WorkerConfig,
    model: Classifier,
    unlearned: Classifier,
    references: list[Classifier],
) -> AuditRecord:
    runtime = place.runtime()
    content = spec.original.data_sha256
    key = (src, place.data_dir, content, id(model), tuple(map(id, references)), str(runtime.device))
    source = _source(src, place.data_dir, content)
    if key != _Shared.key:
        test, train = source.test_images, source.train_images
        _Shared.auditor = Auditor(model, retrained=references, test=test, train=train, runtime=runtime)
        _Shared.key = key
    classes = _labels(model, source, spec.classes)
    found = _Shared.auditor.audit(unlearned, classes, quick=spec.audit == "quick")
    return found.record


@lru_cache(maxsize=2)
def _source(src: str, data_dir: Path | None, content: str | None) -> Source:
    """Read a data set, which must have the content that it had when the grid was read."""
    source = load_source(src, data_dir)
    if source.sha256 != content:
        raise DataError(f"The data set {src} is not what it was when the grid was read. Run the bench again.")
    return source


def _model(bundle: Bundle) -> Classifier:
    return _loaded(_folder(bundle))


@lru_cache(maxsize=MODELS_HELD)
def _loaded(folder: Path) -> Classifier:
    return load(folder)


def _folder(bundle: Bundle) -> Path:
    """Return where a bundle is here; one that came as bytes is written down for as long as this process runs."""
    if isinstance(bundle, Path):
        return bundle
    folder = Path(_scratch().name) / sha256(bundle["model.safetensors"]).hexdigest()
    if not folder.exists():
        folder.mkdir()
        for name, content in bundle.items():
            (folder / name).write_bytes(content)
    return folder


@cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="unhot-")
