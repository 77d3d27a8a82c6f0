"""forget(): run a method by its name, or the default one."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

from pydantic import JsonValue
from torch import nn

from unhot.data.samples import ImageSource, Samples
from unhot.data.unlabelled import Unlabelled
from unhot.errors import MethodFailedError, ModelWarning, OptionError, TooLongError, shortened, warn
from unhot.methods import DEEP, GUARDED, QUICK, get
from unhot.methods.base import ForgetResult, Method
from unhot.methods.checks import left_unchanged
from unhot.models.classifier import Classifier
from unhot.models.layers import normalisations
from unhot.runtime import Runtime, pick_device
from unhot.statistics import ClassStatistics

TOO_LONG = "it would take too long here"


def forget(
    model: nn.Module | Classifier,
    samples: Samples,
    *,
    method: Method | str | None = None,
    retain: ImageSource | Unlabelled | None = None,
    guard: ClassStatistics | None = None,
    check: ImageSource | None = None,
    seed: int = 0,
    device: str | None = None,
    head: str | None = None,
    runtime: Runtime | None = None,
    force: bool = False,
    **hyperparameters: JsonValue,
) -> ForgetResult:
    """Make a copy of a model forget the classes of some samples.

    ``record.recognised`` counts the samples that are still classified as their class. A class of which more than 5 %
    are is not recorded as forgotten, and a :class:`unhot.errors.SampleWarning` says so.

    Args:
        model: Any net that returns logits, or a classifier of ``unhot.load``. It is not changed.
        samples: The images of the classes to forget, from ``unhot.draw`` or ``unhot.folder``.
        method: A method with its hyperparameters, or the name of one. If None, that of :func:`usual_method`; nhle-cwm
            where nothing but the samples is given and that takes too long, fails, renews nothing or only guesses the
            loss.
        retain: Images of the other classes, for the methods that use them; for some without labels
            (:func:`unhot.unlabelled`).
        guard: Stored statistics of the model, for the methods that use them.
        check: Images of the other classes on which accuracy is compared before and after. The method does not read
            them. ``retain`` if None and labelled.
        seed: The same seed gives the same weights on the same machine.
        device: Name of a torch device; the best one of this machine if None.
        head: Dotted name of the final linear layer, if it cannot be found.
        runtime: Overrides ``device``; for progress and precision.
        force: Continue where the model classifies fewer than half of the samples of a class as it.
        hyperparameters: Hyperparameters of the method, if it is passed by name or not at all.

    Raises:
        ModelError: The model does not fit; every reason is listed.
        DataError: The samples do not fit.
        MethodFailedError: The method ended in an unusable model.
        UnknownNameError: There is no method, or no hyperparameter, of that name.
        OptionError: A hyperparameter does not fit.

    Example:
        >>> samples = unhot.draw((x, y), classes=[2], shots=4)
        >>> result = unhot.forget(net, samples)
        >>> result.record.method
        'nhle-cwm'
        >>> unhot.forget(net, samples, method="mask", cut="excise").record.hyperparameters
        {'cut': 'excise'}
    """
    asked = bool(method is not None or retain is not None or guard is not None or hyperparameters)
    if method is None:
        method = usual_method(model, guard is not None, retain is not None)
    if isinstance(method, str):
        method = get(method).of(hyperparameters)
    elif not isinstance(method, Method):
        raise OptionError(f"method takes the name of a method, or a method such as Mask(). Got {method!r}.")
    elif hyperparameters:
        raise OptionError(f"Give {shortened(hyperparameters)} to the method itself: {type(method).__name__}(...).")
    runtime = runtime or Runtime(device=pick_device(device))
    return run(
        method,
        model,
        samples,
        asked=asked,
        runtime=runtime,
        retain=retain,
        guard=guard,
        check=check,
        seed=seed,
        head=head,
        force=force,
    )


def usual_method(model: nn.Module | Classifier | None, guarded: bool = False, retained: bool = False) -> str:
    """Return the name of the default method: the one that makes most of what there is besides the samples.

    Args:
        model: The net; None if it is not known. If it has batch normalisation, images of the other classes can be made
            from what that stored.
        guarded: Whether there are stored statistics of the training images (a guard).
        retained: Whether there are images of the other classes.
    """
    if guarded and not retained:
        return GUARDED
    net = model.module if isinstance(model, Classifier) else model
    normalised = isinstance(net, nn.Module) and any(normalisations(net))
    return DEEP if retained or normalised else QUICK


def run(
    method: Method,
    model: nn.Module | Classifier,
    samples: Samples,
    *,
    asked: bool,
    runtime: Runtime,
    **given: Any,
) -> ForgetResult:
    """Call a method, or nhle-cwm where nobody asked for that method and it does not fit the net.

    A warning says why, and so does ``notes.not_used`` of the record.

    Args:
        method: The method.
        model: What it is called with.
        samples: The same.
        asked: Whether it was asked for, by its name, by its hyperparameters or by images and statistics that it reads.
        runtime: What it is called with.
        given: What it is called with.
    """
    if asked or method.name == QUICK:
        return method(model, samples, runtime=runtime, **given)
    reason = _objection(method, model, samples, runtime, **given)
    if reason is None:
        try:
            result = method(model, samples, runtime=runtime, **given)
        except (TooLongError, MethodFailedError) as error:
            reason = TOO_LONG if isinstance(error, TooLongError) else "it makes this net unusable"
        else:
            if not left_unchanged(result.record):
                return result
            reason = "it can renew nothing within its budget"
    warn(not_used(method, reason), ModelWarning)
    result = get(QUICK)()(model, samples, runtime=replace(runtime, cache=None), **given)
    notes: dict[str, JsonValue] = {**result.record.notes, "not_used": {method.name: reason}}
    return replace(result, record=result.record.model_copy(update={"notes": notes}))


def not_used(method: Method, reason: str) -> str:
    """Say in a sentence why nhle-cwm is used instead of a method."""
    return f"{method.name} is not used: {reason}. {QUICK} is used, which is quicker and mostly only hides the class."


def _objection(
    method: Method,
    model: nn.Module | Classifier,
    samples: Samples,
    runtime: Runtime,
    head: str | None = None,
    force: bool = False,
    **_: Any,
) -> str | None:
    """Return why a method should not be called unasked, as far as that is known before the call."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the call itself warns of the same
        data = method.rehearse(model, samples, head=head, runtime=runtime, force=force)
    return method.objection(data)
