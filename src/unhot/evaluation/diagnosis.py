"""diagnose(): what is known of a model, and what a request to forget would do, before anything is changed."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from unhot.data.images import LabelledImages
from unhot.data.samples import Samples
from unhot.data.unlabelled import Unlabelled
from unhot.errors import ModelWarning, TooLongError, UnhotError, UnhotWarning, warn
from unhot.methods import QUICK, get
from unhot.methods.base import Data, Method
from unhot.methods.forget import TOO_LONG, not_used
from unhot.models.classifier import Classifier
from unhot.models.head import is_plain
from unhot.models.preflight import gradient_problem
from unhot.models.weights import dtype_of
from unhot.records.diagnosis import Accuracy, Answers, Diagnosis, KnownModel, Plan
from unhot.records.model import ClassLabel
from unhot.runtime import Runtime, usual_settings
from unhot.shared_state import SHARED_STATE

TIMED = 16  # samples of which a pass is timed


@usual_settings()
def diagnose(
    model: Classifier,
    samples: Samples | Callable[[], Samples],
    method: Method,
    *,
    check: LabelledImages | None = None,
    retain: LabelledImages | Unlabelled | None = None,
    runtime: Runtime | None = None,
    force: bool = False,
    asked: bool = True,
) -> Diagnosis:
    """Say what is known of a model and what a request to forget would do; nothing is changed or trained.

    Args:
        model: The classifier.
        samples: The images of the classes to forget, or what reads them, whose refusal is that of the request.
        method: The method with its hyperparameters.
        check: Test images, on which accuracy is evaluated.
        retain: Images of the other classes, for a method that reads them.
        runtime: Device and progress.
        force: Whether samples that are classified as other classes are accepted.
        asked: Whether the method was asked for. If not, nhle-cwm is planned where :func:`unhot.forget` would use it
            instead, and a warning says why.
    """
    runtime = runtime or Runtime()
    refusal: str | None = None
    answers: tuple[Answers, ...] = ()
    accuracy: Accuracy | None = None
    plan = _plan_of(method)
    with SHARED_STATE, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UnhotWarning)
        try:
            given = samples() if callable(samples) else samples
            answers = answers_of(model, given.images, runtime)
            data = method.rehearse(model, given, retain=retain, runtime=runtime, force=force)
            plan = _planned(method, model, data, runtime, asked)
        except UnhotError as error:
            refusal = error.command_line or str(error)
        if check is not None:
            try:
                accuracy = _accuracy(answers_of(model, check, runtime))
            except UnhotError as error:
                refusal = refusal or error.command_line or str(error)
    said = [w.message for w in caught if isinstance(w.message, UnhotWarning)]
    return Diagnosis(
        model=known_model(model),
        samples=answers,
        data=accuracy,
        plan=plan,
        refusal=refusal,
        warnings=tuple(dict.fromkeys(w.command_line or str(w) for w in said)),
    )


def known_model(model: Classifier) -> KnownModel:
    """Return what is known of a model without running it."""
    head = model.head_layer
    return KnownModel(
        arch=model.arch or "",
        graph=hasattr(model.module, "unhot_graph"),
        weights=sum(p.numel() for p in model.module.parameters()),
        number_type=str(dtype_of(model.module)).removeprefix("torch."),
        head=model.head,
        features=head.in_features,
        plain_head=is_plain(head),
        classes=model.classes,
        named=not model.unnamed,
        forgotten=model.forgotten,
        input=model.input,
    )


@torch.no_grad()
def answers_of(model: Classifier, images: LabelledImages, runtime: Runtime) -> tuple[Answers, ...]:
    """Return what a model classifies images of each of their classes as.

    Raises:
        DataError: They have classes that the model does not have, or are no inputs of it.
    """
    aligned = model.align(images)
    work, found = model.copy(runtime.device), list[Tensor]()
    work.module.eval()
    with runtime.progress("classified images", len(aligned)) as advance:
        for x, _ in aligned.batches(model.input, runtime.device):
            found.append(work.logits(x).argmax(1).cpu())
            advance(len(x))
    answers = torch.cat(found) if found else torch.zeros(0, dtype=torch.int64)
    return tuple(_answers(model, model.classes[c], answers[aligned.y == c]) for c in aligned.y.unique().tolist())


def _answers(model: Classifier, label: ClassLabel, columns: Tensor) -> Answers:
    counts = columns.bincount(minlength=len(model.classes))
    ranked = [int(c) for c in counts.argsort(descending=True, stable=True) if counts[c]]
    return Answers(label=label, n=len(columns), answers=tuple((model.classes[c], int(counts[c])) for c in ranked))


def _accuracy(answers: tuple[Answers, ...]) -> Accuracy | None:
    if not answers:
        return None
    worst = min(answers, key=lambda a: a.right / max(a.n, 1))
    return Accuracy(n=sum(a.n for a in answers), correct=sum(a.right for a in answers), worst=worst)


def _planned(method: Method, model: Classifier, data: Data, runtime: Runtime, asked: bool) -> Plan:
    """Return what would be done and about how long it takes; warn if that is not the method.

    Raises:
        TooLongError: The method was asked for, and would refuse.
    """
    each, said = _pass_seconds(model, data, runtime), list[str]()
    reason = None if asked else method.objection(data)
    runtime = replace(runtime, steps=0, announce=said.append)
    try:
        whole = None if reason else _seconds(method, model, data, runtime, each)
    except TooLongError:
        if asked:
            raise
        reason, whole = TOO_LONG, None
    if reason is not None:
        warn(not_used(method, reason), ModelWarning)
        method = get(QUICK)()
        whole = _seconds(method, model, data, runtime, each)
    found = {"reads": data.uses, "pass_seconds": each, "seconds": whole, "announced": tuple(said)}
    return _plan_of(method).model_copy(update=found)


def _plan_of(method: Method) -> Plan:
    return Plan(method=method.name, hyperparameters=method.model_dump(mode="json"), most_steps=_most_steps(method))


def _most_steps(method: Method) -> int | None:
    """Return the cap of steps that a method has, under the name that they give it."""
    steps = getattr(method, "steps", None)
    return steps if isinstance(steps, int) else None


def _seconds(
    method: Method, model: Classifier, data: Data, runtime: Runtime, pass_seconds: float | None
) -> tuple[float, float] | None:
    """Return the least and the greatest time of a run; ``pass_seconds`` is that of :func:`_pass_seconds`."""
    if pass_seconds is None:
        return None
    each = pass_seconds / min(len(data.samples.y), TIMED)
    return method.planned(_for_a_run(model, runtime), data, runtime, each)


def _pass_seconds(model: Classifier, data: Data, runtime: Runtime) -> float | None:
    """Return the time of a forward and backward pass over some samples; warn if no gradient reaches the layers."""
    work, x = _for_a_run(model, runtime), data.samples.x[:TIMED]
    if problem := gradient_problem(work.module, x[:1], work.head):
        warn(f"Methods that train layers before the head cannot run on this model: {problem}", ModelWarning)
        return None
    timed = replace(runtime, steps=0)
    return timed.median_seconds(lambda: work.logits(x).sum().backward(), repeats=1, what="a pass over the samples")


def _for_a_run(model: Classifier, runtime: Runtime) -> Classifier:
    """Return a copy as a method is given it."""
    work = model.trainable(runtime.device)
    work.module.eval().requires_grad_(True)
    return work
