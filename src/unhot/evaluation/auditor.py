"""Auditor and audit(): measure unlearned models beside the original, the masked original and retrained models."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from unhot.data.images import at_once
from unhot.data.samples import ImageSource
from unhot.errors import ModelError
from unhot.evaluation import checks, pictures
from unhot.evaluation.attacks import catalogue as attacks
from unhot.evaluation.audit import Audit, name_files
from unhot.evaluation.catalogue import measures
from unhot.evaluation.inputs import Pool, as_classifier, gather
from unhot.evaluation.metric import Attack, Case, Finding, NotMeasurable, measured
from unhot.evaluation.metrics import catalogue as metrics
from unhot.evaluation.metrics.accuracy import per_class
from unhot.evaluation.scores import Score, info
from unhot.evaluation.stats import Estimate
from unhot.evaluation.verdict import Thresholds, judge
from unhot.evaluation.view import ModelResults, Views, results_of
from unhot.models.classifier import Classifier
from unhot.models.preflight import gradient_problem
from unhot.records.audit import AuditCost, AuditRecord, ClassAccuracy, Measurement, PlotData, Split, Subject
from unhot.records.forget import ForgetRecord
from unhot.records.measure import Holder, Measure
from unhot.records.model import ClassLabel
from unhot.runtime import Runtime, usual_settings

TRAIN_IMAGES = 5_000  # of the train split are evaluated at most
TEST_IMAGES = 20_000


class Auditor:
    """Measures unlearned models beside the original, the masked original and retrained models.

    What is computed of the original, the retrained models and the images is kept as long as this object, and so
    computed once for all audits of the same classes; what is computed of an unlearned model goes with its audit.

    Args:
        original: The model before; like the others, it must not change while this object is used.
        test: Images that none of the models was trained on, of all classes; at most 20,000 of them are evaluated.
        train: Images that the original was trained on; at most 5,000 of them are evaluated.
        retrained: One or more models trained without the classes.
        runtime: Device, seed and progress.

    Raises:
        ModelError: A model does not fit.
        DataError: The images do not fit.
    """

    @usual_settings()
    def __init__(
        self,
        original: nn.Module | Classifier,
        *,
        test: ImageSource,
        train: ImageSource | None = None,
        retrained: nn.Module | Classifier | Sequence[nn.Module | Classifier] | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        self.runtime = runtime or Runtime()
        self._pools: dict[Split, Pool] = {"test": Pool(test, TEST_IMAGES, self.runtime)}
        if train is not None:
            self._pools["train"] = Pool(train, TRAIN_IMAGES, self.runtime)
        self._some = self._pools["test"].first(2)
        self._original = ModelResults(as_classifier(original, self._some, None, "original"))
        self._known = [self._original]
        for model in [retrained] if isinstance(retrained, nn.Module | Classifier) else retrained or ():
            self._known.append(self._results(model, "retrained"))
        digests = [known.sha256() for known in self._known]
        if len(set(digests)) < len(digests):
            raise ModelError(
                "Two of the original and the retrained models have the same weights. Give each retrained model "
                "once; it must have been trained without the classes."
            )

    def _results(self, model: nn.Module | Classifier, subject: Subject) -> ModelResults:
        """Return what was computed of a model, if it is the original or a retrained one, or nothing yet."""
        return results_of(as_classifier(model, self._some, self._original.model, subject), self._known)

    @usual_settings()
    def audit(
        self,
        unlearned: nn.Module | Classifier,
        classes: Sequence[int | str | ClassLabel],
        *,
        quick: bool = False,
        thresholds: Thresholds | None = None,
        holder: Holder = "features",
        made_by: ForgetRecord | None = None,
        retrain_seconds: float | None = None,
    ) -> Audit:
        """Measure an unlearned model.

        Args:
            unlearned: The model after; made by anything.
            classes: The forgotten classes, by index or by name.
            quick: Leave out the attacks that train or optimise, and the layers before the penultimate one.
            thresholds: The thresholds of the verdict.
            holder: What is asked of: what somebody can recover who holds the model's outputs, its features, or all of
                its weights. The verdict names all three; its headline is that of this one.
            made_by: The record of the run that made the unlearned model.
            retrain_seconds: How long training the retrained model took.

        Raises:
            ModelError: A model does not fit.
            DataError: The images do not fit.
        """
        runtime = self.runtime
        started, declared = runtime.clock(), tuple(measures().values())
        after = self._results(unlearned, "unlearned")
        if after.sha256() in [known.sha256() for known in self._known[1:]]:
            raise ModelError("The unlearned model is also given as a retrained one. Leave it out there.")
        given = gather(self._original, after, tuple(self._known[1:]), classes, self._pools)
        made_by, flags = checks.believed(made_by, after.sha256())
        flags += checks.origin_flags(made_by, self._original.sha256(), after.model)
        views = given.views(runtime)
        views.compute()
        thresholds = thresholds or Thresholds()
        flags += checks.check_models(views, thresholds.forgotten)
        forwarded = runtime.clock()
        found = _measure_all(views, quick)
        by_name = {(m.name, m.subject): m for m in found.measured if m.split == "test"}
        flags += [*given.flags(), *checks.reference_flags(views, by_name), *checks.original_flags(views, by_name)]
        drawn, images = name_files(found.drawn)
        record = AuditRecord(
            classes=given.labels,
            measures=declared,
            measurements=tuple(found.measured),
            verdict=judge(
                lambda name, subject: by_name[name, subject],
                declared,
                thresholds,
                holder,
                flags,
                checks.doubts(views),
            ),
            per_class=tuple(_per_class(views)),
            curves=tuple(found.curves),
            seed=runtime.seed,
            attacks={name: attack.model_dump(mode="json") for name, attack in _attacks().items()},
            scores=info(found.scores),
            pictures=drawn,
            inputs=given.record(),
            made_by=made_by,
            cost=AuditCost(
                forget_seconds=None if made_by is None else made_by.cost.seconds,
                floor_seconds=None if made_by is None else _floor(views, sum(made_by.samples.count)),
                retrain_seconds=retrain_seconds,
                audit_seconds=runtime.clock() - started,
                forward_seconds=forwarded - started,
            ),
            environment=runtime.environment(),
        )
        return Audit(record, images, tuple(found.scores))


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
    holder: Holder = "features",
    made_by: ForgetRecord | None = None,
    retrain_seconds: float | None = None,
    runtime: Runtime | None = None,
) -> Audit:
    """Measure one unlearned model; the arguments are those of :class:`Auditor` and :meth:`Auditor.audit`.

    Raises:
        ModelError: A model does not fit.
        DataError: The images do not fit.
    """
    return Auditor(original, test=test, train=train, retrained=retrained, runtime=runtime).audit(
        unlearned,
        classes,
        quick=quick,
        thresholds=thresholds,
        holder=holder,
        made_by=made_by,
        retrain_seconds=retrain_seconds,
    )


@dataclass
class _Found:
    """What the measures found."""

    measured: list[Measurement] = field(default_factory=list)
    curves: list[PlotData] = field(default_factory=list)
    drawn: dict[tuple[str, str], dict[Subject, Tensor]] = field(default_factory=dict)
    scores: list[Score] = field(default_factory=list)


def _attacks() -> dict[str, Attack]:
    return {name: attacks.get(name)() for name in attacks}


def _measure_all(views: Views, quick: bool) -> _Found:
    total = _Found([m for name in metrics for m in _measure(name, views)])
    total.curves += [*pictures.confusion(views), *pictures.feature_map(views)]
    total.curves += [] if quick else pictures.layers(views)
    chosen = _attacks()
    with views.runtime.progress("attacks", len(chosen)) as advance:
        for name, attack in chosen.items():
            entry = attacks.entry(name)
            for subject in views.models:
                found = "left out by --quick" if quick and entry.slow else _attacked(attack, views, subject)
                total.measured += _from_findings(entry.measures, subject, found)
                for finding in (f for f in found if isinstance(f, Finding)):
                    total.curves += finding.curves
                    total.scores += finding.scores
                    for picture, pixels in finding.pictures.items():  # of several retrained models the first
                        total.drawn.setdefault((name, picture), {}).setdefault(subject, pixels)
            advance(1)
    return total


def _floor(views: Views, count: int) -> float:
    """Time one forward and backward pass of the original over as many images as a method was given."""
    model, runtime = views.models["original"][0].copy(views.runtime.device), views.runtime
    model.module.eval()
    count = max(1, min(count, len(views.splits["test"])))
    x = views.splits["test"].inputs(torch.arange(count), model.input, runtime.device)

    def forward_and_back() -> None:
        for some in x.split(at_once(x)):
            model.logits(some).sum().backward()

    return runtime.median_seconds(forward_and_back)


def _measure(name: str, views: Views) -> Iterator[Measurement]:
    measure, compute = metrics.entry(name).measure, metrics.get(name)
    for subject, models in views.models.items():
        for split in measure.splits:
            found: list[Estimate] | str = "no retrained model was given"
            try:
                Case(views, subject, split).images(split)
                if models:
                    found = [measured(measure, compute, Case(views, subject, split, i)) for i in range(len(models))]
            except NotMeasurable as reason:
                found = str(reason)
            yield _measurement(measure, subject, split, found)


def _attacked(attack: Attack, views: Views, subject: Subject) -> list[Finding] | str:
    """Attack every model of a subject; a text is the reason why not."""
    if not views.models[subject]:
        return "no retrained model was given"
    try:
        return [attack.found(Case(views, subject, "test", run)) for run in range(len(views.models[subject]))]
    except NotMeasurable as reason:
        return str(reason)
    except RuntimeError:
        model, images = views.models[subject][0], views.splits["test"]
        x = images.inputs(torch.arange(1), model.input, model.device)
        if problem := gradient_problem(model.module, x, model.head):
            return f"it needs gradients, and the model does not give them: {problem}"
        raise


def _from_findings(measures: Sequence[Measure], subject: Subject, found: list[Finding] | str) -> Iterator[Measurement]:
    for measure in measures:
        estimates = found if isinstance(found, str) else [f.estimates[measure.name] for f in found]
        yield _measurement(measure, subject, "test", estimates)


def _measurement(measure: Measure, subject: Subject, split: Split, found: Sequence[Estimate | str]) -> Measurement:
    """Make one measurement of those of one or several models: their mean, within all of their intervals.

    A text, in the place of all or of one of them, is the reason for its absence.
    """
    reason = found if isinstance(found, str) else next((e for e in found if isinstance(e, str)), None)
    about = partial(
        Measurement,
        name=measure.name,
        subject=subject,
        split=split,
        unit=measure.unit,
        higher_is_better=measure.higher_is_better,
    )
    if reason is not None:
        return about(absent_because=reason)
    values, lows, highs, counts = zip(*(e for e in found if isinstance(e, Estimate)), strict=True)
    low, high = min(lows), max(highs)
    value = min(high, max(low, statistics.fmean(values)))  # a mean may round past equal ends
    return about(value=value, low=low, high=high, n=max(counts), runs=values if len(values) > 1 else ())


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
