"""How the samples of a request, and images of the retained classes, are classified before a run and after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from unhot.data.images import LabelledImages
from unhot.errors import (
    DataError,
    DataWarning,
    MethodFailedError,
    ModelWarning,
    SampleWarning,
    UnhotWarning,
    counted,
    first_line,
    shortened,
    spelled,
    warn,
)
from unhot.methods.parts.batches import logits_of
from unhot.methods.parts.damage import LOSS
from unhot.methods.parts.data import Data
from unhot.models.classifier import Classifier
from unhot.models.cut import Cut, cut_classes
from unhot.models.plain import branched
from unhot.records.forget import ForgetRecord, Recognised, RetainedAccuracy
from unhot.records.model import ClassLabel
from unhot.runtime import Runtime
from unhot.training import near_chance

IMAGES = 5_000  # images of the retained classes on which accuracy is evaluated, at most
TELLING = 50  # of these: of fewer, a model may classify few correctly by chance
NEARLY_ALL = 0.9  # of the samples are classified as their class; fewer cause a warning
DROP = 0.035  # a greater drop of accuracy on the retained classes causes a warning


def sample_logits(model: Classifier, x: Tensor) -> Tensor:
    """Return the logits (N, K) of inputs (N, C, H, W), some at a time.

    Raises:
        MethodFailedError: The net fails, as one does that reads the weights of a head that another layer replaced.
    """
    try:
        return logits_of(model, x)
    except Exception as error:  # the net is the caller's: it may raise anything
        what = f"{type(error).__name__}: {first_line(error)}"
        raise MethodFailedError(f"The net fails on the samples ({what}).") from error


def check_samples(model: Classifier, labels: Sequence[ClassLabel], y: Tensor, logits: Tensor, force: bool) -> None:
    """Refuse samples of which the model classifies fewer than half as their class; warn of fewer than nine in ten.

    Args:
        model: The classifier.
        labels: The classes to forget.
        y: The output column of each sample's class, int64 (N,).
        logits: Logits of the samples, (N, K).
        force: Warn instead of refusing.

    Raises:
        DataError: There are none of a class, or fewer than half of them are classified as it.
    """
    predicted, problems = logits.argmax(1), []
    for label, column in zip(labels, model.columns(labels), strict=True):
        found = predicted[y == column]
        n, right = len(found), int((found == column).sum())
        if n == 0:
            raise DataError(f"There are no samples of class {label.name!r}. Give a few of its images.")
        counts = found[found != column].bincount()
        ranked = sorted(counts.nonzero().flatten().tolist(), key=lambda c: -int(counts[c]))
        others = [(int(counts[c]), model.classes[c].name) for c in ranked]
        listed = [f"{k} as {name!r}" for k, name in others]
        if 2 * right < n and not force:
            most = f"{others[0][0]} of {n} samples of {label.name!r} are classified as {others[0][1]!r}"
            problems.append(f"{shortened([most, *listed[1:], f'{right} as {label.name!r}'])}.")
        elif right < NEARLY_ALL * n:
            own = f"{right} of {n} samples of {label.name!r} are classified as {label.name!r}"
            warn(f"{own}, {shortened(listed, 3)}.", SampleWarning)
    if problems:
        error = DataError(
            f"{' '.join(problems)} Check that the class is the right one, that the images are of it, and that they are "
            "preprocessed as the model needs. To go on all the same: force=True."
        )
        raise spelled(error, "force=True", "--force")


def cut_and_compare(
    model: Classifier, labels: Sequence[ClassLabel], how: Cut, x: Tensor
) -> tuple[Classifier, Classifier]:
    """Cut classes out of the output, in place, and check on some inputs that the other logits are unchanged.

    Args:
        model: The classifier.
        labels: The classes to cut.
        how: See :func:`unhot.models.cut.cut_classes`. After ``bottleneck`` all logits of an image may differ by one
            constant, on which probabilities do not depend.
        x: Inputs (N, C, H, W).

    Returns:
        The classifier, and the classifier before the cut, which shares all weights but the head.

    Raises:
        MethodFailedError: The other logits moved by more than rounding explains.
    """
    if how == "none":
        return model, model
    others = [model.classes[c] for c in model.others(model.columns(labels)).tolist()]
    logits = expected = sample_logits(model, x)
    uncut = replace(model, module=branched(model.module, model.head))
    cut = cut_classes(model, labels, how)
    for edit in cut.head_edits:
        expected = expected if edit in model.head_edits else edit.on_logits(expected)
    before, after = (z[:, cut.columns(others)].double() for z in (expected, sample_logits(cut, x)))
    if how == "bottleneck":
        before, after = (z - z.mean(1, keepdim=True) for z in (before, after))
    moved = (after - before).abs().max().item()
    # accelerators may keep no more of a float32 than of a half in a product, and choose another algorithm each time
    least = 0.0 if x.device.type == "cpu" else torch.finfo(torch.float16).eps
    if not moved <= max(torch.finfo(logits.dtype).eps, least) ** 0.5 * before.abs().max().item():
        raise MethodFailedError(
            f"Cutting {shortened(c.name for c in labels)} out of the output (cut={how}) moved the logits of other "
            f"classes by {moved:.3g} on the samples: the net does more with its head {model.head!r} than to call it. "
            "Choose another cut."
        )
    return cut, uncut


@dataclass(frozen=True)
class Classified:
    """How the original classifies images, to be compared with the unlearned model.

    Attributes:
        model: The original, for its classes and columns; the method changes its net.
        data: The data of the method: the samples, and images of the other classes.
        images: Images of the other classes, labelled with columns of the original; None if there are none.
        given: Number of images that they were drawn from.
        read: Whether the method can read them.
        before: The columns that the original classifies them as, int64 (N,).
    """

    model: Classifier
    data: Data
    images: LabelledImages | None = None
    given: int = 0
    read: bool = False
    before: Tensor = field(default_factory=lambda: torch.zeros(0))

    @classmethod
    def by(cls, model: Classifier, data: Data, check: LabelledImages | None, runtime: Runtime) -> Classified:
        """Classify with the original, in eval mode.

        Args:
            model: The original.
            data: The data of the method.
            check: Images of the other classes, labelled with columns of the original; those of ``data`` if None.
            runtime: Draws some of the images, if there are many.
        """
        images = data.others if check is None and data.labelled else check
        if images is None:
            return cls(model, data)
        some = torch.randperm(len(images), generator=runtime.generator("check"))[:IMAGES].sort().values
        chosen = images.select(some) if model.input is None else images.select(some).cached(model.input)
        read, found = check is None and "retain" in data.uses, _columns(model, model, chosen, runtime)
        right, chance = (found == chosen.y).double().mean().item(), 1 / len(model.classes)
        if len(chosen) >= TELLING and near_chance(right, chance):
            warn(
                f"The model classifies {right:.3f} of the images of the other classes correctly; guessing would give "
                f"{chance:.3f}. Check that they are of its classes, their preprocessing (size, mean, standard "
                "deviation) and the order of the classes.",
                DataWarning,
            )
        return cls(model, data, chosen, len(images), read, found)

    def after(self, unlearned: Classifier, runtime: Runtime) -> tuple[tuple[Recognised, ...], RetainedAccuracy | None]:
        """Classify with the unlearned model, in eval mode.

        Returns:
            For each class to forget the number of samples classified as it, followed by that of images of other classes
            that the method marked as forgotten too; and the accuracy on the remaining images.

        Raises:
            MethodFailedError: The logits of the unlearned model are not finite.
        """
        x, y, logits = self.data.samples
        now = sample_logits(unlearned, x)
        if not now.isfinite().all():
            raise MethodFailedError("The unlearned model returns NaN or infinite logits on the samples.")
        was, now = logits.argmax(1), _in(self.model, unlearned)[now.argmax(1).cpu()].to(y.device)
        found = [_count(self.model, c, y, was, now) for c in self.data.columns]
        more = [c for c in unlearned.forgotten if c not in (*self.model.forgotten, *self.data.labels)]
        if self.images is None:
            return (*found, *(Recognised(label=c, n=0, before=0, after=0) for c in more)), None
        y, was, now = self.images.y, self.before, _columns(self.model, unlearned, self.images, runtime)
        hidden = self.model.columns(more)
        found += [_count(self.model, c, y, was, now) for c in hidden]
        gone = (*self.model.forgotten, *self.data.labels, *more)
        return tuple(found), self._accuracy(y, was, now, [c for c in y.unique().tolist() if c not in hidden], gone)

    def _accuracy(
        self, y: Tensor, was: Tensor, now: Tensor, retained: list[int], gone: Sequence[ClassLabel]
    ) -> RetainedAccuracy | None:
        each = [_count(self.model, c, y, was, now) for c in retained]
        if self.images is None or not each:
            return None
        n = sum(c.n for c in each)
        return RetainedAccuracy(
            origin=self.images.origin,
            given=self.given,
            n=n,
            read_by_method=self.read,
            before=sum(c.before for c in each) / n,
            after=sum(c.after for c in each) / n,
            worst_class=max(each, key=lambda c: (c.before - c.after) / c.n),
            missing=len({*self.model.classes} - {*gone, *(r.label for r in each)}),
        )


def not_forgotten(record: ForgetRecord) -> list[str]:
    """Return a sentence for each class that should have been forgotten and was not."""
    found, part = [], record.notes.get("part")
    for c in record.recognised:
        name = c.label.name if part is None else f"{part}, a part of {c.label.name}"
        what = "samples" if c.label in record.classes else "images of it"
        left = f"{c.after} of {c.n} {what} are still classified as it" if c.n else "no images of it were evaluated"
        found += [] if c.forgotten else [f"Did not forget {name}: {left}."]
    return found


def warnings_of(record: ForgetRecord) -> list[UnhotWarning]:
    """Return the warnings that a run deserves."""
    found: list[UnhotWarning] = []
    cut = "cut=mask, " if record.hyperparameters.get("cut") == "none" else ""
    advice = f"Try {cut}other settings of {record.method}, or another method."
    if left := not_forgotten(record):
        found.append(SampleWarning(" ".join([*left, advice])))
    if lost := loss(record):
        found.append(ModelWarning(f"{lost} {advice}"))
    found += [
        SampleWarning(
            f"None of the {c.n} samples of {c.label.name!r} was classified as {c.label.name!r} before, so they do "
            f"not show that it was forgotten.{' It was only cut from the output.' * (c in only_cut(record))}"
        )
        for c in _never_recognised(record)
    ]
    return [spelled(warning, "cut=mask", "-o cut=mask") for warning in found]


def only_cut(record: ForgetRecord) -> list[Recognised]:
    """Return the classes of which no sample was classified as the class before, and that were cut without training."""
    cut = record.cost.steps == 0 and record.hyperparameters.get("cut", "none") != "none"
    return _never_recognised(record) if cut else []


def _never_recognised(record: ForgetRecord) -> list[Recognised]:
    """Return the classes to forget of which no sample was classified as the class, before the run or after it."""
    return [c for c in record.recognised if c.label in record.classes and c.forgotten and not c.before]


def loss(record: ForgetRecord) -> str:
    """Return a sentence on the accuracy on the retained classes, if it fell by more than a run may cost."""
    accuracy = record.retained_accuracy
    if accuracy is None or accuracy.before - accuracy.after <= DROP:
        return ""
    return (
        f"Accuracy on the retained classes fell by {accuracy.before - accuracy.after:.3f}, more than {DROP}: "
        f"{retained(accuracy)}."
    )


def left_unchanged(record: ForgetRecord) -> bool:
    """Return whether nothing was changed but the output, since it might have cost the other classes too much."""
    found = record.notes.get(LOSS)
    tried = record.cost.steps > 0 or record.notes.get("kept") == 1
    return isinstance(found, dict) and found["at_most"] == 0 and tried


def estimated(record: ForgetRecord) -> str:
    """Return a sentence on what the method estimated that the other classes lost, if it did."""
    found = record.notes.get(LOSS)
    if not isinstance(found, dict):
        return ""
    if left_unchanged(record):
        return "Any change might have cost the other classes more than the budget: the features are unchanged."
    rough = "" if found.get("calibrated", True) else " (a guess: it was not calibrated on nets like this one)"
    return f"Estimated loss on other classes: {found['estimate']:.3f}, at most {found['at_most']:.3f}{rough}."


def retained(accuracy: RetainedAccuracy) -> str:
    """Return the accuracy on the retained classes before and after, in words."""
    worst, read = accuracy.worst_class, " that the method read" if accuracy.read_by_method else ""
    lost = f"class {worst.label.name} lost most ({worst.before} of {worst.n} correct before, {worst.after} after)"
    figures = f"{accuracy.before:.1%} before and {accuracy.after:.1%} after, on {counted(accuracy.n, 'image')}{read}"
    if accuracy.missing:
        figures += f" (of {accuracy.missing} of the other classes there are none)"
    return f"{figures}; {lost}" if worst.after < worst.before else figures


def _count(model: Classifier, column: int, y: Tensor, was: Tensor, now: Tensor) -> Recognised:
    """Count the images of a class, and those classified as it, from columns of the original, each (N,)."""
    mine = y == column
    before, after = (int((columns[mine] == column).sum()) for columns in (was, now))
    return Recognised(label=model.classes[column], n=int(mine.sum()), before=before, after=after)


def _in(original: Classifier, model: Classifier) -> Tensor:
    """Return which column of the original each output of a model stands for, int64 (K,)."""
    return torch.tensor(original.columns(model.classes))


@torch.no_grad()
def _columns(original: Classifier, model: Classifier, images: LabelledImages, runtime: Runtime) -> Tensor:
    """Return which columns of the original images are classified as by a model, int64 (N,)."""
    with runtime.progress("evaluated images", len(images)) as advance:
        parts = []
        for x, y in images.batches(model.input, runtime.device):
            parts.append(model.logits(x).argmax(1).cpu())
            advance(len(y))
    return _in(original, model)[torch.cat(parts)]
