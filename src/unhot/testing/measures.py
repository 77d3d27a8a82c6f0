"""The contract of every measure, of metrics and of attacks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

import torch

from unhot.evaluation.metric import Case, Finding, NotMeasurable
from unhot.evaluation.stats import Estimate
from unhot.evaluation.view import Views
from unhot.models.classifier import Classifier
from unhot.records.audit import Subject
from unhot.records.measure import Measure
from unhot.testing.toy import toy_views
from unhot.testing.traces import generators, global_seed, left, state

MODELS: tuple[tuple[Subject, int], ...] = (
    ("original", 0), ("masked", 0), ("unlearned", 0), ("retrained", 0), ("retrained", 1)
)  # fmt: skip
LITTLE: dict[str, dict[str, object]] = {
    "without train images": {"train": False, "test_images": 30},
    "without a retrained model": {"retrained": 0, "test_images": 30},
    "with one retrained model": {"retrained": 1, "test_images": 30},
    "with three test images of each class": {"test_images": 3},
    "with one test image of each class and nothing else": {"test_images": 1, "train": False, "retrained": 0},
    "with models that take tensors only": {"pixels": False, "test_images": 30},
}
SAME = 1e-6

Take = Callable[[Case], Finding]


class _At(NamedTuple):
    """The model and the split of a measurement."""

    subject: Subject
    run: int
    split: str

    def __str__(self) -> str:
        return f"on the {self.subject} model" if self.split == "test" else f"on the {self.subject} model, train images"


Found = dict[_At, Finding | str]


def measure_problems(measures: Sequence[Measure], take: Take) -> Iterator[str]:
    """Yield how measures differ from their declarations.

    Args:
        measures: The declarations.
        take: Takes them all of a case, or raises ``NotMeasurable``.
    """
    views = toy_views()
    states, drawn = [state(m.module) for m in _models(views)], generators()
    try:
        found = _take(measures, take, views)
    except Exception as error:  # it may raise anything
        yield f"It fails with everything at hand: {type(error).__name__}: {error}"
        return
    for model, before in zip(_models(views), states, strict=True):
        yield from left(before, state(model.module), drawn, "It")
    yield from _values(measures, found)
    for measure in measures:
        yield from _declared_values(measure, _of(measure, found))
    yield from _repeats(measures, take, found)
    for what, situation in LITTLE.items():
        yield from _with_little(measures, take, what, situation)


def same(first: Finding | str, second: Finding | str) -> bool:
    """Return whether two findings are the same."""
    if isinstance(first, str) or isinstance(second, str):
        return first == second
    pictures = first.pictures.keys() == second.pictures.keys() and all(
        torch.equal(torch.as_tensor(x), torch.as_tensor(second.pictures[n])) for n, x in first.pictures.items()
    )
    plain = [(dict(f.estimates), f.curves, f.scores) for f in (first, second)]
    return pictures and plain[0] == plain[1]


def _models(views: Views) -> list[Classifier]:
    return [m for models in views.models.values() for m in models]


def _take(measures: Sequence[Measure], take: Take, views: Views) -> Found:
    """Take the measures of every model on every split that they ask for; a text is the reason for their absence."""
    found: Found = {}
    for split in dict.fromkeys(s for m in measures for s in m.splits if s in views.splits):
        for subject, run in MODELS:
            if run < len(views.models[subject]):
                try:
                    found[_At(subject, run, split)] = take(Case(views, subject, split, run))
                except NotMeasurable as reason:
                    found[_At(subject, run, split)] = str(reason)
    return found


def _values(measures: Sequence[Measure], found: Found) -> Iterator[str]:
    """Check names, estimates and reasons for absence."""
    names = {m.name for m in measures}
    for at, finding in found.items():
        if isinstance(finding, str):
            if not finding:
                yield f"It gives no reason for its absence {at}."
            continue
        if finding.estimates.keys() != names:
            yield f"It gives {sorted(finding.estimates)}, and declares {sorted(names)}."
            continue
        for measure in measures:
            yield from (f"{measure.name} {at} {wrong}" for wrong in _wrong(measure, finding.estimates[measure.name]))
        of = [(c.subject, c.run) for c in finding.curves] + [(s.subject, s.run) for s in finding.scores]
        if any(model != (at.subject, at.run) for model in of):
            yield f"It says of a curve or score {at} that it is of another model."
        if any(p.dtype != torch.uint8 or p.ndim != 4 for p in finding.pictures.values()):
            yield "Its pictures must be uint8 of shape (N, C, H, W)."


def _wrong(measure: Measure, e: Estimate | str) -> Iterator[str]:
    if isinstance(e, str):
        if not e:
            yield "is absent without a reason."
        return
    low, high = measure.bounds
    if not (isinstance(e, Estimate) and all(isinstance(v, float | int) and math.isfinite(v) for v in e)):
        yield f"is not an Estimate of finite numbers: {e!r}."
    elif not e.low <= e.value <= e.high:
        yield f"is {e.value:g}, outside of its interval from {e.low:g} to {e.high:g}."
    elif not (low - SAME <= e.low and e.high <= high + SAME):
        yield f"is {e.value:g} ({e.low:g} to {e.high:g}), outside of its range: {measure.range}."
    elif e.n < 1:
        yield f"says that it comes from {e.n} images."


def _of(measure: Measure, found: Found) -> Callable[[Subject], list[Estimate]]:
    """Return a function from a subject to the estimates of a measure for its models, on test images."""
    estimates: dict[Subject, list[Estimate]] = {subject: [] for subject, _ in MODELS}
    for at, finding in found.items():
        e = finding if isinstance(finding, str) else finding.estimates.get(measure.name)
        if at.split == "test" and isinstance(e, Estimate):
            estimates[at.subject].append(e)
    return estimates.__getitem__


def _declared_values(measure: Measure, of: Callable[[Subject], list[Estimate]]) -> Iterator[str]:
    """Check the declared values on the original, damaged and retrained models."""
    name, originals, retrained = measure.name, of("original"), of("retrained")
    if not originals:
        yield f"{name} is absent even with everything at hand."
        return
    (original,) = originals
    if measure.at_original is not None and abs(original.value - measure.at_original) > SAME:
        yield f"{name} is {original.value:g} on the original, where it is to be {measure.at_original:g}."
    if measure.features_only and of("masked") != originals:
        yield f"{name} is to read features only, but is another one on the masked original."
    if measure.at_original is not None and any(_better(measure, e.value, original.value) for e in of("unlearned")):
        yield f"{name} is better on a damaged model than on the original: is its direction right?"
    if not retrained:
        return
    usual = fmean(e.value for e in retrained)
    expected = measure.at_retrained
    if expected is not None and not min(e.low for e in retrained) <= expected <= max(e.high for e in retrained):
        yield f"{name} is {usual:g} on models that never saw the class, where it is to be {expected:g} but for chance."
    if measure.found_in_original and not _found(measure, original, usual):
        yield (
            f"{name} is {original.value:g} on the original and {usual:g} on models that never saw the class: it does "
            "not find the class where it is."
        )


def _found(measure: Measure, original: Estimate, usual: float) -> bool:
    if measure.at_retrained is not None and original.low <= measure.at_retrained <= original.high:
        return False
    return measure.higher_is_better is None or _better(measure, usual, original.value)


def _better(measure: Measure, a: float, b: float) -> bool:
    return measure.higher_is_better is not None and (a > b if measure.higher_is_better else a < b)


def _repeats(measures: Sequence[Measure], take: Take, found: Found) -> Iterator[str]:
    """Check that findings do not depend on the global generators."""
    with global_seed(1):
        again = _take(measures, take, toy_views())
    if changed := [at for at, finding in found.items() if not same(finding, again[at])]:
        yield f"It is another one {changed[0]} when it is taken again."


def _with_little(measures: Sequence[Measure], take: Take, what: str, situation: Mapping[str, object]) -> Iterator[str]:
    """Check that a measure is absent with a reason, and raises no error, where data is missing."""
    try:
        found = _take(measures, take, toy_views(**situation))  # type: ignore[arg-type]
    except Exception as error:  # it may raise anything
        yield f"It fails {what}: {type(error).__name__}: {error}. Raise NotMeasurable with the reason."
    else:
        yield from (f"{p[:-1]} ({what})." for p in _values(measures, found))
