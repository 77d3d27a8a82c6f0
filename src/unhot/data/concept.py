"""Concepts: requests for something else than a single class of the model.

A request has three vocabularies: the *labels* of the data, the *classes* of the model, and the *concept* that is to be
forgotten. A concept may be several classes of the model, or a part of one.

Source of the four settings: Zhu, Han et al., Decoupling the class label and the target concept in machine unlearning,
ICLR 2026.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch

from unhot.data.images import LabelledImages
from unhot.data.samples import ImageSource, Samples, as_images
from unhot.errors import DataError, UnknownNameError, shortened
from unhot.reading import parse_json, read_text

Setting = Literal["all matched", "target mismatch", "model mismatch", "data mismatch"]


@dataclass(frozen=True)
class LabelMap:
    """Names for groups of labels.

    Attributes:
        groups: The labels of each group, such as ``{"footwear": ["Sandal", "Sneaker", "Ankle boot"]}``. A label that is
            in no group stands for itself.
    """

    groups: Mapping[str, Sequence[str]]

    def __post_init__(self) -> None:
        labels = Counter(label for members in self.groups.values() for label in members)
        if repeated := sorted(label for label, count in labels.items() if count > 1):
            raise DataError(f"A label map has {shortened(repeated)} in two groups. Keep each label in one.")
        if empty := [group for group, members in self.groups.items() if not members]:
            raise DataError(f"A label map has no labels in {shortened(empty)}. Name some, or leave the group out.")
        if double := [group for group, members in self.groups.items() if group in labels and list(members) != [group]]:
            raise DataError(f"{shortened(double)} is both a group and a label in a label map. Rename the group.")

    @classmethod
    def read(cls, path: str | Path) -> LabelMap:
        """Read a JSON file: an object whose keys are groups and whose values are lists of labels.

        Raises:
            InputError: It is missing or something else.
        """
        raw = parse_json(read_text(Path(path)), str(path))
        if not isinstance(raw, dict) or not all(
            isinstance(members, list) and all(isinstance(label, str) for label in members) for members in raw.values()
        ):
            raise DataError(f'{path} is not a label map. Write {{"group": ["label", "label"]}}.')
        return cls(raw)

    def labels(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return the labels that some groups and labels stand for, each once, in order."""
        return tuple(dict.fromkeys(label for name in names for label in self.groups.get(name, [name])))

    def coarse(self, images: ImageSource) -> LabelledImages:
        """Return images labelled with the groups of their labels, to train a model of super-classes.

        Raises:
            UnknownNameError: A label of the map is none of the images'.
        """
        names = _names(as_images(images))
        known = set(names)
        if missing := [label for label in self.labels(tuple(self.groups)) if label not in known]:
            raise UnknownNameError("label", missing[0], names)
        return relabelled(as_images(images), [self._group.get(name, name) for name in names], tuple(self.groups))

    def concept(self, names: Sequence[str], classes: Sequence[str], given: Sequence[str] | None = None) -> Concept:
        """Resolve a request for a model.

        Args:
            names: The concept to forget: labels, groups of labels, or classes of the model.
            classes: The names of the model's classes, in order.
            given: The labels of which there are images; all of ``names`` if None.

        Raises:
            UnknownNameError: A name is neither a label nor a class.
            DataError: ``given`` is not in the concept, or the concept is whole classes and parts of others at once, or
                a part of a class of which no images are given.
        """
        wanted = self.labels(names)
        at_hand = wanted if given is None else self.labels(given)
        if not wanted or not at_hand:
            raise DataError("A concept needs at least one name, and images of at least one label.")
        if outside := sorted(set(at_hand) - set(wanted)):
            raise DataError(f"{shortened(outside)} is given but is not part of {shortened(names)}. Remove it.")
        known = dict.fromkeys((*classes, *self.labels(tuple(self.groups)), *wanted))
        there = frozenset(classes)
        seen_as = {label: name for label in known if (name := self._class_of(label, there)) is not None}
        if unknown := [label for label in wanted if label not in seen_as]:
            raise UnknownNameError("label or class", unknown[0], [*self.groups, *seen_as])
        found = Concept(wanted, at_hand, tuple(classes), seen_as)
        parts = found.parts
        if parts and (whole := sorted(set(found.touched) - set(parts))):
            raise DataError(
                f"The request covers all of {shortened(whole)} but only part of {shortened(parts)}. Make two requests."
            )
        if parts and found.hidden:
            raise DataError(
                f"The request covers part of {shortened(found.hidden)}, of which no images are given. Give some."
            )
        return found

    def _class_of(self, label: str, classes: frozenset[str]) -> str | None:
        """Return the class of the model that images of a label belong to: the label itself, or its group."""
        return next((name for name in (label, self._group.get(label)) if name in classes), None)

    @cached_property
    def _group(self) -> dict[str, str]:
        """The group of each label that is in one."""
        return {label: name for name, members in self.groups.items() for label in members}


