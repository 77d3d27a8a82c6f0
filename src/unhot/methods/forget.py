"""forget(): run a method by its name, or the default one."""

from __future__ import annotations

from pydantic import JsonValue
from torch import nn

from unhot.data.samples import ImageSource, Samples
from unhot.data.unlabelled import Unlabelled
from unhot.errors import OptionError, shortened
from unhot.methods import default, get
from unhot.methods.base import ForgetResult, Method
from unhot.models.classifier import Classifier
from unhot.runtime import Runtime, pick_device
from unhot.statistics import ClassStatistics


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
        method: A method with its hyperparameters, or the name of one; :func:`unhot.methods.default` if None.
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
    if method is None or isinstance(method, str):
        method = get(method or default(guard is not None, retain is not None)).of(hyperparameters)
    elif not isinstance(method, Method):
        raise OptionError(f"method takes the name of a method, or a method such as Mask(). Got {method!r}.")
    elif hyperparameters:
        raise OptionError(f"Give {shortened(hyperparameters)} to the method itself: {type(method).__name__}(...).")
    runtime = runtime or Runtime(device=pick_device(device))
    return method(
        model, samples, retain=retain, guard=guard, check=check, seed=seed, runtime=runtime, head=head, force=force
    )
