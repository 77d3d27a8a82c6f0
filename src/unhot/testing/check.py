"""What every unlearning method must pass."""

from __future__ import annotations

import ast
import pickle
import random
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, cast, get_args, get_origin

import numpy as np
import torch
from pydantic import ValidationError
from torch import nn

from unhot.errors import UnhotError
from unhot.methods.base import Data, ForgetResult, Method, Outcome
from unhot.models.classifier import Classifier
from unhot.records.forget import ForgetRecord
from unhot.runtime import Runtime
from unhot.testing.toy import FORGOTTEN, Toy, toy_problem

RETAIN_LOSS = 0.25  # no method may lose more of the retained classes' accuracy on the toy problem


def check_method(method: type[Method] | Method, alternatives: Mapping[str, Sequence[object]] | None = None) -> None:
    """Check that a method keeps the contract of :class:`unhot.methods.base.Method`.

    Args:
        method: The class, which is run with its defaults; or a method with settings under which each of its
            hyperparameters matters on the toy problem.
        alternatives: For hyperparameters whose other values cannot be guessed from their type and their range: values
            that must change the result.

    Raises:
        AssertionError: One sentence for each thing that is wrong.

    """
    problems = list(_check_class(method if isinstance(method, type) else type(method)))
    if not problems:
        chosen = method if isinstance(method, Method) else method()
        for mode in _modes(chosen):
            for check in (_check_config, _check_untouched, _check_repeats, _check_reads, _check_result):
                problems += [p for p in check(mode) if p not in problems]
        problems += _check_knobs(chosen, alternatives or {})
    if problems:
        name = getattr(method, "name", repr(method))
        raise AssertionError(f"{name} breaks the contract of a method:" + "".join(f"\n  - {p}" for p in problems))


def _modes(method: Method) -> list[Method]:
    """Return the method as it is without, and with, what it may use; each reads what it says, and all of it."""
    if not method.may_use:
        return [method]
    return [
        _subclass(method, type(method).run, uses=method.uses, may_use=()),
        _subclass(method, type(method).run, uses=method.uses + method.may_use, may_use=()),
    ]


def _check_class(cls: type[Method]) -> Iterator[str]:
    """Name, uses, defaults."""
    if not (isinstance(getattr(cls, "name", None), str) and cls.name):
        yield "It has no name. Set name: ClassVar[str]."
    uses = getattr(cls, "uses", None)
    if not (isinstance(uses, tuple) and set(uses) <= {"forget", "retain", "guard"}):
        yield f"uses must be a tuple of 'forget', 'retain' and 'guard'. Got {uses!r}."
    if not (isinstance(cls.may_use, tuple) and set(cls.may_use) <= {"retain", "guard"} - set(uses or ())):
        yield f"may_use must be a tuple of 'retain' or 'guard', beside those of uses. Got {cls.may_use!r}."
    try:
        cls()
    except ValidationError as error:
        missing = ", ".join(str(e["loc"][0]) for e in error.errors() if e["loc"])
        yield f"It cannot be made without arguments. Give defaults that suit real data to: {missing}."
    if cls.model_config.get("extra") != "forbid" or not cls.model_config.get("frozen"):
        yield "Its model_config must keep frozen=True and extra='forbid'."


def _check_config(method: Method) -> Iterator[str]:
    """Hyperparameters survive JSON and repr."""
    if type(method).model_validate_json(method.model_dump_json()) != method:
        yield "Its hyperparameters do not survive JSON."
    try:
        call = ast.parse(repr(method), mode="eval").body
        if not isinstance(call, ast.Call):
            raise ValueError("not a call")
        values = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
        again = type(method)(**values)
    except (SyntaxError, ValueError):
        yield f"Its repr is not the call that makes it: {method!r}."
    else:
        if again != method:
            yield f"Its hyperparameters do not survive repr: {method!r}."


def _check_untouched(method: Method) -> Iterator[str]:
    """The caller's model and generators are as they were, also after an error inside the run."""
    for toy, what in ((toy_problem(), "run"), (toy_problem(batch_norm=False), "run without BatchNorm")):
        yield from _traces(method, toy, what)

    def run(self: Method, model: Classifier, data: Data, runtime: Runtime) -> Outcome:
        method.run(model, data, runtime)
        raise _PlantedError

    yield from _traces(_subclass(method, run), toy_problem(), "run that fails")


