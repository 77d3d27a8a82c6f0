"""What an audit looks at: models side by side, and images chosen and labelled for them."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from unhot.data.images import LabelledImages
from unhot.data.matching import listed
from unhot.data.samples import ImageSource, as_images
from unhot.errors import DataError, DataWarning, ModelError, raise_all, shortened
from unhot.models.classifier import Classifier
from unhot.models.weights import check_weights
from unhot.records.audit import AuditInputs, Split, Subject
from unhot.records.base import digest
from unhot.records.model import ClassLabel
from unhot.runtime import Runtime

RARE = 200  # images of a forgotten class that has less than half of an equal share of a large set are looked at first


@dataclass(frozen=True)
class Inputs:
    """What an audit looks at.

    Attributes:
        original: The model before.
        unlearned: The model after.
        retrained: Models trained without the classes.
        labels: The forgotten classes.
        earlier: Classes that earlier requests made a model forget: they are neither forgotten nor retained here.
        splits: The images that are looked at, labelled with columns of the original.
        given: How many images of each split there were.
        left_out: How many of these are of ``earlier`` classes.
    """

    original: Classifier
    unlearned: Classifier
    retrained: tuple[Classifier, ...]
    labels: tuple[ClassLabel, ...]
    earlier: tuple[ClassLabel, ...]
    splits: dict[Split, LabelledImages]
    given: dict[Split, int]
    left_out: dict[Split, int]

    @cached_property
    def digests(self) -> dict[Split, tuple[str, ...]]:
        """The digest of every image that is looked at."""
        return {name: images.digests() for name, images in self.splits.items()}

    @cached_property
    def in_both(self) -> int:
        """How many of the test images are train images too."""
        train = set(self.digests.get("train", ()))
        return sum(d in train for d in self.digests["test"])

    def flags(self) -> list[str]:
        """Say what a reader of the audit should know of the images."""
        found = []
        if gone := {name: n for name, n in self.left_out.items() if n}:
            counts = " and ".join(f"{n:,} {name} images" for name, n in gone.items())
            names = shortened(c.name for c in self.earlier)
            found.append(f"{counts} of {names}, which an earlier request made the model forget, are left out.")
        if self.in_both:
            found.append(
                f"{self.in_both:,} of the {len(self.splits['test']):,} test images are train images too: the models "
                "have seen them, and what is measured on them says little about other images."
            )
        return found

    def record(self) -> AuditInputs:
        """Give the digests of what was looked at."""
        splits = self.splits
        return AuditInputs(
            original_sha256=self.original.sha256(),
            unlearned_sha256=self.unlearned.sha256(),
            retrained_sha256=tuple(m.sha256() for m in self.retrained),
            data="; ".join(i.origin for i in splits.values()),
            data_sha256={name: digest(list(found)) for name, found in self.digests.items()},
            images={name: len(i) for name, i in splits.items()},
            given={name: n for name, n in self.given.items() if n > len(splits[name])},
            preprocessing=self.original.input,
            forgotten_before=self.earlier,
            left_out={name: n for name, n in self.left_out.items() if n},
            test_in_train=self.in_both,
        )


def gather(
    models: Mapping[Subject, Sequence[nn.Module | Classifier]],
    classes: Sequence[int | str | ClassLabel],
    images: Mapping[Split, ImageSource],
    limits: Mapping[Split, int],
    runtime: Runtime,
) -> Inputs:
    """Put the models of an audit side by side, and choose and label the images for them.

    Args:
        models: One original, one unlearned and any number of retrained ones.
        classes: The forgotten classes.
        images: Of each split.
        limits: How many of each split are looked at.
        runtime: Gives the seed.

    Raises:
        ModelError: A model does not fit.
        DataError: The images do not fit.
    """
    given = {name: as_images(source) for name, source in images.items()}
    some = _subset(given["test"], limits["test"], runtime, ())
    (before,) = (_classifier(m, some, None, "original") for m in models["original"])
    (after,) = (_classifier(m, some, before, "unlearned") for m in models["unlearned"])
    references = tuple(_classifier(m, some, before, "retrained") for m in models["retrained"])
    _check_same_inputs(given.values(), before, (after, *references))
    labels = tuple(dict.fromkeys(before.label(c) for c in listed(classes)))
    earlier = _forgotten_before(before, after, labels)
    aligned = {name: before.align(i, earlier) for name, i in given.items()}
    splits = {name: _subset(i, limits[name], runtime, before.columns(labels)) for name, i in aligned.items()}
    if len({m.input for m in (before, after, *references)}) == 1 and before.input is not None:
        splits = {
            name: i.cached(before.input) for name, i in splits.items()
        }  # else pictures are decoded for each model
    _check_classes(splits["test"], before, labels, earlier)
    found = Inputs(
        original=before,
        unlearned=after,
        retrained=references,
        labels=labels,
        earlier=earlier,
        splits=splits,
        given={name: len(i) for name, i in given.items()},
        left_out={name: len(i) - len(aligned[name]) for name, i in given.items()},
    )
    if found.in_both:
        warnings.warn(
            f"{found.in_both:,} of the {len(splits['test']):,} test images are among the train images. Test on images "
            "that no model was trained on.",
            DataWarning,
            stacklevel=3,
        )
    return found


def _classifier(
    model: nn.Module | Classifier, images: LabelledImages, original: Classifier | None, subject: Subject
) -> Classifier:
    """Wrap a bare net, whose inputs and classes are those of the original, and look at what a net returns."""
    some = torch.arange(min(2, len(images)))
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
            f"{floating[0]}: tensors of floats are taken as they are, and the models normalise images differently. "
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


def _subset(images: LabelledImages, limit: int, runtime: Runtime, forgotten: Sequence[int]) -> LabelledImages:
    """Draw as many images as are looked at; those of a rare forgotten class come first."""
    if len(images) <= limit:
        return images
    order = torch.randperm(len(images), generator=runtime.generator("audit", images.origin))
    ordered, classes = images.y[order], len(images.y.unique())
    rare: list[Tensor] = []
    for column in forgotten:
        mine = order[ordered == column]
        if not (ordered[:limit] == column).any() or 2 * classes * len(mine) < len(images):
            rare.append(mine[: max(1, min(RARE, limit // (2 * len(forgotten))))])
    if rare:
        first = torch.cat(rare)
        order = torch.cat([first, order[~torch.isin(order, first)]])
    return images.select(order[:limit].sort().values)


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
