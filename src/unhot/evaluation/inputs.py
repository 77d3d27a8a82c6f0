"""What an audit evaluates: models side by side, and images chosen and labelled for them."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from unhot.data.images import LabelledImages
from unhot.data.matching import listed
from unhot.data.samples import ImageSource, as_images
from unhot.errors import DataError, DataWarning, ModelError, raise_all, shortened
from unhot.evaluation.verdict import flag
from unhot.evaluation.view import ModelResults, Views
from unhot.models.classifier import Classifier
from unhot.models.weights import check_weights
from unhot.records.audit import AuditInputs, Flag, Split, Subject
from unhot.records.base import digest
from unhot.records.model import ClassLabel, InputSpec
from unhot.runtime import Runtime

RARE = 200  # images of a forgotten class that has less than half of an equal share of a large set are drawn first


@dataclass(frozen=True)
class Chosen:
    """The images of a split that an audit evaluates.

    Attributes:
        images: The images, labelled with columns of the original.
        key: What they were chosen by; those of the same pool and key are the same.
        given: How many there were.
        left_out: How many of these are of classes that were forgotten before.
    """

    images: LabelledImages
    key: Hashable
    given: int
    left_out: int

    @cached_property
    def digests(self) -> tuple[str, ...]:
        """The digest of every image."""
        return self.images.digests()


class Pool:
    """All images of a split. What audits choose of them is kept, for the next one that chooses the same.

    Args:
        images: The images.
        limit: How many an audit evaluates at most.
        runtime: Gives the seed.
    """

    def __init__(self, images: ImageSource, limit: int, runtime: Runtime) -> None:
        self.images, self._limit, self._runtime = as_images(images), limit, runtime
        self._chosen: dict[Hashable, Chosen] = {}

    def first(self, count: int) -> LabelledImages:
        """Return a few images, labelled as they were given."""
        return self.images.select(_drawn(self.images, self._limit, self._runtime, ())[0][:count])

    def choose(
        self,
        original: Classifier,
        labels: Sequence[ClassLabel],
        earlier: tuple[ClassLabel, ...],
        spec: InputSpec | None,
    ) -> Chosen:
        """Choose images for an audit, and label them with columns of the original.

        Args:
            original: The model before.
            labels: The forgotten classes.
            earlier: Those that were forgotten before.
            spec: What pictures are decoded for, once; None if each model decodes them for itself.
        """
        aligned = original.align(self.images, earlier)
        index, rare = _drawn(aligned, self._limit, self._runtime, original.columns(labels))
        key = earlier, rare
        if (key, spec) not in self._chosen:
            images = aligned.select(index) if len(index) < len(aligned) else aligned
            images = images if spec is None else images.cached(spec)
            left_out = len(self.images) - len(aligned)
            self._chosen[key, spec] = Chosen(images, key, len(self.images), left_out)
        return self._chosen[key, spec]


@dataclass(frozen=True)
class Inputs:
    """What an audit evaluates.

    Attributes:
        original: The model before, like the others with what was computed of it.
        unlearned: The model after.
        retrained: Models trained without the classes.
        labels: The forgotten classes.
        earlier: Classes that earlier requests made a model forget: they are neither forgotten nor retained here.
        chosen: The images that are evaluated.
    """

    original: ModelResults
    unlearned: ModelResults
    retrained: tuple[ModelResults, ...]
    labels: tuple[ClassLabel, ...]
    earlier: tuple[ClassLabel, ...]
    chosen: dict[Split, Chosen]

    def views(self, runtime: Runtime) -> Views:
        """Return what the models do on the images."""
        images = {name: c.images for name, c in self.chosen.items()}
        keys = {name: c.key for name, c in self.chosen.items()}
        return Views(self.original, self.unlearned, self.retrained, self.labels, images, runtime, self.earlier, keys)

    @cached_property
    def in_both(self) -> int:
        """How many of the test images are train images too."""
        train = set(self.chosen["train"].digests) if "train" in self.chosen else set()
        return sum(d in train for d in self.chosen["test"].digests)

    def flags(self) -> Iterator[Flag]:
        """Give what a reader of the audit should know of the images."""
        if any(c.left_out for c in self.chosen.values()):
            yield flag("earlier_classes_left_out")
        if self.in_both:
            yield flag("test_images_in_train")

    def record(self) -> AuditInputs:
        """Give the digests of what was evaluated."""
        chosen = self.chosen
        return AuditInputs(
            original_sha256=self.original.sha256(),
            unlearned_sha256=self.unlearned.sha256(),
            retrained_sha256=tuple(m.sha256() for m in self.retrained),
            data="; ".join(c.images.origin for c in chosen.values()),
            data_sha256={name: digest(list(c.digests)) for name, c in chosen.items()},
            images={name: len(c.images) for name, c in chosen.items()},
            given={name: c.given for name, c in chosen.items() if c.given > len(c.images)},
            preprocessing=self.original.model.input,
            forgotten_before=self.earlier,
            left_out={name: c.left_out for name, c in chosen.items() if c.left_out},
            test_in_train=self.in_both,
        )


def gather(
    original: ModelResults,
    unlearned: ModelResults,
    retrained: tuple[ModelResults, ...],
    classes: Sequence[int | str | ClassLabel],
    pools: Mapping[Split, Pool],
) -> Inputs:
    """Put the models of an audit side by side, and choose and label the images for them.

    Args:
        original: The model before.
        unlearned: The model after.
        retrained: Models trained without the classes.
        classes: The forgotten classes.
        pools: The images of each split.

    Raises:
        ModelError: A model does not fit.
        DataError: The images do not fit.
    """
    before, after, others = original.model, unlearned.model, [r.model for r in (unlearned, *retrained)]
    _check_same_inputs((pool.images for pool in pools.values()), before, others)
    labels = tuple(dict.fromkeys(before.label(c) for c in listed(classes)))
    if gone := [c.name for c in labels if c in before.forgotten]:
        raise ModelError(
            f"The original model has forgotten {shortened(gone)} already. Are the original and the unlearned model "
            "swapped?"
        )
    earlier = _forgotten_before(before, after, labels)
    spec = before.input if all(m.input == before.input for m in others) else None  # else each model decodes
    chosen = {name: pool.choose(before, labels, earlier, spec) for name, pool in pools.items()}
    _check_classes(chosen["test"].images, before, labels, earlier)
    found = Inputs(original, unlearned, retrained, labels, earlier, chosen)
    if found.in_both:
        warnings.warn(
            f"{found.in_both:,} of the {len(chosen['test'].images):,} test images are among the train images. Test on "
            "images that no model was trained on.",
            DataWarning,
            stacklevel=3,
        )
    return found


def as_classifier(
    model: nn.Module | Classifier, images: LabelledImages, original: Classifier | None, subject: Subject
) -> Classifier:
    """Wrap a bare net, whose inputs and classes are those of the original, and check what a net returns.

    Args:
        model: The model.
        images: A few images.
        original: The model before; None if it is this one.
        subject: What to call it in errors.

    Raises:
        ModelError: It does not fit.
    """
    some = torch.arange(len(images))
    spec = original.input if original is not None else None
    if isinstance(model, Classifier):
        spec, device = model.input, model.device
    else:
        weights = list(model.parameters()) if isinstance(model, nn.Module) else []
        device = weights[0].device if weights else torch.device("cpu")
    try:
        found = Classifier.wrap(model, example=images.inputs(some, spec, device), input=spec)
    except ModelError as error:
        raise ModelError(f"The {subject} model cannot be audited. {error}") from error
    raise_all(ModelError, f"The {subject} model does not fit", check_weights(found.module))
    if isinstance(model, Classifier) or original is None or len(found.classes) != len(original.classes):
        return found
    return replace(found, classes=original.classes, outputs=original.outputs)


def _check_same_inputs(given: Iterable[LabelledImages], model: Classifier, others: Iterable[Classifier]) -> None:
    """Refuse tensors that are inputs of one model and not of another."""
    floating = [i.origin for i in given if isinstance(i.x, Tensor) and i.x.is_floating_point()]
    if floating and not all(model.same_inputs(other) for other in others if None not in (model.input, other.input)):
        raise DataError(
            f"{floating[0]}: tensors of floats are not normalised, but the models normalise differently. "
            "Give pixels as uint8, or pictures."
        )


def _forgotten_before(
    original: Classifier, unlearned: Classifier, labels: Collection[ClassLabel]
) -> tuple[ClassLabel, ...]:
    """Return the classes of the original that either model has forgotten, but for those that are audited."""
    everyone = (*original.known.outputs, *original.known.excised)
    done, names = {*original.forgotten, *unlearned.forgotten}, [c.name for c in unlearned.forgotten]
    unique = len({c.name for c in everyone}) == len(everyone)
    return tuple(c for c in everyone if c not in labels and (c in done or (unique and c.name in names)))


def _drawn(
    images: LabelledImages, limit: int, runtime: Runtime, forgotten: Sequence[int]
) -> tuple[Tensor, tuple[tuple[int, int], ...]]:
    """Draw as many images as are evaluated; those of a rare forgotten class come first.

    Returns:
        Positions of the images; and the column of each rare class with how many of it came first, which identifies
        this draw among others of the same images.
    """
    if len(images) <= limit:
        return torch.arange(len(images)), ()
    order = torch.randperm(len(images), generator=runtime.generator("audit", images.origin))
    ordered, classes = images.y[order], len(images.y.unique())
    rare: dict[int, Tensor] = {}
    for column in forgotten:
        mine = order[ordered == column]
        if not (ordered[:limit] == column).any() or 2 * classes * len(mine) < len(images):
            rare[column] = mine[: max(1, min(RARE, limit // (2 * len(forgotten))))]
    if rare:
        first = torch.cat(list(rare.values()))
        order = torch.cat([first, order[~torch.isin(order, first)]])
    return order[:limit].sort().values, tuple((column, len(mine)) for column, mine in rare.items())


def _check_classes(
    images: LabelledImages, model: Classifier, labels: Sequence[ClassLabel], earlier: Collection[ClassLabel]
) -> None:
    if {*labels, *earlier} >= {*model.classes}:
        raise ModelError("Every class is named as forgotten. Leave at least one class to be retained.")
    present = set(images.y.unique().tolist())
    columns = model.columns(labels)
    if missing := [c.name for c, i in zip(labels, columns, strict=True) if i not in present]:
        raise DataError(f"{images.origin}: no images of {shortened(missing)}. Give test images of these classes.")
    if present <= set(columns):
        raise DataError(f"{images.origin}: images of the forgotten classes only. Give images of other classes too.")
