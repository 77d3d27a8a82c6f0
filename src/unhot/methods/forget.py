"""forget(): run a method by default settings."""

from __future__ import annotations

from torch import nn

from unhot.data.samples import ImageSource, Samples
from unhot.guard import Guard
from unhot.methods import default, get
from unhot.methods.base import ForgetResult, Method
from unhot.models.classifier import Classifier
from unhot.runtime import Runtime, pick_device


def forget(
    model: nn.Module | Classifier,
    samples: Samples,
    *,
    method: Method | None = None,
    retain: ImageSource | None = None,
    guard: Guard | None = None,
    seed: int = 0,
    device: str | None = None,
    head: str | None = None,
    runtime: Runtime | None = None,
) -> ForgetResult:
    """Make a copy of a model forget the classes of some samples.

    Args:
        model: Any net that returns logits, or a classifier of ``unhot.load``. It is not changed.
        samples: The images of the classes to forget, from ``unhot.draw`` or ``unhot.folder``.
        method: With its hyperparameters; if None NHLE-CWM at its defaults, or NHLE-Guard if a guard is given.
        retain: Images of the other classes, for the methods that use them.
        guard: Stored statistics of the model, for the methods that use them.
        seed: The same seed gives the same weights on the same machine.
        device: As for torch; the best one of this machine if None.
        head: Dotted name of the final linear layer, if it cannot be found.
        runtime: Overrides ``device``; for progress and precision.

    Raises:
        ModelError: The model does not fit; every reason is listed.
        DataError: The samples do not fit.
        MethodFailedError: The method ended in an unusable model.

    Example:
        >>> samples = unhot.draw((x, y), classes=[2], shots=4)
        >>> result = unhot.forget(net, samples)
        >>> result.record.method
        'nhle-cwm'
    """
    chosen = method or get(default(guard is not None))()
    runtime = runtime or Runtime(device=pick_device(device))
    return chosen(model, samples, retain=retain, guard=guard, seed=seed, runtime=runtime, head=head)
