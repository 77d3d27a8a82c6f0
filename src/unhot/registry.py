"""Named things (methods, metrics, attacks, models, data sets), listed without importing them."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from typing import Generic, NamedTuple, TypeVar, cast

from unhot.errors import InputError, UnknownNameError

T = TypeVar("T")


class Entry(NamedTuple):
    """What is known of something without importing it.

    Attributes:
        where: Its place, as "module:attribute".
        summary: What it is, in one line.
        origin: Where it was published.
        reads: Of a method: what it reads.
    """

    where: str
    summary: str
    origin: str = ""
    reads: str = ""


class Registry(Generic[T]):
    """A catalogue of one kind of thing.

    Built-in entries are imported when they are asked for, so that listing a catalogue does not import torch. Installed
    packages add entries through the entry point group ``unhot.<kind>s``, and running code through :meth:`register`. A
    name is never replaced silently.

    Args:
        kind: What is registered, in the singular ("method").
        builtin: The entries that unhot brings.
    """

    def __init__(self, kind: str, builtin: dict[str, Entry]) -> None:
        self.kind = kind
        self._builtin = frozenset(builtin)
        self._entries = dict(builtin)
        self._loaded: dict[str, T] = {}
        self._searched = False

    def register(self, name: str, summary: str = "") -> Callable[[T], T]:
        """Register what is decorated under ``name``; without a summary the first line of its docstring is shown.

        Raises:
            InputError: The name is taken.
        """

        def add(item: T) -> T:
            if name in self:
                raise InputError(f"A {self.kind} named {name!r} is registered already. Choose another name.")
            text = summary or (item.__doc__ or "").strip().partition("\n")[0]
            self._entries[name] = Entry(item.__class__.__module__, text)
            self._loaded[name] = item
            return item

        return add

    def get(self, name: str) -> T:
        """Look an entry up, importing it if need be.

        Raises:
            UnknownNameError: There is no such entry; the nearest name is offered.
        """
        if name not in self:
            raise UnknownNameError(self.kind, name, self)
        if name not in self._loaded:
            module, _, attribute = self._entries[name].where.partition(":")
            try:
                self._loaded[name] = cast(T, getattr(importlib.import_module(module), attribute))
            except Exception as error:  # importing runs a package's code, which may raise anything
                where = f"{module} ({self._entries[name].summary})"
                raise InputError(
                    f"The {self.kind} {name!r} cannot be loaded from {where}: {error or type(error).__name__}."
                ) from error
        return self._loaded[name]

    def is_builtin(self, name: str) -> bool:
        """Return whether unhot brings the entry itself."""
        return name in self._builtin

    def summary(self, name: str) -> str:
        """Return the one line that describes an entry."""
        if name not in self:
            raise UnknownNameError(self.kind, name, self)
        return self._entries[name].summary

    def origin(self, name: str) -> str:
        """Return where and when an entry was published; nothing if it was not, or is an installed package's."""
        return self._entries[name].origin if name in self else ""

    def reads(self, name: str) -> str:
        """Return what a method reads; nothing where that is not known without importing it."""
        return self._entries[name].reads if name in self else ""

    def __iter__(self) -> Iterator[str]:
        self._search()
        return iter(sorted(self._entries))

    def __contains__(self, name: object) -> bool:
        self._search()
        return name in self._entries

    def _search(self) -> None:
        if self._searched:
            return
        self._searched = True
        for found in entry_points(group=f"unhot.{self.kind}s"):
            owner = found.dist.name if found.dist else "an installed package"
            if found.name in self._entries:
                warnings.warn(f"{owner}: the {self.kind} {found.name!r} exists already; skipped.", stacklevel=4)
            else:
                self._entries[found.name] = Entry(found.value, f"from {owner}")
