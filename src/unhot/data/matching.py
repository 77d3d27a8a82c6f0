"""Matching: find the class of a model for an index, a name, a class of some data or a class of another model.

Classes are matched by name. They are matched by position only if no name occurs on both sides, with a warning.
Ambiguous requests are refused.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from unhot.errors import (
    DataError,
    DataWarning,
    InputError,
    ModelError,
    ModelWarning,
    UnknownNameError,
    shortened,
    spelled,
    warn,
)
from unhot.records.model import ClassLabel

LONGEST_INDEX = 9  # digits

Class = TypeVar("Class", bound=int | str | ClassLabel)


def find_class(wanted: int | str, classes: Sequence[ClassLabel]) -> int:
    """Return the position among some classes of the one that an index or a name means.

    Text is a name, or else an index. A number is an index, except where all names are numbers: then it is a name too,
    so that 10 and "10" mean the same class however the classes are sorted.

    Raises:
        UnknownNameError: There is no such class.
        InputError: Several classes have that name.
    """
    names, text = [c.name for c in classes], str(wanted)
    numbered = all(n.isdecimal() for n in names) and len(set(names)) == len(names)
    by_index = [i for i, c in enumerate(classes) if str(c.index) == text]
    by_name = [i for i, n in enumerate(names) if n == text] if numbered or not isinstance(wanted, int) else []
    if len(by_name) > 1:
        indices = shortened(classes[i].index for i in by_name)
        raise InputError(
            f"{len(by_name)} classes are named {text!r}. Give the index of the one that you mean: {indices}."
        )
    if by_name and by_index and by_name != by_index:
        warn(
            f"Class {text} is taken to be the class of that name, and not class number {text}, which is named "
            f"{names[by_index[0]]!r}.",
            DataWarning,
        )
    if not by_name + by_index:
        raise UnknownNameError("class", wanted, names)
    return (by_name or by_index)[0]


def listed(classes: Iterable[Class] | None) -> list[Class]:
    """Return the classes that a caller passed, as a list.

    Raises:
        DataError: It is a single class instead of a list, or an empty list.
    """
    if isinstance(classes, str | ClassLabel) or not isinstance(classes, Iterable | None):
        raise DataError(f"Expected a list of classes, got {classes!r}. Write [{classes!r}].")
    found: list[Class] = list(getattr(classes, "tolist", lambda: classes or ())())  # of an array or a tensor
    if not found:
        raise DataError("No class to forget is named. Name at least one.")
    return found


@dataclass(frozen=True)
class Known:
    """The classes of a model, with which others are matched.

    Attributes:
        outputs: The classes of its outputs, in order.
        excised: The classes whose outputs were removed.
        count: The number of outputs that it was built with.
        whose: The name of the model in error messages.
    """

    outputs: tuple[ClassLabel, ...]
    excised: tuple[ClassLabel, ...]
    count: int
    whose: str = "the model"

    def match(self, names: Sequence[str] | None, present: Iterable[int], where: str) -> dict[int, ClassLabel]:
        """Return the class of the model for each class of some data.

        Args:
            names: Names of the classes of the data; None if the data only has indices of classes of the model.
            present: The positions in ``names``, or the indices, to match.
            where: Name of the data in error messages.

        Raises:
            DataError: The model does not have one of the classes, or it is unclear which class one is.
        """
        return self._match(names, list(present), where, DataError)

    def match_model(self, labels: Sequence[ClassLabel], where: str) -> list[ClassLabel]:
        """Return the class of this model for each class of another model.

        Raises:
            ModelError: This model does not have one of the classes, or it is unclear which class one is.
        """
        everyone = {*self.outputs, *self.excised}
        if all(label in everyone for label in labels):
            return list(labels)
        found = self._match([c.name for c in labels], list(range(len(labels))), where, ModelError)
        return [found[i] for i in range(len(labels))]

    def _match(
        self, names: Sequence[str] | None, present: list[int], where: str, error: type[InputError]
    ) -> dict[int, ClassLabel]:
        by_index = {c.index: c for c in (*self.outputs, *self.excised)}
        if names is None:
            self._check([i for i in present if i not in by_index], where, error)
            self._check_numbers(present, by_index, where, error)
            return {i: by_index[i] for i in present}
        for known in (self.outputs, tuple(by_index[i] for i in sorted(by_index))):
            if list(names) == [c.name for c in known]:
                return {i: known[i] for i in present}
        by_name = {c.name: c for c in by_index.values()}
        if any(n in by_name for n in names):
            return self._by_name(names, present, by_name, where, error)
        numbers = [int(n) if n.isdecimal() and len(n) <= LONGEST_INDEX else -1 for n in names]
        if len(set(numbers)) == len(names) and all(n in by_index for n in numbers):
            found, how = {i: by_index[numbers[i]] for i in present}, "by the numbers that are the names of the classes"
        else:
            numbers = list(range(len(names)))
            unknown = [names[i] for i in present if len(names) != self.count or i not in by_index]
            self._check(unknown, where, error)
            found, how = {i: by_index[i] for i in present}, "by position"
        self._check_spelling(names, numbers, by_index, where, error)
        pairs = shortened((f"{names[i]!r} is {c.name!r}" for i, c in found.items()), 3)
        warn(
            f"{where}: no class has a name that a class of {self.whose} has, so they are matched {how}: {pairs}. "
            "If that is wrong, give both the same names.",
            DataWarning if error is DataError else ModelWarning,
        )
        return found

    def _by_name(
        self,
        names: Sequence[str],
        present: list[int],
        by_name: dict[str, ClassLabel],
        where: str,
        error: type[InputError],
    ) -> dict[int, ClassLabel]:
        self._check([names[i] for i in present if names[i] not in by_name], where, error)
        times = Counter(names), Counter(c.name for c in (*self.outputs, *self.excised))
        if twice := {names[i] for i in present if max(t[names[i]] for t in times) > 1}:
            raise error(
                f"{where}: several classes are named {shortened(sorted(twice))}, and the classes of {self.whose} are "
                "others or in another order, so that it is unclear which is which. Give each class a name of its own."
            )
        return {i: by_name[names[i]] for i in present}

    def _check_numbers(
        self, present: list[int], by_index: dict[int, ClassLabel], where: str, error: type[InputError]
    ) -> None:
        """Refuse labels without names where the classes are named by the same numbers in another order."""
        by_name = {c.name: c for c in by_index.values()}
        if {str(i) for i in by_index} != set(by_name):
            return
        if odd := [i for i in present if by_name[str(i)].index != i]:
            raise error(
                f"{where}: the labels are numbers without names, and {self.whose} has its classes, which are numbers, "
                f"in another order: class number {odd[0]} is named {by_index[odd[0]].name!r}. Give the data class "
                "names, so that it is clear which is meant."
            )

    def _check_spelling(
        self,
        names: Sequence[str],
        indices: Sequence[int],
        by_index: dict[int, ClassLabel],
        where: str,
        error: type[InputError],
    ) -> None:
        """Refuse a match by index that contradicts the same names in another spelling."""
        known = list(by_index.values())
        mine, its = spellings(names), spellings([c.name for c in known])
        alike = {key: c for key, c in zip(its, known, strict=True) if its.count(key) == 1}
        if all(key.isdecimal() for key in mine) and not set(mine) <= set(alike):
            return  # numbers counted from another start
        for name, key, index in zip(names, mine, indices, strict=True):
            like = alike.get(key)
            if like is not None and like.index != index and mine.count(key) == 1:
                raise error(
                    f"{where}: the class {name!r} would be matched with {by_index[index].name!r} of {self.whose}, "
                    f"which has {like.name!r} too. Spell the names alike, and they are matched by name."
                )

    def _check(self, missing: Sequence[object], where: str, error: type[InputError]) -> None:
        if missing:
            known = shortened(c.name for c in self.outputs)
            found = error(
                f"{where}: {self.whose} does not have the classes {shortened(missing)}. It has {known}. If these are "
                "groups of the former, label the data by an unhot.LabelMap."
            )
            raise spelled(found, "label the data by an unhot.LabelMap", "give the map with --label-map")


def spellings(names: Sequence[str]) -> list[str]:
    """Return some names in a form that is the same for two spellings of one name.

    Case, punctuation and the encoding of accents and digits are removed; if all names are one word and a number, so are
    the word and leading zeros: "Class 03" becomes "3".
    """
    plain = [unicodedata.normalize("NFKC", name).casefold() for name in names]
    keys = ["".join(str(unicodedata.decimal(c, c)) for c in name if c.isalnum()) for name in plain]
    parts = [re.fullmatch(r"([^0-9]*)0*([0-9]+)", key) for key in keys]
    numbered = [p for p in parts if p is not None]
    if len(numbered) == len(names) and len({p[1] for p in numbered}) == 1:
        return [p[2] for p in numbered]
    return keys
