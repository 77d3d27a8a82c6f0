"""What a worker does: train a model, run a cell, time a method. Nothing here writes to the store."""

from __future__ import annotations

import shutil
import tempfile
import warnings
import weakref
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from pydantic import JsonValue
from torch.nn.functional import cross_entropy

from unhot import methods, training
from unhot.bench.signals import before_cut, lost_so_far, signals
from unhot.data.images import LabelledImages, at_once
from unhot.data.samples import Samples, draw_at, every
from unhot.data.source import Source, load_source
from unhot.errors import DataError, UnhotWarning
from unhot.evaluation.auditor import Auditor
from unhot.evaluation.view import ModelResults
from unhot.methods.base import ForgetResult, Method
from unhot.models.bundle import load, read_record, write_bundle
from unhot.models.classifier import Classifier
from unhot.records.bench import Cell, CellRecord, TimingRecord, TrainSpec
from unhot.records.model import ClassLabel
from unhot.records.train import TrainRecord
from unhot.runtime import Progress, Runtime, no_progress, pick_device
from unhot.statistics import MAX_IMAGES, ClassStatistics

Bundle = Path | dict[str, bytes]
K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

MODELS, SOURCES = 8, 2  # as many are kept


@dataclass(frozen=True)
class WorkerConfig:
    """Where a worker computes, and where it finds the data.

    Attributes:
        data_dir: The folder of the named data sets.
        device: A device of torch; the best one if None.
        threads: The number of CPU threads; all if None.
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


class Worker:
    """Trains models and runs cells; what it has read and computed for one task it keeps for the next, while it lives.

    Args:
        config: Device, threads and data of this worker.
    """

    def __init__(self, config: WorkerConfig) -> None:
        self.config = config
        self._sources: dict[tuple[str, str | None], Source] = {}
        self._models: dict[Path, Classifier] = {}
        self._statistics: dict[tuple[Path, str], ClassStatistics] = {}
        self._auditors: dict[tuple[str, Path, tuple[Path, ...]], Auditor] = {}
        self._unpacked: Path | None = None

    def train(self, spec: TrainSpec, src: str, checkpoint: Path | None = None) -> dict[str, bytes]:
        """Train a model; return the files of its bundle.

        Args:
            spec: What to train, and how.
            src: The data set, as for :func:`unhot.data.source.load_source`.
            checkpoint: A file on this machine, from which an interrupted training goes on.
        """
        model, record = training.train(
            self._source(src, spec),
            spec.arch,
            options=dict(spec.arch_options),
            exclude=spec.excluded,
            settings=dict(spec.settings),
            seed=spec.seed,
            precision=spec.precision,
            runtime=self.config.runtime(spec.seed),
            checkpoint=checkpoint,
        )
        with tempfile.TemporaryDirectory() as folder:
            write_bundle(model, Path(folder), record)
            return {path.name: path.read_bytes() for path in Path(folder).iterdir()}

    def cell(
        self, cell: Cell, src: str, options: dict[str, JsonValue], original: Bundle, *retrained: Bundle
    ) -> CellRecord:
        """Forget, and measure what that did.

        Args:
            cell: What to forget, and how.
            src: The data set.
            options: What the grid set of the hyperparameters.
            original: The model that is to forget.
            retrained: Models trained without the classes.
        """
        before, *references = (self._folder(bundle) for bundle in (original, *retrained))
        source, model, runtime = self._source(src, cell.original), self._model(before), self.config.runtime(cell.seed)
        results, sequence = self._forgotten(cell, src, before)
        last, labels = results[-1], _labels(model, source, cell.classes)
        uncut = last.classifier if cell.in_sequence else last.uncut
        auditor = self._auditor(source, before, tuple(references))
        audited = auditor.audit(last.classifier, labels, quick=cell.audit == "quick").record
        verdict = audited.verdict
        return CellRecord(
            digest=cell.digest,
            spec=cell,
            names=labels,
            options=options,
            uses=last.record.uses,
            signals=signals(model, uncut, _samples(cell, source, cell.classes), runtime),
            before_cut=before_cut(model, uncut, labels, source.test_images.of(cell.classes), runtime),
            measurements=audited.measurements,
            verdict=verdict.label,
            verdicts={holder: found.label for holder, found in verdict.holders.items()},
            sequence=tuple(sequence),
            stop_reason=last.record.stop_reason,
            steps=sum(r.record.cost.steps for r in results),
            seconds=sum(r.record.cost.seconds for r in results),
            peak_memory_bytes=max(r.record.cost.peak_memory_bytes for r in results),
            environment=runtime.environment(),
        )

    def timing(self, cell: Cell, src: str, original: Bundle) -> TimingRecord:
        """Time the method of a cell beside one forward and backward pass over its samples."""
        import psutil

        load = psutil.getloadavg()[0]
        before = self._folder(original)
        source, model, runtime = self._source(src, cell.original), self._model(before), self.config.runtime(cell.seed)
        samples = _samples(cell, source, cell.classes[:1] if cell.in_sequence else cell.classes)
        work = model.copy(runtime.device)
        x = samples.images.inputs(torch.arange(len(samples)), model.input, runtime.device)
        y = model.align(samples.images).y.to(runtime.device)

        size = at_once(x)

        def one_pass() -> None:
            for some, labels in zip(x.split(size), y.split(size), strict=True):
                cross_entropy(work.logits(some), labels).backward()

        floor = runtime.median_seconds(one_pass, what="one pass")
        results = list[ForgetResult]()
        method, given = _method(cell), self._given(cell, src, before)
        forget = runtime.median_seconds(lambda: results.append(_forget(method, model, samples, given, runtime)))
        trained = read_record(before, TrainRecord)
        return TimingRecord(
            cell=cell.digest,
            spec=cell,
            floor_seconds=floor,
            forget_seconds=forget,
            steps=results[-1].record.cost.steps,
            train_seconds=None if trained is None else trained.cost.seconds,
            load=load,
            environment=runtime.environment(),
        )

    def _forgotten(self, cell: Cell, src: str, original: Path) -> tuple[list[ForgetResult], list[dict[str, float]]]:
        """Run the requests of a cell; return the result of each and, of a sequence, what is lost after each."""
        source, model, runtime = self._source(src, cell.original), self._model(original), self.config.runtime(cell.seed)
        method, given = _method(cell), self._given(cell, src, original)
        results, sequence, known = list[ForgetResult](), list[dict[str, float]](), ModelResults(model)
        for i, classes in enumerate([(c,) for c in cell.classes] if cell.in_sequence else [cell.classes]):
            unlearned = results[-1].classifier if results else model
            results.append(_forget(method, unlearned, _samples(cell, source, classes), given, runtime))
            if cell.in_sequence:
                labels = _labels(model, source, cell.classes[: i + 1])
                sequence.append(lost_so_far(known, results[-1].classifier, labels, source.test_images, runtime))
        return results, sequence

    def _given(self, cell: Cell, src: str, original: Path) -> _Given:
        source, runtime = self._source(src, cell.original), self.config.runtime(cell.seed)
        reads_retained = "retain" in methods.get(cell.method).uses
        retain = _retained(source, cell, runtime) if reads_retained else None
        return _Given(retain, self._collected(original, source) if cell.guarded else None)

    def _source(self, src: str, spec: TrainSpec) -> Source:
        """Read a data set, which must have the content that it had when the grid was read."""

        def read() -> Source:
            source = load_source(src, self.config.data_dir)
            if source.sha256 != spec.data_sha256:
                raise DataError(f"The data set {src} has changed since the grid was read. Run the bench again.")
            return source

        return _kept(self._sources, (src, spec.data_sha256), read, SOURCES)

    def _model(self, folder: Path) -> Classifier:
        return _kept(self._models, folder, lambda: load(folder), MODELS)

    def _collected(self, original: Path, source: Source) -> ClassStatistics:
        """Collect what a guard holds, from as many training images as the command line does."""

        def collect() -> ClassStatistics:
            return ClassStatistics.collect(self._model(original), source.train_images, max_images=MAX_IMAGES)

        return _kept(self._statistics, (original, source.sha256), collect, MODELS)

    def _auditor(self, source: Source, original: Path, retrained: tuple[Path, ...]) -> Auditor:
        """Return what audits with these models; that of others goes, with all that it has computed."""

        def auditor() -> Auditor:
            return Auditor(
                self._model(original),
                retrained=[self._model(folder) for folder in retrained],
                test=source.test_images,
                train=source.train_images,
                runtime=self.config.runtime(),
            )

        return _kept(self._auditors, (source.sha256, original, retrained), auditor, 1)

    def _folder(self, bundle: Bundle) -> Path:
        """Return where a bundle is here; one that came as bytes is written down for as long as the worker lives."""
        if isinstance(bundle, Path):
            return bundle
        if self._unpacked is None:
            self._unpacked = Path(tempfile.mkdtemp(prefix="unhot-"))
            weakref.finalize(self, shutil.rmtree, self._unpacked, ignore_errors=True)
        folder = self._unpacked / sha256(bundle["model.safetensors"]).hexdigest()
        if not folder.exists():
            folder.mkdir()
            for name, content in bundle.items():
                (folder / name).write_bytes(content)
        return folder


class _Given(NamedTuple):
    """What a method reads beside its samples."""

    retain: LabelledImages | None
    guard: ClassStatistics | None


def _kept(known: dict[K, V], key: K, make: Callable[[], V], most: int) -> V:
    """Return what is known by a key, or make it; of more than ``most``, what was not used for longest goes."""
    if key not in known and len(known) == most:
        del known[next(iter(known))]  # before there is one more
    value = known.pop(key) if key in known else make()
    known[key] = value
    return value


def _method(cell: Cell) -> Method:
    return methods.get(cell.method).of(dict(cell.hyperparameters))


def _forget(method: Method, model: Classifier, samples: Samples, given: _Given, runtime: Runtime) -> ForgetResult:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnhotWarning)  # meant for a user; here it is one of many draws
        return method(
            model,
            samples,
            retain=given.retain,
            guard=given.guard,
            seed=runtime.seed,
            runtime=runtime,
            force=True,
        )


def _retained(source: Source, cell: Cell, runtime: Runtime) -> LabelledImages:
    """Draw images of the retained classes of the train split."""
    kept = source.train_images.without(cell.classes)
    if cell.retained is None or cell.retained >= len(kept):
        return kept
    order = torch.randperm(len(kept), generator=runtime.generator("retained"))
    return kept.select(order[: cell.retained].sort().values)


def _samples(cell: Cell, source: Source, classes: Sequence[int]) -> Samples:
    if cell.shots is not None:
        return draw_at(source.train_images, classes, cell.shots, cell.seed)
    return every(source.train_images, classes)


def _labels(model: Classifier, source: Source, classes: Sequence[int]) -> tuple[ClassLabel, ...]:
    """Return the classes of a model that some classes of the data are."""
    found = model.matched(source.train_images)
    return tuple(found[c] for c in classes)
