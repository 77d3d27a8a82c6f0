"""Method: what every unlearning method shares, done once."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self, final

import torch
from pydantic import AliasChoices, BaseModel, ConfigDict, JsonValue, ValidationError
from torch import Tensor, nn

from unhot.data.samples import ImageSource, Samples
from unhot.data.unlabelled import Unlabelled
from unhot.errors import (
    DataError,
    DataWarning,
    MethodFailedError,
    ModelError,
    OptionError,
    UnknownNameError,
    invalid_values,
    shortened,
    spelled,
    warn,
)
from unhot.methods import catalogue, get
from unhot.methods.checks import Classified, check_samples, cut_and_compare, sample_logits, warnings_of
from unhot.methods.parts.data import Batch as Batch
from unhot.methods.parts.data import Data as Data
from unhot.methods.parts.data import Use as Use
from unhot.methods.parts.departures import Departures
from unhot.methods.parts.opening import opened, working
from unhot.methods.provenance import provenance
from unhot.methods.retained import retained_images
from unhot.models.classifier import Classifier
from unhot.models.cut import Cut
from unhot.models.preflight import gradient_problem
from unhot.models.weights import check_weights, dtype_of, narrow, widen
from unhot.records.environment import Cost
from unhot.records.forget import ForgetRecord
from unhot.records.model import ClassLabel
from unhot.runtime import Runtime, usual_settings
from unhot.statistics import ClassStatistics
from unhot.training import normalising


@dataclass(frozen=True)
class Outcome:
    """The result of a method's ``run``.

    Attributes:
        model: The classifier that ``run`` received, changed in place or with another head. The base class records in
            it which classes were forgotten.
        stop_reason: Why the run stopped, in words.
        notes: Values measured during the run, all from data that the method may read.
        cut: How the base class is to cut the classes from the output; see :func:`unhot.models.cut.cut_classes`.
        planned_seconds: Wall time that the run announced before it began its work, if it did.
    """

    model: Classifier
    stop_reason: str
    notes: dict[str, JsonValue] = field(default_factory=dict)
    cut: Cut = "none"
    planned_seconds: float | None = None


@dataclass(frozen=True)
class ForgetResult:
    """An unlearned model and the record of its run.

    Attributes:
        classifier: The unlearned model.
        record: The record of the run.
        uncut: The model before its classes were cut from the output, in eval mode; it shares all weights with
            ``classifier`` but the head's. Where the method does not cut, ``classifier`` itself.
    """

    classifier: Classifier
    record: ForgetRecord
    uncut: Classifier = field(repr=False)

    @property
    def model(self) -> nn.Module:
        """The net itself."""
        return self.classifier.module


class Method(BaseModel, ABC):
    """An unlearning method: its fields are its hyperparameters, ``run`` is the algorithm.

    Attributes:
        name: The name under which it is registered.
        uses: Data that it reads: "forget" (samples), "retain" (images of other classes), "guard" (stored statistics).
        may_use: Data that it reads if they are passed. For that run they are added to ``uses``, in the record too, so
            that runs with and without them can be told apart.
        moves_statistics: Whether it trains with the normalisation statistics of its batches, and so moves the running
            ones; with a few samples of one class that wrecks a net.
        departures: Differences from its paper or released code.
        presets: Hyperparameters that its paper uses, by data set or net.
        parts: Whether it can forget a part of a class and retain the rest.
        makes_images: Whether it can make images from the model alone, which a cache keeps (:class:`unhot.Runtime`).
        takes_unlabelled: Whether retained images need no labels (:func:`unhot.unlabelled`).
        finds: The hyperparameter that says how many classes without samples it should find; None if it finds none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: ClassVar[str]
    uses: ClassVar[tuple[Use, ...]]
    may_use: ClassVar[tuple[Use, ...]] = ()
    moves_statistics: ClassVar[bool] = False
    departures: ClassVar[Departures] = Departures()
    presets: ClassVar[dict[str, dict[str, JsonValue]]] = {}
    parts: ClassVar[bool] = False
    makes_images: ClassVar[bool] = False
    takes_unlabelled: ClassVar[bool] = False
    finds: ClassVar[str | None] = None

    @classmethod
    def of(cls, options: dict[str, JsonValue]) -> Self:
        """Make a method from hyperparameters that a user typed; ``preset`` names a set that the others override.

        Raises:
            OptionError: One is unknown, of the wrong type or out of range; all are listed.
        """
        options = dict(options)
        if cls.presets and (preset := options.pop("preset", None)) is not None:
            if preset not in cls.presets:
                raise UnknownNameError(f"preset of {cls.name}:", preset, cls.presets)
            options = cls.presets[str(preset)] | options
        for key in options:
            if key not in cls._hyperparameters():
                raise UnknownNameError(f"hyperparameter of {cls.name}:", key, cls.model_fields)
        try:
            return cls.model_validate(options)
        except ValidationError as error:
            raise OptionError(f"Invalid hyperparameters for {cls.name}: {'; '.join(invalid_values(error))}.") from error

    @classmethod
    def _hyperparameters(cls) -> set[str]:
        """Return the names of the fields, and the older names that are still accepted."""
        old = (
            f.validation_alias.choices
            for f in cls.model_fields.values()
            if isinstance(f.validation_alias, AliasChoices)
        )
        return {*cls.model_fields, *(str(name) for choices in old for name in choices)}

    @abstractmethod
    def run(self, model: Classifier, data: Data, runtime: Runtime) -> Outcome:
        """Make ``model`` forget, in place.

        Args:
            model: A copy that may be changed: all modules in eval mode, all weights with gradients.
            data: The data that the method declares in ``uses``.
            runtime: Device, generators, optimiser steps.
        """

    def planned(
        self, model: Classifier, data: Data, runtime: Runtime, image_seconds: float
    ) -> tuple[float, float] | None:
        """Return the least and the greatest time of a run, in seconds; None if the method does not say.

        Args:
            model: A copy that may be changed, as in a run.
            data: What the run would read.
            runtime: That of the run; for a method that times a step of its own.
            image_seconds: Time of a forward and backward pass of one image through all of the net.

        Raises:
            TooLongError: The run would refuse, since it would take too long.
        """
        return None

    def objection(self, data: Data) -> str | None:
        """Return why nobody should get this method unasked, as far as the data tell before a run; None for nothing."""
        return None

    @final
    @usual_settings()
    def __call__(
        self,
        model: nn.Module | Classifier,
        samples: Samples,
        *,
        retain: ImageSource | Unlabelled | None = None,
        guard: ClassStatistics | None = None,
        check: ImageSource | None = None,
        seed: int = 0,
        runtime: Runtime | None = None,
        head: str | None = None,
        force: bool = False,
    ) -> ForgetResult:
        """Run the method on a copy of a model, then classify the samples again.

        A class is recorded as forgotten (``Classifier.forgotten``) only if at most 5 % of its samples are still
        classified as it; a :class:`SampleWarning` names the classes of which more are.

        Args:
            model: Any net that returns logits, or a classifier. It is not changed.
            samples: The images of the classes to forget.
            retain: Images of the other classes, for the methods that use them; for some without labels
                (:func:`unhot.unlabelled`).
            guard: Stored statistics of this model, for the methods that use them; those of the classes to forget are
                removed first.
            check: Images of the other classes on which accuracy is compared before and after the run. The method does
                not read them. ``retain`` if None and labelled.
            seed: The same seed gives the same weights on the same machine.
            runtime: Device, precision and progress.
            head: Dotted name of the final linear layer, if it cannot be found.
            force: Continue where the model classifies fewer than half of the samples of a class as it.

        Raises:
            ModelError: The model does not fit; every reason is listed.
            DataError: The samples do not fit.
            MethodFailedError: The method ended in an unusable model.
        """
        runtime = replace(runtime or Runtime(), seed=seed, steps=0)
        work, x = opened(model, samples, head, runtime)
        work_head = work.head_layer
        head_training, head_trained = work_head.training, work_head.weight.requires_grad
        with torch.enable_grad(), working(work.module):
            data = self._prepare(work, samples, x, retain, guard, force, runtime)
            whole = samples.part is None
            columns = data.columns if whole else []
            checked = None if check is None else retained_images(work, check, columns, x.shape[1:], runtime)
            classified = Classified.by(work, data, checked, runtime)
            known = provenance(self, work, samples, data, seed)
            buffers = {n: b.clone() for n, b in work.module.named_buffers()}
            started = runtime.clock()
            with runtime.seeded(self.name):
                outcome = self._run_wide(work, data, runtime)
            seconds = runtime.clock() - started
            self._check_outcome(outcome, buffers)
            unlearned, uncut = cut_and_compare(outcome.model, data.labels, outcome.cut, x)
            unlearned.module.eval()
            recognised, accuracy = classified.after(unlearned, runtime)
        if unlearned.head_layer is not work_head:
            unlearned.head_layer.train(head_training).requires_grad_(head_trained)
        gone = [c.label for c in recognised if c.forgotten and (whole or c.label not in data.labels)]
        unlearned = unlearned.marked((*work.forgotten, *gone))
        record = ForgetRecord(
            **known,
            guard_sha256=None if guard is None else guard.sha256(),
            weights_sha256=unlearned.sha256(),
            stop_reason=outcome.stop_reason,
            notes=outcome.notes | ({} if samples.part is None else {"part": samples.part}),
            recognised=recognised,
            retained_accuracy=accuracy,
            cost=Cost(
                seconds=seconds,
                peak_memory_bytes=runtime.peak_memory_bytes(),
                steps=runtime.steps,
                planned_seconds=outcome.planned_seconds,
            ),
            environment=runtime.environment(),
        )
        for warning in warnings_of(record):
            warn(warning)
        return ForgetResult(unlearned, record, unlearned if outcome.cut == "none" else uncut.marked(work.forgotten))

    @final
    @usual_settings()
    def rehearse(
        self,
        model: nn.Module | Classifier,
        samples: Samples,
        *,
        retain: ImageSource | Unlabelled | None = None,
        runtime: Runtime | None = None,
        head: str | None = None,
        force: bool = False,
    ) -> Data:
        """Make the checks that come before a run, as a call does, and return what the run would read.

        Raises:
            InputError: A call would refuse.
        """
        runtime = runtime or Runtime()
        work, x = opened(model, samples, head, runtime)
        with torch.enable_grad(), working(work.module):
            data = self._prepare(work, samples, x, retain, None, force, runtime)
        for use in data.uses:
            getattr(data, use)  # raises if it is needed and was not given
        return data

    def _check_outcome(self, outcome: Outcome, buffers: dict[str, Tensor]) -> None:
        """Refuse a model that cannot be used, and notes that a record cannot hold.

        Raises:
            MethodFailedError: With every reason.
        """
        problems = check_weights(outcome.model.module)
        try:
            json.dumps(outcome.notes, allow_nan=False)
        except ValueError:
            problems.append("it noted a number that is NaN or infinite.")
        for name, buffer in () if self.moves_statistics else outcome.model.module.named_buffers():
            if name not in buffers or not torch.equal(buffer, buffers[name]):
                problems.append(f"it moved {name}." if name in buffers else f"it added {name}.")
        if problems:
            raise MethodFailedError(f"{self.name} ended in an unusable model: {' '.join(problems)}")

    def _run_wide(self, model: Classifier, data: Data, runtime: Runtime) -> Outcome:
        """Run with 16-bit weights as float32, where small steps are not rounded away; restore their type afterwards."""
        kind, types = model.head_layer.weight.dtype, widen(model.module)
        try:
            with normalising():
                outcome = self.run(model, data, runtime)
        except RuntimeError as error:
            if problem := gradient_problem(model.module, data.samples.x[:1], model.head):
                raise ModelError(f"{self.name} needs gradients, and the model does not give them: {problem}") from error
            raise
        if not isinstance(outcome, Outcome) or not isinstance(outcome.model, Classifier):
            found = f"an Outcome of {type(outcome.model).__name__}" if isinstance(outcome, Outcome) else repr(outcome)
            raise MethodFailedError(
                f"The run of {self.name} returned {found}. It must return an unhot.Outcome of the classifier that it "
                "was given, changed."
            )
        narrow(outcome.model.module, types, kind)
        return outcome

    def _prepare(
        self,
        model: Classifier,
        samples: Samples,
        x: Tensor,
        retain: ImageSource | Unlabelled | None,
        guard: ClassStatistics | None,
        force: bool,
        runtime: Runtime,
    ) -> Data:
        labels = model.requested(samples)
        whole = samples.part is None
        if not whole and not self.parts:
            able = shortened(name for name in catalogue.builtin if get(name).parts)
            raise DataError(
                f"{self.name} cannot forget only a part of a class, here {samples.part}. Choose a method that can: "
                f"{able}."
            )
        if again := [c.name for c in labels if c in model.forgotten]:
            advice = "Leave it out." if len(again) < len(labels) else "Nothing is left to forget."
            raise DataError(f"The model has forgotten {shortened(again)} already. {advice}")
        if whole and len(labels) >= len(model.classes) - sum(c in model.classes for c in model.forgotten):
            raise DataError("Every class would be forgotten. Leave at least one class to be retained.")
        logits = sample_logits(model, x)
        if not logits.isfinite().all():
            raise ModelError(
                "The model returns NaN or infinite logits on some of the samples. Check them and its weights."
            )
        y = model.align(samples.images).y.to(x.device)
        columns = model.columns(labels)
        check_samples(model, labels, y, logits, force)
        if others := sorted({model.classes[c].name for c in y.unique().tolist() if c not in columns}):
            raise DataError(
                f"The samples hold images of {shortened(others)} too. Give those of the classes to forget only."
            )
        given = {"retain": retain, "guard": guard}
        if runtime.cache is not None and not self.makes_images:
            able = shortened(name for name in catalogue.builtin if get(name).makes_images)
            error = OptionError(
                f"{self.name} makes no images that a cache could keep. Leave cache=... out, or choose {able}."
            )
            raise spelled(error, "cache=...", "--cache")
        if isinstance(retain, Unlabelled) and not self.takes_unlabelled:
            raise OptionError(f"{self.name} takes no unlabelled images. Give labelled ones, or another method.")
        if retain is not None and "retain" not in self.uses + self.may_use:
            warn(
                f"{self.name} does not read images of the retained classes. Those given are only evaluated on.",
                DataWarning,
            )
        kind = torch.promote_types(dtype_of(model.module), torch.float32)
        return Data(
            labels=labels,
            columns=columns,
            uses=self.uses + tuple(u for u in self.may_use if given.get(u) is not None),
            samples=Batch(x.to(kind), y, logits.to(kind)),
            others=None
            if retain is None
            else retained_images(model, retain, columns if whole else [], x.shape[1:], runtime),
            labelled=not isinstance(retain, Unlabelled),
            statistics=None if guard is None else self._of_retained(guard, model, labels),
            method=self.name,
        )

    def _of_retained(
        self, guard: ClassStatistics, model: Classifier, labels: tuple[ClassLabel, ...]
    ) -> ClassStatistics:
        """Check a guard, and remove from it the classes that are forgotten, now or before."""
        if not isinstance(guard, ClassStatistics):
            raise OptionError(
                f"guard takes unhot.ClassStatistics, which unhot guard collects from training images. Got {guard!r}."
            )
        if "guard" not in self.uses + self.may_use:
            raise OptionError(
                f"{self.name} does not read stored statistics. Leave the guard out, or choose a method that does."
            )
        guard.check(model)
        return guard.excluding(labels + model.forgotten)
