"""check_method(): the contract of every unlearning method."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch

from unhot.errors import UnhotError
from unhot.methods.base import Data, ForgetResult, Method, Outcome
from unhot.models.classifier import Classifier
from unhot.records.forget import ForgetRecord
from unhot.runtime import Runtime
from unhot.testing.settings import class_problems, idle_problems, written_problems
from unhot.testing.toy import FORGOTTEN, Toy, toy_problem
from unhot.testing.traces import generators, global_seed, left, state

RETAIN_LOSS = 0.25  # largest loss of accuracy on the retained classes of the toy problem


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
            problems += [p for p in written_problems(mode, "hyperparameters") if p not in problems]
            for check in (_check_untouched, _check_repeats, _check_reads, _check_result):
                problems += [p for p in check(mode) if p not in problems]
        problems += _check_knobs(chosen, alternatives or {})
    if problems:
        name = getattr(method, "name", repr(method))
        raise AssertionError(f"{name} breaks the contract of a method:" + "".join(f"\n  - {p}" for p in problems))


def _modes(method: Method) -> list[Method]:
    """Return the method without and with the data that it may use, each reading exactly its ``uses``."""
    if not method.may_use:
        return [method]
    return [
        _subclass(method, type(method).run, uses=method.uses, may_use=()),
        _subclass(method, type(method).run, uses=method.uses + method.may_use, may_use=()),
    ]


def _check_class(cls: type[Method]) -> Iterator[str]:
    """Check name, uses and defaults."""
    if not (isinstance(getattr(cls, "name", None), str) and cls.name):
        yield "It has no name. Set name: ClassVar[str]."
    uses = getattr(cls, "uses", None)
    if not (isinstance(uses, tuple) and set(uses) <= {"forget", "retain", "guard"}):
        yield f"uses must be a tuple of 'forget', 'retain' and 'guard'. Got {uses!r}."
    if not (isinstance(cls.may_use, tuple) and set(cls.may_use) <= {"retain", "guard"} - set(uses or ())):
        yield f"may_use must be a tuple of 'retain' or 'guard', beside those of uses. Got {cls.may_use!r}."
    yield from class_problems(cls)


def _check_untouched(method: Method) -> Iterator[str]:
    """Check that the caller's model and generators do not change, even after an error inside the run."""
    for toy, what in ((toy_problem(), "run"), (toy_problem(batch_norm=False), "run without BatchNorm")):
        yield from _traces(method, toy, what)

    def run(self: Method, model: Classifier, data: Data, runtime: Runtime) -> Outcome:
        method.run(model, data, runtime)
        raise _PlantedError

    yield from _traces(_subclass(method, run), toy_problem(), "run that fails")


def _traces(method: Method, toy: Toy, what: str) -> Iterator[str]:
    """Run a method on a model in a state that is easily disturbed, and yield what it changed."""
    body, handle = toy.model[0], toy.model[2].register_forward_hook(lambda *_: None)  # type: ignore[index]
    body.train()
    body.weight.requires_grad_(False)
    for i, p in enumerate(toy.model.parameters()):
        p.grad = torch.full_like(p, float(i))
    before, drawn = state(toy.model), generators()
    try:
        _run(method, toy)
    except _PlantedError:
        pass
    except Exception as error:  # a method may raise anything
        yield f"A {what} raised {type(error).__name__}: {error}"
    after = state(toy.model)
    handle.remove()
    yield from left(before, after, drawn, f"A {what}")


def _check_repeats(method: Method) -> Iterator[str]:
    """Check that the same seed gives the same weights, whatever the state of the global generators."""
    with global_seed(1):
        first = _attempt(method, toy_problem())
    with global_seed(2):
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
    """Check that the method reads all data that ``uses`` names, and nothing else."""
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
    """Check that the method forgets, retains, and does not change buffers, in the situations of users."""
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
    """Check that each hyperparameter matters: another value changes the weights or the course of the run."""
    tried = [(mode, _attempt(mode, toy_problem())) for mode in _modes(method)]
    bases = [(mode, base) for mode, base in tried if not isinstance(base, str)]
    if not bases:
        return

    def same(name: str, value: object) -> bool:
        return all(_same(base, _attempt(m.model_copy(update={name: value}), toy_problem())) for m, base in bases)

    yield from idle_problems(method, "hyperparameter", alternatives, same)


def _same(first: ForgetResult, second: ForgetResult | str) -> bool:
    if isinstance(second, str):
        return False
    a, b = ((r.record.weights_sha256, r.record.stop_reason, r.record.notes) for r in (first, second))
    return a == b


def _run(method: Method, toy: Toy, *classes: int) -> ForgetResult:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the toy net is not perfect, and says so
        retain = toy.retain(*classes) if "retain" in method.uses else None
        guard = toy.guard() if "guard" in method.uses else None
        samples, runtime = toy.samples(*classes), Runtime(torch.device("cpu"))
        return method(toy.model, samples, retain=retain, guard=guard, seed=3, runtime=runtime)


def _attempt(method: Method, toy: Toy, *classes: int) -> ForgetResult | str:
    """Run a method; return its result, or its error as text."""
    try:
        return _run(method, toy, *classes)
    except Exception as error:  # a method may raise anything
        return f"{type(error).__name__}: {error}"


class _PlantedError(UnhotError):
    """Raised inside a run, to check what an error leaves behind."""


def _subclass(method: Method, run: Callable[[Any, Classifier, Data, Runtime], Outcome], **changes: object) -> Method:
    """Return the same method with another ``run``, and other class variables."""
    cls = type(method)
    made = cast(type[Method], type(cls.__name__, (cls,), {"run": run, "__module__": cls.__module__} | changes))
    return made.model_construct(**{n: getattr(method, n) for n in cls.model_fields})


@dataclass(frozen=True)
class _SpyData(Data):
    """Data that records which of it is read."""

    read: set[str] = field(default_factory=set)

    def __getattribute__(self, name: str) -> Any:
        if name in ("forget", "retain", "guard", "samples", "others", "statistics"):
            object.__getattribute__(self, "read").add(name)
            own = {n: v for n, v in vars(self).items() if n != "read"}
            return getattr(Data(**own), name)
        return object.__getattribute__(self, name)