def _traces(method: Method, toy: Toy, what: str) -> Iterator[str]:
    """Run a method on a model in a state that is easily disturbed, and say what it disturbed."""
    body, handle = toy.model[0], toy.model[2].register_forward_hook(lambda *_: None)  # type: ignore[index]
    body.train()
    body.weight.requires_grad_(False)
    for i, p in enumerate(toy.model.parameters()):
        p.grad = torch.full_like(p, float(i))
    before, generators = _state(toy.model), _generators()
    try:
        _run(method, toy)
    except _PlantedError:
        pass
    except Exception as error:  # a method may raise anything
        yield f"A {what} raised {type(error).__name__}: {error}"
    after, generators_after = _state(toy.model), _generators()
    handle.remove()
    for part, value in before.items():
        if after[part] != value:
            yield f"A {what} changed the caller's model: {part}."
    for name, state in generators.items():
        if generators_after[name] != state:
            yield f"A {what} used the global generator of {name}. Use runtime.generator(purpose)."


def _check_repeats(method: Method) -> Iterator[str]:
    """The same seed gives the same weights, whatever the global generators are."""
    with _global_seed(1):
        first = _attempt(method, toy_problem())
    with _global_seed(2):
        second = _attempt(method, toy_problem())
    if isinstance(first, str) or isinstance(second, str):
        return
    if first.record.weights_sha256 != second.record.weights_sha256:
        yield "The same seed gave other weights when the global generators were in another state."
    if first.record.digest != second.record.digest:
        yield "The same request gave two records with different digests."
    if ForgetRecord.model_validate_json(first.record.to_json()) != first.record:
        yield "Its record does not survive JSON."


def _check_reads(method: Method) -> Iterator[str]:
    """It reads what ``uses`` names, nothing else, and all of it."""
    read: set[str] = set()

    def run(self: Method, model: Classifier, data: Data, runtime: Runtime) -> Outcome:
        return method.run(model, _SpyData(**vars(data), read=read), runtime)

    outcome = _attempt(_subclass(method, run), toy_problem())
    for what in sorted(read - set(method.uses)):
        yield (
            f"It reads data.{what}, which is not for methods. Read data.forget, data.retain or data.guard."
            if what in ("samples", "others", "statistics")
            else f"It reads the {what} data, which its uses = {method.uses} does not name."
        )
    if isinstance(outcome, str):
        return
    for what in sorted(set(method.uses) - read):
        yield f"Its uses names {what!r}, which it never reads."


def _check_result(method: Method) -> Iterator[str]:
    """It forgets, retains, and leaves the buffers as they were, in every situation that users have."""
    frozen = toy_problem()
    frozen.model[:-1].requires_grad_(False)  # type: ignore[index]
    situations = (
        ("with BatchNorm", toy_problem(), (FORGOTTEN,)),
        ("without BatchNorm", toy_problem(batch_norm=False), (FORGOTTEN,)),
        ("with a frozen body", frozen, (FORGOTTEN,)),
        ("with two classes to forget", toy_problem(), (FORGOTTEN, 3)),
        ("in float64", toy_problem(dtype=torch.float64), (FORGOTTEN,)),
    )
    for what, toy, classes in situations:
        result = _attempt(method, toy, *classes)
        if isinstance(result, str):
            yield f"It fails {what}: {result}"
            continue
        yield from (f"{problem} ({what})" for problem in _judge(method, toy, classes, result))


def _judge(method: Method, toy: Toy, classes: tuple[int, ...], result: ForgetResult) -> Iterator[str]:
    buffers = dict(result.model.named_buffers())
    moved = any(not torch.equal(b, buffers[n]) for n, b in toy.model.named_buffers() if n in buffers)
    if moved and not method.moves_statistics:
        yield "It moved buffers."
    columns = [i for i, c in enumerate(result.classifier.classes) if c.index in classes]
    with torch.no_grad():
        before, after = toy.model(toy.x), result.model(toy.x)
    if after.shape != (len(toy.x), len(result.classifier.classes)):
        yield f"Its model returns logits of shape {tuple(after.shape)} for {len(result.classifier.classes)} classes."
        return
    if not after.isfinite().all():
        yield "Its model returns NaN or infinite logits."
    mine = torch.isin(toy.y, torch.tensor(classes))
    left = after[mine].softmax(1)[:, columns].sum(1).mean()
    if left >= before[mine].softmax(1)[:, list(classes)].sum(1).mean():
        yield "It does not forget: the class is no less probable on its own images than before."
    indices = torch.tensor([c.index for c in result.classifier.classes])
    kept = [float((p[~mine] == toy.y[~mine]).float().mean()) for p in (before.argmax(1), indices[after.argmax(1)])]
    if kept[0] - kept[1] > RETAIN_LOSS:
        yield f"It loses {kept[0] - kept[1]:.2f} of the retained accuracy on the toy problem, more than {RETAIN_LOSS}."