@dataclass(frozen=True)
class Concept:
    """A request, resolved for a model.

    Attributes:
        labels: The labels that make up the concept.
        given: The labels among these of which there are images.
        classes: The model's classes.
        class_of: The class of the model that images of each known label belong to.
    """

    labels: tuple[str, ...]
    given: tuple[str, ...]
    classes: tuple[str, ...]
    class_of: Mapping[str, str]

    @property
    def touched(self) -> tuple[str, ...]:
        """The classes of the model that the concept is, or is a part of."""
        return tuple(dict.fromkeys(self.class_of[label] for label in self.labels))

    @property
    def parts(self) -> tuple[str, ...]:
        """The classes of which the concept is only a part: their other images are to be retained."""
        wanted = set(self.labels)
        return tuple(c for c in self.touched if not wanted.issuperset(self._members(c)))

    @property
    def hidden(self) -> tuple[str, ...]:
        """The classes that belong to the concept whole, and of which no images are given."""
        given = set(self.given)
        return tuple(c for c in self.touched if given.isdisjoint(self._members(c)))

    @property
    def setting(self) -> Setting:
        """How concept, classes and given labels relate.

        "all matched": the concept is one or more classes, all given. "target mismatch": some of its classes are not
        given. "model mismatch": it is part of a class. "data mismatch": of every class of it some labels are not given.
        """
        if self.parts:
            return "model mismatch"
        if self.hidden:
            return "target mismatch"
        return "all matched" if set(self.given) == set(self.labels) else "data mismatch"

    def seen(self, images: ImageSource) -> LabelledImages:
        """Return images labelled as the model sees them; a label that is not known stays as it is."""
        found = as_images(images)
        return relabelled(found, [self.class_of.get(name, name) for name in _names(found)], self.classes)

    def remaining(self, images: ImageSource, *, with_hidden: bool = False) -> LabelledImages:
        """Return the images that are not of the concept, labelled as the model sees them.

        Args:
            images: Labelled with labels, or with classes of the model.
            with_hidden: Leave those of the ``hidden`` classes in, for a method that finds these among them.

        Raises:
            DataError: Some are labelled with a class of which the concept is only a part, so the part is not known.
        """
        found = as_images(images)
        names, hidden, parts = _names(found), set(self.hidden if with_hidden else ()), set(self.parts)
        if mixed := [names[i] for i in found.y.unique().tolist() if names[i] in parts]:
            raise DataError(
                f"{found.origin}: the concept is a part of {shortened(mixed)}, and the images do not say which are of "
                "that part. Give images under the labels of the map."
            )
        wanted = set(self.labels)
        mine = torch.tensor([name in wanted and self.class_of[name] not in hidden for name in names])
        return self.seen(found.where(~mine[found.y]))

    def take(self, samples: Samples) -> Samples:
        """Turn samples of the given labels, from ``unhot.draw`` or ``unhot.folder``, into the samples for a method.

        Raises:
            DataError: The samples are of other labels.
        """
        names = _names(samples.images)
        drawn = [names[p] for p in samples.positions]
        if set(drawn) != set(self.given):
            raise DataError(f"The samples are of {shortened(drawn)}. Pass samples of {shortened(self.given)}.")
        classes = tuple(dict.fromkeys(self.class_of[name] for name in drawn))
        return Samples(self.seen(samples.images), classes, ", ".join(self.labels) if self.parts else None)

    def _members(self, name: str) -> list[str]:
        """Return the labels whose images belong to a class of the model."""
        return self._finer.get(name) or [name]

    @cached_property
    def _finer(self) -> dict[str, list[str]]:
        """The labels of each class that is known by labels other than its own name."""
        finer: dict[str, list[str]] = {}
        for label, name in self.class_of.items():
            if label != name:
                finer.setdefault(name, []).append(label)
        return finer


def relabelled(images: LabelledImages, names: Sequence[str], first: Sequence[str]) -> LabelledImages:
    """Return images under other names.

    Args:
        images: The images.
        names: The new name of each of their ``class_names``.
        first: Names that come first among the new ``class_names``, in this order, with or without images.
    """
    unique = tuple(dict.fromkeys((*first, *names)))
    position = {name: i for i, name in enumerate(unique)}
    lookup = torch.tensor([position[name] for name in names])
    return replace(images, y=lookup[images.y], class_names=unique)


def _names(images: LabelledImages) -> tuple[str, ...]:
    if images.class_names is None:
        raise DataError(f"{images.origin}: the classes have no names, which a label map needs. Name them.")
    return images.class_names
