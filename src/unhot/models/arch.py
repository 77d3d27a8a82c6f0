"""Architectures by name: built-in nets, those of torchvision and timm, and factories of users."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from pydantic import JsonValue
from torch import Tensor, nn

from unhot.errors import InputError, ModelError, OptionError, UnknownNameError
from unhot.models import catalogue as models
from unhot.records.model import InputSpec
from unhot.runtime import own_generators, torchvision_ops

Builder = Callable[..., nn.Module]

# arguments of an architecture that the classes and the inputs determine, under any of their names
OUTPUTS, CHANNELS = ("outputs", "num_classes"), ("channels", "in_channels", "in_chans")
SIZES = ("size", "image_size", "img_size")
GIVEN = frozenset((*OUTPUTS, *CHANNELS, *SIZES))


def build(arch: str, outputs: int, spec: InputSpec | None, options: Mapping[str, JsonValue] | None = None) -> nn.Module:
    """Build an untrained net.

    Args:
        arch: A built-in name, ``torchvision:NAME``, ``timm:NAME`` or ``package.module:factory``. A factory
            receives those of ``num_classes``, ``in_channels`` and ``image_size`` that it takes.
        outputs: Number of classes.
        spec: The inputs of the net; None if they are not known.
        options: More keyword arguments of the architecture.

    Raises:
        UnknownNameError: There is no such architecture.
        OptionError: It does not accept an option or its value.
    """
    known = dict.fromkeys(OUTPUTS, outputs)
    if spec is not None:
        known |= dict.fromkeys(CHANNELS, spec.channels) | dict.fromkeys(SIZES, spec.height)
    builder = find_builder(arch)
    accepted = inspect.signature(builder).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in accepted.values())
    if unknown := [o for o in options or {} if o not in accepted and not takes_any]:
        raise UnknownNameError(f"option of {arch}:", unknown[0], [p for p in accepted if p not in known])
    given = {k: v for k, v in known.items() if k in accepted} | dict(options or {})
    try:
        net = builder(**given)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        listed = ", ".join(f"{k}={v!r}" for k, v in given.items())
        raise OptionError(f"{arch} cannot be built with {listed}: {error}.") from error
    if not isinstance(net, nn.Module):
        raise ModelError(f"{arch} returned {type(net).__name__}. The factory must return a torch.nn.Module.")
    return net


def options_of(arch: str) -> list[str]:
    """Return the keyword arguments of an architecture that neither the data nor the classes determine."""
    accepted = inspect.signature(find_builder(arch)).parameters.values()
    return [p.name for p in accepted if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name not in GIVEN]


def fits(arch: str, state: Mapping[str, Tensor]) -> bool:
    """Return whether there is an architecture of that name whose weights have the names of these."""
    try:
        with own_generators():
            return build(arch, 10, None).state_dict().keys() == state.keys()
    except InputError:
        return False


def is_ours(arch: str) -> bool:
    """Return whether an architecture comes with unhot or torchvision, so that its name is enough to build it."""
    return arch.startswith("torchvision:") or arch in models.builtin


def channels_of(arch: str, spec: InputSpec) -> InputSpec:
    """Return the input that an architecture takes for data of ``spec``: torchvision's nets take colour only."""
    if arch.startswith("torchvision:") and spec.channels == 1:
        return spec.model_copy(update={"channels": 3, "mean": spec.mean * 3, "std": spec.std * 3})
    return spec


def learning_rate(arch: str) -> float:
    """Return the highest learning rate of SGD that suits an architecture: a built-in net's own, else 0.05."""
    return float(getattr(models.get(arch), "lr", 0.05)) if arch in models else 0.05


def find_builder(arch: str) -> Builder:
    """Return the function or class that builds an architecture, by its name; see :func:`build`.

    Raises:
        UnknownNameError: There is no such architecture.
        InputError: Its package is not installed.
    """
    family, _, name = arch.partition(":")
    if not name:
        return models.get(arch)
    if family == "torchvision":
        torchvision_ops.prepare()
        from torchvision import models as tv

        known = tv.list_models(module=tv)
        if name not in known:
            raise UnknownNameError("torchvision model", name, known)

        def of_torchvision(num_classes: int, **options: JsonValue) -> nn.Module:
            net: nn.Module = tv.get_model(name, weights=None, num_classes=num_classes, **options)
            return net

        return of_torchvision
    if family == "timm":
        return _timm(name)
    if family == "transformers":
        raise ModelError(f"--arch {arch} is built from a config.json. Give the folder that save_pretrained wrote.")
    return _factory(family, name)


def _timm(name: str) -> Builder:
    torchvision_ops.prepare()
    try:
        import timm
    except ImportError as error:
        raise InputError("timm is not installed. Install it with: pip install 'unhot[hf]'.") from error
    if not timm.is_model(name):
        raise UnknownNameError("timm model", name, timm.list_models())

    def of_timm(num_classes: int, in_chans: int = 3, **options: JsonValue) -> nn.Module:
        net: nn.Module = timm.create_model(name, num_classes=num_classes, in_chans=in_chans, **options)
        return net

    return of_timm


def _factory(module: str, name: str) -> Builder:
    here = str(Path.cwd())
    if here not in sys.path:  # as `python -m` would find it
        sys.path.insert(0, here)
    try:
        factory = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise ModelError(f"{module} needs the package {error.name!r}, which is not installed.") from error
        known = [*models, "torchvision:NAME", "timm:NAME", "package.module:factory"]
        also = f"There is no module {module!r} in this environment or this folder."
        raise UnknownNameError("architecture", f"{module}:{name}", known, also) from error
    except (ImportError, ValueError, TypeError) as error:
        raise ModelError(
            f"--arch {module}:{name} cannot be imported ({error}). Give package.module:factory."
        ) from error
    except AttributeError as error:
        raise ModelError(f"Module {module!r} has no {name!r}. Check --arch.") from error
    if not callable(factory):
        raise ModelError(f"{module}:{name} is not callable. Name a function or a class that returns the net.")
    return factory  # type: ignore[no-any-return]