def _check_knobs(method: Method, alternatives: Mapping[str, Sequence[object]]) -> Iterator[str]:
    """Each hyperparameter matters: another value gives other weights, or another course of the run."""
    tried = [(mode, _attempt(mode, toy_problem())) for mode in _modes(method)]
    bases = [(mode, base) for mode, base in tried if not isinstance(base, str)]
    if not bases:
        return
    for name in type(method).model_fields:
        values = list(alternatives.get(name) or _other_values(method, name))
        if not values:
            yield f"No other value of {name!r} is known to check with. Pass alternatives={{{name!r}: [...]}}."
        every = name in alternatives or get_origin(type(method).model_fields[name].annotation) is Literal
        dead = [
            v
            for v in values
            if all(_same(base, _attempt(m.model_copy(update={name: v}), toy_problem())) for m, base in bases)
        ]
        if dead and (every or len(dead) == len(values)):
            old = getattr(method, name)
            yield f"The hyperparameter {name!r} does nothing: {old!r} and {dead[0]!r} give the same result."


def _same(first: ForgetResult, second: ForgetResult | str) -> bool:
    if isinstance(second, str):
        return False
    a, b = ((r.record.weights_sha256, r.record.stop_reason, r.record.notes) for r in (first, second))
    return a == b


def _other_values(method: Method, name: str) -> Iterator[object]:
    """Give other values of a hyperparameter that its type and its range allow."""
    value, annotation = getattr(method, name), type(method).model_fields[name].annotation
    candidates: list[object] = []
    if get_origin(annotation) is Literal:
        candidates = list(get_args(annotation))
    elif isinstance(value, bool):
        candidates = [not value]
    elif isinstance(value, int):
        candidates = [value + 1, max(value // 2, 0), value * 3 + 2]
    elif isinstance(value, float):
        candidates = [value / 3, value * 3, value / 100, value * 100, 0.0, 0.5, 1.0]
    for candidate in candidates:
        try:
            other = type(method).model_validate(method.model_dump() | {name: candidate})
        except ValidationError:
            continue
        if other != method:
            yield candidate


def _run(method: Method, toy: Toy, *classes: int) -> ForgetResult:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the toy net is not perfect, and says so
        retain = toy.retain(*classes) if "retain" in method.uses else None
        guard = toy.guard() if "guard" in method.uses else None
        samples, runtime = toy.samples(*classes), Runtime(torch.device("cpu"))
        return method(toy.model, samples, retain=retain, guard=guard, seed=3, runtime=runtime)


def _attempt(method: Method, toy: Toy, *classes: int) -> ForgetResult | str:
    """Run a method; return its result, or what went wrong."""
    try:
        return _run(method, toy, *classes)
    except Exception as error:  # a method may raise anything
        return f"{type(error).__name__}: {error}"


class _PlantedError(UnhotError):
    """Raised inside a run, to see what that leaves behind."""


def _subclass(method: Method, run: Callable[[Any, Classifier, Data, Runtime], Outcome], **changes: object) -> Method:
    """Return the same method with another ``run``, and other class variables."""
    cls = type(method)
    made = cast(type[Method], type(cls.__name__, (cls,), {"run": run, "__module__": cls.__module__} | changes))
    return made.model_construct(**{n: getattr(method, n) for n in cls.model_fields})


@dataclass(frozen=True)
class _SpyData(Data):
    """Data that notes what is read."""

    read: set[str] = field(default_factory=set)

    def __getattribute__(self, name: str) -> Any:
        if name in ("forget", "retain", "guard", "samples", "others", "statistics"):
            object.__getattribute__(self, "read").add(name)
            own = {n: v for n, v in vars(self).items() if n != "read"}
            return getattr(Data(**own), name)
        return object.__getattribute__(self, name)


def _state(model: nn.Module) -> dict[str, object]:
    """Describe all of a model that a method may not change, in a form that can be compared."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
    return {
        "weights or buffers": {n: v.numpy().tobytes() for n, v in model.state_dict().items()},
        "train/eval flags": [m.training for m in model.modules()],
        "requires_grad": [p.requires_grad for p in model.parameters()],
        "gradients": [None if p.grad is None else p.grad.numpy().tobytes() for p in model.parameters()],
        "hooks": [len(getattr(m, kind)) for m in model.modules() for kind in hooks],
        "layers": [(n, id(m)) for n, m in model.named_modules()],
    }


def _generators() -> dict[str, bytes]:
    states = {"torch": torch.get_rng_state().numpy(), "numpy": np.random.get_state(), "python": random.getstate()}
    return {name: pickle.dumps(state) for name, state in states.items()}


@contextmanager
def _global_seed(seed: int) -> Iterator[None]:
    """Put the global generators in some state inside the block, and back in their own after it."""
    saved = torch.get_rng_state(), np.random.get_state(), random.getstate()
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(saved[0])
        np.random.set_state(saved[1])
        random.setstate(saved[2])
