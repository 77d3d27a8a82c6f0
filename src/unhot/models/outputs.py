"""Outputs: the classes of a classifier, and how classes of data are matched with them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

import torch
from torch import Tensor

from unhot.data.images import LabelledImages
from unhot.data.matching import Known, find_class
from unhot.data.samples import Samples
from unhot.errors import DataError, DataWarning, shortened, warn
from unhot.models.head_edits.edit import HeadEdit
from unhot.models.head_edits.forgotten import ForgottenEdit
from unhot.records.model import ClassLabel, InputSpec


class Outputs:
    """The part of :class:`unhot.models.classifier.Classifier` that knows its classes, and nothing of its net."""

    classes: tuple[ClassLabel, ...]
    input: InputSpec | None
    outputs: int
    head_edits: tuple[HeadEdit, ...]

    @property
    def forgotten(self) -> tuple[ClassLabel, ...]:
        """The classes that were forgotten so far, in the order of the requests."""
        return tuple(c for e in self.head_edits if isinstance(e, ForgottenEdit) for c in e.classes)

    def label(self, wanted: int | str | ClassLabel) -> ClassLabel:
        """Find a class by its index or its name; see :func:`unhot.data.matching.find_class`.

        Raises:
            UnknownNameError: The model has no such class.
        """
        if isinstance(wanted, ClassLabel) and wanted in self.classes:
            return wanted
        return self.classes[find_class(wanted.name if isinstance(wanted, ClassLabel) else wanted, self.classes)]

    @property
    def unnamed(self) -> bool:
        """Whether its classes are just the positions of all its outputs: none was named or excised."""
        numbers = [str(i) for i in range(self.outputs)]
        return [c.name for c in self.classes] == numbers == [str(c.index) for c in self.classes]

    @property
    def known(self) -> Known:
        """The classes with which those of data and of other models are matched."""
        outputs = set(self.classes)
        return Known(self.classes, tuple(c for c in self.forgotten if c not in outputs), self.outputs)

    def matched(self, images: LabelledImages) -> dict[int, ClassLabel]:
        """Return the class of each label of some images; its output may have been excised.

        Raises:
            DataError: The model never had the class, or it is unclear which one it is.
        """
        return self.known.match(images.class_names, images.y.unique().tolist(), images.origin)

    def positions(self, images: LabelledImages, labels: Iterable[ClassLabel]) -> list[int]:
        """Return the labels in ``images.y`` of some classes of this model.

        Raises:
            DataError: There are no images of a class, or it is unclear which class one is.
        """
        found = {label: position for position, label in self.matched(images).items()}
        if missing := [c.name for c in labels if c not in found]:
            raise DataError(f"{images.origin}: there are no images of {shortened(missing)}. Give some.")
        return [found[c] for c in labels]

    def requested(self, samples: Samples) -> tuple[ClassLabel, ...]:
        """Return the classes that some samples are of, in the order of the request.

        Raises:
            UnknownNameError: The model has no such class.
            DataError: It is unclear which class one is.
        """
        images, by_index = samples.images, {c.index: c for c in self.classes}
        if images.class_names is None:
            return tuple(by_index[c] if c in by_index else self.label(c) for c in samples.classes)
        found = self.known.match(images.class_names, samples.positions, images.origin)
        return tuple(found[p] for p in samples.positions)

    def align(self, images: LabelledImages, without: Collection[ClassLabel] = ()) -> LabelledImages:
        """Return the images labelled with output columns of this model.

        Class names of the data are looked up in the model; without names, labels are indices of classes. Images of
        classes whose outputs were excised are left out, with a warning that says how many.

        Args:
            images: The images.
            without: Forgotten classes, whose images are left out, too.

        Raises:
            DataError: The data has classes that the model does not have, or it is unclear which ones they are; or its
                tensors are pixels that were not normalised.
        """
        if len(images) == 0:
            return images
        images.check_scale(self.input)
        found = self.matched(images)
        columns = {c: column for column, c in enumerate(self.classes) if c not in without}
        lookup = torch.full((max(found) + 1,), -1, dtype=torch.int64)
        for position, label in found.items():
            lookup[position] = columns.get(label, -1)
        kept = images
        if gone := [c.name for c in found.values() if c not in columns]:
            kept = images.where(lookup[images.y] >= 0)
            warn(
                f"{images.origin}: {len(images) - len(kept)} images of {shortened(gone)}, which the model "
                "was made to forget before, are left out.",
                DataWarning,
            )
        return replace(kept, y=lookup[kept.y], class_names=tuple(c.name for c in self.classes))

    def columns(self, labels: Iterable[ClassLabel]) -> list[int]:
        """Return the output columns of some classes."""
        by_index = {c.index: column for column, c in enumerate(self.classes)}
        return [by_index[label.index] for label in labels]

    def others(self, columns: Iterable[int]) -> Tensor:
        """Return all output columns except these and those of classes forgotten before, int64 (R,)."""
        gone = {*columns, *self.columns(c for c in self.forgotten if c in self.classes)}
        return torch.tensor([c for c in range(len(self.classes)) if c not in gone])
