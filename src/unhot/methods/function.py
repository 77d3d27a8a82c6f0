"""A method made of a plain function."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import new_class
from typing import Any, cast, get_type_hints

from unhot.errors import OptionError
from unhot.methods import register
from unhot.methods.base import Data, Method, Outcome, Use
from unhot.models.classifier import Classifier
from unhot.runtime import Runtime

Function = Callable[..., Outcome | str | None]


def method(name: str, uses: tuple[Use, ...] = ("forget",)) -> Callable[[Function], type[Method]]:
    """Make a method of a function ``f(model, data, runtime)`` and register it.

    The function changes ``model`` in place and returns an :class:`Outcome`, the reason why it stopped, or nothing. Its
    keyword-only arguments are the method's hyperparameters: each needs a type and a default.

    Args:
        name: Name of the method.
        uses: Names of the ``data`` that the function reads.

    Raises:
        OptionError: The function takes other arguments.
        InputError: The name is taken.

    Example:
        >>> @method("fade")
        ... def fade(model, data, runtime, *, share: float = 0.5):
        ...     "Shrink the weights of the class."
        ...     model.head_layer.weight.data[data.columns] *= share
    """

    def make(function: Function) -> type[Method]:
        first, fields = _arguments(function)
        if first != 3:
            raise OptionError(f"{function.__name__} must take (model, data, runtime) and keyword-only settings.")

        def run(self: Method, model: Classifier, data: Data, runtime: Runtime) -> Outcome:
            found = function(model, data, runtime, **{n: getattr(self, n) for n in fields})
            return Outcome(model, found or "done") if isinstance(found, str | None) else found

        content = {n: default for n, (_, default) in fields.items()}
        content |= {"__annotations__": {n: kind for n, (kind, _) in fields.items()}, "run": run, "name": name}
        content |= {"uses": uses, "__module__": function.__module__, "__doc__": function.__doc__}
        made = new_class(function.__name__, (Method,), exec_body=lambda body: body.update(content))
        return register(name)(cast("type[Method]", made))

    return make


def _arguments(function: Function) -> tuple[int, dict[str, tuple[Any, Any]]]:
    """Return the number of positional arguments of a function, and type and default of its keyword-only ones."""
    hints, fields, positional = get_type_hints(function), dict[str, tuple[Any, Any]](), 0
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is not parameter.KEYWORD_ONLY:
            positional += 1
        elif parameter.default is parameter.empty or name not in hints:
            raise OptionError(f"The setting {name!r} of {function.__name__} needs a type and a default.")
        else:
            fields[name] = hints[name], parameter.default
    return positional, fields
